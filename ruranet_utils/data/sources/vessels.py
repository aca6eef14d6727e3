"""The two vessel sets: photographs without lesion masks, assumed negative without a grade.

References
----------
DRIVE: Staal et al. (2004), doi:10.1109/TMI.2004.825627. HRF: Budai et al. (2013), doi:10.1155/2013/154860.
CHASE_DB1: Fraz et al. (2012), doi:10.1109/TBME.2012.2205687. STARE: Hoover et al. (2000), doi:10.1109/42.845178.
"""

from __future__ import annotations

from pathlib import Path

from ruranet_utils.data.sources.base import Record, Source
from ruranet_utils.data.sources.discover import discover

_SHARED = {
    "lesions": (),
    "label_rule": "assumed negative: no grade of macular edema",
    "assumed": True,
    "patient_rule": "not stated; every photograph counts as a patient",
}
SINGLE = Source(
    name="retinal_vessel_segmentation",
    title="Retinal Vessel Segmentation Dataset",
    license="see its page",
    citation="not stated",
    url="https://www.kaggle.com/datasets/ayush02102001/retinal-vessel-segmentation-dataset",
    kaggle="ayush02102001/retinal-vessel-segmentation-dataset/versions/1",
    camera="not stated",
    **_SHARED,
)
COMBINED = Source(
    name="retinal_vessel_segmentation_combined",
    title="Retinal Vessel Segmentation Combined (DRIVE, HRF, CHASE_DB1, STARE)",
    license="four sets of terms, see each set",
    citation="doi:10.1109/TMI.2004.825627, 10.1155/2013/154860, 10.1109/TBME.2012.2205687, 10.1109/42.845178",
    url="https://www.kaggle.com/datasets/pradosh123/retinal-vessel-segmentation-combined",
    kaggle="pradosh123/retinal-vessel-segmentation-combined/versions/1",
    camera="four",
    **_SHARED,
)


def records(root: Path, source: Source) -> list[Record]:
    """Declare the photographs of one of the two sets; the masks show vessels and are not read.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`ruranet_utils.data.sources.discover.discover`.
    """
    return [
        Record(name, source.name, name, "", 0, source.label_rule, path, {}, None)
        for name, path in discover(root, with_masks=False).images.items()
    ]
