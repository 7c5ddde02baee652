"""Predictions beside their masks, ways up in numbers, and what schemes cost."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from mpcli.kit.datasets import Segmentation
from mpcli.kit.pictures import figure
from mpcli_nets import cnn
from mpcli_nets.fcn import measures, up
from mpcli_nets.fcn.examples import grey, measured
from mpcli_nets.filters.pictures import signed


def coloured(numbers: Tensor) -> np.ndarray:
    """Class or object numbers [H, W] in colours [H, W, 3], 0 black."""
    colours = np.concatenate([np.zeros((1, 3)), colormaps["tab20"](np.arange(20))[:, :3]])
    shown = np.where(numbers > 0, 1 + (numbers - 1) % 20, 0)
    return colours[shown]


def errors(picture: Tensor, said: Tensor, true: Tensor) -> np.ndarray:
    """The picture [C, H, W] in grey, boundaries of the truth green, and what is said otherwise there red."""
    shown = grey(picture).mean(0)[..., None].expand(-1, -1, 3).clone()
    edge = measures.boundary(true > 0)
    shown[edge] = torch.tensor([0.0, 0.8, 0.0])
    shown[(said != true) & edge] = torch.tensor([1.0, 0.0, 0.0])
    shown[(said != true) & ~edge] = torch.tensor([1.0, 0.55, 0.0])
    return shown.clamp(0, 1).numpy()


def predictions(heading: str, given: Segmentation, said: Sequence[Tensor], n: int) -> Figure:
    """Test pictures from the worst to the best: picture, mask, prediction, errors, and objects where they are known."""
    part, classes = given.test, len(given.classes)
    rows = [measured(of, part, i, classes) for i, of in enumerate(said)]
    order = sorted(range(len(rows)), key=lambda i: rows[i]["dice"])
    chosen = cnn.evenly(order, n)
    columns = ["picture", "mask", "prediction", "boundary right, wrong,\nother errors"]
    columns += ["objects", "objects predicted"] if part.instances is not None else []
    made = figure(
        f"{heading}\ntest pictures from the worst to the best", 190 * len(columns) + 90, 200 * len(chosen) + 70
    )
    grid = made.subplots(len(chosen), len(columns), squeeze=False)
    for panels, i in zip(grid, chosen, strict=True):
        true = part.masks[i].long()
        shown: list[np.ndarray] = [
            grey(part.pictures[i]).permute(1, 2, 0).expand(-1, -1, 3).numpy(),
            coloured(true),
            coloured(said[i]),
            errors(part.pictures[i], said[i], true),
        ]
        if part.instances is not None:
            shown += [coloured(part.instances[i].long()), coloured(measures.objects(said[i] > 0).long())]
        for axes, image in zip(panels, shown, strict=True):
            axes.imshow(image, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        panels[0].set_ylabel("\n".join(f"{name} {value:.3f}" for name, value in rows[i].items()))
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=9)
    return made


def upsampling(heading: str) -> Figure:
    """A map of 4x4 numbers, its greatest ones, and what each way up makes of them; numbers are written in the cells."""
    x = torch.tensor([[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])[None, None]
    y, switches = up.pooled(x)
    w = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])[None, None] / 4
    ways: dict[str, Callable[[], Tensor]] = {
        "nearest": lambda: up.nearest(y, (4, 4)),
        "bed of nails": lambda: up.nails(y, (4, 4)),
        "max unpooling": lambda: up.unpool(y, (4, 4), switches),
        "transposed convolution": lambda: up.transposed(y, (4, 4), w),
    }
    made = figure(f"{heading}\nfrom 2x2 to 4x4", 1180, 480)
    panels = made.subplots(2, 4)
    before = {"map": x, "greatest of each 2x2": y, "window of the transposed": w}
    for axes, (name, values) in zip(panels[0], before.items(), strict=False):
        signed(axes, values[0, 0], name)
    panels[0, 3].set_axis_off()
    for axes, (name, way) in zip(panels[1], ways.items(), strict=True):
        signed(axes, way()[0, 0], name)
    return made


def schemes(heading: str, rows: Sequence[tuple[str, int, int]]) -> Figure:
    """FLOPs of (scheme, parameters, flops), on a logarithmic axis."""
    made = figure(heading, 840, 320)
    axes = made.subplots()
    names = [f"{scheme} ({parameters} weights)" for scheme, parameters, _ in rows]
    bars = axes.barh(names, [flops for *_, flops in rows])
    axes.bar_label(bars, [f"{flops:.2g}" for *_, flops in rows], padding=4)
    axes.set(xscale="log", xlabel="FLOPs a picture")
    axes.margins(x=0.15)
    axes.invert_yaxis()
    return made
