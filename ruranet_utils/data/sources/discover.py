"""For unverified layouts: find the images and their masks by rule, or by the reader's own ``layout.yml``.

A folder's name, in any letter case, decides whether it counts as a folder of images or of masks. A mask belongs to the
image of the same name, apart from the suffixes below; if a source has several pairs of folders, a mask is first looked
for among the images below the same parent. ``layout.yml`` in the source's folder overrides all of this::

    images: [Train/Photos, Test/Photos]   # folders, relative to this file
    masks: [Train/Labels, Test/Labels]    # may be left out
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from ruranet_utils.data.sources.base import below, expect_folder, stem_of

IMAGE_FOLDERS = re.compile(
    r"(original|fundus|raw|stare)?[ _-]?(images?|imgs?|photos?|photographs|data)|chase[ _-]?db1", re.IGNORECASE
)
MASK_FOLDERS = re.compile(
    r"(masks?|labels?([ _-](ah|vk))?|annotations?|ground[ _-]?truths?|gt|((1st|2nd)[ _-]?)?manual\d?|segmentations?)",
    re.IGNORECASE,
)
MASK_SUFFIX = re.compile(
    r"[ _.-](mask|label|gt|seg|manual\d?|1st(ho|_manual)?|2nd(ho|_manual)?|he|ah|vk|training|test)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Layout:
    """What was found inside a source's folder.

    Attributes
    ----------
    images : dict of str to Path
        By a name that is unique within the source: the path relative to the root, without suffix.
    masks : dict of str to Path
        By the same names.
    report : str
        Which folders were taken for what, and how many masks were matched to an image.
    """

    images: dict[str, Path]
    masks: dict[str, Path]
    report: str


def discover(root: Path, with_masks: bool = True) -> Layout:
    """Find the images of a source and their masks, and print which folders were taken for what.

    Parameters
    ----------
    root : Path
        Folder of the source.
    with_masks : bool
        ``False`` if the masks are not used: then nothing about them is an error.

    Raises
    ------
    FileNotFoundError
        If the folder, or one that ``layout.yml`` names, does not exist.
    ValueError
        If there is no image, a mask without an image, two masks for one image, or unknown keys in ``layout.yml``.
    """
    expect_folder(root)
    folders = _declared(root) if (root / "layout.yml").is_file() else _guessed(root)
    images = {_name(path, root): path for folder in folders["images"] for path in _photographs(folder)}
    if not images:
        listed = sorted({path.parent.relative_to(root).as_posix() for path in root.rglob("*") if _is_image(path)})
        raise ValueError(
            f"no folder of images recognized below {root}; images lie in {listed[:8] or 'no folder'}. "
            f"Name the folders in {root / 'layout.yml'}"
        )
    masks: dict[str, Path] = {}
    for folder in folders["masks"] if with_masks else ():
        for path in _files(folder):
            name = _match(path, folder, images, root)
            if name in masks:
                raise ValueError(
                    f"{path} and {masks[name]} are both masks of {images[name]}, expected one: name the folder to use "
                    f"in {root / 'layout.yml'}"
                )
            masks[name] = path
    listed = {kind: [folder.relative_to(root).as_posix() for folder in found] for kind, found in folders.items()}
    report = f"{root.name}: {len(images)} images in {listed['images']}, {len(masks)} masks in {listed['masks']}"
    print(report, file=sys.stderr)
    return Layout(images, masks, report)


def _declared(root: Path) -> dict[str, list[Path]]:
    try:
        layout = yaml.safe_load((root / "layout.yml").read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{root / 'layout.yml'} is not valid YAML: {error}") from error
    if not isinstance(layout, dict) or not all(isinstance(folders, list) for folders in layout.values()):
        raise ValueError(f"{root / 'layout.yml'} holds {layout!r}, expected lists of folders under images and masks")
    unknown = sorted(set(layout) - {"images", "masks"})
    if unknown or not layout.get("images"):
        raise ValueError(f"{root / 'layout.yml'} has the keys {sorted(layout)}, expected images and, if any, masks")
    folders = {kind: [root / name for name in layout.get(kind, [])] for kind in ("images", "masks")}
    for folder in (*folders["images"], *folders["masks"]):
        expect_folder(folder)
    return folders


def _guessed(root: Path) -> dict[str, list[Path]]:
    folders = [path for path in below(root, "*") if path.is_dir()]
    return {
        "images": [path for path in folders if IMAGE_FOLDERS.fullmatch(path.name)],
        "masks": [path for path in folders if MASK_FOLDERS.fullmatch(path.name)],
    }


def _match(mask: Path, folder: Path, images: dict[str, Path], root: Path) -> str:
    """Name of the image that a mask belongs to."""
    wanted = {_stem(mask), _bare(mask)}
    fitting = [name for name, path in images.items() if _stem(path) in wanted or _bare(path) in wanted]
    beside = [name for name in fitting if folder.parent in images[name].parents]
    if len(beside or fitting) != 1:
        found = [images[name].relative_to(root).as_posix() for name in (beside or fitting)[:4]]
        raise ValueError(
            f"{mask} matches {found or 'no image'}, expected one image named {' or '.join(sorted(wanted))}: name the "
            f"folders in {root / 'layout.yml'}"
        )
    return (beside or fitting)[0]


def _stem(path: Path) -> str:
    return (stem_of(path.name) or path.name).lower()


def _bare(path: Path) -> str:
    return MASK_SUFFIX.sub("", _stem(path))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_image(path))


def _photographs(folder: Path) -> list[Path]:
    """Images, except those next to one whose name is the same without a mask suffix, as in CHASE_DB1."""
    files = _files(folder)
    stems = {_stem(path) for path in files}
    return [path for path in files if _bare(path) == _stem(path) or _bare(path) not in stems]


def _is_image(path: Path) -> bool:
    return stem_of(path.name) is not None and not path.name.startswith(".") and path.is_file()


def _name(path: Path, root: Path) -> str:
    return str(stem_of(path.relative_to(root).as_posix()))
