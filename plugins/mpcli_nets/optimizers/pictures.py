"""Paths over a landscape, and the race of losses."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from mpcli.kit.pictures import figure, frame
from mpcli_nets.optimizers.landscapes import Landscape
from mpcli_nets.optimizers.methods import METHODS

COLOURS = {name: colormaps["tab10"](i) for i, name in enumerate(METHODS)}


class Paths:
    """Contours of a function of the plane, or the graph of one of the line, and paths [methods, steps, D] so far."""

    def __init__(self, heading: str, of: Landscape, where: Tensor, names: Sequence[str]):
        self.made = figure(heading, 760, 520)
        axes = self.made.subplots()
        self.where, self.of = where.numpy(), of
        low, high = of.box
        x = np.linspace(low[0], high[0], 200)
        self.flat = len(low) == 1
        if self.flat:
            axes.plot(x, of.f(torch.from_numpy(x)[:, None]).numpy(), color="grey")
            axes.set(xlabel="θ", ylabel="f(θ)")
        else:
            y = np.linspace(low[1], high[1], 200)
            grid = torch.from_numpy(np.stack(np.meshgrid(x, y), -1))
            height = of.f(grid).numpy()
            lowest = height.min()
            levels = lowest + (height.max() - lowest) * np.geomspace(1e-4, 1, 18)
            axes.contour(x, y, height, levels=levels, colors="grey", linewidths=0.6, alpha=0.7)
            axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="θ1", ylabel="θ2")
        self.lines = [axes.plot([], [], "-", color=COLOURS[name], linewidth=1.2)[0] for name in names]
        self.heads = [axes.plot([], [], "o", color=COLOURS[name], markersize=6, label=name)[0] for name in names]
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
        self.title = axes.set_title("")

    def at(self, step: int) -> Tensor:
        """The frame [3, H, W] of that step."""
        for line, head, path in zip(self.lines, self.heads, self.where, strict=True):
            past = path[: step + 1]
            xy = np.stack([past[:, 0], self.of.f(torch.from_numpy(past)).numpy()], 1) if self.flat else past
            line.set_data(*(xy.T if not self.flat else xy[-1:].T))
            head.set_data(*xy[-1:].T)
        self.title.set_text(f"after {step} of {self.where.shape[1] - 1} steps")
        return frame(self.made)


def race(heading: str, loss: Tensor, names: Sequence[str]) -> Figure:
    """Losses [methods, steps + 1] above the least of all, on a logarithmic axis."""
    made = figure(heading, 820, 480)
    axes = made.subplots()
    least = min(float(loss.min()), 0.0) if float(loss.min()) < 0 else 0.0
    for row, name in zip(loss.numpy(), names, strict=True):
        above = np.maximum(row - least, 1e-16)
        axes.semilogy(range(len(row)), above, color=COLOURS[name], label=name, linewidth=1.4)
    axes.set(xlabel="step", ylabel="loss" if not least else f"loss above {least:.3g}")
    axes.set_ylim(bottom=max(1e-14, axes.get_ylim()[0]))
    axes.legend(fontsize=8, ncols=2)
    return made
