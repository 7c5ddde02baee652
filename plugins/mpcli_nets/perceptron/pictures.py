"""The line between two classes as a picture, in the plane of the data or in one through it."""

import numpy as np
import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from mpcli.kit.pictures import figure
from mpcli_nets.perceptron.examples import TwoClasses

COLOURS = ("tab:blue", "tab:orange")


def view(x: Tensor, w: Tensor) -> Tensor:
    """Two directions [2, D], orthonormal, in which examples [N, D] are looked at: the axes where there are two.

    Of more, the first is that of w, across the hyperplane, and the second the one in which the rest of the examples
    spreads most.
    """
    dim = x.shape[1]
    if dim <= 2:
        return torch.eye(2, dim, dtype=x.dtype)
    first = w / w.norm() if w.norm() > 0 else torch.eye(dim, dtype=x.dtype)[0]
    rest = x - x.mean(0)
    rest = rest - (rest @ first)[:, None] * first
    second = torch.linalg.svd(rest, full_matrices=False)[2][0]
    return torch.stack([first, second])


def lines(
    axes: Tensor, x: Tensor, t: Tensor, w: Tensor, b: Tensor, mistaken: int, heading: str, examples: TwoClasses
) -> Figure:
    """Examples, the line w^T x + b = 0, and the example that moved it last, by a ring (none where it is -1)."""
    made = figure(heading, 900 if examples.shape else 620, 520)
    panels = made.subplots(1, 2 if examples.shape else 1, squeeze=False)[0]
    plane, flat = panels[0], x.shape[1] <= 2
    centre = torch.zeros(x.shape[1], dtype=x.dtype) if flat else x.mean(0)
    seen = (x - centre) @ axes.T  # [N, 2]
    for value, (name, colour) in enumerate(zip(examples.classes, COLOURS, strict=True)):
        plane.plot(*seen[t == value].T.numpy(), "o", color=colour, markersize=5, label=name, alpha=0.8)
    if mistaken >= 0:
        plane.plot(*seen[mistaken].numpy(), "o", color="none", markeredgecolor="black", markersize=14, label="mistaken")
    low, high = seen.min(0).values, seen.max(0).values
    pad = 0.25 * (high - low).clamp(min=1e-3)
    (x0, y0), (x1, y1) = (low - pad).tolist(), (high + pad).tolist()
    # The hyperplane cut with the plane that is seen: c_0 s + c_1 r + c = 0.
    c, offset = axes @ w, float(w @ centre + b)
    grid_x, grid_y = np.meshgrid(np.linspace(x0, x1, 200), np.linspace(y0, y1, 200))
    height = float(c[0]) * grid_x + float(c[1]) * grid_y + offset
    plane.contourf(grid_x, grid_y, height > 0, levels=[-0.5, 0.5, 1.5], colors=COLOURS, alpha=0.12)
    if height.min() < 0 < height.max():
        plane.contour(grid_x, grid_y, height, levels=[0.0], colors="black", linewidths=1.5)
    names = examples.columns if flat else ("along the last w", "direction of the greatest spread beside it")
    plane.set(xlim=(x0, x1), ylim=(y0, y1), xlabel=names[0], ylabel=names[1] if len(names) > 1 else "")
    plane.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False, markerscale=0.7)
    if examples.shape:
        template = w.reshape(examples.shape).mean(0).numpy()
        limit = max(float(np.abs(template).max()), 1e-12)
        image = panels[1].imshow(template, "RdBu_r", norm=Normalize(-limit, limit))
        panels[1].set_title(f"w: red speaks for {examples.classes[1]}, blue for {examples.classes[0]}", fontsize=9)
        panels[1].set(xticks=[], yticks=[])
        made.colorbar(image, ax=panels[1], shrink=0.8)
    return made
