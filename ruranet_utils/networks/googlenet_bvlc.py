"""GoogLeNet as it was in 2015, trained on ImageNet by BVLC; torchvision's is a later variant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.googlenet import GoogLeNet, Inception, InceptionAux

MEAN_BGR = (104.0, 117.0, 123.0)  # of 255; subtracted from its training images


class Convolution(nn.Module):
    """Convolution with bias and ReLU, where torchvision's has batch normalization."""

    def __init__(self, n_inputs: int, n_outputs: int, **options):
        super().__init__()
        self.conv = nn.Conv2d(n_inputs, n_outputs, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of shape ``(n, n_inputs, h, w)``."""
        return self.conv(x).relu()


class ResponseNorm(nn.Module):
    """Local response normalization over five neighboring channels (Krizhevsky et al. 2012, Section 3.3).

    Each value is divided by ``(1 + 1e-4 * m) ** 0.75``, where m is the mean of the squares in the window, with zeros
    beyond the first and last channel. ``nn.LocalResponseNorm`` computes the same, but takes most of the network's time
    on a CPU; here the mean is a 1 x 1 convolution.
    """

    def __init__(self, n_channels: int):
        super().__init__()
        window = torch.ones(n_channels, n_channels).tril(2).triu(-2) / 5
        self.register_buffer("window", window[..., None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 of the shape of ``x``: ``(n, n_channels, h, w)``."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            return x * functional.conv2d(x.square(), self.window).mul(1e-4).add(1).pow(-0.75)


class WideInception(Inception):
    """Inception module whose third branch has 5 x 5 kernels, as in the paper; torchvision's are 3 x 3."""

    def __init__(self, n_inputs: int, ch1: int, red3: int, ch3: int, red5: int, ch5: int, pooled: int):
        super().__init__(n_inputs, ch1, red3, ch3, red5, ch5, pooled, conv_block=Convolution)
        self.branch3[1] = Convolution(red5, ch5, kernel_size=5, padding=2)


class OriginalGoogLeNet(GoogLeNet):
    """The network of Szegedy et al. (2015), doi:10.1109/CVPR.2015.7298594, without the auxiliary classifiers.

    Differences from torchvision's: no batch normalization, local response normalization after the first pooling and
    before the second, 5 x 5 kernels, a fourth pooling of 3 x 3.

    Parameters
    ----------
    mean, std : sequence of float, shape (3,)
        Normalization already applied to its input, which the network undoes.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        blocks = [Convolution, WideInception, InceptionAux]
        super().__init__(aux_logits=False, transform_input=True, init_weights=False, blocks=blocks)
        self.maxpool1 = nn.Sequential(self.maxpool1, ResponseNorm(64))
        self.maxpool2 = nn.Sequential(ResponseNorm(192), self.maxpool2)
        self.normalized_by = mean, std
        self.maxpool4 = nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def _transform_input(self, x: torch.Tensor) -> torch.Tensor:
        """Convert normalized RGB to BGR from 0 to 255, minus ``MEAN_BGR``."""
        mean, std, offset = (x.new_tensor(value).view(3, 1, 1) for value in (*self.normalized_by, MEAN_BGR))
        return 255 * (x * std + mean).flip(1) - offset
