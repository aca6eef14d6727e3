"""The first table of the README, from the committed tables: ``python -m ruranet_utils.summary`` (``make readme``)."""

from __future__ import annotations

import pandas as pd

from ruranet_utils import paths
from ruranet_utils.store import write_atomically

START, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"
PROFILES = ("synthetic", "open")

_ORACLE, _LABEL_FREE = ({"selection": selection} for selection in ("oracle", "label_free"))
# claim, table, row, score
CLAIMS = (
    ("Table 2, hard exudates, IoU", "table_2", {"lesion": "hard_exudates"}, "iou"),
    ("Table 2, microaneurysms, IoU", "table_2", {"lesion": "microaneurysms"}, "iou"),
    ("Table 2, hemorrhages, IoU", "table_2", {"lesion": "hemorrhages"}, "iou"),
    ("Table 2, edema (open: the optic disc), IoU", "table_2", {"lesion": "edema"}, "iou"),
    ("Table 3, supervised MobileNet, accuracy", "table_3", {"backbone": "mobilenet_v2"}, "accuracy"),
    (
        "Table 4, DMH + GoogLeNet, accuracy, `oracle`",
        "table_4",
        {"method": "dmh", "backbone": "googlenet", **_ORACLE},
        "accuracy",
    ),
    ("the same, `label_free`", "table_4", {"method": "dmh", "backbone": "googlenet", **_LABEL_FREE}, "accuracy"),
    (
        "Table 4, DMH + MobileNet, accuracy, `oracle`",
        "table_4",
        {"method": "dmh", "backbone": "mobilenet_v2", **_ORACLE},
        "accuracy",
    ),
    ("the same, `label_free`", "table_4", {"method": "dmh", "backbone": "mobilenet_v2", **_LABEL_FREE}, "accuracy"),
    ("Table 5b, segmentation without SCSE, accuracy, `oracle`", "table_5", {"variant": "b", **_ORACLE}, "accuracy"),
    ("Table 5c, with SCSE, accuracy, `oracle`", "table_5", {"variant": "c", **_ORACLE}, "accuracy"),
    ("Variance in 50 components", "table_pca_versus_paper", {"quantity": "cumulative explained variance"}, ""),
)


def results() -> str:
    """Markdown table: claim, the paper's number, ours of each profile with interval, N and weights."""
    rows = []
    for claim, table, row, score in CLAIMS:
        found = [_find(profile, table, row) for profile in PROFILES]
        paper = next(one[f"{score} paper".strip()] for one in found if one is not None)
        rows.append([claim, f"{paper:.4f}", *(_cell(one, score) for one in found)])
    columns = ["", "paper", "ours, synthetic images", "ours, real images (`open`)"]
    return pd.DataFrame(rows, columns=columns).to_markdown(index=False, disable_numparse=True)


def readme(text: str) -> str:
    """The README with its results renewed.

    Raises
    ------
    ValueError
        If a marker is missing.
    """
    if START not in text or END not in text:
        raise ValueError(f"the README lacks {START!r} or {END!r}")
    before, after = text.split(START)[0], text.split(END)[1]
    return f"{before}{START}\n\n{results()}\n\n{END}{after}"


def _find(profile: str, table: str, row: dict[str, str]) -> pd.Series | None:
    frame = pd.read_csv(paths.figures(profile) / f"{table}.csv")
    for column, value in row.items():
        frame = frame[frame[column] == value]
    return frame.iloc[0] if len(frame) else None


def _cell(row: pd.Series | None, score: str) -> str:
    if row is None or pd.isna(row[f"{score} ours".strip()]):
        return "–"
    interval = f" [{row[f'{score}_low']:.3f}, {row[f'{score}_high']:.3f}]" if f"{score}_low" in row else ""
    return f"{row[f'{score} ours'.strip()]:.4f}{interval}, N = {row['n']:.0f}, {row['weights']}"


if __name__ == "__main__":
    path = paths.ROOT / "README.md"
    renewed = readme(path.read_text())
    write_atomically(path, lambda file: file.write_text(renewed))
