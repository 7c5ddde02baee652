"""Activations: f, the product of a gradient with its derivative, and its range."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """A function of what a layer sums up.

    Attributes:
        f: [..., D] -> [..., D].
        back: of x, y = f(x) and a gradient g with respect to y, the one with respect to x.
        formula, slope, range: as a book prints them.
        gain: what weights of deviation 1 / D^1/2 are multiplied by, so that signals keep their size.
    """

    f: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor, Tensor], Tensor]
    formula: str
    slope: str
    range: str
    gain: float = 1.0


LEAK = 0.01

Name = Literal["step", "linear", "sigmoid", "tanh", "relu", "leaky_relu", "softmax"]

ACTIVATIONS: dict[Name, Activation] = {
    "step": Activation(lambda x: (x > 0).to(x), lambda x, y, g: torch.zeros_like(g), "1{x > 0}", "0", "{0, 1}"),
    "linear": Activation(lambda x: x, lambda x, y, g: g, "x", "1", "(-inf, inf)"),
    "sigmoid": Activation(torch.sigmoid, lambda x, y, g: g * y * (1 - y), "1 / (1 + e^-x)", "f (1 - f)", "(0, 1)"),
    "tanh": Activation(torch.tanh, lambda x, y, g: g * (1 - y * y), "tanh x", "1 - f^2", "(-1, 1)", 5 / 3),
    "relu": Activation(torch.relu, lambda x, y, g: g * (x > 0), "max(0, x)", "1{x > 0}", "[0, inf)", math.sqrt(2)),
    "leaky_relu": Activation(
        lambda x: torch.where(x > 0, x, LEAK * x),
        lambda x, y, g: torch.where(x > 0, g, LEAK * g),
        f"max(x, {LEAK:g} x)",
        f"1 or {LEAK:g}",
        "(-inf, inf)",
        math.sqrt(2 / (1 + LEAK**2)),
    ),
    "softmax": Activation(
        lambda x: x.softmax(-1),
        lambda x, y, g: y * (g - (g * y).sum(-1, keepdim=True)),
        "e^x_i / sum_j e^x_j",
        "diag(f) - f f^T",
        "(0, 1), sums to 1",
    ),
}
