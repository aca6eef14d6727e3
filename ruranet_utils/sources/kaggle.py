"""The six Kaggle data sets that the paper merged (its references 13 to 18)."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

SLUGS = {
    "retinal_lesions": "pablorocamora/retinal-lesions-dataset",
    "retinal_vessel_segmentation": "ayush02102001/retinal-vessel-segmentation-dataset",
    "retinal_vessel_segmentation_combined": "pradosh123/retinal-vessel-segmentation-combined",
    "refuge2": "victorlemosml/refuge2",
    "idrid": "aaryapatel98/indian-diabetic-retinopathy-image-dataset",
    "final_clean_haemorrhage": "shirouqshawky16/final-clean-haemorrhage-dataset",
}


def records(root: Path) -> NoReturn:
    """Refuse with instructions: the merge of the six data sets is not built yet.

    Parameters
    ----------
    root : Path
        Folder that holds one folder per data set.

    Raises
    ------
    FileNotFoundError
        Always, listing where each data set comes from, where it belongs and whether it is there.
    """
    lines = [
        f"  {'found' if (root / name).is_dir() else 'missing'}: {root / name} from https://www.kaggle.com/datasets/{slug}"
        for name, slug in SLUGS.items()
    ]
    raise FileNotFoundError(
        "the profile 'paper' needs six Kaggle data sets, and merging them is not built yet:\n"
        + "\n".join(lines)
        + "\nuse the profile 'synthetic' or 'open' instead"
    )
