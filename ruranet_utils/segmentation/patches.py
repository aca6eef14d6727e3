"""Inputs of a U-Net: randomly rotated and scaled patches for training, whole images for validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from ruranet_utils.networks.backbones import as_float, normalize

# Augmentation. The paper names none; these are the field's usual ranges. Angle in degrees, the rest as shares.
ANGLE, SCALE, GAIN, SHIFT = 180, 0.25, 0.2, 0.05
JOINT_SCALE, JOINT_GAIN, JOINT_SHIFT = 0.4, 0.3, 0.08  # wider, because the joint network is meant for any camera
# How far a patch's center may lie from the lesion pixel that it shows, as a share of the patch's side.
JITTER = 0.4
MISTAKEN_PATCHES = 0.7  # share of the healthy patches that show something mistaken for a lesion
UNKNOWN = -1  # in a batch's masks: the lesion was not searched for


@dataclass(frozen=True, eq=False)
class Annotated:
    """Images with masks.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, 3, h, w)
    masks : ndarray of bool, shape (n, n_lesions, h, w)
    aspect : ndarray of float, shape (n,)
        Width divided by height of what each image shows, before it was squeezed to a square; 1 if it was cropped.
    known : ndarray of bool, shape (n, n_lesions), or None
        Which lesions were searched for in which image: an empty mask means "no lesion" if true, and nothing if false.
        ``None``: all.
    """

    images: np.ndarray
    masks: np.ndarray
    aspect: np.ndarray
    known: np.ndarray | None = None


@dataclass
class Patches:
    """Batches of random patches for one lesion, many near a lesion pixel; the draw depends only on seed and epoch.

    Each patch is cropped, rotated, scaled and flipped by one affine map, and recolored. It rotates as the eye would,
    before the photograph was squeezed to a square; beyond the border it is black. The images are decoded once and stay
    on the device, where all of this happens.

    Parameters
    ----------
    data : Annotated
    patch_size_px, patches_per_image, batch_size : int
        Side of a patch, patches drawn from an image in one epoch, patches in a batch.
    lesion_patches : float
        Share of the patches centered near a lesion pixel: of their own image, or, if it does not show the lesion, of
        another one that does; otherwise a rare lesion would be missing from most patches. The rest lie anywhere.
    seed : int
    device : str or torch.device
    epoch : int
        Incremented by every iteration.
    """

    data: Annotated
    patch_size_px: int
    patches_per_image: int
    batch_size: int
    lesion_patches: float
    seed: int
    device: str | torch.device = "cpu"
    epoch: int = 0
    scale: ClassVar[float] = SCALE
    gain: ClassVar[float] = GAIN
    shift: ClassVar[float] = SHIFT

    def __post_init__(self):
        self._lesion_px = [[np.argwhere(mask) for mask in masks] for masks in self.data.masks]
        self._shows = self.data.masks.any(axis=(2, 3))
        self._images = torch.tensor(self.data.images, device=self.device)
        self._masks = torch.tensor(self.data.masks, device=self.device)

    def __len__(self) -> int:
        # Batch normalization needs two patches: a last batch of one is joined to the others.
        return max(1, len(self._images) * self.patches_per_image // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        for rows, near in self._draw(rng):
            maps = [self._map(row, pixels, rng) for row, pixels in zip(rows, near, strict=True)]
            yield self._cut(rows, np.stack(maps), rng)

    def _draw(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, list[np.ndarray | None]]]:
        """The images of each batch, and for each patch the lesion pixels to center it near; ``None``: anywhere."""
        order = rng.permutation(np.repeat(np.arange(len(self._images)), self.patches_per_image))
        shows = self._shows[:, 0]
        for rows in np.array_split(order, len(self)):
            near = (rng.random(len(rows)) < self.lesion_patches) & shows.any()
            elsewhere = near & ~shows[rows]
            rows[elsewhere] = rng.choice(np.flatnonzero(shows), elsewhere.sum())
            yield rows, [self._lesion_px[row][0] if one else None for row, one in zip(rows, near, strict=True)]

    def _map(self, row: int, near: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """Affine map of shape (2, 3) from a patch to its image, both with coordinates from -1 to 1, x before y."""
        side = np.array(self.data.masks.shape[:1:-1])
        if near is not None:
            center = rng.choice(near)[::-1] + rng.uniform(-JITTER, JITTER, 2) * self.patch_size_px
        else:
            center = rng.uniform(0, side)
        angle = np.deg2rad(rng.uniform(-ANGLE, ANGLE))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = np.array([self.data.aspect[row], 1.0])
        zoom = rng.choice([-1, 1], 2) * np.exp(rng.uniform(-self.scale, self.scale)) * self.patch_size_px
        matrix = turn / (stretch * side)[:, None] * stretch * zoom
        margin = np.minimum(np.abs(zoom) / side, 1)  # a patch that is not rotated stays inside
        return np.column_stack([matrix, np.clip((2 * center + 1) / side - 1, margin - 1, 1 - margin)])

    def _cut(self, rows: np.ndarray, maps: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        rows, maps = torch.as_tensor(rows, device=self.device), self._float(maps)
        grid = affine_grid(maps, (len(rows), 1, self.patch_size_px, self.patch_size_px), align_corners=False)
        images = grid_sample(self._images[rows].float() / 255, grid, align_corners=False)
        masks = grid_sample(self._masks[rows].float(), grid, mode="nearest", align_corners=False)
        gain = self._float(rng.uniform(1 - self.gain, 1 + self.gain, (len(rows), 3, 1, 1)))
        shift = self._float(rng.uniform(-self.shift, self.shift, (len(rows), 1, 1, 1)))
        return normalize((images * gain + shift).clamp(0, 1)), masks

    def _float(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)


@dataclass
class JointPatches(Patches):
    """Patches for several lesions: near lesions, the lesion is drawn first, so that rare ones appear often enough.

    The masks of a batch are ``UNKNOWN`` where a lesion was not searched for.

    Parameters
    ----------
    lesion_draw : sequence of float, shape (n_lesions,)
        For a share ``lesion_patches`` of the other patches: how often each lesion is drawn, then an image that shows it
        and one of its pixels. The rest lie anywhere in any image that is not healthy.
    healthy_patches : float
        Share of the patches cut from images that were searched for lesions and have none.
    mistaken : sequence of ndarray of int, shape (n_pixels, 2)
        For each of these healthy images, in order, the rows and columns of pixels mistaken for a lesion;
        a share ``MISTAKEN_PATCHES`` of the healthy patches lies near one.
    """

    lesion_draw: Sequence[float] = ()
    healthy_patches: float = 0.0
    mistaken: Sequence[np.ndarray] = ()
    scale: ClassVar[float] = JOINT_SCALE
    gain: ClassVar[float] = JOINT_GAIN
    shift: ClassVar[float] = JOINT_SHIFT

    def __post_init__(self):
        super().__post_init__()
        known = np.ones_like(self._shows) if self.data.known is None else self.data.known
        self._unknown = torch.tensor(~known[..., None, None], device=self.device)
        self._healthy = np.flatnonzero(~self._shows.any(axis=1))
        self._diseased = np.flatnonzero(self._shows.any(axis=1))

    def __len__(self) -> int:
        return max(1, len(self._diseased) * self.patches_per_image // self.batch_size)

    def _draw(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, list[np.ndarray | None]]]:
        chances = np.asarray(self.lesion_draw) * self._shows.any(axis=0)
        for _ in range(len(self)):
            drawn = [self._draw_one(chances / chances.sum(), rng) for _ in range(self.batch_size)]
            yield np.array([row for row, _ in drawn]), [near for _, near in drawn]

    def _draw_one(self, chances: np.ndarray, rng: np.random.Generator) -> tuple[int, np.ndarray | None]:
        if len(self._healthy) and rng.random() < self.healthy_patches:
            wrong = np.flatnonzero([len(pixels) > 0 for pixels in self.mistaken])
            if len(wrong) and rng.random() < MISTAKEN_PATCHES:
                chosen = rng.choice(wrong)
                return self._healthy[chosen], self.mistaken[chosen]
            return rng.choice(self._healthy), None
        if rng.random() >= self.lesion_patches:
            return rng.choice(self._diseased), None
        lesion = rng.choice(len(chances), p=chances)
        row = rng.choice(np.flatnonzero(self._shows[:, lesion]))
        return row, self._lesion_px[row][lesion]

    def _cut(self, rows: np.ndarray, maps: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks = super()._cut(rows, maps, rng)
        return images, masks.masked_fill(self._unknown[rows], UNKNOWN)


@dataclass
class FullImages:
    """Whole images with their masks, in order, in batches of at most 512 x 512 pixels or of one image."""

    data: Annotated

    def __len__(self) -> int:
        return len(image_batches(self.data.images))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for rows in image_batches(self.data.images):
            yield (
                normalize(torch.from_numpy(as_float(self.data.images[rows]))),
                torch.tensor(self.data.masks[rows]),
            )


def image_batches(images: np.ndarray) -> list[slice]:
    """Rows of images, of shape (n, 3, h, w), to pass through a network together."""
    step = max(1, 512**2 // (images.shape[2] * images.shape[3]))
    return [slice(start, start + step) for start in range(0, len(images), step)]
