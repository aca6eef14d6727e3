"""What the settings of a profile may be: names in their order, numbers in their ranges."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ruranet_utils.config import Profile

POSITIVE_INTEGERS = (
    "image_size_px",
    "threads",
    "workers",
    "n_seeds",
    "epochs",
    "patches_per_image",
    "patch_size_px",
    "patience",
    "batch_size",
    "classifier_epochs",
    "feature_size_px",
    "n_components",
    "dmh_epochs",
)
NUMBERS = ("lesion_patches", "learning_rate", "focal_alpha", "focal_gamma", "classifier_learning_rate", "dmh_lambda")


def ordered_names(key: str, value: str | Collection[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Names in the order of ``known``, so that the same set always gives the same run.

    Raises
    ------
    ValueError
        For no name or an unknown one, listing the valid ones.
    """
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"{key} must be names, got {value!r}; valid {key}: {', '.join(known)}")
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"unknown {key}: {unknown or value!r}; valid {key}: {', '.join(known)}")
    return tuple(name for name in known if name in names)


def check(profile: Profile, profiles: Collection[str]) -> None:
    """Refuse a profile of which a value is out of range.

    Parameters
    ----------
    profile : Profile
    profiles : collection of str
        Names of the profiles that may train its models.

    Raises
    ------
    ValueError
        Naming the setting, what it is and what it may be.
    """
    for key in POSITIVE_INTEGERS:
        value = getattr(profile, key)
        if type(value) is not int or value <= 0:
            raise ValueError(f"{key} must be a positive integer, got {value!r}")
    for key in NUMBERS:
        value = getattr(profile, key)
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"{key} must be a finite number >= 0, got {value!r}")
    if profile.encoder_depth not in (3, 4, 5):
        raise ValueError(f"encoder_depth must be 3, 4 or 5, got {profile.encoder_depth!r}")
    if type(profile.seed) is not int or profile.seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {profile.seed!r}")
    if type(profile.allow_random_weights) is not bool:
        raise ValueError(f"allow_random_weights must be True or False, got {profile.allow_random_weights!r}")
    for key in ("image_size_px", "patch_size_px"):
        if getattr(profile, key) % 32:
            raise ValueError(f"{key} must be a multiple of 32, got {getattr(profile, key)}")
    if profile.patch_size_px > profile.image_size_px:
        raise ValueError(
            f"patch_size_px ({profile.patch_size_px}) is larger than image_size_px ({profile.image_size_px})"
        )
    if profile.name == "folder" and not profile.data_dir:
        raise ValueError("the profile folder needs data_dir, the folder that holds images/ (docs/own_images.md)")
    if profile.name != "folder" and profile.data_dir:
        raise ValueError(f"data_dir belongs to the profile folder, not to {profile.name}")
    if profile.models not in profiles:
        raise ValueError(f"unknown profile {profile.models!r} in models; valid profiles: {', '.join(profiles)}")
    n_images = profile.n_images
    if n_images is not None and (type(n_images) is not int or n_images < 4 or n_images % 2):
        raise ValueError(f"n_images must be an even number >= 4 (half of each class), got {n_images!r}")
    if profile.lesion_patches > 1:
        raise ValueError(f"lesion_patches must be in [0, 1], got {profile.lesion_patches!r}")
    if profile.schedule not in ("constant", "one_cycle"):
        raise ValueError(f"schedule must be 'constant' or 'one_cycle', got {profile.schedule!r}")
    if profile.weights not in ("imagenet", "random"):
        raise ValueError(f"weights must be 'imagenet' or 'random', got {profile.weights!r}")
    if profile.instructions not in ("avx2", "native"):
        raise ValueError(f"instructions must be 'avx2' or 'native', got {profile.instructions!r}")
    if profile.precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be 'auto', 'float32' or 'bfloat16', got {profile.precision!r}")
    if profile.device not in ("cpu", "cuda", "auto"):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'auto', got {profile.device!r}")
    if len(profile.split) != 3 or abs(sum(profile.split) - 1) > 1e-9 or min(profile.split) <= 0:
        raise ValueError(f"split must be three positive fractions that add up to 1, got {profile.split!r}")
