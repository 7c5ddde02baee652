"""Small networks that several pages use as a part and none is about.

The networks end in a layer of zeros, so that what they parametrise starts at its neutral value: a coupling as the
identity.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def mlp(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """A multilayer perceptron with ReLUs, [B, inputs] -> [B, outputs], zero when made."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = width
    return nn.Sequential(*layers, _zero(nn.Linear(inputs, outputs)))


def by_numpy(net: nn.Sequential, x: Float[np.ndarray, "B inputs"]) -> Float[np.ndarray, "B outputs"]:
    """What a perceptron makes of a few rows; on the CPU without torch.

    For one row, torch takes most of its time to call each layer. An agent that asks for every single step is answered
    in less than half of it. The arrays are the parameters' own memory: nothing is copied, and nothing gets old.
    A perceptron elsewhere is asked where it is.

    Args:
        net: `Linear`, `ReLU` and `Tanh` layers.
    """
    device = next(net.parameters()).device
    if device.type != "cpu":
        with torch.no_grad():
            return net(torch.from_numpy(x).to(device)).numpy(force=True)
    for layer in net:
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.detach().numpy().T
            x += layer.bias.detach().numpy()
        elif isinstance(layer, nn.ReLU):
            x = np.maximum(x, 0)
        elif isinstance(layer, nn.Tanh):
            x = np.tanh(x)
        else:
            raise TypeError(f"{type(layer).__name__} is no part of a perceptron")
    return x


class ConvNet(nn.Module):
    """Residual blocks of 3x3 convolutions, [B, inputs, H, W] -> [B, outputs, H, W], zero when made.

    He, Zhang, Ren and Sun, Identity Mappings in Deep Residual Networks, 2016. arXiv:1603.05027
    """

    def __init__(self, inputs: int, channels: int, blocks: int, outputs: int, dropout: float = 0.0):
        super().__init__()
        self.first = nn.Conv2d(inputs, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Dropout2d(dropout) if dropout else nn.Identity(),
                nn.Conv2d(channels, channels, 1),
            )
            for _ in range(blocks)
        )
        self.last = _zero(nn.Conv2d(channels, outputs, 3, padding=1))

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs height width"]:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.last(F.relu(h))


def _zero(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
