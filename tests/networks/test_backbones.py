"""Networks: SCSE where the paper puts it, parameters from where they should come, nothing drawn behind our back.

Most networks are built on torch's "meta" device: names and shapes without any number, so that all of them fit.
"""

import json
import os
import re
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from ruranet_utils.networks import backbones, weights
from ruranet_utils.networks.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    as_float,
    classifier,
    feature_extractor,
    normalize,
    unet,
)
from ruranet_utils.networks.device import seeded
from ruranet_utils.networks.googlenet_bvlc import OriginalGoogLeNet, ResponseNorm
from ruranet_utils.networks.weights import WeightsNotFoundError, find_weights, pretrained, reference_backbone
from ruranet_utils.profiles import CLASSIFIERS, ENCODERS, EXTRACTORS, get_profile
from ruranet_utils.storage import paths
from ruranet_utils.storage.store import digest_file

DIMENSIONS = {
    "alexnet": 4096,
    "googlenet": 1024,
    "mobilenet_v2": 1280,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "vgg16": 4096,
    "vgg19": 4096,
}
REAL_WEIGHTS = paths.weights_dir() or paths.ROOT.parent / "shared" / "weights"
CONNECTED = get_profile("paper")  # asks for ImageNet weights and takes nothing else
PHOTOGRAPH = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No host answers, no folder of weights is set, and nothing is remembered."""

    def refuse(self, *args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", refuse)
    monkeypatch.delenv("RURANET_WEIGHTS_DIR", raising=False)
    weights._download.cache_clear()
    yield
    weights._download.cache_clear()


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory):
    """A folder that holds ``resnet18.pth``, drawn at random."""
    folder = tmp_path_factory.mktemp("weights")
    with seeded(99):
        torch.save(models.resnet18(weights=None).state_dict(), folder / "resnet18.pth")
    return folder


def published_state(backbone: str) -> dict:
    """Names and shapes of the parameters that torchvision's host gives out, in its naming."""
    with torch.device("meta"):
        options = {"aux_logits": True, "init_weights": False} if backbone == "googlenet" else {}
        state = models.get_model(backbone, weights=None, **options).state_dict()
    if backbone.startswith("densenet"):  # these files are older than the names and than the counters
        state = {re.sub(r"(layer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value for name, value in state.items()}
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    return state


def scse(features: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """Roy et al. 2018, Eq. 1 to 5, with the parameters of a module: U * s(W2 r(W1 z)) + U * s(W U)."""
    first, second = (layer for layer in module.cSE if isinstance(layer, nn.Conv2d))
    spatial = next(layer for layer in module.sSE if isinstance(layer, nn.Conv2d))
    squeezed = features.mean(dim=(2, 3))
    hidden = torch.clamp(squeezed @ first.weight[:, :, 0, 0].T + first.bias, min=0)
    channels = 1 / (1 + torch.exp(-(hidden @ second.weight[:, :, 0, 0].T + second.bias)))
    projection = torch.einsum("nchw,c->nhw", features, spatial.weight[0, :, 0, 0]) + spatial.bias
    pixels = 1 / (1 + torch.exp(-projection))
    return features * channels[:, :, None, None] + features * pixels[:, None]


def test_scse_recalibrates_the_concatenation_of_decoder_and_skip():
    model = unet("resnet18", "scse", 3, None, seed=0).eval()
    seen = {}
    for name, block in enumerate(model.decoder.blocks):
        block.attention1.register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: (*inputs, output)})
        )
    model.encoder.register_forward_hook(lambda _, inputs, output: seen.update(encoder=output))
    with torch.no_grad():
        model(normalize(PHOTOGRAPH))
        encoded, (features, recalibrated) = seen["encoder"], seen[0]
        skip, bottleneck = encoded[-2], encoded[-1]
        upsampled = functional.interpolate(bottleneck, scale_factor=2, mode="nearest")
        torch.testing.assert_close(features, torch.cat([upsampled, skip], dim=1))
        expected = scse(features, model.decoder.blocks[0].attention1.attention)
    torch.testing.assert_close(recalibrated, expected)
    assert (expected - features).abs().mean() > 1e-2
    assert sorted(key for key in seen if key != "encoder") == [0, 1]  # the last of three stages has no skip


def test_without_attention_there_is_none():
    with torch.device("meta"):
        plain, attended = (unet("resnet18", attention, 4, None, 0).state_dict() for attention in (None, "scse"))
    assert not [name for name in plain if "attention" in name]
    assert {name for name in attended if "attention" not in name} == set(plain)
    assert len(attended) > len(plain)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_takes_its_published_weights_and_gives_one_logit_per_pixel(encoder):
    state = published_state(encoder)
    names = list(state)
    for depth in (4, 5):
        with torch.device("meta"):
            model = unet(encoder, "scse", depth, state, seed=0)  # raises if a name or a shape does not fit
            assert model(torch.empty(2, 3, 64, 96)).shape == (2, 1, 64, 96)
    assert list(state) == names


