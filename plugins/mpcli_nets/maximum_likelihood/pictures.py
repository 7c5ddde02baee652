"""What the fitted distribution says beside what is seen, and the error of estimates by the number of examples."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mpcli.kit.pictures import figure

MODEL, SEEN = "tab:blue", "tab:orange"


def fitted(axes: Axes, eta: Tensor, y: Tensor, reach: float, target: str) -> None:
    """Numbers as they are [N] over what is predicted [N], and the band that should hold 95% of them."""
    ends = np.array([float(eta.min()), float(eta.max())])
    axes.fill_between(ends, ends - reach, ends + reach, color=MODEL, alpha=0.15, label="95% of the distribution")
    axes.plot(ends, ends, color=MODEL, label="predicted")
    axes.plot(eta.numpy(), y.numpy(), "o", color=SEEN, markersize=4, alpha=0.8, label="test examples")
    axes.set(xlabel=f"{target}, predicted", ylabel=f"{target}, seen", title="prediction and truth")
    axes.legend(fontsize=8)


def calibrated(axes: Axes, p: Tensor, y: Tensor) -> None:
    """How often what is said to have a probability [N, K] is so [N, K]."""
    p, y = p.flatten(), y.flatten()
    bins = torch.bucketize(p, torch.linspace(0, 1, 11).to(p)[1:-1])
    filled = [k for k in range(10) if (bins == k).any()]
    said = [float(p[bins == k].mean()) for k in filled]
    seen = [float(y[bins == k].mean()) for k in filled]
    counts = np.array([int((bins == k).sum()) for k in filled])
    axes.plot([0, 1], [0, 1], color=MODEL, label="calibrated")
    axes.scatter(said, seen, s=20 + 60 * counts / counts.max(), color=SEEN, label="test examples, in tenths", zorder=2)
    for x, height, count in zip(said, seen, counts, strict=True):
        axes.annotate(f"{count}", (x, height), xytext=(6, -10), textcoords="offset points", fontsize=7)
    axes.set(xlabel="probability said", ylabel="share seen", title="what is said and what is seen")
    axes.legend(fontsize=8)


def drawn(heading: str, sizes: Sequence[int], off: Tensor, bound: Tensor, what: str) -> tuple[Figure, Axes]:
    """The figure, with errors over sizes on its right, and the axes on its left, which are empty."""
    made = figure(heading, 980, 480)
    left, right = made.subplots(1, 2)
    right.loglog(sizes, off.numpy(), "o", color=SEEN, label="maximum likelihood")
    right.loglog(sizes, bound.numpy(), color=MODEL, label="Cramér and Rao: (1 / n I)^1/2")
    right.set(xlabel="examples n", ylabel="root mean square error", title=f"error of {what}, inputs left out")
    right.legend(fontsize=8)
    return made, left
