"""The inception module, and the heads that help to train what lies below them."""

import torch
from torch import Tensor, nn

from mpcli_nets import cnn


def convolution(inputs: int, outputs: int, side: int, norm: bool, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps places at stride 1, normalisation if asked for, f."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, side, stride, side // 2)]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, nn.ReLU())


class Inception(nn.Module):
    """Windows of 1x1, 3x3 and 5x5, and a 3x3 max pool, side by side: [N, inputs, H, W] -> [N, sum of branches, H, W].

    `widths` are the channels of 1x1; the bottleneck before 3x3, and 3x3; that before 5x5, and 5x5; 1x1 behind the pool.
    Without bottlenecks 3x3 and 5x5 take all channels.

    Szegedy et al., Going Deeper with Convolutions, 2015. arXiv:1409.4842
    """

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int], norm: bool, bottleneck: bool):
        super().__init__()
        one, before_three, three, before_five, five, pooled = widths

        def branch(before: int, outputs: int, side: int) -> nn.Sequential:
            if not bottleneck:
                return convolution(inputs, outputs, side, norm)
            return nn.Sequential(convolution(inputs, before, 1, norm), convolution(before, outputs, side, norm))

        self.one = convolution(inputs, one, 1, norm)
        self.three = branch(before_three, three, 3)
        self.five = branch(before_five, five, 5)
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(inputs, pooled, 1, norm))
        self.outputs = one + three + five + pooled

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


class Head(nn.Module):
    """eta [N, K] of maps [N, C, H, W] on the way: pooled to 4x4, 1x1, and two dense layers."""

    def __init__(self, inputs: int, channels: int, units: int, classes: int, norm: bool):
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            convolution(inputs, channels, 1, norm),
            nn.Flatten(),
            nn.Linear(16 * channels, units),
            nn.ReLU(),
            nn.Dropout(0.7),
            nn.Linear(units, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def flops(module: nn.Module, shape: tuple[int, int, int]) -> int:
    """Operations for one example of a shape [C, H, W]."""
    return cnn.totals(module, shape)[1]