@pytest.mark.parametrize("backbone", EXTRACTORS)
def test_every_extractor_takes_its_published_weights_and_gives_its_dimension(backbone):
    with torch.device("meta"):
        model = feature_extractor(backbone, published_state(backbone), seed=0)
        assert model(torch.empty(2, 3, 96, 96)).shape == (2, DIMENSIONS[backbone])
    assert not model.training


@pytest.mark.parametrize("backbone", CLASSIFIERS)
def test_every_classifier_gives_one_logit_also_in_training(backbone):
    with torch.device("meta"):
        model = classifier(backbone, published_state(backbone), seed=0).train()
        assert model(torch.empty(2, 3, 96, 96)).shape == (2, 1)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18"])
def test_features_are_what_the_last_linear_layer_saw(backbone):
    with seeded(5):
        whole = models.get_model(backbone, weights=None).eval()
    last = whole.fc if backbone == "resnet18" else whole.classifier[-1]
    extractor = feature_extractor(backbone, whole.state_dict(), seed=0)
    with torch.no_grad():
        logits = whole(PHOTOGRAPH)
        scale = logits.abs().max()  # without training MobileNet's features are as small as 1e-9
        torch.testing.assert_close(last(extractor(PHOTOGRAPH)) / scale, logits / scale)
        assert (logits[0] - logits[1]).abs().max() > 0.01 * scale


def test_only_googlenet_with_imagenet_weights_undoes_the_normalization():
    with torch.device("meta"):
        assert feature_extractor("googlenet", published_state("googlenet"), 0).transform_input
        assert classifier("googlenet", published_state("googlenet"), 0).transform_input
        assert not feature_extractor("googlenet", None, 0).transform_input


def test_weights_that_do_not_fit_are_refused():
    state = published_state("mobilenet_v2")
    with torch.device("meta"):
        with pytest.raises(ValueError, match="the weights do not fit resnet18"):
            feature_extractor("resnet18", state, 0)
        del state["features.0.0.weight"]
        with pytest.raises(ValueError, match=r"the weights do not fit mobilenet_v2: \['features.0.0.weight'\]"):
            classifier("mobilenet_v2", state, 0)


@pytest.mark.parametrize(
    "build",
    [
        lambda seed: unet("resnet18", "scse", 3, None, seed),
        lambda seed: classifier("mobilenet_v2", None, seed),
        lambda seed: feature_extractor("resnet18", None, seed),
    ],
    ids=["unet", "classifier", "extractor"],
)
def test_the_seed_decides_the_parameters_and_nothing_else_is_touched(build):
    before = torch.random.get_rng_state()
    first, again, other = (
        torch.cat([parameter.flatten() for parameter in build(seed).parameters()]) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_folder_of_weights_comes_first_and_its_parameters_arrive(resnet18_file, monkeypatch):
    monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(resnet18_file))
    saved = torch.load(resnet18_file / "resnet18.pth", weights_only=True)
    found = find_weights("resnet18", CONNECTED)
    state = found.load()
    networks = [
        unet("resnet18", "scse", 5, state, seed=0).encoder,
        classifier("resnet18", state, seed=0),
        feature_extractor("resnet18", state, seed=0),
    ]
    for network in networks:
        loaded = network.state_dict()
        body = [name for name in saved if not name.startswith("fc.")]
        assert all(torch.equal(loaded[name], saved[name]) for name in body)
    assert found.origin == "ImageNet" and found.digest == digest_file(resnet18_file / "resnet18.pth")


def test_without_a_file_torchvision_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    asked = []

    def download(self, progress, check_hash):
        asked.append(self)
        assert check_hash
        file = tmp_path / "hub" / "checkpoints" / self.url.split("/")[-1]
        file.parent.mkdir(parents=True)
        torch.save({"a": torch.ones(1)}, file)

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", download)
    for _ in range(2):
        assert find_weights("resnet50", CONNECTED).load() == {"a": torch.ones(1)}
    assert asked == [models.ResNet50_Weights.DEFAULT]


