"""What a U-Net is fed: random patches for training, whole images for validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ruranet_utils.backbones import as_float, normalize


@dataclass
class Patches:
    """Batches of random patches, many of them centered near a lesion pixel; a new draw on every iteration.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 3, h, w)
    masks : ndarray of bool, shape (n, h, w)
    size_px, per_image, batch_size : int
        Side of a patch, patches drawn from an image in one iteration, patches in a batch.
    lesion_share : float
        Probability that a patch is centered near a lesion pixel of its image, if it has one; else anywhere.
    seed : int
        The k-th iteration depends on ``(seed, k)`` alone.
    """

    images: np.ndarray
    masks: np.ndarray
    size_px: int
    per_image: int
    batch_size: int
    lesion_share: float
    seed: int
    iteration: int = 0

    def __post_init__(self):
        self._lesion_px = [np.argwhere(mask) for mask in self.masks]

    def __len__(self) -> int:
        # Batch normalization needs two patches: a last batch of one is joined to the others.
        return max(1, len(self.images) * self.per_image // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng([self.seed, self.iteration])
        self.iteration += 1
        order = rng.permutation(np.repeat(np.arange(len(self.images)), self.per_image))
        for chosen in np.array_split(order, len(self)):
            patches = [self._patch(index, rng) for index in chosen]
            images = as_float(np.stack([image for image, _ in patches]))
            masks = np.stack([mask for _, mask in patches]).astype(np.float32)
            gain = rng.uniform(0.85, 1.15, size=(len(chosen), 3, 1, 1)).astype(np.float32)
            yield normalize(torch.from_numpy((images * gain).clip(0, 1))), torch.from_numpy(masks[:, None])

    def _patch(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        sides = np.array(self.masks.shape[1:])
        if len(self._lesion_px[index]) and rng.random() < self.lesion_share:
            center = rng.choice(self._lesion_px[index]) + rng.integers(
                -self.size_px // 4, self.size_px // 4 + 1, size=2
            )
        else:
            center = rng.integers(0, sides)
        row, column = np.clip(center - self.size_px // 2, 0, sides - self.size_px)
        window = np.s_[..., row : row + self.size_px, column : column + self.size_px]
        turns, flip = rng.integers(4), rng.integers(2)
        image, mask = (np.rot90(part[window], turns, axes=(-2, -1)) for part in (self.images[index], self.masks[index]))
        return (image[..., ::-1], mask[..., ::-1]) if flip else (image, mask)


@dataclass
class FullImages:
    """Whole images with their masks, in order, in batches of at most 512 x 512 pixels or of one image."""

    images: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(image_batches(self.images))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for rows in image_batches(self.images):
            yield normalize(torch.from_numpy(as_float(self.images[rows]))), torch.from_numpy(self.masks[rows, None])


def image_batches(images: np.ndarray) -> list[slice]:
    """Rows of images of shape (n, 3, h, w) that go through a network together."""
    step = max(1, 512**2 // (images.shape[2] * images.shape[3]))
    return [slice(start, start + step) for start in range(0, len(images), step)]
