"""Images of stripes, as a dataset that a third party brings."""

import torch

from mpcli.errors import InputError
from mpcli.kit.datasets import Images


def stripes(argument: str) -> Images:
    """`stripes:SIDE`: 96 images [1, SIDE, SIDE] of horizontal bars."""
    if argument and not argument.isdigit():
        raise InputError(f"stripes:{argument}: the side must be a whole number, such as stripes:6")
    side = int(argument or 6)
    rows = torch.rand(96, 1, side, 1, generator=torch.Generator().manual_seed(0))
    images = (rows > 0.5).float().expand(-1, -1, -1, side).contiguous()
    return Images(images[:64], images[64:80], images[80:], levels=2, name="stripes")
