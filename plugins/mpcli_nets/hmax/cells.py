"""Simple and complex cells: what a picture is to them, from oriented lines to parts at any place.

A picture is [N, 1, H, W]. S1 and C1 are lists with a tensor for each of two bands of sizes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mpcli_nets.filters import kernels

SIDE, PAD = 28, 8  # pixels along a picture, and of nothing around it
STRIDE = 2  # places from one C1 cell to the next
CONTRAST = 0.3  # added to the length of a window, so that faint noise is no line
PIECE = 50  # pictures at once, so that their cells stay near the processor

# Two filters, each (side, wavelength, sigma) in pixels, and the side of the window over which C1 pools, of each band.
BANDS = (
    (((7, 3.5, 2.8), (9, 4.6, 3.6)), 8),
    (((11, 5.6, 4.5), (13, 6.8, 5.4)), 10),
)


def gabors(angles: int) -> list[list[Tensor]]:
    """The S1 cells of each band and size: Gabor filters [angles, 1, side, side], of mean 0 and length 1."""
    return [
        [
            torch.stack([kernels.gabor(*sizes, angle=math.pi * k / angles) for k in range(angles)])[:, None].float()
            for sizes in filters
        ]
        for filters, _ in BANDS
    ]


def canvas(x: Tensor) -> Tensor:
    """Pictures [N, C, H, W] as cells see them: grey, SIDE pixels along, with room for shifts of the border's shade."""
    grey = x.mean(1, keepdim=True)
    if grey.shape[-2:] != (SIDE, SIDE):
        grey = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)
    border = torch.cat([grey[..., 0, :], grey[..., -1, :], grey[..., 0], grey[..., -1]], -1)
    shade = border.median(-1).values[..., None, None]
    whole = shade.expand(-1, 1, SIDE + 2 * PAD, SIDE + 2 * PAD).clone()
    whole[..., PAD:-PAD, PAD:-PAD] = grey
    return whole


def linear(x: Tensor, w: Tensor) -> Tensor:
    """w . x of each window, as large as the picture: [N, 1, H, W], [K, 1, side, side] -> [N, K, H, W].

    What lies outside continues the border, so that even light is even there too.
    """
    reach = w.shape[-1] // 2
    return F.conv2d(F.pad(x, (reach, reach, reach, reach), mode="replicate"), w)


def line(x: Tensor, w: Tensor) -> Tensor:
    """S1: |w . x| / (|x| + contrast) of each window, a line of either sign at the angle of w."""
    length = linear(x.square(), torch.ones_like(w[:1])).clamp(min=0).sqrt()
    return linear(x, w).abs() / (length + CONTRAST)


def pooled(sizes: list[Tensor], window: int) -> Tensor:
    """C1: the greatest over two sizes and a window of places. [N, K, H, W] of each -> [N, K, H', W']."""
    return F.max_pool2d(torch.maximum(*sizes), window, STRIDE, padding=window // 2)


def distance(x: Tensor, w: Tensor) -> Tensor:
    """sum_j (w_j - x_j)^2 of each window with each part. [N, K, H, W], [P, K, side, side] -> [N, P, H', W'].

    The windows reach over the border by all but one cell.
    """
    reach = w.shape[-1] - 1
    around = F.conv2d(x.square(), torch.ones_like(w[:1]), padding=reach)
    squares = w.flatten(1).square().sum(1)[:, None, None]
    return (around - 2 * F.conv2d(x, w, padding=reach) + squares).clamp(min=0)


def tuned(square: Tensor, sigma: float) -> Tensor:
    """S2: exp(-square / 2 sigma^2), 1 where the window is the part."""
    return (-square / (2 * sigma**2)).exp()


def anywhere(x: list[Tensor], w: Tensor, sigma: float) -> Tensor:
    """C2: the greatest S2 over all places and bands. [N, K, H, W] of each, [P, K, side, side] -> [N, P]."""
    # S2 falls with the distance, so the nearest place is the greatest, and one exponential a part does.
    return tuned(torch.stack([distance(band, w).amin((-2, -1)) for band in x]).amin(0), sigma)
