"""Find a lesion in photographs with a kept model: ``segment("photographs/", "hard_exudates").save("found/")``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from skimage.segmentation import find_boundaries

from ruranet_utils.data.check import check_photographs
from ruranet_utils.data.field import Frame
from ruranet_utils.data.reading import read_image
from ruranet_utils.data.refusal import refuse
from ruranet_utils.data.sources.folder import find_photographs
from ruranet_utils.profiles import ANNOTATIONS, PROFILES, get_profile
from ruranet_utils.segmentation.model_file import load, load_all
from ruranet_utils.storage import paths
from ruranet_utils.storage.progress import progress

OUTLINE = np.array([0, 255, 255], dtype=np.uint8)  # cyan, which no retina has


@dataclass(frozen=True, eq=False)
class Found:
    """A lesion in some photographs.

    Attributes
    ----------
    names : tuple of str
    lesion : str
    images : ndarray of uint8, shape (n, 3, h, w)
        As the model saw them.
    masks : ndarray of bool, shape (n, h, w)
    frames : tuple of Frame
        Which part of each photograph the model saw.
    card : dict
        Of the model; see :class:`ruranet_utils.segmentation.model_file.Model`.
    """

    names: tuple[str, ...]
    lesion: str
    images: np.ndarray
    masks: np.ndarray
    frames: tuple[Frame, ...]
    card: dict

    @property
    def table(self) -> pd.DataFrame:
        """``image``, and the share of it that the lesion covers, ``area_percent``."""
        shares = [mask.mean() * frame.share for mask, frame in zip(self.masks, self.frames, strict=True)]
        return pd.DataFrame({"image": self.names, "area_percent": 100 * np.array(shares)})

    @property
    def overlays(self) -> np.ndarray:
        """The images with the lesion's outline: uint8, shape (n, h, w, 3)."""
        outlines = np.stack([find_boundaries(mask) for mask in self.masks])
        return np.where(outlines[..., None], OUTLINE, self.images.transpose(0, 2, 3, 1))

    def save(self, folder: str | Path) -> Path:
        """Write ``<name>_<lesion>.png`` (255 where the lesion is) and ``<name>_<lesion>_overlay.png``.

        Both have the size of the photograph.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, mask, overlay, frame in zip(self.names, self.masks, self.overlays, self.frames, strict=True):
            path = folder / f"{name}_{self.lesion}"
            path.parent.mkdir(parents=True, exist_ok=True)  # names of photographs in folders hold their folder
            Image.fromarray(frame.restore(mask)).save(f"{path}.png")
            Image.fromarray(frame.restore(overlay, Image.Resampling.BICUBIC)).save(f"{path}_overlay.png")
        return folder


def segment(images: str | Path | np.ndarray, lesion: str, model: str | Path = "open") -> Found:
    """Find one lesion in photographs.

    Parameters
    ----------
    images : path or ndarray
        A file, a folder of files, or an array of uint8 of shape (n, 3, h, w).
    lesion : str
        One of ``profiles.ANNOTATIONS``.
    model : str or Path
        A profile whose model is taken, or the file of a model.

    Returns
    -------
    Found

    Raises
    ------
    FileNotFoundError
        If there are no such images or no such model.
    ValueError
        For an unknown lesion, a file that cannot be read, or a model that was changed or finds another lesion.
    """
    if lesion not in ANNOTATIONS:
        raise ValueError(f"unknown lesion {lesion!r}; valid lesions: {', '.join(ANNOTATIONS)}")
    if Path(model).suffix == ".safetensors":
        chosen = load(Path(model))
    elif model in PROFILES:
        chosen = load_all(paths.models(str(model)), [lesion])[lesion]
    else:
        raise ValueError(f"unknown model {str(model)!r}: expected a .safetensors file or one of {', '.join(PROFILES)}")
    if chosen.card["lesion"] != lesion:
        raise ValueError(f"{model} finds {chosen.card['lesion']}, not {lesion}")
    names, arrays, frames = _read(images, chosen.card["image_size_px"], chosen.card["crop_field"])
    masks = chosen.predict(arrays, get_profile("open"))
    return Found(names, lesion, arrays, masks, frames, chosen.card)


def _read(
    images: str | Path | np.ndarray, size_px: int, crop_field: bool
) -> tuple[tuple[str, ...], np.ndarray, tuple[Frame, ...]]:
    """Names, images as the model wants them, and what part of the photographs they are."""
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected uint8 images of shape (n, 3, h, w), got {images.dtype} {images.shape}")
        digits = len(str(len(images)))
        names = tuple(f"image_{number:0{digits}d}" for number in range(1, len(images) + 1))
        return names, images, (Frame.whole(*images.shape[2:]),) * len(images)
    path = Path(images)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    files, problems, notes = find_photographs(path) if path.is_dir() else ({path.stem: path}, [], [])
    refuse([*problems, *check_photographs(files, get_profile("open")).problems])
    for note in notes:
        warnings.warn(note, stacklevel=3)
    read = [read_image(file, size_px, crop_field) for file in progress(files.values(), desc="reading", unit="image")]
    return tuple(files), np.stack([image for image, _ in read]), tuple(frame for _, frame in read)
