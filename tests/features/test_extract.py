"""Masked-image features: one vector for every image and lesion, none of them moved to another row."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ruranet_utils.features import extract
from ruranet_utils.features.extract import BATCH_SIZE, image_features, lesion_features, resize
from ruranet_utils.networks.backbones import IMAGENET_MEAN, IMAGENET_STD, feature_extractor
from ruranet_utils.profiles import LESIONS

BACKBONE = "mobilenet_v2"


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, size=(6, 3, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def masks():
    """Rectangles; the second image has no lesion at all, the last one no third lesion."""
    rng, masks = np.random.default_rng(1), np.zeros((6, len(LESIONS), 64, 64), bool)
    for mask in masks.reshape(-1, 64, 64):
        top, left = rng.integers(0, 40, 2)
        mask[top : top + 20, left : left + 24] = True
    masks[1] = masks[5, 2] = False
    assert masks.any(axis=(2, 3)).sum() > BATCH_SIZE
    return masks


def slow_feature(image: np.ndarray, mask: np.ndarray, profile) -> np.ndarray:
    """One image alone: masked at full size, scaled by Pillow, normalized channel by channel."""
    side, channels = profile.feature_size_px, []
    for channel, mean, std in zip(image, IMAGENET_MEAN, IMAGENET_STD, strict=True):
        masked = Image.fromarray(np.where(mask, channel / 255, 0).astype(np.float32))
        scaled = np.asarray(masked.resize((side, side), Image.Resampling.BILINEAR))
        channels.append((scaled - mean) / std)
    model = feature_extractor(BACKBONE, None, profile.seed)
    with torch.no_grad():
        return model(torch.from_numpy(np.stack(channels)[None].astype(np.float32)))[0].numpy()


def test_features_are_those_of_each_masked_image_alone(images, masks, tiny, store):
    vectors = lesion_features(images, masks, [BACKBONE], tiny, store)[BACKBONE]
    assert vectors.shape == (6, len(LESIONS), 1280) and vectors.dtype == np.float32
    scale = vectors.std(axis=(0, 1)).mean()
    for row, lesion in [(0, 0), (0, 3), (3, 2), (5, 1), (5, 3), (1, 0), (5, 2)]:
        expected = slow_feature(images[row], masks[row, lesion], tiny)
        np.testing.assert_allclose(vectors[row, lesion], expected, atol=0.01 * scale)
    assert np.abs(vectors[0, 0] - vectors[0, 1]).mean() > 0.1 * scale


def assert_same_features(one, other):
    """Equal but for rounding, which depends on the batch; measured by the features, which are tiny without training."""
    assert np.abs(one - other).max() < 1e-3 * np.abs(other).max()


def test_an_empty_mask_gives_the_feature_of_the_black_image(images, masks, tiny, store):
    vectors = lesion_features(images, masks, [BACKBONE], tiny, store)[BACKBONE]
    black = image_features(np.zeros_like(images[:1]), BACKBONE, tiny, store)[0]
    assert_same_features(vectors[1], np.tile(black, (len(LESIONS), 1)))
    assert_same_features(vectors[5, 2], black)
    assert np.abs(vectors[5, 3] - black).max() > 0.01 * np.abs(black).max()
    nothing = lesion_features(images, np.zeros_like(masks), [BACKBONE], tiny, store)[BACKBONE]
    assert_same_features(nothing, np.broadcast_to(black, nothing.shape))


def test_a_full_mask_gives_the_feature_of_the_image(images, tiny, store):
    everywhere = np.ones((6, 1, 64, 64), bool)
    vectors = lesion_features(images, everywhere, [BACKBONE], tiny, store)[BACKBONE]
    assert_same_features(vectors[:, 0], image_features(images, BACKBONE, tiny, store))


def test_the_order_of_images_does_not_matter(images, masks, tiny, store):
    order = np.array([5, 2, 0, 4, 1, 3])
    vectors = lesion_features(images, masks, [BACKBONE], tiny, store)[BACKBONE]
    permuted = lesion_features(images[order], masks[order], [BACKBONE], tiny, store)[BACKBONE]
    assert_same_features(permuted, vectors[order])


def test_features_are_computed_once_for_each_input_and_setting(images, masks, tiny, store, journal):
    def ask(images=images, masks=masks, profile=tiny, backbone=BACKBONE):
        lesion_features(images[:2], masks[:2], [backbone], profile, store)
        return [event["found"] for event in journal()]

    other = masks.copy()
    other[0, 0, 0, 0] ^= True
    assert ask() == [False]
    assert ask() == [True]
    assert ask(images=images ^ 1) == ask(masks=other) == [False]
    assert ask(profile=replace(tiny, feature_size_px=64)) == ask(profile=replace(tiny, seed=1)) == [False]
    assert ask(profile=replace(tiny, epochs=9, n_components=3)) == [True]


def test_images_and_masks_must_fit(images, masks, tiny, store):
    with pytest.raises(ValueError, match=r"\(6, 3, 64, 64\) do not fit masks of shape \(5, 4, 64, 64\)"):
        lesion_features(images, masks[:5], [BACKBONE], tiny, store)
    with pytest.raises(ValueError, match=r"do not fit masks of shape \(6, 4, 32, 64\)"):
        lesion_features(images, masks[:, :, ::2], [BACKBONE], tiny, store)


@pytest.mark.parametrize("size_px", [16, 40, 64, 100])
def test_resize_agrees_with_pillow(images, size_px):
    scaled = resize(images[:1], size_px)
    assert scaled.shape == (1, 3, size_px, size_px) and scaled.dtype == torch.float32
    for channel, expected in zip(scaled[0].numpy(), images[0], strict=True):
        picture = Image.fromarray(expected.astype(np.float32))
        expected = np.asarray(picture.resize((size_px, size_px), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(channel * 255, expected, atol=0.01)


def test_image_features_come_in_batches_without_loss(tiny, store, monkeypatch):
    images = np.random.default_rng(2).integers(0, 256, size=(5, 3, 64, 64), dtype=np.uint8)
    whole = image_features(images, BACKBONE, tiny, store)
    monkeypatch.setattr(extract, "BATCH_SIZE", 2)
    parts = extract._extract(iter(images), 5, BACKBONE, tiny)
    assert whole.shape == (5, 1280)
    assert_same_features(parts, whole)


def test_googlenet_of_the_released_code_is_not_transformed(images, masks, tiny, store, monkeypatch):
    """With ImageNet's parameters torchvision undoes the normalization; the released cut of the network does not."""
    plain = lesion_features(images, masks, ["googlenet"], tiny, store)["googlenet"]

    def with_transform(backbone, state, seed):
        model = feature_extractor(backbone, state, seed)
        model.transform_input = True  # as with ImageNet's parameters
        return model

    monkeypatch.setattr(extract, "feature_extractor", with_transform)
    usual, released = (
        lesion_features(images[::-1], masks[::-1], ["googlenet"], tiny, store, variant=variant)["googlenet"][::-1]
        for variant in ("default", "released")
    )
    scale = np.abs(plain).max()  # tiny: the parameters are random
    assert np.abs(released - plain).max() < 1e-3 * scale  # random parameters are not transformed
    assert np.abs(usual - plain).max() > 1e-2 * scale
    with pytest.raises(ValueError, match="unknown variant 'paper'; valid variants: default, released"):
        lesion_features(images, masks, ["googlenet"], tiny, store, variant="paper")
