"""What a run is: the frozen :class:`Profile` and the names every module shares."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace

LESIONS = ("hard_exudates", "microaneurysms", "hemorrhages", "edema")
ANNOTATIONS = (*LESIONS, "soft_exudates")  # lesions in the masks: the paper's four and one it leaves out
ENCODERS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg16",
    "vgg19",
    "mobilenet_v2",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
)
CLASSIFIERS = ("alexnet", "googlenet", "mobilenet_v2", "resnet18", "resnet34", "resnet50")
EXTRACTORS = ("alexnet", "googlenet", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "vgg16", "vgg19")
METHODS = ("kmedoids", "kmeans", "agglomerative", "dmh")
NEGATIVES = ("graded", "assumed")
MASKS = ("per_lesion", "joint")
LESION_WEIGHTS = (1.0, 5.0, 10.0)

DISPLAY = {
    "alexnet": "AlexNet",
    "googlenet": "GoogLeNet",
    "mobilenet_v2": "MobileNet",
    "resnet18": "ResNet18",
    "resnet34": "ResNet34",
    "resnet50": "ResNet50",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "densenet121": "DenseNet121",
    "densenet161": "DenseNet161",
    "densenet169": "DenseNet169",
    "densenet201": "DenseNet201",
    "kmedoids": "k-medoids",
    "kmeans": "k-means",
    "agglomerative": "Agglomerative",
    "dmh": "DMH",
    "hard_exudates": "Hard exudates",
    "microaneurysms": "Microaneurysms",
    "hemorrhages": "Hemorrhages",
    "edema": "Edema",
    "soft_exudates": "Soft exudates",
    "optic_disc": "Optic disc",
}


@dataclass(frozen=True)
class Profile:
    """Every setting of a run. Two runs with equal profiles give the same bytes.

    Attributes
    ----------
    name : str
        ``"synthetic"``, ``"open"``, ``"paper"`` or ``"folder"``.
    seed : int
        Seed of every random choice of the run, >= 0.
    data_dir : str or None
        Folder of the reader's own photographs; only for the profile ``folder``. A relative path starts at the
        project's root.
    models : str
        Models for lesions without masks among the reader's photographs: ``"shipped"``, the network that comes with this
        project, or the name of the profile that trained them.
    n_images : int or None
        Images of the diagnosis cohort, half of each class; ``None``: as many as the smaller class allows.
    image_size_px : int
        Side of the square images and masks, a multiple of ``2**encoder_depth``.
    crop_field : bool
        Whether photographs are cropped to the square around their field of view; ``False``: scaled whole, as in the
        paper.
    max_mask_share : float
        Largest share of the field of view that a mask may cover, in (0, 1]; a larger mask is taken to be inverted and
        refused.
    negatives : str
        Profile ``paper`` only: ``"graded"``, only photographs graded free of macular edema, or ``"assumed"``, also
        those from sources that were never graded for it, as the paper describes.
    split : tuple of float
        Fractions of training, validation and test images, split by patient.
    weights : str
        ``"imagenet"`` or ``"random"``: initial weights of the backbones.
    allow_random_weights : bool
        Whether a backbone without available ImageNet weights may start from random ones. Tables then say so. It is not
        trained as a classifier of Table 3, unless none has weights.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``.
    threads : int
        CPU threads of torch in each process; part of the profile because results depend on it.
    instructions : str
        ``"avx2"``: instructions that every x86 processor has, which give the same bytes on all of them, or
        ``"native"``: all that this processor has.
    precision : str
        Precision of all training and of segmentation: ``"float32"``, ``"bfloat16"`` (mixed), or ``"auto"``: bfloat16
        if it is fast.
    workers : int
        Processes that train independent models in parallel; results do not depend on their number.
    encoders, classifiers, extractors : tuple of str
        The backbones of Tables 1 and 2, of Table 3, and of Tables 4 and 5.
    masks : str
        ``"per_lesion"``: a network for each lesion, as in the paper, or ``"joint"``: one for all lesions, trained
        on the validation images, too: nothing is chosen by them.
    n_seeds : int
        Models per lesion and encoder, with seeds from ``seed`` on; the first is applied, the others show the spread.
    epochs : int
        Maximum epochs of segmentation training; early stopping may end it sooner. For single-lesion networks, a
        lesion shown by only one in k of the images with any lesion gets k times the epochs and patience, at most three
        times. A joint network has neither early stopping nor this factor.
    patches_per_image : int
        Patches drawn from each training image in one epoch.
    patch_size_px : int
        Side of the square training patches, a multiple of ``2**encoder_depth``.
    lesion_patches : float
        Share of the patches centered near a lesion pixel, in [0, 1], however few images show the lesion.
    lesion_draw : tuple of float
        Joint network: how often each of ``ANNOTATIONS`` is drawn for a patch near a lesion, before an image that shows
        it is drawn.
    healthy_patches : float
        Joint network: share of the patches in the second stage of training that are cut from photographs without
        retinopathy; 0: no second stage.
    revised_epochs : int
        Joint network: epochs of the second stage of training, in which patches of healthy eyes show what the first
        stage mistook for lesions; 0: none.
    patience : int
        Epochs without a better validation Dice (classifiers: AUC) after which training stops.
    batch_size : int
        Patches (segmentation) or images (classification) per step.
    encoder_depth : int
        Stages of the U-Net, 3 to 5. The paper's networks have 5.
    decoder_width : int
        Channels of the deepest of five decoder stages, halved at each following one. 256 in the paper's networks; 128
        takes half the time.
    learning_rate : float
        Adam's; the peak of the schedule. The paper's is 1e-4.
    schedule : str
        ``"constant"``, as in the paper, or ``"one_cycle"`` (Smith and Topin 2019, doi:10.1117/12.2520589), which
        learns more in few epochs.
    weight_average : float
        Joint network: decay per step of the moving average of its weights, in [0, 1); 0: none.
    focal_weight : float
        Joint network: weight of the focal loss; 1 in Eq. 1.
    focal_alpha, focal_gamma : float
        Eq. 1.
    n_folds : int
        Folds in the cross-validation of Table 3 and of the probes of notebook 08, at least 3: one is scored, one
        chooses the epoch.
    classifier_epochs : int
        Maximum epochs of a classifier of Table 3.
    classifier_learning_rate : float
        Adam's, for Table 3.
    feature_size_px : int
        Side to which masked images are scaled for the feature extractor.
    n_components : int
        Principal components kept, at most ``n_images * n_lesions - 1``.
    dmh_epochs : int
        Epochs of the projection heads.
    dmh_lambda : float
        Eq. 3.
    """

    name: str
    seed: int = 0
    data_dir: str | None = None
    models: str = "shipped"
    n_images: int | None = None
    image_size_px: int = 512
    crop_field: bool = True
    max_mask_share: float = 0.5
    negatives: str = "graded"
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    weights: str = "imagenet"
    allow_random_weights: bool = False
    device: str = "auto"
    threads: int = 1
    instructions: str = "native"
    precision: str = "auto"
    workers: int = 2
    encoders: tuple[str, ...] = ENCODERS
    classifiers: tuple[str, ...] = CLASSIFIERS
    extractors: tuple[str, ...] = EXTRACTORS
    masks: str = "per_lesion"
    n_seeds: int = 3
    epochs: int = 75
    patches_per_image: int = 1
    patch_size_px: int = 512
    lesion_patches: float = 0.5
    lesion_draw: tuple[float, ...] = (0.22, 0.25, 0.25, 0.08, 0.2)
    healthy_patches: float = 0.5
    revised_epochs: int = 0
    patience: int = 10
    batch_size: int = 4
    encoder_depth: int = 5
    decoder_width: int = 256
    learning_rate: float = 1e-4
    schedule: str = "constant"
    weight_average: float = 0.99
    focal_weight: float = 5.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    n_folds: int = 5
    classifier_epochs: int = 30
    classifier_learning_rate: float = 1e-4
    feature_size_px: int = 224
    n_components: int = 50
    dmh_epochs: int = 60
    dmh_lambda: float = 0.3

    def settings(self, *names: str) -> dict:
        """The named fields as a dictionary: the part of a profile that one step depends on."""
        values = asdict(self)
        return {name: values[name] for name in names}


PROFILES = {
    "synthetic": Profile(
        name="synthetic",
        n_images=56,
        image_size_px=64,
        split=(0.7, 0.1, 0.2),
        weights="random",
        allow_random_weights=True,
        device="cpu",
        instructions="avx2",
        precision="float32",
        n_seeds=1,
        epochs=4,
        patch_size_px=24,
        patches_per_image=2,
        encoder_depth=3,
        batch_size=8,
        learning_rate=3e-3,
        focal_alpha=0.75,
        n_folds=3,
        classifier_epochs=3,
        classifier_learning_rate=1e-3,
        feature_size_px=64,
    ),
    "open": Profile(
        name="open",
        split=(0.7, 0.1, 0.2),
        allow_random_weights=True,
        encoders=("mobilenet_v2",),
        masks="joint",
        epochs=36,
        patch_size_px=192,
        patches_per_image=4,
        lesion_patches=0.7,
        batch_size=8,
        decoder_width=128,
        revised_epochs=12,
        learning_rate=3e-3,
        schedule="one_cycle",
        focal_alpha=0.75,
        classifier_epochs=12,
    ),
    "paper": Profile(name="paper", n_images=302, crop_field=False),
}
PROFILES["folder"] = replace(PROFILES["open"], name="folder", classifiers=("mobilenet_v2",))


def get_profile(name: str = "synthetic", **overrides) -> Profile:
    """Look up a profile and replace some of its fields.

    Parameters
    ----------
    name : str
        One of ``PROFILES``.
    **overrides
        Fields of :class:`Profile` to replace. ``None`` keeps the profile's own value. Tuples of names may be
        given as a list or as one comma-separated string, as ``papermill -p`` hands them over.

    Raises
    ------
    ValueError
        For an unknown profile, field or backbone, or a value out of range, naming what was given and listing
        what is valid.
    """
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; valid profiles: {', '.join(PROFILES)}")
    valid = [field.name for field in fields(Profile) if field.name != "name"]
    unknown = sorted(set(overrides) - set(valid))
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)}; valid parameters: {', '.join(valid)}")
    overrides = {key: value for key, value in overrides.items() if value is not None}
    for key, known in (("encoders", ENCODERS), ("classifiers", CLASSIFIERS), ("extractors", EXTRACTORS)):
        if key in overrides:
            overrides[key] = ordered_names(key, overrides[key], known)
    for key in ("split", "lesion_draw"):
        if isinstance(overrides.get(key), list):
            overrides[key] = tuple(overrides[key])
    profile = replace(PROFILES[name], **overrides)
    check(profile)
    return profile


POSITIVE_INTEGERS = (
    "image_size_px",
    "threads",
    "workers",
    "n_seeds",
    "epochs",
    "patches_per_image",
    "patch_size_px",
    "patience",
    "batch_size",
    "decoder_width",
    "n_folds",
    "classifier_epochs",
    "feature_size_px",
    "n_components",
    "dmh_epochs",
)
NUMBERS = (
    "max_mask_share",
    "lesion_patches",
    "healthy_patches",
    "learning_rate",
    "weight_average",
    "focal_weight",
    "focal_alpha",
    "focal_gamma",
    "classifier_learning_rate",
    "dmh_lambda",
)


def ordered_names(key: str, value: str | Collection[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Names in the order of ``known``, so that the same set always gives the same run.

    Raises
    ------
    ValueError
        For no name or an unknown one, listing the valid ones.
    """
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"{key} must be names, got {value!r}; valid {key}: {', '.join(known)}")
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"unknown {key}: {unknown or value!r}; valid {key}: {', '.join(known)}")
    return tuple(name for name in known if name in names)


