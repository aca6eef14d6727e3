"""SCSE as the paper describes it, found in the actual U-Nets, and which of their parameters never learn."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from ruranet_utils.profiles import DISPLAY, ENCODERS, LESIONS
from ruranet_utils.reporting.diagrams import attention_maps, draw_clustering, draw_scse, layers
from ruranet_utils.segmentation.unet import build


@pytest.fixture(scope="module")
def paper(tiny):
    """The profile with the paper's five stages."""
    return replace(tiny, encoder_depth=5)


@pytest.fixture(scope="module")
def model(paper):
    return build("resnet18", "scse", paper).eval()


def scse_by_hand(encoder, decoder, weights):
    """The paper's three steps (Section 2.1) in plain NumPy, for features of shape (channels, h, w)."""
    together = np.concatenate([decoder, encoder])  # 1) F_cat
    n_channels = len(together)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    # 2) channel attention C, from the mean of each channel, and spatial attention S, from all channels of a pixel
    squeezed = together.mean(axis=(1, 2))
    hidden = np.maximum(weights["cSE.1.weight"][:, :, 0, 0] @ squeezed + weights["cSE.1.bias"], 0)
    channel = sigmoid(weights["cSE.3.weight"][:, :, 0, 0] @ hidden + weights["cSE.3.bias"])
    spatial = np.empty(together.shape[1:])
    for place in np.ndindex(spatial.shape):
        of_pixel = sum(weights["sSE.0.weight"][0, c, 0, 0] * together[(c, *place)] for c in range(n_channels))
        spatial[place] = sigmoid(of_pixel + weights["sSE.0.bias"][0])
    # 3) recalibrate
    return together * channel[:, None, None] + together * spatial, channel, spatial


def test_scse_is_the_papers_three_steps(model):
    module = model.decoder.blocks[3].attention1.attention
    weights = {name: value.detach().double().numpy() for name, value in module.named_parameters()}
    n_channels = module.sSE[0].in_channels
    rng = np.random.default_rng(0)
    encoder, decoder = rng.normal(size=(2, n_channels // 2, 5, 6))
    expected, _, _ = scse_by_hand(encoder, decoder, weights)
    together = torch.tensor(np.concatenate([decoder, encoder])[None], dtype=torch.float32)
    with torch.no_grad():
        np.testing.assert_allclose(module(together)[0].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "vgg16", "densenet121"])
def test_scse_sits_on_the_concatenated_skip_before_the_convolutions(encoder, paper):
    model = build(encoder, "scse", paper)
    seen = {}

    def remember(name):
        return lambda module, inputs: seen.setdefault(name, inputs[0].detach())

    for stage, block in enumerate(model.decoder.blocks):
        block.register_forward_pre_hook(lambda module, inputs, stage=stage: seen.setdefault(f"in {stage}", inputs))
        for part in ("attention1", "conv1"):
            getattr(block, part).register_forward_pre_hook(remember(f"{part} {stage}"))
    features = model.encoder(torch.rand(1, 3, 64, 64))
    model.decoder(features)
    skips = features[1:][::-1][1:]
    for stage, skip in enumerate(skips):
        catenated = seen[f"attention1 {stage}"]
        assert catenated.shape[1] == seen[f"in {stage}"][0].shape[1] + skip.shape[1]
        assert torch.equal(catenated[:, -skip.shape[1] :], skip)
        attended = model.decoder.blocks[stage].attention1(catenated)
        assert torch.equal(attended, seen[f"conv1 {stage}"])
    assert f"attention1 {len(skips)}" not in seen


@pytest.mark.parametrize("encoder", ENCODERS)
def test_only_the_last_attention_before_a_convolution_never_learns(encoder, paper):
    with torch.device("meta"):  # which parameters have a gradient, without computing one
        model = build(encoder, "scse", paper)
        model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    last = {name for name, _ in model.named_parameters() if name.startswith("decoder.blocks.4.attention1.")}
    assert without == last and len(last) == 6


def test_without_attention_every_parameter_learns(paper):
    model = build("resnet18", None, paper)
    model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_layers_are_those_of_the_model_in_the_order_of_the_data(model):
    table = layers(model, 64).set_index("layer")
    assert table["parameters"][~table["kind"].eq("SCSEModule")].sum() == sum(
        p.numel() for name, p in model.named_parameters() if not name.startswith("decoder.blocks.4.attention1.")
    )
    first = "decoder.blocks.0.attention1.attention"
    assert table.loc[first, "kind"] == "SCSEModule" and table.loc[first, "input"] == "768 x 4 x 4"
    assert table.loc[f"{first}.sSE.0", "output"] == "1 x 4 x 4"
    assert table.loc[f"{first}.cSE.3", "output"] == "768 x 1 x 1"
    assert list(table.index).index(f"{first}.cSE.0") < list(table.index).index("decoder.blocks.0.conv1.0")
    assert table.iloc[-1]["output"] == "1 x 64 x 64"


def test_attention_maps_are_what_the_modules_multiply_with(model):
    image = torch.rand(1, 3, 64, 64)
    seen = {}
    module = model.decoder.blocks[0].attention1.attention
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.setdefault("input", inputs[0]))
    maps = attention_maps(model, image)
    hook.remove()
    assert [found.layer for found in maps][:2] == [f"decoder.blocks.0.attention{i}.attention" for i in (1, 2)]
    assert len(maps) == 9 and maps[0].spatial.shape == (4, 4) and maps[0].channel.shape == (768,)
    weights = {name: value.detach().double().numpy() for name, value in module.named_parameters()}
    features = seen["input"][0].double().numpy()
    _, channel, spatial = scse_by_hand(features[512:], features[:512], weights)
    np.testing.assert_allclose(maps[0].spatial, spatial, atol=1e-5)
    np.testing.assert_allclose(maps[0].channel, channel, atol=1e-5)
    assert not model.training and not model.decoder.blocks[0].attention1.attention._forward_hooks


def test_the_drawing_names_every_layer_of_the_module(model):
    fig, ax = plt.subplots()
    table = layers(model, 64)
    draw_scse(ax, table, "decoder.blocks.0.attention1.attention")
    texts = " ".join(text.get_text() for text in ax.texts)
    for word in ("AdaptiveAvgPool2d", "Conv2d\n48 x 1 x 1", "ReLU", "Sigmoid\n1 x 4 x 4", "768 x 4 x 4"):
        assert word in texts
    plt.close(fig)


def test_the_clustering_module_names_every_lesion_and_size():
    sizes = {name: f"size {name}" for name in ("lesions", "features", "components", "heads", "mean", "clusters")}
    fig, ax = plt.subplots()
    draw_clustering(ax, sizes)
    texts = [text.get_text() for text in ax.texts]
    assert {*sizes.values(), "head $1$", "head $4$", "$x_2$", "k-medoids", *(DISPLAY[x] for x in LESIONS)} <= set(texts)
    assert texts.count("PCA") == len(LESIONS)
    plt.close(fig)
