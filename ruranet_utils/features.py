"""Masked-image features: image times lesion mask through a backbone without its classifier (Section 2.2)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import chain

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from ruranet_utils import backbones
from ruranet_utils.backbones import feature_extractor, imagenet_state, normalize, weights_origin
from ruranet_utils.cohort import as_float
from ruranet_utils.config import Profile
from ruranet_utils.store import Store, digest_arrays
from ruranet_utils.training import resolve_device

BATCH_SIZE = 16


def lesion_features(images: np.ndarray, masks: np.ndarray, backbone: str, profile: Profile, store: Store) -> np.ndarray:
    """One feature vector per image and lesion, computed once per store.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_images, 3, h, w)
    masks : ndarray of bool, shape (n_images, n_lesions, h, w)
        An empty mask gives the feature of the black image; no image is skipped.
    backbone : str
        One of ``config.EXTRACTORS``.
    profile : Profile
    store : Store

    Returns
    -------
    ndarray of float32, shape (n_images, n_lesions, dim)

    Raises
    ------
    ValueError
        If images and masks do not have the same number and sides.
    """
    if len(images) != len(masks) or images.shape[2:] != masks.shape[2:]:
        raise ValueError(f"images of shape {images.shape} do not fit masks of shape {masks.shape}")

    def compute() -> dict[str, np.ndarray]:
        rows, columns = np.nonzero(masks.any(axis=(2, 3)))
        masked = (images[row] * masks[row, column] for row, column in zip(rows, columns, strict=True))
        *vectors, black = _extract(chain(masked, [np.zeros_like(images[0])]), len(rows) + 1, backbone, profile)
        features = np.tile(black, (*masks.shape[:2], 1))
        if vectors:
            features[rows, columns] = vectors
        return {"features": features}

    settings = {**_settings(backbone, profile), "images": digest_arrays(images), "masks": digest_arrays(masks)}
    return store.fetch("lesion_features", settings, compute, _CODE)["features"]


def image_features(images: np.ndarray, backbone: str, profile: Profile, store: Store) -> np.ndarray:
    """One feature vector per unmasked image: float32, shape (n_images, dim). See :func:`lesion_features`."""
    return store.fetch(
        "image_features",
        {**_settings(backbone, profile), "images": digest_arrays(images)},
        lambda: {"features": _extract(iter(images), len(images), backbone, profile)},
        _CODE,
    )["features"]


def resize(images: np.ndarray, size_px: int) -> torch.Tensor:
    """Images of shape (n, 3, h, w), uint8, as float32 in [0, 1] with sides of ``size_px`` (bilinear, antialiased)."""
    tensor = torch.from_numpy(as_float(images))
    return interpolate(tensor, size=(size_px, size_px), mode="bilinear", antialias=True, align_corners=False)


def _settings(backbone: str, profile: Profile) -> dict:
    origin = weights_origin(backbone, profile.weights, profile.allow_random_weights)
    return {**profile.settings("seed", "threads", "device", "feature_size_px"), "backbone": backbone, "weights": origin}


def _extract(images: Iterable[np.ndarray], n_images: int, backbone: str, profile: Profile) -> np.ndarray:
    state = imagenet_state(backbone, profile.weights, profile.allow_random_weights)
    device = resolve_device(profile.device)
    model = feature_extractor(backbone, state, profile.seed).to(device)
    vectors, batch = [], []
    with torch.inference_mode(), tqdm(total=n_images, desc=backbone, unit="image", leave=False) as bar:
        for number, image in enumerate(images, start=1):
            batch.append(image)
            if len(batch) == BATCH_SIZE or number == n_images:
                inputs = normalize(resize(np.stack(batch), profile.feature_size_px)).to(device)
                vectors.append(model(inputs).float().cpu().numpy())
                bar.update(len(batch))
                batch = []
    return np.concatenate(vectors)


_CODE = [backbones, sys.modules[__name__]]
