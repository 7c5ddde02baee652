"""The network of the page: down and up again, with what was on the way down beside what comes up."""

from typing import Literal

import torch
from torch import Tensor, nn

from mpcli_nets.resnet import Norm, normed

Skips = Literal["copy", "none"]

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}
POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d}


class Level(nn.Module):
    """Two convolutions of 3, each with norm and max(0, .) behind it, [N, inputs, ...] -> [N, outputs, ...].

    A condition [N, E] scales and shifts what the first norm gives: z (1 + s) + b, with (s, b) a linear map of it that
    begins at 0.
    """

    def __init__(self, inputs: int, outputs: int, condition: int, norm: Norm, dimensions: int):
        super().__init__()
        convolution = CONVOLUTIONS[dimensions]
        biased = norm == "none"
        self.first = convolution(inputs, outputs, 3, padding=1, bias=biased)
        self.first_norm = normed(norm, outputs, dimensions)
        self.second = convolution(outputs, outputs, 3, padding=1, bias=biased)
        self.second_norm = normed(norm, outputs, dimensions)
        self.relu = nn.ReLU()
        self.modulation = nn.Linear(condition, 2 * outputs) if condition else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        z = self.first_norm(self.first(x))
        if self.modulation is not None:
            if condition is None:
                raise ValueError(f"the network takes a condition [N, {self.modulation.in_features}]")
            scale, shift = self.modulation(condition)[(..., *[None] * (z.ndim - 2))].chunk(2, 1)
            z = z * (1 + scale) + shift
        return self.relu(self.second_norm(self.second(self.relu(z))))


class UNet(nn.Module):
    """[N, inputs, H, W] -> [N, outputs, H, W], or [N, inputs, L] -> [N, outputs, L], of any size.

    Args:
        widths: maps of each level, from the full size down; each level has half the places of the one above.
        condition: numbers of a vector, one a sample, that scales and shifts each level, such as the sum of the
            embeddings of a time and a class; 0 for none.
        norm: over the batch, over groups of channels of each sample, or none, with biases then.
        skips: what comes up stands beside a copy of what went down, or alone.
        dimensions: 2 for maps, 1 for sequences.

    The last layer begins at 0, so that what is made of anything begins there too.

    Ronneberger, Fischer and Brox, U-Net, 2015. arXiv:1505.04597
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: tuple[int, ...] = (8, 16, 32, 64, 64),
        condition: int = 0,
        norm: Norm = "batch",
        *,
        skips: Skips = "copy",
        dimensions: int = 2,
    ):
        super().__init__()
        self.copied = skips == "copy"
        self.down = nn.ModuleList(
            Level(before, after, condition, norm, dimensions)
            for before, after in zip([inputs, *widths], widths, strict=False)
        )
        self.pool = POOLS[dimensions](2, ceil_mode=True)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.steps = nn.ModuleList(TRANSPOSED[dimensions](deep, shallow, 2, 2) for deep, shallow in pairs)
        self.up = nn.ModuleList(
            Level(2 * shallow if self.copied else shallow, shallow, condition, norm, dimensions) for _, shallow in pairs
        )
        self.top = CONVOLUTIONS[dimensions](widths[0], outputs, 1)
        nn.init.zeros_(self.top.weight)
        nn.init.zeros_(self.top.bias)  # type: ignore[arg-type]

    def encode(self, x: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """What each level makes on the way down, from the full size to the deepest."""
        found: list[Tensor] = []
        for level in self.down:
            x = level(self.pool(x) if found else x, condition)
            found.append(x)
        return found

    def decode(self, levels: list[Tensor], condition: Tensor | None = None) -> Tensor:
        """What comes up again from all levels of `encode`."""
        *copies, x = levels
        for step, level, copy in zip(self.steps, self.up, copies[::-1], strict=True):
            x = step(x)[(..., *(slice(size) for size in copy.shape[2:]))]
            x = level(torch.cat([copy, x], 1) if self.copied else x, condition)
        return self.top(x)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.decode(self.encode(x, condition), condition)
