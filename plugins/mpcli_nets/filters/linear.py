"""Linear filters of pictures: correlation, convolution, their matrix, filters that vary with the place, matching.

A picture is [..., H, W], a kernel [M, N]. The kernel's origin is its middle, ((M - 1) // 2, (N - 1) // 2), as in
scipy.signal; what lies outside of the picture is 0.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Mode = Literal["full", "same", "valid"]


def correlate(image: Tensor, kernel: Tensor, mode: Mode = "same") -> Tensor:
    """(C I)(i, j) = sum_mn K(m, n) I(i + m, j + n). [..., H, W], [M, N] -> [..., H', W'].

    full: H + M - 1 places, wherever the kernel touches the picture; same: H; valid: H - M + 1, wherever it lies inside.
    """
    m, n = kernel.shape
    # What comes before and behind in full; `same` keeps the middle of that.
    before, behind = {"full": (m - 1, m - 1), "same": ((m - 1) // 2, m // 2), "valid": (0, 0)}[mode]
    left, right = {"full": (n - 1, n - 1), "same": ((n - 1) // 2, n // 2), "valid": (0, 0)}[mode]
    padded = F.pad(image, (left, right, before, behind))
    height, width = padded.shape[-2] - m + 1, padded.shape[-1] - n + 1
    total = padded.new_zeros(*image.shape[:-2], height, width)
    # Picture by picture of the shifted ones: torch's convolution of one channel takes several times as long.
    for i, row in enumerate(kernel.tolist()):
        for j, weight in enumerate(row):
            if weight:
                total.add_(padded[..., i : i + height, j : j + width], alpha=weight)
    return total


def convolve(image: Tensor, kernel: Tensor, mode: Mode = "same") -> Tensor:
    """(K * I)(i, j) = sum_mn K(m, n) I(i - m, j - n): correlation with the kernel turned by half a turn."""
    turned = kernel.flip(-2, -1)
    if mode != "same":
        return correlate(image, turned, mode)
    m, n = kernel.shape
    height, width = image.shape[-2:]
    top, left = (m - 1) // 2, (n - 1) // 2
    return correlate(image, turned, "full")[..., top : top + height, left : left + width]


def toeplitz(kernel: Tensor, size: int) -> Tensor:
    """T [size + M - 1, size] with T x = k * x in full: the kernel [M] in every column, one place lower each time."""
    m = len(kernel)
    rows, columns = torch.arange(size + m - 1)[:, None], torch.arange(size)[None]
    place = rows - columns
    inside = (place >= 0) & (place < m)
    return torch.where(inside, kernel[place.clamp(0, m - 1)], torch.zeros((), dtype=kernel.dtype))


def varying(image: Tensor, kernels: Tensor) -> Tensor:
    """sum_mn K(i, j, m, n) I(i + m, j + n): a kernel of its own for each place. [H, W], [H, W, M, N] -> [H, W]."""
    m, n = kernels.shape[2:]
    padded = F.pad(image, ((n - 1) // 2, n // 2, (m - 1) // 2, m // 2))
    patches = padded.unfold(0, m, 1).unfold(1, n, 1)  # [H, W, M, N]
    return (kernels * patches).sum((-2, -1))


def impulse_response(operator: Callable[[Tensor], Tensor], height: int, width: int) -> Tensor:
    """What an operator makes of a single one in the middle of zeros: its kernel, if it is linear and equivariant."""
    image = torch.zeros(height, width, dtype=torch.float64)
    image[(height - 1) // 2, (width - 1) // 2] = 1
    return operator(image)


def match(image: Tensor, template: Tensor) -> Tensor:
    """Normalised correlation in [-1, 1] of a template [M, N] with each window inside a picture [H, W].

    Window and template are taken less their means, and their product is divided by their lengths; 0 where a window is
    of one value. [H - M + 1, W - N + 1].
    """
    own = template.double() - template.double().mean()
    image = image.double() - image.double().mean()
    # A large kernel by the Fourier transform: the product of one spectrum and the conjugate of the other.
    spectra = torch.fft.rfft2(image), torch.fft.rfft2(own, s=image.shape)
    product = torch.fft.irfft2(spectra[0] * spectra[1].conj(), s=image.shape)
    height, width = (whole - part + 1 for whole, part in zip(image.shape, own.shape, strict=True))
    total, squares = windows(image, own.shape), windows(image**2, own.shape)
    length = (squares - total**2 / own.numel()).clamp(min=0).sqrt() * own.norm()
    flat = length <= 1e-6 * own.norm() * image.abs().max().clamp(min=1e-300)
    return torch.where(flat, 0.0, product[:height, :width] / length.clamp(min=1e-300))


def windows(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sums over every window [M, N] inside a picture [H, W], from sums of all that lies above and on the left."""
    m, n = shape
    area = F.pad(image.cumsum(0).cumsum(1), (1, 0, 1, 0))
    return area[m:, n:] - area[:-m, n:] - area[m:, :-n] + area[:-m, :-n]
