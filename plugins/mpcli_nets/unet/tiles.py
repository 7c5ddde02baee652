"""Pictures that are too large to be seen at once, tile by tile."""

import torch
from torch import Tensor, nn

from mpcli_nets.fcn import grey
from mpcli_nets.unet.net import UNet

TILE = 1024  # pixels along a side up to which a picture is seen at once


def reach(levels: int) -> int:
    """Pixels that a place of a network of so many levels sees to a side, at most; a multiple of what pools divide by.

    On level l, 2^l pixels apart, are four convolutions, on the deepest two: each sees 2^l further. A pool sees less
    than one place of the level below, as does a step up.
    """
    whole = 2 ** (levels - 1)
    far = sum((4 if level < levels - 1 else 2) * 2**level + 2 * 2**level for level in range(levels))
    return -(-far // whole) * whole


@torch.no_grad()
def classes_of(model: nn.Module, x: Tensor, tile: int = TILE) -> Tensor:
    """The likeliest class of each pixel, [H, W], of one picture of any size, bytes [C, H, W].

    Tiles are cut out with as much around them as the network sees, so that they are what the whole would give.
    """
    assert isinstance(model, UNet)
    levels = len(model.down)
    height, width = x.shape[1:]
    if max(height, width) <= tile:
        return model(grey(x)[None])[0].argmax(0)
    whole = 2 ** (levels - 1)
    tile, around = max(whole, tile // whole * whole), reach(levels)
    said = torch.empty(height, width, dtype=torch.int64)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            above, beside = max(0, top - around), max(0, left - around)
            part = x[:, above : top + tile + around, beside : left + tile + around]
            found = model(grey(part)[None])[0].argmax(0)
            rows, columns = min(tile, height - top), min(tile, width - left)
            inner = found[top - above : top - above + rows, left - beside : left - beside + columns]
            said[top : top + rows, left : left + columns] = inner
    return said
