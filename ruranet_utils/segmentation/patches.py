"""What a U-Net is fed: random, turned and scaled patches for training, whole images for validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from ruranet_utils.networks.backbones import as_float, normalize

# Augmentation: the paper names none; these are the field's usual ones. Angle in degrees, the others as shares.
ANGLE, SCALE, GAIN, SHIFT = 180, 0.25, 0.2, 0.05
# How far a patch's center may lie from the lesion pixel that it shows, as a share of the patch's side.
JITTER = 0.4


@dataclass(frozen=True, eq=False)
class Annotated:
    """Images with the masks of one lesion.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, 3, h, w)
    masks : ndarray of bool, shape (n, h, w)
    aspect : ndarray of float, shape (n,)
        Width divided by height of what each image shows, before it was made square; 1 where a square was cut.
    """

    images: np.ndarray
    masks: np.ndarray
    aspect: np.ndarray


@dataclass
class Patches:
    """Batches of random patches, many of them near a lesion pixel; the draw depends on seed and epoch alone.

    Each patch is cut, turned, scaled and flipped by one affine map, and its color is changed. It is turned as the eye
    would turn, before the photograph was made square; beyond the border it is black. The images, decoded once, stay on
    the device, where all of this happens.

    Parameters
    ----------
    data : Annotated
    patch_size_px, patches_per_image, batch_size : int
        Side of a patch, patches drawn from an image in one epoch, patches in a batch.
    lesion_patches : float
        Share of the patches that are laid near a lesion pixel: of their own image, or if it does not show the lesion,
        of another one that does. A rare lesion would else be missing from most patches. The others are laid anywhere.
    seed : int
    device : str or torch.device
    epoch : int
        Counted up by every iteration.
    """

    data: Annotated
    patch_size_px: int
    patches_per_image: int
    batch_size: int
    lesion_patches: float
    seed: int
    device: str | torch.device = "cpu"
    epoch: int = 0

    def __post_init__(self):
        self._lesion_px = [np.argwhere(mask) for mask in self.data.masks]
        self._has_lesion = self.data.masks.any(axis=(1, 2))
        self._images = torch.tensor(self.data.images, device=self.device)
        self._masks = torch.tensor(self.data.masks[:, None], device=self.device)

    def __len__(self) -> int:
        # Batch normalization needs two patches: a last batch of one is joined to the others.
        return max(1, len(self._images) * self.patches_per_image // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        order = rng.permutation(np.repeat(np.arange(len(self._images)), self.patches_per_image))
        for rows in np.array_split(order, len(self)):
            near = (rng.random(len(rows)) < self.lesion_patches) & self._has_lesion.any()
            elsewhere = near & ~self._has_lesion[rows]
            rows[elsewhere] = rng.choice(np.flatnonzero(self._has_lesion), elsewhere.sum())
            yield self._cut(rows, np.stack([self._map(*patch, rng) for patch in zip(rows, near, strict=True)]), rng)

    def _map(self, row: int, near_lesion: bool, rng: np.random.Generator) -> np.ndarray:
        """Affine map of shape (2, 3) from a patch to its image, both with coordinates from -1 to 1, x before y."""
        side = np.array(self.data.masks.shape[:0:-1])
        if near_lesion:
            center = rng.choice(self._lesion_px[row])[::-1] + rng.uniform(-JITTER, JITTER, 2) * self.patch_size_px
        else:
            center = rng.uniform(0, side)
        angle = np.deg2rad(rng.uniform(-ANGLE, ANGLE))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = np.array([self.data.aspect[row], 1.0])
        zoom = rng.choice([-1, 1], 2) * np.exp(rng.uniform(-SCALE, SCALE)) * self.patch_size_px
        matrix = turn / (stretch * side)[:, None] * stretch * zoom
        margin = np.minimum(np.abs(zoom) / side, 1)  # a patch that is not turned stays inside
        return np.column_stack([matrix, np.clip((2 * center + 1) / side - 1, margin - 1, 1 - margin)])

    def _cut(self, rows: np.ndarray, maps: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        rows, maps = torch.as_tensor(rows, device=self.device), self._float(maps)
        grid = affine_grid(maps, (len(rows), 1, self.patch_size_px, self.patch_size_px), align_corners=False)
        images = grid_sample(self._images[rows].float() / 255, grid, align_corners=False)
        masks = grid_sample(self._masks[rows].float(), grid, mode="nearest", align_corners=False)
        gain = self._float(rng.uniform(1 - GAIN, 1 + GAIN, (len(rows), 3, 1, 1)))
        shift = self._float(rng.uniform(-SHIFT, SHIFT, (len(rows), 1, 1, 1)))
        return normalize((images * gain + shift).clamp(0, 1)), masks

    def _float(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)


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
                torch.tensor(self.data.masks[rows, None]),
            )


def image_batches(images: np.ndarray) -> list[slice]:
    """Rows of images of shape (n, 3, h, w) that go through a network together."""
    step = max(1, 512**2 // (images.shape[2] * images.shape[3]))
    return [slice(start, start + step) for start in range(0, len(images), step)]
