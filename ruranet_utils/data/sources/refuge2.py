"""REFUGE2: 3 x 400 photographs with masks of optic disc and cup, and nothing about macular edema.

References
----------
Orlando et al. (2020), Medical Image Analysis 59. doi:10.1016/j.media.2019.101570
Fang et al. (2022). doi:10.48550/arXiv.2202.08994
"""

from __future__ import annotations

from pathlib import Path

from ruranet_utils.data.sources.base import Record, Source, below, list_images

SOURCE = Source(
    name="refuge2",
    title="REFUGE2",
    license="terms of the challenge (refuge.grand-challenge.org)",
    citation="Orlando et al. (2020), doi:10.1016/j.media.2019.101570",
    url="https://refuge.grand-challenge.org",
    kaggle="victorlemosml/refuge2/versions/1",
    lesions=(),
    label_rule="assumed negative: graded for glaucoma, not for macular edema",
    assumed=True,
    camera="several",
    patient_rule="not stated; every photograph counts as a patient",
)
SPLITS = ("train", "val", "test")


def records(root: Path) -> list[Record]:
    """Declare the photographs; the masks show disc and cup and are not read.

    Parameters
    ----------
    root : Path
        Folder that holds ``train``, ``val`` and ``test``, or a ``REFUGE2`` that holds them at any depth.

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    ValueError
        If a folder holds no images, or two with the same name.
    """
    top = next((path for path in below(root, "REFUGE2") if path.is_dir()), root)
    return [
        Record(f"{split}/{name}", SOURCE.name, f"{split}/{name}", "", 0, SOURCE.label_rule, path, {}, None)
        for split in SPLITS
        for name, path in list_images(top / split / "images").items()
    ]
