"""Small networks that several pages use as a part and none is about.

The networks end in a layer of zeros, so that what they parametrise starts at its neutral value: a coupling as the
identity.
"""

from collections.abc import Sequence

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
