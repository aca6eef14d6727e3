"""The hemorrhage set: photographs with masks of hemorrhages; its layout is not published."""

from __future__ import annotations

from pathlib import Path

from ruranet_utils.data.sources.base import Record, Source
from ruranet_utils.data.sources.discover import discover

SOURCE = Source(
    name="final_clean_haemorrhage",
    title="Final Clean Haemorrhage Dataset",
    license="see its page",
    citation="not stated",
    url="https://www.kaggle.com/datasets/shirouqshawky16/final-clean-haemorrhage-dataset",
    kaggle="shirouqshawky16/final-clean-haemorrhage-dataset/versions/1",
    lesions=("hemorrhages",),
    label_rule="none: no grade of macular edema",
    assumed=False,
    camera="not stated",
    patient_rule="not stated; every photograph counts as a patient",
)


def records(root: Path) -> list[Record]:
    """Declare the photographs; an image without a mask has no annotated pixel.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`ruranet_utils.data.sources.discover.discover`; also if there is no mask at all.
    """
    layout = discover(root)
    if not layout.masks:
        raise ValueError(f"{layout.report}: expected masks of hemorrhages; name their folders in {root / 'layout.yml'}")
    return [
        Record(
            image_id=name,
            source=SOURCE.name,
            patient_id=name,
            eye="",
            label=None,
            label_rule=SOURCE.label_rule,
            image_path=path,
            mask_paths={"hemorrhages": layout.masks[name]} if name in layout.masks else {},
            split=None,
        )
        for name, path in layout.images.items()
    ]
