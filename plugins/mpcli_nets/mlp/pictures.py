"""Activations and gradients by layer, decision regions, and approximations of a function."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mpcli.kit.pictures import figure
from mpcli_nets.kit.rows import Rows
from mpcli_nets.mlp import bases
from mpcli_nets.mlp.activations import ACTIVATIONS, Name
from mpcli_nets.perceptron import Config as PerceptronConfig
from mpcli_nets.perceptron import Perceptron, one_pass

if TYPE_CHECKING:
    from mpcli_nets.mlp import MLP

COLOURS = [colormaps["tab10"](i) for i in range(10)]
WIDTHS = (4, 8, 16, 32, 64, 128)  # hidden units of random weights


def layers(heading: str, norms: Mapping[Name, Sequence[float]], now: Sequence[float], mine: str) -> Figure:
    """f, f' and the norm of the gradient of each layer's weights, for every activation."""
    made = figure(heading, 1180, 430)
    shape, slope, size = made.subplots(1, 3)
    x = torch.linspace(-4, 4, 401).double()
    for (name, a), colour in zip(ACTIVATIONS.items(), COLOURS, strict=False):
        # Of a softmax, its first number: that of (x, 0).
        at = torch.stack([x, 0 * x], 1) if name == "softmax" else x[:, None]
        g = torch.zeros_like(at)
        g[:, 0] = 1
        y = a.f(at)
        width, style = 2.5 if name == mine else 1.2, "--" if name in ("softmax", "leaky_relu") else "-"
        shape.plot(x, y[:, 0], style, color=colour, linewidth=width, label=name)
        slope.plot(x, a.back(at, y, g)[:, 0], style, color=colour, linewidth=width)
        if max(norms[name]) > 0:
            at_layer = [value if value > 0 else np.nan for value in norms[name]]
            size.semilogy(range(1, len(now) + 1), at_layer, "o-", color=colour, linewidth=width)
    size.semilogy(range(1, len(now) + 1), now, "s--", color="black", label="this network, trained")
    shape.set(title="f(a)", xlabel="a", ylim=(-1.5, 2.5))
    slope.set(title="f'(a)", xlabel="a")
    size.set(title="|dL/dW| as networks begin", xlabel="layer", xticks=range(1, len(now) + 1))
    shape.legend(fontsize=7)
    size.legend(fontsize=7)
    return made


@torch.no_grad()
def regions(heading: str, model: "MLP", given: Rows) -> Figure:
    """Two numbers an example: the line of a perceptron, the regions of the network, the two strongest hidden units."""
    made = figure(heading, 1180, 430)
    line, plane, hidden = made.subplots(1, 3)
    x, t = given.train, given.targets.train
    low, high = x.min(0).values, x.max(0).values
    pad = 0.25 * (high - low)
    (x0, y0), (x1, y1) = (low - pad).tolist(), (high + pad).tolist()
    grid_x, grid_y = np.meshgrid(np.linspace(x0, x1, 200), np.linspace(y0, y1, 200))
    grid = torch.from_numpy(np.stack([grid_x, grid_y], -1)).reshape(-1, 2).float()
    panels = [(plane, model(grid).argmax(1), "the network")]
    if len(given.classes) == 2:
        straight = Perceptron(PerceptronConfig(), 2)
        straight.inputs.measure(x)
        for _ in range(100):
            list(one_pass(straight, straight.inputs(x), t))
        panels.append((line, straight(straight.inputs(grid)), "a perceptron, after 100 passes"))
    else:
        line.set_axis_off()
    for axes, named, title in panels:
        levels = np.arange(len(given.classes) + 1) - 0.5
        colours = COLOURS[: len(given.classes)]
        axes.contourf(grid_x, grid_y, named.reshape(grid_x.shape).numpy(), levels, colors=colours, alpha=0.2)
        points(axes, x, t, given.classes)
        axes.set(title=title, xlabel=given.columns[0], ylabel=given.columns[1], xlim=(x0, x1), ylim=(y0, y1))
    z = model.inputs(x).to(model.layers[0].weight)
    for layer in model.layers[:-1]:
        z = model.activation.f(layer(z))
    strongest = model.layers[-1].weight.norm(dim=0).argsort(descending=True)[:2]
    if len(strongest) == 2 and len(model.layers) > 1:
        points(hidden, z[:, strongest], t, given.classes)
        names = [f"hidden unit {int(i) + 1}" for i in strongest]
        hidden.set(title="as the last layer sees them", xlabel=names[0], ylabel=names[1])
    return made


def points(axes: Axes, x: Tensor, t: Tensor, classes: Sequence[str]) -> None:
    """Examples [N, 2], coloured by class."""
    for number, (name, colour) in enumerate(zip(classes, COLOURS, strict=False)):
        axes.plot(*x[t == number].T.numpy(), "o", color=colour, markersize=6, markeredgecolor="white", label=name)
    axes.legend(fontsize=7)


@torch.no_grad()
def approximation(heading: str, model: "MLP", given: Rows) -> Figure:
    """A function of one number, the network, and how the greatest error of random units falls with their number."""
    made = figure(heading, 980, 430)
    left, right = made.subplots(1, 2)
    order = given.test[:, 0].argsort()
    x, y = given.test[order], given.targets.test[order]
    predicted = model.units.inverse(model(x))[:, 0]
    left.plot(x[:, 0], y, color="black", linewidth=3, alpha=0.3, label=given.target)
    left.plot(x[:, 0], predicted, color=COLOURS[0], label="the network")
    errors = []
    for units in WIDTHS:
        fit = bases.random_units(given.train, given.targets.train, units, torch.tanh)
        errors.append(float((fit(x) - y).abs().max()))
        if units == 8:
            left.plot(x[:, 0], fit(x), "--", color=COLOURS[1], label="8 random units")
    left.set(xlabel=given.columns[0], title="approximation")
    left.legend(fontsize=8)
    right.loglog(WIDTHS, errors, "o--", color=COLOURS[1], label="random units, read out by least squares")
    units = sum(layer.out_features for layer in model.layers[:-1])
    off = float((predicted - y).abs().max())
    right.loglog([max(units, 1)], [off], "s", color=COLOURS[0], markersize=9, label="the network")
    right.set(xlabel="hidden units", ylabel="greatest error", title="greatest error on the interval")
    right.legend(fontsize=8)
    return made
