"""Predictions of single draws, weights by size, and how well gradients predict the next ones."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mpcli.kit.pictures import figure
from mpcli_nets.kit.rows import Rows

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red")


def predictions(heading: str, drawn: Tensor, given: Rows, keep: float) -> Figure:
    """Of every example what is predicted, on average and in each draw [P, N, K], and the truth."""
    passes, count, outputs = drawn.shape
    heading = f"{heading}\n{passes} draws of what is dropped, keep {keep:g}"
    if outputs == 1:
        made = figure(heading, 900, 420)
        axes = made.subplots()
        axes.violinplot(drawn[:, :, 0].numpy(), range(count), showmeans=True, showextrema=False)
        axes.plot(range(count), given.targets.test[:count].tolist(), "o", color=COLOURS[1], label="truth")
        axes.set(xlabel="test example", ylabel=given.target, xticks=range(count))
        axes.legend(fontsize=8)
        return made
    across = min(count, 6)
    down = -(-count // across)
    made = figure(heading, 190 * across, 250 * down + 40)
    grid = made.subplots(2 * down, across, squeeze=False, height_ratios=[1, 1] * down)
    for axes in grid.flat:
        axes.set_axis_off()
    for number in range(count):
        row, column = divmod(number, across)
        top, bars = grid[2 * row, column], grid[2 * row + 1, column]
        truth = int(given.targets.test[number])
        if given.shape:
            top.imshow(given.test[number].reshape(given.shape).permute(1, 2, 0).numpy(), "gray", vmin=0, vmax=1)
        top.set_title(given.classes[truth], fontsize=8)
        mean, spread = drawn[:, number].mean(0), drawn[:, number].std(0, correction=0)
        colours = [COLOURS[1] if k == truth else COLOURS[0] for k in range(outputs)]
        bars.set_axis_on()
        bars.bar(range(outputs), mean.tolist(), yerr=spread.tolist(), color=colours, error_kw={"linewidth": 0.8})
        bars.set(ylim=(0, 1.05), yticks=[])
        bars.set_xticks(
            range(outputs), given.classes, fontsize=6, rotation=90 if max(map(len, given.classes)) > 2 else 0
        )
    return made


def gradients(heading: str, off: Mapping[str, Sequence[float]], weights: Sequence[Tensor]) -> Figure:
    """How far gradients turn out from the last ones, and the sizes of the trained weights, layer by layer."""
    made = figure(heading, 980, 430)
    left, right = made.subplots(1, 2)
    for (name, values), colour in zip(off.items(), COLOURS, strict=False):
        left.semilogy(range(1, len(values) + 1), values, color=colour, alpha=0.3, linewidth=0.8)
        window = max(1, len(values) // 20)
        smooth = np.convolve(values, np.ones(window) / window, "valid")
        left.semilogy(np.arange(len(smooth)) + (window + 1) / 2, smooth, color=colour, label=name)
    left.set(xlabel="step of a training", ylabel="|g(θ - c g) - g(θ)| / |g(θ)|, largest", title="unpredicted gradient")
    left.legend(fontsize=8)
    for number, w in enumerate(weights, 1):
        sizes = w.abs().flatten().sort(descending=True).values
        share = torch.linspace(0, 100, len(sizes))
        zeros = f"{int((sizes == 0).sum())} of {len(sizes)} are 0"
        right.semilogy(share.tolist(), sizes.clamp(min=1e-9).tolist(), label=f"layer {number}: {zeros}")
    right.set(xlabel="percent of the weights, by size", ylabel="|w|", ylim=(1e-6, None), title="trained weights")
    right.legend(fontsize=8)
    return made
