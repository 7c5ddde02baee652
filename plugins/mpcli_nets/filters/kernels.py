"""Kernels from what is written on a command line, and pictures from files."""

import math
from pathlib import Path

import torch
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets.files import read_image, there

LARGEST = 10_000_000  # numbers of a picture

SOBEL = [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]
NAMED: dict[str, list[list[float]]] = {
    "gradient": [[-1.0, 1.0]],
    "sobel": SOBEL,
    "sobel_y": [list(row) for row in zip(*SOBEL, strict=True)],
    "laplace": [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]],
    "sharpen": [[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]],
    "box": [[1 / 9] * 3] * 3,
}


def gaussian(side: int = 9, sigma: float = 2.0) -> Tensor:
    """exp(-(x^2 + y^2) / 2 sigma^2), summing to 1. [side, side]."""
    x = torch.arange(side, dtype=torch.float64) - side // 2
    bell = (-(x**2) / 2 / sigma**2).exp()
    kernel = bell[:, None] * bell
    return kernel / kernel.sum()


def gabor(
    side: int = 11, wavelength: float = 5.6, sigma: float = 4.5, angle: float = 0.0, squeezed: float = 0.3
) -> Tensor:
    """exp(-(x'^2 + squeezed^2 y'^2) / 2 sigma^2) cos(2 pi x' / wavelength), of mean 0 and length 1. [side, side].

    Jones and Palmer, An evaluation of the two-dimensional Gabor filter model of simple receptive fields, 1987.
    """
    x = torch.arange(side, dtype=torch.float64) - side // 2
    down, across = torch.meshgrid(x, x, indexing="ij")
    along = across * math.cos(angle) + down * math.sin(angle)
    aside = -across * math.sin(angle) + down * math.cos(angle)
    wave = (-(along**2 + squeezed**2 * aside**2) / 2 / sigma**2).exp() * (2 * math.pi * along / wavelength).cos()
    wave = wave - wave.mean()
    return wave / wave.norm()


def kernel(text: str) -> Tensor:
    """The kernel [M, N] of a name, of numbers ("-1 1", or "1 2 1; 0 0 0; -1 -2 -1"), or of a picture file.

    Raises:
        InputError: it is none of these.
    """
    if text in NAMED:
        return torch.tensor(NAMED[text], dtype=torch.float64)
    if text in ("gaussian", "gabor"):
        return gaussian() if text == "gaussian" else gabor()
    if text and there(Path(text).expanduser()):
        return picture(text)
    rows = [row.replace(",", " ").split() for row in text.split(";") if row.strip()]
    try:
        numbers = [[float(cell) for cell in row] for row in rows]
    except ValueError:
        numbers = []
    finite = all(math.isfinite(number) for row in numbers for number in row)
    if not numbers or not finite or len({len(row) for row in numbers}) != 1:
        names = ", ".join([*NAMED, "gaussian", "gabor"])
        raise InputError(
            f"--kernel {text!r}: is no kernel; right would be {names}, a picture file, or numbers such as '-1 1' or "
            "'0 1 0; 1 -4 1; 0 1 0'"
        )
    return torch.tensor(numbers, dtype=torch.float64)


def picture(data: str) -> Tensor:
    """A picture [H, W] in [0, 1], grey: `camera`, which comes with scikit-image, or a file.

    Raises:
        InputError: it cannot be read, or is too large.
    """
    if data == "camera":
        from skimage.data import camera

        return torch.from_numpy(camera()[::2, ::2] / 255)
    path = Path(data).expanduser()
    if not there(path):
        raise InputError(f"{data}: is not there; right would be a picture file, or camera")
    image = read_image(path, "L", upright=True)
    if image.width * image.height > LARGEST:
        raise InputError(f"{data}: has {image.width}x{image.height} pixels; right would be {LARGEST} at most")
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.reshape(image.height, image.width).double() / 255
