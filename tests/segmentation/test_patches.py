"""What the U-Nets are fed: where patches lie, how they are turned and colored, and that masks follow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ruranet_utils.networks.backbones import IMAGENET_MEAN, IMAGENET_STD
from ruranet_utils.segmentation import patches as patches_module
from ruranet_utils.segmentation.patches import (
    GAIN,
    MISTAKEN_PATCHES,
    SCALE,
    SHIFT,
    UNKNOWN,
    Annotated,
    FullImages,
    JointPatches,
    Patches,
    image_batches,
)

OPTIONS = {"patch_size_px": 32, "patches_per_image": 3, "batch_size": 4, "lesion_patches": 0.5, "seed": 0}


def denormalize(images: torch.Tensor) -> np.ndarray:
    """Images in [0, 1] again, channels last."""
    return images.permute(0, 2, 3, 1).numpy() * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)


def annotated(images, masks, aspect=1.0) -> Annotated:
    return Annotated(images.astype(np.uint8), masks[:, None], np.full(len(images), aspect))


def blank(masks, level=0, **options) -> Annotated:
    return annotated(np.full((len(masks), 3, *masks.shape[1:]), level), masks, **options)


@pytest.fixture
def blocks():
    """Five masks of coarse noise of different density; the images show them in red and their inverse in blue."""
    coarse = np.random.default_rng(0).random((5, 8, 12)) < np.linspace(0.1, 0.5, 5)[:, None, None]
    masks = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return annotated(np.stack([masks * 255, masks * 0, ~masks * 255], axis=1), masks)


def drawn(data, **options) -> list[torch.Tensor]:
    return [torch.cat(part) for part in zip(*Patches(data, **OPTIONS | options), strict=True)]


def test_patches_have_the_announced_shapes_and_number(blocks):
    patches = Patches(blocks, **OPTIONS)
    batches = list(patches)
    assert len(batches) == len(patches) == 3
    assert sum(len(images) for images, _ in batches) == 15 and {len(images) for images, _ in batches} == {5}
    for images, masks in batches:
        assert images.shape == (len(images), 3, 32, 32) and masks.shape == (len(images), 1, 32, 32)
        assert images.dtype == masks.dtype == torch.float32
        assert set(masks.unique().tolist()) <= {0.0, 1.0}


def test_masks_stay_on_their_images_however_a_patch_is_turned(blocks):
    images, masks = drawn(replace(blocks, aspect=np.full(5, 1.5)), patches_per_image=8)
    red, _, blue = np.moveaxis(denormalize(images), -1, 0)
    lesion = masks[:, 0].numpy() == 1
    assert lesion[(red > 0.7) & (blue < 0.3)].all() and not lesion[(blue > 0.7) & (red < 0.3)].any()
    assert ((red > 0.7) ^ (blue > 0.7)).mean() > 0.6


def test_a_patch_is_what_a_loop_over_its_pixels_finds(blocks):
    patches = Patches(replace(blocks, aspect=np.full(5, 1.4)), **OPTIONS)
    rng = np.random.default_rng(0)
    maps = np.stack([patches._map(row, patches._lesion_px[row][0] if row % 2 else None, rng) for row in range(5)])
    _, masks = patches._cut(np.arange(5), maps, rng)
    for row, matrix in enumerate(maps):
        for i, j in np.ndindex(32, 32):
            x, y = matrix @ [(2 * j + 1) / 32 - 1, (2 * i + 1) / 32 - 1, 1]
            column, line = ((x + 1) * 96 - 1) / 2, ((y + 1) * 64 - 1) / 2
            if max(abs(column % 1 - 0.5), abs(line % 1 - 0.5)) > 0.01:  # nearest is clear
                inside = -0.5 < line < 63.5 and -0.5 < column < 95.5
                assert masks[row, 0, i, j] == (blocks.masks[row, 0, round(line), round(column)] if inside else 0)


def test_patches_are_turned_as_the_eye_turns(monkeypatch):
    """A disc in an eye that was made square from 3:2 stays the ellipse it is there, and all sizes occur."""
    monkeypatch.setattr(patches_module, "JITTER", 0)
    y, x = np.mgrid[:96, :96] - 47.5
    disc = ((x * 1.5) ** 2 + y**2 < 15**2)[None]
    _, masks = drawn(blank(disc, aspect=1.5), patch_size_px=96, patches_per_image=60, lesion_patches=1.0)
    ratios, areas = [], []
    for mask in masks[:, 0].numpy():
        rows, columns = np.nonzero(mask)
        ratios.append(rows.std() / columns.std())
        areas.append(len(rows) / disc.sum())
    assert np.allclose(ratios, 1.5, atol=0.1)
    assert np.exp(-2 * SCALE) * 0.95 < min(areas) < 0.75 and 1.3 < max(areas) < np.exp(2 * SCALE) * 1.05


def test_patches_lie_inside_but_for_their_turned_corners():
    images, _ = drawn(blank(np.zeros((4, 96, 96), bool), level=255), patches_per_image=40)
    inside = denormalize(images).min(axis=-1) > 1 - GAIN - SHIFT - 1e-5
    y, x = np.mgrid[:32, :32] - 15.5
    assert inside[:, x**2 + y**2 < 15**2].all() and not inside.all()


def test_color_varies_by_channel_and_stays_in_range():
    images, _ = drawn(blank(np.zeros((60, 96, 96), bool), level=128), patches_per_image=1)
    colors = denormalize(images)[:, 16, 16]
    assert 0.502 * (1 - GAIN) - SHIFT < colors.min() < 0.4 and 0.6 < colors.max() < 0.502 * (1 + GAIN) + SHIFT
    assert (colors.std(axis=0) > 0.04).all() and colors.std(axis=1).mean() > 0.03
    images, _ = drawn(blank(np.zeros((60, 96, 96), bool), level=255))
    assert denormalize(images).max() == pytest.approx(1, abs=1e-5)


def test_patches_depend_on_seed_and_epoch_alone(blocks):
    patches = Patches(blocks, **OPTIONS)
    rounds = [[torch.cat(part) for part in zip(*patches, strict=True)] for _ in range(3)]
    assert patches.epoch == 3
    second, other = drawn(blocks, epoch=1), drawn(blocks, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(rounds[1], second, strict=True))
    for a, b in [(rounds[0], rounds[1]), (rounds[1], rounds[2]), (rounds[0], other)]:
        assert not torch.equal(a[1], b[1])


@pytest.mark.parametrize("site", [(0, 32), (31, 63), (40, 20), (63, 30)])
def test_lesion_patches_decides_how_many_patches_show_a_lesion(site):
    masks = np.zeros((1, 64, 64), bool)
    masks[0, max(0, site[0] - 2) : site[0] + 3, max(0, site[1] - 2) : site[1] + 3] = True

    def shown(share):
        _, drawn_masks = drawn(blank(masks), patches_per_image=200, lesion_patches=share)
        return drawn_masks.any(dim=-1).any(dim=-1).float().mean().item()

    assert shown(1.0) > 0.8  # a turned patch may miss it by a corner
    assert shown(0.0) + 0.2 < shown(0.6) < shown(1.0) - 0.1


def test_a_rare_lesion_is_shown_as_often_as_a_common_one():
    """One image in eight shows the lesion, near which 60 % of all patches lie; the others lie on any image."""
    masks = np.zeros((8, 64, 64), bool)
    masks[2, 28:36, 28:36] = True
    images = masks[:, None].any(axis=(2, 3), keepdims=True) * np.full((8, 3, 64, 64), 200)  # the rest is black
    images, drawn_masks = drawn(annotated(images, masks), patches_per_image=50, lesion_patches=0.6, patch_size_px=64)
    assert drawn_masks.any(dim=-1).any(dim=-1).float().mean().item() == pytest.approx(0.6 + 0.4 / 8, abs=0.06)
    assert (denormalize(images).max(axis=(1, 2, 3)) > 0.5).mean() == pytest.approx(0.6 + 0.4 / 8, abs=0.06)


def test_images_without_a_lesion_give_patches_too():
    images, masks = drawn(blank(np.zeros((2, 64, 64), bool)), patches_per_image=1, lesion_patches=1.0)
    assert images.shape == (2, 3, 32, 32) and not masks.any()


JOINT = OPTIONS | {"lesion_draw": (0.2, 0.8), "healthy_patches": 0.25, "batch_size": 8, "patches_per_image": 200}


@pytest.fixture
def colored():
    """Red images show the first lesion everywhere, green ones the second, blue ones none and were not asked for it."""
    images = np.zeros((4, 3, 64, 64), np.uint8)
    images[0, 0], images[1:3, 1], images[3, 2] = 200, 200, 200
    masks = np.zeros((4, 2, 64, 64), bool)
    masks[0, 0], masks[1:3, 1] = True, True
    known = np.array([[True, True], [True, True], [False, True], [True, False]])
    return Annotated(images, masks, np.ones(4), known)


def test_joint_patches_draw_the_lesion_first_and_healthy_eyes_as_often_as_asked(colored):
    patches = JointPatches(colored, **JOINT | {"lesion_patches": 1.0})
    batches = list(patches)
    assert len(batches) == len(patches) == 3 * 200 // 8 and {len(images) for images, _ in batches} == {8}
    images, masks = (torch.cat(part) for part in zip(*batches, strict=True))
    color = denormalize(images).max(axis=(1, 2)).argmax(axis=-1)
    shares = np.bincount(color) / len(color)
    np.testing.assert_allclose(shares, [0.75 * 0.2, 0.75 * 0.8, 0.25], atol=0.06)
    assert ((masks[color == 0, 0] == 1).float().mean() > 0.9) and ((masks[color == 1, 1] == 1).float().mean() > 0.9)


def test_joint_patches_mark_what_nobody_looked_for(colored):
    patches = JointPatches(colored, **JOINT)
    _, masks = patches._cut(np.arange(4), np.tile(np.eye(2, 3), (4, 1, 1)), np.random.default_rng(0))
    middle = masks[:, :, 16, 16].numpy()
    np.testing.assert_array_equal(middle, [[1, 0], [0, 1], [UNKNOWN, 1], [0, UNKNOWN]])


def test_joint_patches_lie_near_the_lesion_that_was_drawn():
    masks = np.zeros((1, 2, 96, 96), bool)
    masks[0, 0, 20:24, 20:24], masks[0, 1, 70:74, 70:74] = True, True
    data = Annotated(np.full((1, 3, 96, 96), 90, np.uint8), masks, np.ones(1))
    _, found = (torch.cat(part) for part in zip(*JointPatches(data, **JOINT | {"lesion_patches": 1.0}), strict=True))
    shown = found.any(dim=-1).any(dim=-1).float().mean(dim=0).numpy()
    np.testing.assert_allclose(shown, [0.2, 0.8], atol=0.15)


def test_healthy_patches_lie_near_what_was_mistaken_for_a_lesion():
    """Two healthy images, of which the second has a mistaken pixel; it is bright there."""
    images = np.zeros((3, 3, 96, 96), np.uint8)
    images[2, :, 70:75, 70:75] = 255
    masks = np.zeros((3, 1, 96, 96), bool)
    masks[0, 0, :4] = True
    options = JOINT | {"lesion_draw": (1.0,), "healthy_patches": 0.9}
    mistaken = [np.zeros((0, 2), int), np.array([[72, 72]])]
    for given, share in (
        (mistaken, 0.9 * (MISTAKEN_PATCHES + (1 - MISTAKEN_PATCHES) / 2 * 0.15)),
        ([], 0.9 / 2 * 0.15),
    ):
        drawn_images, _ = zip(
            *JointPatches(Annotated(images, masks, np.ones(3)), **options, mistaken=given), strict=True
        )
        bright = (denormalize(torch.cat(drawn_images)).max(axis=(1, 2, 3)) > 0.3).mean()
        assert bright == pytest.approx(share, abs=0.15)


def test_full_images_come_whole_and_in_order(blocks):
    batches = FullImages(blocks)
    ((images, masks),) = batches
    assert len(batches) == 1 and images.shape == (5, 3, 64, 96) and masks.shape == (5, 1, 64, 96)
    np.testing.assert_allclose(denormalize(images) * 255, blocks.images.transpose(0, 2, 3, 1), atol=1e-3)
    np.testing.assert_array_equal(masks, blocks.masks)


@pytest.mark.parametrize(
    ("n", "side_px", "sizes"), [(5, 512, [1] * 5), (3, 1024, [1] * 3), (9, 256, [4, 4, 1]), (0, 64, [])]
)
def test_as_many_images_go_together_as_fit_into_512_by_512_pixels(n, side_px, sizes):
    images = np.broadcast_to(np.uint8(0), (n, 3, side_px, side_px))
    assert [len(images[rows]) for rows in image_batches(images)] == sizes
