"""Perceptrons of agents: how they begin, and how they answer for a single step."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import nn


def network(inputs: int, hidden: tuple[int, ...], outputs: int, gain: float) -> nn.Sequential:
    """Tanh layers with orthogonal weights; a small gain makes the last one's output nearly nothing at first."""
    layers: list[nn.Module] = []
    for width, scale in (*((width, math.sqrt(2)) for width in hidden), (outputs, gain)):
        layer = nn.Linear(inputs, width)
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
        inputs = width
    return nn.Sequential(*layers[:-1])


def by_numpy(net: nn.Sequential, x: Float[np.ndarray, "B inputs"]) -> Float[np.ndarray, "B outputs"]:
    """What a perceptron makes of a few rows; on the CPU without torch.

    For one row, torch takes most of its time to call each layer. An agent that asks for every single step is answered
    in less than half of it. The arrays are the parameters' own memory: nothing is copied, and nothing gets old.
    A perceptron elsewhere is asked where it is.

    Args:
        net: `Linear`, `ReLU` and `Tanh` layers.
    """
    device = next(net.parameters()).device
    if device.type != "cpu":
        with torch.no_grad():
            return net(torch.from_numpy(x).to(device)).numpy(force=True)
    for layer in net:
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.detach().numpy().T
            x += layer.bias.detach().numpy()
        elif isinstance(layer, nn.ReLU):
            x = np.maximum(x, 0)
        elif isinstance(layer, nn.Tanh):
            x = np.tanh(x)
        else:
            raise TypeError(f"{type(layer).__name__} is no part of a perceptron")
    return x
