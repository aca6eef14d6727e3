"""Masked-image features: image times lesion mask, through a backbone without its classifier (Section 2.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch.nn.functional import interpolate

from ruranet_utils.networks.backbones import as_float, feature_extractor, normalize
from ruranet_utils.networks.device import device_settings, plan, prepare
from ruranet_utils.networks.weights import find_weights
from ruranet_utils.profiles import Profile
from ruranet_utils.storage.progress import progress
from ruranet_utils.storage.steps import Step
from ruranet_utils.storage.store import Arrays, Store

BATCH_SIZE = 16
VARIANTS = ("default", "released")
_CODE = ("networks.backbones", "networks.googlenet_bvlc", "networks.device", "features.extract")
LESION_FEATURES, IMAGE_FEATURES = Step("lesion_features", 2, _CODE), Step("image_features", 2, _CODE)


def lesion_features(
    images: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
    profile: Profile,
    store: Store,
    variant: str = "default",
) -> dict[str, np.ndarray]:
    """One feature vector per image and lesion from each of several backbones, computed once per store.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_images, 3, h, w)
    masks : ndarray of bool, shape (n_images, n_lesions, h, w)
        An empty mask gives the feature of a black image; no image is skipped.
    names : sequence of str
        Backbones of ``profiles.EXTRACTORS``.
    profile : Profile
    store : Store
    variant : {"default", "released"}
        ``"released"``: GoogLeNet without torchvision's ``transform_input``, as in the code released with the paper; the
        other backbones are the same in both.

    Returns
    -------
    dict of str to ndarray of float32, shape (n_images, n_lesions, dim)
        By backbone.

    Raises
    ------
    ValueError
        If images and masks differ in number or side length, or the variant is unknown.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; valid variants: {', '.join(VARIANTS)}")
    if len(images) != len(masks) or images.shape[2:] != masks.shape[2:]:
        raise ValueError(f"images of shape {images.shape} do not fit masks of shape {masks.shape}")

    jobs = {
        name: (
            {**_settings(name, profile), "variant": variant},
            partial(_of_lesions, backbone=name, profile=profile, variant=variant),
        )
        for name in names
    }
    found = store.fetch_parts(LESION_FEATURES, jobs, images, masks, workers=plan(profile).workers)
    return {name: found[name]["features"] for name in names}


def image_features(images: np.ndarray, backbone: str, profile: Profile, store: Store) -> np.ndarray:
    """One feature vector per unmasked image: float32, shape (n_images, dim). See :func:`lesion_features`."""
    job = _settings(backbone, profile), partial(_of_images, backbone=backbone, profile=profile)
    return store.fetch_parts(IMAGE_FEATURES, {"": job}, images, workers=plan(profile).workers)[""]["features"]


def _of_lesions(images: np.ndarray, masks: np.ndarray, backbone: str, profile: Profile, variant: str) -> Arrays:
    rows, columns = np.nonzero(masks.any(axis=(2, 3)))
    masked = (images[row] * masks[row, column] for row, column in zip(rows, columns, strict=True))
    *vectors, black = _extract(chain(masked, [np.zeros_like(images[0])]), len(rows) + 1, backbone, profile, variant)
    features = np.tile(black, (*masks.shape[:2], 1))
    if vectors:
        features[rows, columns] = vectors
    return {"features": features}


def _of_images(images: np.ndarray, backbone: str, profile: Profile) -> Arrays:
    return {"features": _extract(iter(images), len(images), backbone, profile)}


def resize(images: np.ndarray, size_px: int) -> torch.Tensor:
    """Images of shape (n, 3, h, w), uint8, as float32 in [0, 1] with sides of ``size_px`` (bilinear, antialiased)."""
    tensor = torch.from_numpy(as_float(images))
    return interpolate(tensor, size=(size_px, size_px), mode="bilinear", antialias=True, align_corners=False)


def _settings(backbone: str, profile: Profile) -> dict:
    settings = {**profile.settings("seed", "feature_size_px"), **device_settings(profile)}
    return {**settings, "backbone": backbone, "weights": find_weights(backbone, profile).digest}


def _extract(
    images: Iterable[np.ndarray], n_images: int, backbone: str, profile: Profile, variant: str = "default"
) -> np.ndarray:
    device = prepare(profile)
    model = feature_extractor(backbone, find_weights(backbone, profile).load(), profile.seed).to(device)
    if backbone == "googlenet" and variant == "released":
        model.transform_input = False
    vectors, batch = [], []
    with torch.inference_mode(), progress(total=n_images, desc=backbone, unit="image") as bar:
        for number, image in enumerate(images, start=1):
            batch.append(image)
            if len(batch) == BATCH_SIZE or number == n_images:
                inputs = normalize(resize(np.stack(batch), profile.feature_size_px)).to(device)
                vectors.append(model(inputs).float().cpu().numpy())
                bar.update(len(batch))
                batch = []
    return np.concatenate(vectors)
