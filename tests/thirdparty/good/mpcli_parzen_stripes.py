"""Images of stripes, as a dataset that a third party brings."""

import torch

from mpcli.errors import InputError
from mpcli.kit.datasets import Images, Pictures


def stripes(argument: str) -> Images:
    """`stripes:SIDE`: 96 images [1, SIDE, SIDE] of horizontal bars."""
    if argument and not argument.isdigit():
        raise InputError(f"stripes:{argument}: the side must be a whole number, such as stripes:6")
    side = int(argument or 6)
    rows = torch.rand(96, 1, side, 1, generator=torch.Generator().manual_seed(0))
    pixels = (rows > 0.5).byte().expand(-1, -1, -1, side)
    return Images(*(Pictures(part, levels=2) for part in pixels.split([64, 16, 16])), name="stripes")
