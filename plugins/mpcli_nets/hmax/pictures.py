"""What cells of each layer are excited and inhibited by, what they say of a picture, and how far shifts matter."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mpcli.kit.pictures import figure
from mpcli_nets.filters.pictures import signed
from mpcli_nets.hmax import cells

SHOWN = 6  # cells of a layer


def fields(heading: str, gabors: Sequence[Tensor], parts: Tensor) -> Figure:
    """Receptive fields, red where light excites and blue where it inhibits, in one scale of pixels."""
    made = figure(f"{heading}\nreceptive fields: red excites, blue inhibits", 1080, 620)
    angles = len(gabors[0])
    axes = made.subplots(3, SHOWN)
    one = [g[k % angles, 0] for k, g in enumerate(gabors)]
    pools = [spread(gabors[0][k, 0], cells.BANDS[0][1]) for k in range(min(SHOWN, angles))]
    widest = parts[parts.flatten(1).std(1).argsort(descending=True)[:SHOWN]]
    cut = [preferred(part, gabors[0][:, 0]) for part in widest]
    side = cut[0].shape[-1]  # the largest field
    for row, (name, shown) in enumerate((("S1", one), ("C1", pools), ("S2, C2", cut))):
        for column in range(SHOWN):
            at = axes[row, column]
            if column >= len(shown):
                at.set_axis_off()
                continue
            field = shown[column]
            signed(at, field, f"{field.shape[-1]} pixels", most=0)
            middle = (field.shape[-1] - 1) / 2
            at.set(xlim=(middle - side / 2, middle + side / 2), ylim=(middle + side / 2, middle - side / 2))
            if column == 0:
                at.set_ylabel(name)
    return made


def spread(w: Tensor, window: int) -> Tensor:
    """Where and how a complex cell of one filter [side, side] is excited at the most: the strongest of all places."""
    side = w.shape[-1] + window - 1
    total = torch.zeros(side, side)
    for row in range(window):
        for column in range(window):
            at = total[row : row + w.shape[-1], column : column + w.shape[-1]]
            at.copy_(torch.where(w.abs() > at.abs(), w, at))
    return total


def preferred(part: Tensor, gabors: Tensor) -> Tensor:
    """The lines of a part [angles, side, side] laid where its cells are: what excites it. [H, W]."""
    reach = gabors.shape[-1]
    side = reach + (part.shape[-1] - 1) * cells.STRIDE + cells.BANDS[0][1] - 1
    offset = (cells.BANDS[0][1] - 1) // 2
    total = torch.zeros(side, side)
    for row in range(part.shape[-2]):
        for column in range(part.shape[-1]):
            down, right = offset + cells.STRIDE * row, offset + cells.STRIDE * column
            total[down : down + reach, right : right + reach] += (part[:, row, column, None, None] * gabors).sum(0)
    return total


def responses(heading: str, picture: Tensor, s1: Tensor, c1: Tensor, s2: Tensor) -> Figure:
    """A picture [1, 1, H, W], what S1 [K, H, W] and C1 [K, H', W'] of each angle say, and S2 [P, H', W'] of a few."""
    made = figure(heading, 1080, 620)
    count = min(4, len(s1))
    axes = made.subplots(3, 5)
    best = s2.flatten(1).amax(1).argsort(descending=True)[:4]  # the parts that the picture has most of
    rows = (("S1", s1[:count]), ("C1", c1[:count]), ("S2", s2[best]))
    for row, (name, maps) in enumerate(rows):
        first = axes[row, 0]
        if row == 0:
            first.imshow(picture[0, 0].numpy(), "gray", vmin=0, vmax=1)
            first.set(title="picture", xticks=[], yticks=[])
        else:
            first.set_axis_off()
        for column in range(4):
            at = axes[row, column + 1]
            if column >= len(maps):
                at.set_axis_off()
                continue
            at.imshow(maps[column].numpy(), "magma", vmin=0, vmax=float(maps.max().clamp(min=1e-12)))
            what = f"{name}, part {int(best[column])}" if row == 2 else f"{name}, {180 * column // len(s1)} degrees"
            at.set(title=what, xticks=[], yticks=[])
    return made


def shifts(heading: str, by: Sequence[int], found: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy of each layer against the shift."""
    made = figure(heading, 640, 430)
    axes = made.subplots()
    for name, accuracy in found.items():
        axes.plot(by, accuracy, "o-", label="pixels" if name == "pixels" else name.upper())
    axes.set(xlabel="pixels by which test pictures are moved", ylabel="accuracy of a linear classifier", ylim=(0, 1.02))
    axes.legend()
    return made