def check(profile: Profile) -> None:
    """Reject a profile with a value out of range.

    Parameters
    ----------
    profile : Profile

    Raises
    ------
    ValueError
        The message names the setting, its value and what is valid.
    """
    for key in POSITIVE_INTEGERS:
        value = getattr(profile, key)
        if type(value) is not int or value <= 0:
            raise ValueError(f"{key} must be a positive integer, got {value!r}")
    for key in NUMBERS:
        value = getattr(profile, key)
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"{key} must be a finite number >= 0, got {value!r}")
    if profile.encoder_depth not in (3, 4, 5):
        raise ValueError(f"encoder_depth must be 3, 4 or 5, got {profile.encoder_depth!r}")
    if type(profile.revised_epochs) is not int or profile.revised_epochs < 0:
        raise ValueError(f"revised_epochs must be an integer >= 0, got {profile.revised_epochs!r}")
    if profile.n_folds < 3:
        raise ValueError(f"n_folds must be at least 3, got {profile.n_folds}")
    if type(profile.seed) is not int or profile.seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {profile.seed!r}")
    for key in ("allow_random_weights", "crop_field"):
        if type(getattr(profile, key)) is not bool:
            raise ValueError(f"{key} must be True or False, got {getattr(profile, key)!r}")
    if not 0 < profile.max_mask_share <= 1:
        raise ValueError(f"max_mask_share must be in (0, 1], got {profile.max_mask_share!r}")
    if profile.negatives not in NEGATIVES:
        raise ValueError(f"negatives must be 'graded' or 'assumed', got {profile.negatives!r}")
    for key in ("image_size_px", "patch_size_px"):
        if getattr(profile, key) % 2**profile.encoder_depth:
            raise ValueError(f"{key} must be a multiple of {2**profile.encoder_depth}, got {getattr(profile, key)}")
    if profile.patch_size_px > profile.image_size_px:
        raise ValueError(
            f"patch_size_px ({profile.patch_size_px}) is larger than image_size_px ({profile.image_size_px})"
        )
    if profile.name == "folder" and not profile.data_dir:
        raise ValueError("the profile folder needs data_dir, the folder that holds images/ (docs/own_images.md)")
    if profile.name != "folder" and profile.data_dir:
        raise ValueError(f"data_dir belongs to the profile folder, not to {profile.name}")
    if profile.models not in (*PROFILES, "shipped"):
        raise ValueError(f"unknown models {profile.models!r}; valid: shipped, {', '.join(PROFILES)}")
    if profile.masks not in MASKS:
        raise ValueError(f"masks must be 'per_lesion' or 'joint', got {profile.masks!r}")
    for key in ("split", "lesion_draw"):
        value = getattr(profile, key)
        if not isinstance(value, tuple) or not all(type(part) in (int, float) for part in value):
            raise ValueError(f"{key} must be a list of numbers, got {value!r}")
    if len(profile.lesion_draw) != len(ANNOTATIONS) or min(profile.lesion_draw) <= 0:
        raise ValueError(f"lesion_draw must be {len(ANNOTATIONS)} positive numbers, got {profile.lesion_draw!r}")
    if profile.healthy_patches >= 1 or profile.weight_average >= 1:
        raise ValueError(
            f"healthy_patches and weight_average must be below 1, got {profile.healthy_patches!r} and "
            f"{profile.weight_average!r}"
        )
    n_images = profile.n_images
    if n_images is not None and (type(n_images) is not int or n_images < 4 or n_images % 2):
        raise ValueError(f"n_images must be an even number >= 4 (half of each class), got {n_images!r}")
    if profile.lesion_patches > 1:
        raise ValueError(f"lesion_patches must be in [0, 1], got {profile.lesion_patches!r}")
    if profile.schedule not in ("constant", "one_cycle"):
        raise ValueError(f"schedule must be 'constant' or 'one_cycle', got {profile.schedule!r}")
    if profile.weights not in ("imagenet", "random"):
        raise ValueError(f"weights must be 'imagenet' or 'random', got {profile.weights!r}")
    if profile.instructions not in ("avx2", "native"):
        raise ValueError(f"instructions must be 'avx2' or 'native', got {profile.instructions!r}")
    if profile.precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be 'auto', 'float32' or 'bfloat16', got {profile.precision!r}")
    if profile.device not in ("cpu", "cuda", "auto"):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'auto', got {profile.device!r}")
    if len(profile.split) != 3 or abs(sum(profile.split) - 1) > 1e-9 or min(profile.split) <= 0:
        raise ValueError(f"split must be three positive fractions that add up to 1, got {profile.split!r}")