def test_other_weights_under_the_same_name_are_another_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(tmp_path))
    digests = []
    for number in range(3):
        torch.save({"a": torch.tensor(number // 2)}, tmp_path / "vgg16.pth")
        os.utime(tmp_path / "vgg16.pth", (number, number))
        digests.append(find_weights("vgg16", CONNECTED).digest)
    assert digests[0] == digests[1] != digests[2]
    assert find_weights("vgg16", replace(CONNECTED, weights="random")).digest == "random"


def test_the_reference_is_googlenet_or_what_has_weights(resnet18_file, monkeypatch):
    offline = replace(CONNECTED, allow_random_weights=True)
    with pytest.warns(UserWarning, match="starts from random weights"):
        assert reference_backbone(offline) == "googlenet"
        assert reference_backbone(replace(offline, extractors=("vgg19", "vgg16"))) == "vgg19"
        assert pretrained(["vgg16", "resnet18"], offline) == ["vgg16", "resnet18"], "none has any"
        monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(resnet18_file))
        assert reference_backbone(offline) == "resnet18"
        assert pretrained(["vgg16", "resnet18"], offline) == ["resnet18"]
    assert pretrained(["vgg16", "resnet18"], replace(offline, weights="random")) == ["vgg16", "resnet18"]


def test_missing_weights_are_named_with_the_folder(monkeypatch, tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"of vgg16: RURANET_WEIGHTS_DIR is not set.*no network.*vgg16\.pth"):
        find_weights("vgg16", CONNECTED)
    monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsNotFoundError, match=re.escape(f"not in RURANET_WEIGHTS_DIR ({tmp_path})")):
        find_weights("vgg16", CONNECTED)


def test_random_weights_only_where_allowed_or_asked_for(resnet18_file, monkeypatch):
    with pytest.warns(UserWarning, match=r"vgg16 starts from random weights: no ImageNet weights at hand .*no network"):
        assert find_weights("vgg16", replace(CONNECTED, allow_random_weights=True)).origin == "random"
    monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(resnet18_file))
    asked_for = find_weights("resnet18", replace(CONNECTED, weights="random"))
    assert asked_for.origin == "random" and asked_for.load() is None


def test_the_journal_says_what_networks_have_started_from(resnet18_file, monkeypatch, tmp_path):
    monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(resnet18_file))
    monkeypatch.setenv("RURANET_JOURNAL", str(tmp_path / "journal.jsonl"))
    digest = find_weights("resnet18", CONNECTED).digest
    find_weights("vgg16", replace(CONNECTED, weights="random"))
    assert [json.loads(line)["weights"] for line in (tmp_path / "journal.jsonl").read_text().splitlines()] == [
        {"resnet18": {"origin": "ImageNet", "sha256": digest}},
        {"vgg16": {"origin": "random", "sha256": "random"}},
    ]


def test_unknown_names_are_answered_with_the_valid_ones():
    for build, name, valid in (
        (lambda name: unet(name, None, 3, None, 0), "alexnet", ENCODERS),
        (lambda name: classifier(name, None, 0), "vgg16", CLASSIFIERS),
        (lambda name: feature_extractor(name, None, 0), "densenet121", EXTRACTORS),
    ):
        with pytest.raises(ValueError, match=f"unknown backbone '{name}'; valid: {', '.join(valid)}"):
            build(name)
    with pytest.raises(ValueError, match="unknown backbone 'lenet'; valid: alexnet, densenet121"):
        find_weights("lenet", CONNECTED)


def test_as_float():
    image = as_float(np.array([0, 51, 255], np.uint8))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, np.array([0, 0.2, 1], np.float32))


def test_normalization_by_hand():
    images = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) + torch.tensor([[[[0.0]]], [[[0.1]]]])
    expected = torch.tensor([[0, 0, 0], [0.1 / 0.229, 0.1 / 0.224, 0.1 / 0.225]])
    torch.testing.assert_close(normalize(images)[:, :, 0, 0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        normalize(PHOTOGRAPH), models.MobileNet_V2_Weights.DEFAULT.transforms(crop_size=64, resize_size=64)(PHOTOGRAPH)
    )


@pytest.mark.skipif(not (REAL_WEIGHTS / "mobilenet_v2.pth").is_file(), reason="no mobilenet_v2.pth at hand")
def test_real_weights_load_and_keep_the_scale(monkeypatch):
    monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(REAL_WEIGHTS))
    state = find_weights("mobilenet_v2", CONNECTED).load()
    with torch.no_grad():
        features = feature_extractor("mobilenet_v2", state, seed=0)(normalize(PHOTOGRAPH))
        stages = unet("mobilenet_v2", "scse", 5, state, seed=0).eval().encoder(normalize(PHOTOGRAPH))
    assert features.shape == (2, 1280) and 0.05 < features.std() < 5
    assert all(0.05 < stage.std() < 10 for stage in stages[1:])
    torch.testing.assert_close(functional.adaptive_avg_pool2d(stages[-1], 1).flatten(1), features)


