"""`cells`: pictures of cells as a microscope has them, drawn at random: overlapping ellipses, uneven light, noise.

Licence: that of mpcli, which draws them
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from mpcli.kit.datasets.files import no_argument
from mpcli.kit.datasets.masks import Masked, Segmentation, numbered

SIDE = 96
COUNTS = (96, 8, 24)  # pictures of each part


def cells(argument: str) -> Segmentation:
    """96 training, 8 validation and 24 test pictures, 1x96x96, of 6 to 16 cells each."""
    no_argument("cells", argument)
    random = np.random.RandomState(0)
    return Segmentation(*(_part(random, n) for n in COUNTS), classes=("background", "cell"), name="cells")


def _part(random: np.random.RandomState, n: int) -> Masked:
    drawn = [_picture(random) for _ in range(n)]
    pictures, instances = zip(*drawn, strict=True)
    return Masked(pictures, tuple((x > 0).to(torch.uint8) for x in instances), instances)


def _picture(random: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """A picture, bytes [1, H, W], and the number of the cell at each pixel, int32 [H, W]; later cells lie above."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(float)
    light, numbers = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), np.int32)
    for number in range(1, random.randint(6, 17) + 1):
        row, column = random.uniform(0, SIDE, 2)
        long, turn = random.uniform(6, 13), random.uniform(0, np.pi)
        short = long * random.uniform(0.55, 1.0)
        u = (columns - column) * np.cos(turn) + (rows - row) * np.sin(turn)
        v = (rows - row) * np.cos(turn) - (columns - column) * np.sin(turn)
        inside = (u / long) ** 2 + (v / short) ** 2 <= 1
        light[inside], numbers[inside] = random.uniform(0.3, 0.75), number
    # As bright on one side as the fainter cells are: no one threshold parts them.
    slope = random.uniform(-0.3, 0.3, 2)
    uneven = 0.2 + (slope[0] * (columns - SIDE / 2) + slope[1] * (rows - SIDE / 2)) / SIDE
    seen = ndimage.gaussian_filter(light * random.uniform(0.5, 1.0), 0.8) + uneven
    seen += random.normal(0, 0.06, seen.shape)
    return torch.from_numpy(np.round(255 * np.clip(seen, 0, 1)).astype(np.uint8)[None]), numbered(numbers)
