"""A picture, a kernel and what comes of them; the matrix of a kernel; where a template is found."""

import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from mpcli.kit.pictures import figure

NUMBERS = 9  # columns up to which the numbers of cells are written


def signed(axes: Axes, values: Tensor, title: str, bar: Figure | None = None, most: int = NUMBERS) -> None:
    """Numbers in colours of which white is 0, written in their cells too where there are at most so many columns."""
    limit = max(float(values.abs().max()), 1e-12)
    shown = axes.imshow(values.numpy(), "RdBu_r", norm=Normalize(-limit, limit), interpolation="nearest")
    axes.set(title=title, xticks=[], yticks=[])
    if bar:
        bar.colorbar(shown, ax=axes, shrink=0.7)
    if values.shape[1] <= most:
        for i, row in enumerate(values.tolist()):
            for j, value in enumerate(row):
                colour = "white" if abs(value) > 0.6 * limit else "black"
                axes.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=6, color=colour)


def filtered(heading: str, image: Tensor, kernel: Tensor, response: Tensor, operation: str) -> Figure:
    """The picture [H, W], the kernel [M, N] and what comes of them."""
    made = figure(heading, 1180, 430)
    one, two, three = made.subplots(1, 3, width_ratios=[2, 1, 2])
    one.imshow(image.numpy(), "gray", vmin=0, vmax=1)
    one.set(title="picture", xticks=[], yticks=[])
    signed(two, kernel, "kernel")
    signed(three, response, operation, made)
    return made


def matrix(heading: str, kernel: Tensor, t: Tensor) -> Figure:
    """A kernel [M] and its Toeplitz matrix [L, N]: a row of the picture times it is the full convolution."""
    made = figure(heading, 700, 620)
    top, below = made.subplots(2, 1, height_ratios=[1, 8])
    signed(top, kernel[None], "kernel")
    signed(below, t, f"T: T x = k * x for a row x of {t.shape[1]} numbers")
    return made


def found(heading: str, image: Tensor, template: Tensor, score: Tensor, at: tuple[int, int]) -> Figure:
    """The picture with a box where the template fits best, the template, and how well it fits at each place."""
    made = figure(heading, 1180, 430)
    one, two, three = made.subplots(1, 3, width_ratios=[2, 1, 2])
    one.imshow(image.numpy(), "gray", vmin=0, vmax=1)
    corner = (at[1] - 0.5, at[0] - 0.5)
    box = Rectangle(corner, template.shape[1], template.shape[0], fill=False, edgecolor="tab:orange", linewidth=2)
    one.add_patch(box)
    one.set(title=f"found at row {at[0]}, column {at[1]}", xticks=[], yticks=[])
    two.imshow(template.numpy(), "gray")
    two.set(title="template", xticks=[], yticks=[])
    signed(three, score, "normalised correlation", made)
    three.plot(at[1], at[0], "o", color="none", markeredgecolor="black", markersize=12)
    return made


def cropped(kernel: Tensor, most: int = 9) -> Tensor:
    """The middle row of a kernel, at most so many numbers of it."""
    row = kernel[kernel.shape[0] // 2]
    start = max(0, (len(row) - most) // 2)
    return torch.as_tensor(row[start : start + most])
