"""Networks that give a score for each class at every pixel, [N, C, H, W] -> [N, K, H, W], of pictures of any size."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpcli_nets.fcn import up

Upsample = Literal["straight", "nearest", "nails", "unpool", "transposed"]

WINDOW = 29  # pixels along a side that a place of `Windows` sees
LEVELS = 4  # poolings of `EncoderDecoder`


def convolved(inputs: int, outputs: int, side: int = 3, border: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, max(0, .)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, padding=border, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def scoring(inputs: int, classes: int, side: int = 1) -> nn.Conv2d:
    """The last layer: a score for each class.

    From scores near 0 all classes but the commonest are pushed down alike, and several may never come up again.
    """
    layer = nn.Conv2d(inputs, classes, side, padding=side // 2)
    nn.init.kaiming_normal_(layer.weight)
    return layer


class Windows(nn.Module):
    """A classifier of windows of 29x29 pixels: two convolutions with pools, and a dense layer as a 5x5 convolution.

    Whole pictures are seen at once by laying what comes behind a stride as far apart as the stride would have it, which
    gives at every pixel what the window around it gives.

    Giusti, Ciresan, Masci, Gambardella and Schmidhuber, Fast Image Scanning with Deep Max-Pooling Convolutional Neural
    Networks, 2013. arXiv:1302.1700
    """

    def __init__(self, width: int, channels: int, classes: int):
        super().__init__()
        self.layers = nn.Sequential(
            convolved(channels, width, 3, 0),
            nn.MaxPool2d(3, 2),
            convolved(width, 2 * width, 3, 0),
            nn.MaxPool2d(3, 2),
            convolved(2 * width, 4 * width, 5, 0),
            scoring(4 * width, classes),
        )

    def lay(self, apart: bool) -> None:
        """With strides, for one window, or with distances in their place, for all at once."""
        far = 1
        for module in self.layers.modules():
            if isinstance(module, nn.Conv2d):
                module.dilation = (far, far)
            elif isinstance(module, nn.MaxPool2d):
                module.stride, module.dilation = (1, far) if apart else (2, 1)
                far *= 2 if apart else 1

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Scores at all pixels; or, of windows around pixels `at` [N, M, 2] (row, column), [N, K, M, 1]."""
        half = WINDOW // 2
        around = F.pad(x, (half, half, half, half))
        self.lay(apart=at is None)
        if at is None:
            return self.layers(around)
        windows = torch.stack([
            picture[:, i : i + WINDOW, j : j + WINDOW]
            for picture, places in zip(around, at.tolist(), strict=True)
            for i, j in places
        ])  # fmt: skip
        return self.layers(windows).flatten(1).unflatten(0, at.shape[:2]).transpose(1, 2)[..., None]


class Flat(nn.Sequential):
    """Convolutions of 3x3 one behind the other, without pools: as many places as pixels all the way."""

    def __init__(self, width: int, channels: int, classes: int):
        layers = [convolved(before, width) for before in (channels, *[width] * LEVELS)]
        super().__init__(*layers, scoring(width, classes))


class EncoderDecoder(nn.Module):
    """Down by four pools, and up again.

    `straight` has the scores of the deepest level, each laid over 16x16 pixels; any other way goes up level by level, a
    convolution before each step.
    """

    def __init__(self, width: int, channels: int, classes: int, upsample: Upsample):
        super().__init__()
        self.upsample = upsample
        widths = [max(1, width // 2) * 2**level for level in range(LEVELS)]
        below = [*widths[1:], widths[-1]]
        self.down = nn.ModuleList(
            nn.Sequential(convolved(before, after), convolved(after, after))
            for before, after in zip([channels, *widths], [*widths, widths[-1]], strict=False)
        )
        straight = upsample == "straight"
        self.up = nn.ModuleList() if straight else nn.ModuleList(
            convolved(deep, shallow) for deep, shallow in zip(below[::-1], widths[::-1], strict=True)
        )  # fmt: skip
        self.windows = nn.ParameterList()
        if upsample == "transposed":
            for channels_up in widths[::-1]:
                # As made, each map goes up by linear interpolation.
                linear = torch.tensor([0.5, 1.0, 0.5])
                self.windows.append(torch.eye(channels_up)[..., None, None] * torch.outer(linear, linear))
        self.top = scoring(widths[-1], classes) if straight else scoring(widths[0], classes, 3)

    def forward(self, x: Tensor) -> Tensor:
        sizes: list[up.Size] = []
        switches: list[Tensor] = []
        for number, layers in enumerate(self.down):
            x = layers(x)
            if number < LEVELS:
                sizes.append((x.shape[-2], x.shape[-1]))
                x, which = up.pooled(x)
                switches.append(which)
        if self.upsample == "straight":
            x = self.top(x)
            for size in reversed(sizes):
                x = up.nearest(x, size)
            return x
        for number, layers in enumerate(self.up):
            x, size = layers(x), sizes[-1 - number]
            if self.upsample == "nearest":
                x = up.nearest(x, size)
            elif self.upsample == "nails":
                x = up.nails(x, size)
            elif self.upsample == "unpool":
                x = up.unpool(x, size, switches[-1 - number])
            else:
                x = up.transposed(x, size, self.windows[number])
        return self.top(x)
