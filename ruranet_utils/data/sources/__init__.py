"""The data sets, one module each; :data:`SOURCES` holds all of them by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ruranet_utils.data.sources import folder, haemorrhage, idrid, refuge2, retinal_lesions, srahim, vessels
from ruranet_utils.data.sources.base import Record, Source

# The paper's references 13 to 18, in its order.
PAPER = (
    retinal_lesions.SOURCE,
    vessels.SINGLE,
    vessels.COMBINED,
    refuge2.SOURCE,
    idrid.SOURCE,
    haemorrhage.SOURCE,
)
SOURCES: dict[str, Source] = {source.name: source for source in (*PAPER, srahim.SOURCE, folder.SOURCE)}
READERS: dict[str, Callable[[Path], list[Record]]] = {
    retinal_lesions.SOURCE.name: retinal_lesions.records,
    vessels.SINGLE.name: partial(vessels.records, source=vessels.SINGLE),
    vessels.COMBINED.name: partial(vessels.records, source=vessels.COMBINED),
    refuge2.SOURCE.name: refuge2.records,
    idrid.SOURCE.name: idrid.records,
    haemorrhage.SOURCE.name: haemorrhage.records,
    srahim.SOURCE.name: srahim.records,
    folder.SOURCE.name: folder.records,
}


def require(names: list[str], root: Path) -> None:
    """Raise a FileNotFoundError that says where to get each missing source and where to put it."""
    missing = [SOURCES[name] for name in names if not (root / name).is_dir()]
    if missing:
        lines = "\n".join(f"  {root / source.name} from {source.url}" for source in missing)
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} data sets are missing below {root} (RURANET_DATA_ROOT):\n{lines}\n"
            f"fetch them: ruranet data {' '.join(f'--source {source.name}' for source in missing)}"
        )
