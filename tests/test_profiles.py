"""Profiles: what they refuse, what they leave alone, and that equal settings look equal."""

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from ruranet_utils.profiles import (
    ANNOTATIONS,
    CLASSIFIERS,
    DISPLAY,
    ENCODERS,
    EXTRACTORS,
    METHODS,
    PROFILES,
    Profile,
    get_profile,
)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_passes_its_own_checks_and_none_changes_nothing(name):
    nothing = {field.name: None for field in fields(Profile) if field.name != "name"}
    if name == "folder":
        nothing["data_dir"] = "photographs"
        assert get_profile(name, **nothing) == replace(PROFILES[name], data_dir="photographs")
        return
    assert get_profile(name) == PROFILES[name] == get_profile(name, **nothing)
    assert get_profile(name).name == name


def test_an_override_changes_its_field_alone():
    changed = get_profile("open", seed=7)
    assert changed.seed == 7 and PROFILES["open"].seed == 0
    assert get_profile("open") == get_profile(**{**changed.settings(*changed.__dataclass_fields__), "seed": 0})


def test_a_profile_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        get_profile().seed = 1


@pytest.mark.parametrize(
    "given",
    ["vgg16,resnet18", " vgg16 , resnet18 ", ["vgg16", "resnet18"], ("resnet18", "vgg16"), "resnet18,vgg16,resnet18"],
)
def test_the_same_backbones_give_the_same_profile_however_they_are_written(given):
    assert get_profile(extractors=given).extractors == ("resnet18", "vgg16")


def test_unknown_names_are_answered_with_the_valid_ones():
    with pytest.raises(ValueError, match="unknown profile 'fast'; valid profiles: synthetic, open, paper, folder"):
        get_profile("fast")
    with pytest.raises(
        ValueError,
        match=r"unknown parameter epoch, sed; valid parameters: seed, data_dir, .*dmh_lambda",
    ):
        get_profile("open", sed=1, epoch=2)
    with pytest.raises(ValueError, match=rf"unknown encoders: \['alexnet'\]; valid encoders: {', '.join(ENCODERS)}"):
        get_profile(encoders="resnet18,alexnet")
    with pytest.raises(ValueError, match=r"unknown classifiers: .*vgg16.*; valid classifiers: alexnet, googlenet"):
        get_profile(classifiers=["vgg16"])
    with pytest.raises(ValueError, match="valid extractors: alexnet"):
        get_profile(extractors=[])
    with pytest.raises(ValueError, match="valid encoders"):
        get_profile(encoders="")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", -1, "seed must be an integer >= 0, got -1"),
        ("seed", "0", "seed must be an integer >= 0, got '0'"),
        ("n_images", 7, "even number >= 4"),
        ("n_images", 2, "even number >= 4 .*got 2"),
        ("image_size_px", 100, "image_size_px must be a multiple of 8, got 100"),
        ("image_size_px", 96.0, "image_size_px must be a positive integer, got 96.0"),
        ("patch_size_px", 36, "patch_size_px must be a multiple of 8, got 36"),
        ("patch_size_px", 128, r"patch_size_px \(128\) is larger than image_size_px \(64\)"),
        ("epochs", 0, "epochs must be a positive integer, got 0"),
        ("epochs", True, "epochs must be a positive integer, got True"),
        ("learning_rate", "1e-3", "learning_rate must be a finite number >= 0, got '1e-3'"),
        ("learning_rate", float("nan"), "learning_rate must be a finite number >= 0, got nan"),
        ("focal_alpha", "x", "focal_alpha must be a finite number >= 0, got 'x'"),
        ("allow_random_weights", "no", "allow_random_weights must be True or False, got 'no'"),
        ("n_images", "4", "n_images must be an even number >= 4"),
        ("encoders", 7, "encoders must be names, got 7"),
        ("batch_size", -8, "batch_size must be a positive integer, got -8"),
        ("encoder_depth", 6, "encoder_depth must be 3, 4 or 5, got 6"),
        ("lesion_patches", 1.1, r"lesion_patches must be in \[0, 1\], got 1.1"),
        ("schedule", "cosine", "schedule must be 'constant' or 'one_cycle', got 'cosine'"),
        ("weights", "coco", "weights must be 'imagenet' or 'random', got 'coco'"),
        ("precision", "float16", "precision must be 'auto', 'float32' or 'bfloat16', got 'float16'"),
        ("instructions", "sse", "instructions must be 'avx2' or 'native', got 'sse'"),
        ("n_seeds", 0, "n_seeds must be a positive integer, got 0"),
        ("device", "tpu", "device must be 'cpu', 'cuda' or 'auto', got 'tpu'"),
        ("split", 0.8, "split must be a list of numbers, got 0.8"),
        ("lesion_draw", "0.2", "lesion_draw must be a list of numbers, got '0.2'"),
        ("split", (0.5, 0.5), "split must be three positive fractions"),
        ("split", (0.8, 0.2, 0.2), "split must be three positive fractions"),
        ("split", (0.9, 0.1, 0.0), "split must be three positive fractions"),
        ("split", [0.9, 0.2, 0.1], "split must be three positive fractions"),
        ("revised_epochs", -1, "revised_epochs must be an integer >= 0, got -1"),
        ("n_folds", 2, "n_folds must be at least 3, got 2"),
        ("max_mask_share", 0, r"max_mask_share must be in \(0, 1\], got 0"),
        ("negatives", "all", "negatives must be 'graded' or 'assumed', got 'all'"),
        ("masks", "both", "masks must be 'per_lesion' or 'joint', got 'both'"),
        ("lesion_draw", (0.5, 0.5), r"lesion_draw must be 5 positive numbers, got \(0.5, 0.5\)"),
        ("healthy_patches", 1, "healthy_patches and weight_average must be below 1, got 1 and"),
    ],
)
def test_values_out_of_range_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        get_profile(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", 0), ("n_images", 4), ("lesion_patches", 0), ("lesion_patches", 1.0), ("patch_size_px", 64)],
)
def test_values_at_the_edge_of_the_range_are_taken(field, value):
    assert getattr(get_profile(**{field: value}), field) == value


def test_settings_are_the_fields_asked_for():
    assert get_profile(seed=3).settings("seed", "encoder_depth") == {"seed": 3, "encoder_depth": 3}
    with pytest.raises(KeyError):
        get_profile().settings("sed")


def test_every_name_has_its_name_for_readers():
    names = {*ANNOTATIONS, *ENCODERS, *CLASSIFIERS, *EXTRACTORS, *METHODS, "optic_disc"}
    assert names == set(DISPLAY)
    assert len(set(DISPLAY.values())) == len(DISPLAY)
