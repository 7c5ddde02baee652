"""Backpropagation over a graph of primitives: the chain rule along each edge, the sum rule where edges meet.

    dL/dx = sum over all y that x goes into of (dL/dy) (dy/dx)

Each primitive gives its value, and for each of its arguments the map that hands a gradient back. A gradient is used
once, when everything that the value goes into has added its part: what is shared is computed once.

Linnainmaa, Taylor expansion of the accumulated rounding error, 1976. BIT 16
Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, 1986. Nature 323
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mpcli_nets.maximum_likelihood.likelihoods import Likelihood
from mpcli_nets.mlp.activations import Activation

Pull = Callable[[Tensor], Tensor]  # the gradient of a value -> that of one of its arguments


class Node:
    """A value, and the values that it was made of, each with the way back to it."""

    def __init__(self, value: Tensor, *parents: tuple["Node", Pull]):
        self.value = value
        self.parents = parents


def affine(x: Node, w: Node, b: Node) -> Node:
    """x W^T + b. [N, D], [K, D], [K] -> [N, K]."""
    value = x.value @ w.value.T + b.value
    return Node(value, (x, lambda g: g @ w.value), (w, lambda g: g.T @ x.value), (b, lambda g: g.sum(0)))


def add(x: Node, y: Node) -> Node:
    """x + y, of one shape."""
    return Node(x.value + y.value, (x, lambda g: g), (y, lambda g: g))


def multiply(x: Node, y: Node) -> Node:
    """x * y, number by number, of one shape."""
    return Node(x.value * y.value, (x, lambda g: g * y.value), (y, lambda g: g * x.value))


def dot(x: Node, y: Node) -> Node:
    """x . y over the last axis. [..., D], [..., D] -> [...]."""
    value = (x.value * y.value).sum(-1)
    return Node(value, (x, lambda g: g[..., None] * y.value), (y, lambda g: g[..., None] * x.value))


def activate(activation: Activation, x: Node) -> Node:
    """f(x)."""
    value = activation.f(x.value)
    return Node(value, (x, lambda g: activation.back(x.value, value, g)))


def mean_nll(of: Likelihood, eta: Node, y: Tensor) -> Node:
    """The mean over examples of -log p(y|eta), of scale 1. [N, K], [N, K] -> []."""
    one = y.new_ones(())
    return Node(of.nll(eta.value, y, one).mean(), (eta, lambda g: g * of.slope(eta.value, y, one) / len(y)))


def backward(loss: Node) -> dict[Node, Tensor]:
    """The gradient of a number with respect to every value that it was made of."""
    order: list[Node] = []
    seen: set[Node] = set()
    waiting = [(loss, False)]
    while waiting:  # depth first, each value behind all that it was made of
        node, ready = waiting.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(parent, False) for parent, _ in node.parents]
    gradients = {loss: torch.ones_like(loss.value)}
    for node in reversed(order):
        for parent, pull in node.parents:
            part = pull(gradients[node])
            gradients[parent] = gradients[parent] + part if parent in gradients else part
    return gradients