@pytest.mark.parametrize("encoder", ["resnet18", "vgg16", "mobilenet_v2", "densenet121"])
def test_layers_that_the_depth_leaves_out_hold_no_parameters(encoder, monkeypatch):
    images = torch.rand(1, 3, 64, 64)
    network = backbones.unet(encoder, "scse", 3, None, seed=0)
    assert network.training
    found = network.eval()(images)
    monkeypatch.setattr(backbones, "_drop_unreached", lambda encoder: None)
    whole = backbones.unet(encoder, "scse", 3, None, seed=0).eval()
    torch.testing.assert_close(found, whole(images), rtol=0, atol=0)
    counts = [sum(parameter.numel() for parameter in one.parameters()) for one in (network, whole)]
    assert counts[0] < 0.7 * counts[1]


def bvlc_logits(images: torch.Tensor, state: dict) -> torch.Tensor:
    """The network of Szegedy et al. 2015, Table 1, function by function, from RGB in [0, 1]."""

    def conv(x, name, **options):
        return functional.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], **options).relu()

    def pool(x):
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    def normalized(x):  # Krizhevsky et al. 2012, Section 3.3, the sum written out
        squares = functional.pad(x**2, (0, 0, 0, 0, 2, 2))
        sums = sum(squares[:, place : place + x.shape[1]] for place in range(5))
        return x / (1 + 1e-4 / 5 * sums) ** 0.75

    def inception(x, name):
        one = conv(x, f"{name}.branch1")
        three = conv(conv(x, f"{name}.branch2.0"), f"{name}.branch2.1", padding=1)
        five = conv(conv(x, f"{name}.branch3.0"), f"{name}.branch3.1", padding=2)
        pooled = conv(functional.max_pool2d(x, 3, 1, 1, ceil_mode=True), f"{name}.branch4.1")
        return torch.cat([one, three, five, pooled], 1)

    x = 255 * images[:, [2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    x = normalized(pool(conv(x, "conv1", stride=2, padding=3)))
    x = pool(normalized(conv(conv(x, "conv2"), "conv3", padding=1)))
    x = pool(inception(inception(x, "inception3a"), "inception3b"))
    for letter in "abcde":
        x = inception(x, f"inception4{letter}")
    x = inception(inception(pool(x), "inception5a"), "inception5b")
    return x.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def test_response_normalization_and_its_gradient_are_those_of_torch():
    with seeded(0):
        x = (50 * torch.randn(2, 64, 7, 9)).requires_grad_()
        upstream = torch.randn_like(x)
    ours, torchs = ResponseNorm(64)(x), torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)(x)
    torch.testing.assert_close(ours, torchs)
    gradients = [torch.autograd.grad(y, x, upstream)[0] for y in (ours, torchs)]
    torch.testing.assert_close(*gradients)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ResponseNorm(64)(x), torchs)  # squares in bfloat16 would be off by a hundredth


def test_the_googlenet_of_2015_is_that_of_its_paper(tmp_path, monkeypatch):
    with seeded(0):
        drawn = OriginalGoogLeNet(IMAGENET_MEAN, IMAGENET_STD).state_dict()
        state = {
            name: torch.randn_like(x) * (2 / x[0].numel()) ** 0.5 if x.dim() > 1 else x for name, x in drawn.items()
        }
        images = torch.rand(2, 3, 96, 128)
    assert sum(x.numel() for name, x in state.items() if not name.startswith("fc.")) == 5_973_552
    model = OriginalGoogLeNet(IMAGENET_MEAN, IMAGENET_STD).eval()
    model.load_state_dict(state)
    with torch.inference_mode():
        found, expected = model(normalize(images)), bvlc_logits(images, state)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    torch.save({name: x for name, x in state.items() if not name.startswith("fc.")}, tmp_path / "googlenet_bvlc.pth")
    monkeypatch.setenv("RURANET_WEIGHTS_DIR", str(tmp_path))
    weights_found = find_weights("googlenet", CONNECTED)
    assert weights_found.origin == "ImageNet (BVLC)"
    with pytest.warns(UserWarning, match="starts from random weights"):
        assert reference_backbone(replace(CONNECTED, allow_random_weights=True)) == "googlenet"
    extractor = feature_extractor("googlenet", weights_found.load(), 0)
    with torch.inference_mode():
        features = extractor(normalize(images))
    logits = features @ state["fc.weight"].T + state["fc.bias"]
    assert features.shape == (2, 1024) and (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    extractor.transform_input = False  # what the variant of the released code switches off is torchvision's
    with torch.inference_mode():
        assert torch.equal(extractor(normalize(images)), features)
    assert isinstance(classifier("googlenet", weights_found.load(), 0), OriginalGoogLeNet)
