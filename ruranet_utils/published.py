"""Every number printed in the paper: Tables 1-5, row by row under this project's keys, and those in the text.

Source: Yang et al. 2025, "RURANET++: An Unsupervised Learning Method for Diabetic Macular Edema Based on SCSE
Attention Mechanisms and Dynamic Multi-Projection Head Clustering". The tables hold what is printed,
including what cannot be right. All scores lie in [0, 1] except
``calinski_harabasz`` and ``davies_bouldin``, which are >= 0.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import pandas as pd

CLASSIFICATION = ["accuracy", "precision", "recall", "f1"]
CLUSTERING = [*CLASSIFICATION, "calinski_harabasz", "davies_bouldin"]
SEGMENTATION = ["iou", "accuracy", "precision"]

# not from the paper: the lesions over which others average on IDRiD's test images
FIELD_LESIONS = ("hard_exudates", "hemorrhages", "soft_exudates", "microaneurysms")
_FIELD_AUPR = [f"aupr {lesion}" for lesion in FIELD_LESIONS]
_UNKNOWN = (None,) * len(FIELD_LESIONS)
_FIELD = [
    (
        "HRDecoder",
        "arXiv:2411.03976",
        "2880 x 1920",
        0.5220,
        0.7134,
        *_UNKNOWN,
        "best of ten checkpoints, chosen on the test images",
    ),
    (
        "M2MRF-C",
        "arXiv:2111.00193",
        "1440 x 960",
        0.5017,
        0.6755,
        *_UNKNOWN,
        "best of three runs",
    ),
    (
        "PBDA + DSR-U-Net++",
        "doi:10.1016/j.media.2022.102534",
        "1376 x 1376, field of view",
        None,
        0.7111,
        0.864,
        0.715,
        0.731,
        0.534,
        "as quoted by another paper",
    ),
    (
        "U-Net, SE-ResNeXt-50",
        "ClementP",
        "1024 x 1024",
        None,
        0.632,
        0.786,
        0.674,
        0.670,
        0.398,
        "not stated",
    ),
]

_TABLE_1 = """
resnet18     microaneurysms 0.0173 0.9902 0.1367
resnet34     microaneurysms 0.0663 0.9827 0.1112
resnet50     microaneurysms 0.0479 0.9826 0.0920
vgg16        microaneurysms 0.2566 0.9910 0.4498
vgg19        microaneurysms 0.2264 0.9921 0.5342
mobilenet_v2 microaneurysms 0.0302 0.9809 0.0651
densenet121  microaneurysms 0.0475 0.9826 0.1065
densenet161  microaneurysms 0.0543 0.9846 0.1099
densenet169  microaneurysms 0.0583 0.9854 0.1282
densenet201  microaneurysms 0.0537 0.9820 0.0973
resnet18     hard_exudates  0.8548 0.9971 0.9528
resnet34     hard_exudates  0.8631 0.9973 0.9658
resnet50     hard_exudates  0.8623 0.9965 0.9541
vgg16        hard_exudates  0.8719 0.9968 0.9625
vgg19        hard_exudates  0.8658 0.9969 0.9651
mobilenet_v2 hard_exudates  0.8041 0.9958 0.9111
densenet121  hard_exudates  0.8372 0.9966 0.9419
densenet161  hard_exudates  0.8633 0.9971 0.9502
densenet169  hard_exudates  0.8664 0.9975 0.9634
densenet201  hard_exudates  0.8714 0.9975 0.9576
"""

_TABLE_2 = """
hemorrhages    resnet34 0.4942 0.9956 0.8008
edema          resnet50 0.9925 0.9867 0.9988
hard_exudates  vgg16    0.8719 0.9968 0.9625
microaneurysms vgg16    0.2566 0.9910 0.4498
"""

_TABLE_3 = """
alexnet      0.6452 0.5918 0.9355 0.7250 0.8085
googlenet    0.7258 0.7333 0.7097 0.7213 0.8044
mobilenet_v2 0.7903 0.8214 0.7419 0.7797 0.8554
resnet18     0.7581 0.9000 0.5806 0.7059 0.8200
resnet34     0.6290 1.0000 0.2581 0.4103 0.7700
resnet50     0.5484 1.0000 0.0968 0.1765 0.6046
"""

_TABLE_4 = """
kmedoids      alexnet      0.8333 0.8437 0.8333 0.8321  15.9312 2.2379
kmedoids      googlenet    0.8600 0.8606 0.8600 0.8599  36.3945 1.8753
kmedoids      resnet18     0.8333 0.8437 0.8333 0.8321 161.6702 0.7050
kmedoids      vgg16        0.8133 0.8283 0.8133 0.8112  12.4736 3.1007
kmeans        googlenet    0.8000 0.8054 0.8000 0.7991 267.8952 0.5985
kmeans        resnet34     0.8333 0.8437 0.8333 0.8321  19.4077 2.6955
kmeans        vgg16        0.7667 0.7749 0.7667 0.7649  12.0028 3.1943
kmeans        vgg19        0.8067 0.8134 0.8067 0.8056  14.0618 2.7996
agglomerative alexnet      0.8267 0.5630 0.5511 0.5539  14.7440 2.1688
agglomerative googlenet    0.8400 0.5742 0.5600 0.5626  16.1686 2.1582
agglomerative resnet18     0.7267 0.5265 0.4844 0.4982  71.7643 1.5988
agglomerative vgg16        0.8533 0.5780 0.5689 0.5728  11.0147 2.2108
dmh           googlenet    0.8411 0.8593 0.8411 0.8390 142.8781 1.3839
dmh           alexnet      0.7517 0.8133 0.7517 0.7388  19.3640 3.4652
dmh           resnet50     0.7583 0.7915 0.7583 0.7512  85.7031 1.5450
dmh           mobilenet_v2 0.5993 0.6172 0.5993 0.5834 299.5588 0.8191
dmh           vgg16        0.8245 0.8477 0.8245 0.8385  17.5721 4.0038
dmh           vgg19        0.7483 0.8027 0.7483 0.7365  33.6725 2.7154
dmh           resnet18     0.8113 0.8289 0.8113 0.8087 294.3219 0.8433
dmh           resnet34     0.8046 0.8241 0.8046 0.8169  73.3143 1.5340
"""

_TABLE_5 = """
a 0.5430 0.5371 0.6225 0.5767 2359.7505 0.3350
b 0.8400 0.8422 0.8400 0.8397   29.7464 2.0853
c 0.8600 0.8606 0.8600 0.8599   36.3945 1.8753
d 0.8411 0.8593 0.8411 0.8390  142.8781 1.3839
e 0.8377 0.8569 0.8377 0.8355   39.0020 2.6048
"""


class Statement(NamedTuple):
    """A number from the text of the paper.

    Attributes
    ----------
    value : float or tuple of float
        As printed; percentages as fractions of one.
    where : str
        Section of the paper.
    quote : str
        The words around it, as printed.
    """

    value: float | tuple[float, ...]
    where: str
    quote: str


TEXT = {
    "accuracy": Statement(0.8411, "Abstract", "maximum accuracy (0.8411)"),
    "precision": Statement(0.8593, "Abstract", "precision (0.8593)"),
    "recall": Statement(0.8411, "Abstract", "recall (0.8411)"),
    "f1": Statement(0.8390, "Abstract", "F1-score (0.8390)"),
    "n_lesions": Statement(4, "2.1", "each of four target lesions"),
    "n_encoders": Statement(10, "2.1", "Ten mainstream backbones"),
    "learning_rate": Statement(1e-4, "2.1", "learning rate = $1e^{-4}$"),
    "adam_beta_1": Statement(0.9, "2.1", r"$\beta_1 = 0.9$"),
    "adam_beta_2": Statement(0.999, "2.1", r"$\beta_2 = 0.999$"),
    "weight_range": Statement((1.0, 10.0), "2.2", r"$w_i \in [1.0, 10.0]$"),
    "weight_grid": Statement((1.0, 5.0, 10.0), "2.2, Eq. 2", r"$\{1.0, 5.0, 10.0\}^4$"),
    "lambda": Statement(0.3, "2.2, Eq. 3", r"$\lambda = 0.3$"),
    "n_components": Statement(50, "2.2", "at $k = 50$"),
    "cumulative_variance": Statement(0.9432, "2.2", "cumulative ratio of 94.32% at $k = 50$"),
    "reconstruction_error": Statement(0.0568, "2.2, Eq. 6", "the reconstruction error reaches 0.0568"),
    "n_sources": Statement(6, "3.1", "six publicly available resources"),
    "n_patients": Statement(302, "3.1", "302 patients"),
    "n_positive": Statement(151, "3.1", "151 positive"),
    "n_negative": Statement(151, "3.1", "151 negative"),
    "image_size_px": Statement(512, "3.1", "512×512 pixels"),
    "split": Statement((8, 1, 1), "3.1", "8:1:1 ratio"),
    "n_extractors": Statement(8, "3.3", "eight backbone networks"),
    "n_methods": Statement(4, "3.3", "four clustering methods"),
    "baseline_accuracy": Statement(0.5430, "3.4, Table 5a", "low accuracy (0.5430)"),
    "baseline_precision": Statement(0.5371, "3.4, Table 5a", "low precision (0.5371)"),
    "baseline_recall": Statement(0.6225, "3.4, Table 5a", "high recall (0.6225)"),
    "baseline_f1": Statement(0.5767, "3.4, Table 5a", "F1-score (0.5767)"),
    "baseline_davies_bouldin": Statement(0.3350, "3.4, Table 5a", "Davies-Bouldin index (0.3350)"),
    "segmentation_accuracy": Statement(0.8400, "3.4, Table 5b", "improves accuracy to 0.8400"),
    "segmentation_f1": Statement(0.8397, "3.4, Table 5b", "F1-score to 0.8397"),
    "segmentation_davies_bouldin": Statement(2.0853, "3.4, Table 5b", "DB improves to 2.0853"),
    "scse_accuracy_threshold": Statement(0.86, "3.4, Table 5c", "surpasses the 0.86 threshold"),
    "scse_accuracy_gain": Statement(0.0238, "3.4, Table 5c", "(+2.38%)"),
    "scse_f1_gain": Statement(0.0241, "3.4, Table 5c", "F1-score increases by 2.41%"),
    "dmh_calinski_harabasz": Statement(142.8781, "3.4, Table 5d", "CH (142.8781)"),
    "dmh_calinski_harabasz_gain": Statement(2.93, "3.4, Table 5d", "increases by 2.93-fold"),
    "dmh_davies_bouldin": Statement(1.3839, "3.4, Table 5d", "DB (1.3839)"),
    "dmh_davies_bouldin_drop": Statement(0.262, "3.4, Table 5d", "decreases by 26.2%"),
    "without_pca_accuracy": Statement(0.8377, "3.4, Table 5e", "accuracy (0.8377 vs. 0.8411)"),
    "without_pca_f1": Statement(0.8355, "3.4, Table 5e", "F1-score (0.8355 vs. 0.8390)"),
    "without_pca_difference_below": Statement(0.005, "3.4, Table 5e", "differ by less than 0.5%"),
}


def table_1() -> pd.DataFrame:
    """Encoders on two lesions: ``encoder``, ``lesion``, ``iou``, ``accuracy``, ``precision`` (20 rows)."""
    return _read(["encoder", "lesion", *SEGMENTATION], _TABLE_1)


def field() -> pd.DataFrame:
    """The best results that others report for IDRiD's 27 test images.

    Returns
    -------
    DataFrame
        ``model``, ``source``, ``input`` in pixels; ``mean iou`` and ``mean aupr`` of ``FIELD_LESIONS``, pooled over the
        images at their original size, threshold 0.5, AUPR by the trapezoidal rule over 11 thresholds; ``aupr <lesion>``
        if reported; ``note``: what is known about how the row was chosen.
    """
    return pd.DataFrame(_FIELD, columns=["model", "source", "input", "mean iou", "mean aupr", *_FIELD_AUPR, "note"])


def table_2() -> pd.DataFrame:
    """Encoder kept for each lesion: ``lesion``, ``encoder``, ``iou``, ``accuracy``, ``precision`` (4 rows)."""
    return _read(["lesion", "encoder", *SEGMENTATION], _TABLE_2)


def table_3() -> pd.DataFrame:
    """Supervised models: ``backbone``, ``accuracy``, ``precision``, ``recall``, ``f1``, ``auc`` (6 rows)."""
    return _read(["backbone", *CLASSIFICATION, "auc"], _TABLE_3)


def table_4() -> pd.DataFrame:
    """Clustering methods by backbone: 20 of the 4 x 8 combinations are printed.

    Returns
    -------
    DataFrame of 20 rows
        ``method``, ``backbone``, ``accuracy``, ``precision``, ``recall``, ``f1``, ``calinski_harabasz``,
        ``davies_bouldin``.

    Notes
    -----
    The methods are in merged cells, and the paper's text keeps one line of each, so three lines
    are assigned on other evidence:

    - VGG16 0.8133, next to "Kmeans", belongs to k-medoids: k-means has its own VGG16 row (0.7667), and then
      both methods have four rows, like agglomerative clustering;
    - GoogLeNet 0.8411, one line above "DMH", belongs to DMH: section 3.3 says so, and 0.8411 is a fraction of
      302 images (254), not of the 150 or 300 of the other three methods;
    - ResNet18 0.8113, with "ResNet18" in the method's cell, belongs to DMH: it is a fraction of 302 (245) only.

    So k-medoids has AlexNet, GoogLeNet, ResNet18, VGG16; k-means GoogLeNet, ResNet34, VGG16, VGG19;
    agglomerative AlexNet, GoogLeNet, ResNet18, VGG16; DMH all eight.
    """
    return _read(["method", "backbone", *CLUSTERING], _TABLE_4)


def table_5() -> pd.DataFrame:
    """Ablations ``variant`` "a" to "e", with the score columns of Table 4 (5 rows).

    a: k-medoids alone; b: with segmentation; c: b with SCSE; d: the full model (DMH); e: d without PCA.
    """
    return _read(["variant", *CLUSTERING], _TABLE_5)


def _read(names: list[str], text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), sep=r"\s+", names=names)
