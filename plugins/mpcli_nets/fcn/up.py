"""Four ways from a map to one of twice its rows and columns, and the switches that one of them needs.

A map of any size H x W, odd ones too, has ceil(H / 2) x ceil(W / 2) places one level down; `size` is what it was above.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest of each 2x2 window, [N, C, ceil(H / 2), ceil(W / 2)], and its switch: which of H W places it was."""
    best, switches = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    return best, switches


def nearest(y: Tensor, size: Size) -> Tensor:
    """x(i, j) = y(i / 2, j / 2), rounded down. Its adjoint sums each 2x2 window."""
    return y.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., : size[0], : size[1]]


def nails(y: Tensor, size: Size) -> Tensor:
    """Bed of nails: y at the top left of each 2x2 window, zeros elsewhere. Its adjoint takes every second place."""
    x = y.new_zeros(*y.shape[:2], *size)
    x[..., ::2, ::2] = y
    return x


def unpool(y: Tensor, size: Size, switches: Tensor) -> Tensor:
    """Max unpooling: y where the greatest of each window was, zeros elsewhere. Its adjoint takes what is there."""
    x = y.new_zeros(*y.shape[:2], size[0] * size[1])
    return x.scatter(2, switches.flatten(2), y.flatten(2)).unflatten(2, size)


def transposed(y: Tensor, size: Size, w: Tensor) -> Tensor:
    """Copies of windows w [K, C, 3, 3], each weighted by y [N, K, h, w], laid 2 apart and summed where they overlap.

    The adjoint of the 3x3 convolution of stride 2 with a border of 1.
    """
    left_over = size[0] - (2 * y.shape[-2] - 1), size[1] - (2 * y.shape[-1] - 1)
    return F.conv_transpose2d(y, w, stride=2, padding=1, output_padding=left_over)


def copies(y: Tensor, size: Size, w: Tensor) -> Tensor:
    """`transposed`, copy by copy."""
    x = torch.zeros(len(y), w.shape[1], 2 * y.shape[-2] + 1, 2 * y.shape[-1] + 1, dtype=y.dtype)
    for i in range(y.shape[-2]):
        for j in range(y.shape[-1]):
            x[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += torch.einsum("nk,kcab->ncab", y[..., i, j], w)
    return x[..., 1 : 1 + size[0], 1 : 1 + size[1]]
