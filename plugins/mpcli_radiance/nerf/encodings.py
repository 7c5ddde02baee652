"""What a place or a direction is turned into before a network sees it."""

import math

import torch
from torch import Tensor, nn


class Octaves(nn.Module):
    """gamma: each coordinate by itself, [..., 3] -> [..., 3 * 2 L]."""

    frequencies: Tensor

    def __init__(self, octaves: int):
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(octaves), persistent=False)
        self.size = 3 * 2 * octaves

    def forward(self, p: Tensor) -> Tensor:
        angles = (p[..., None] * self.frequencies).flatten(-2)
        return torch.cat([angles.sin(), angles.cos()], -1)


class RandomFourier(nn.Module):
    """Sines and cosines of 2 pi B p with rows of B drawn once from N(0, s^2), as many as gamma has."""

    frequencies: Tensor

    def __init__(self, octaves: int, bandwidth: float):
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * bandwidth * torch.randn(3 * octaves, 3))
        self.size = 3 * 2 * octaves

    def forward(self, p: Tensor) -> Tensor:
        angles = p @ self.frequencies.T
        return torch.cat([angles.sin(), angles.cos()], -1)


class Coordinates(nn.Module):
    """What it is given, [..., 3] -> [..., 3]: a network fed with it learns low frequencies alone for long."""

    size = 3

    def forward(self, p: Tensor) -> Tensor:
        return p


Encoding = Octaves | RandomFourier | Coordinates
