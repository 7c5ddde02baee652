"""Layers forward and backward, written out: sums over windows, without torch's convolution, pooling or autograd.

Maps are [N, C, H, W], weights [K, C, M, N]. A border is (before, behind), the same for rows and columns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpcli_nets.cnn.calculator import pair
from mpcli_nets.cnn.layers import output_size
from mpcli_nets.mlp import ACTIVATIONS
from mpcli_nets.mlp.graph import Node, activate, affine, multiply


@dataclass(frozen=True)
class Window:
    """How a window of `side` = (rows, columns) is laid on maps."""

    side: tuple[int, int]
    stride: int = 1
    before: int = 0
    behind: int = 0
    dilation: int = 1

    def places(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of what comes out for maps [..., H, W]."""
        height, width = (
            output_size(size, side, self.stride, self.before, self.behind, self.dilation)
            for size, side in zip(x.shape[-2:], self.side, strict=True)
        )
        return height, width

    def parts(self, padded: Tensor, places: tuple[int, int]) -> Iterator[tuple[int, int, Tensor]]:
        """For each cell (i, j) of the window what it lies on at all places, a view of padded maps: [N, C, H', W']."""
        rows, columns = (self.stride * (count - 1) + 1 for count in places)
        for i in range(self.side[0]):
            for j in range(self.side[1]):
                top, left = self.dilation * i, self.dilation * j
                yield i, j, padded[..., top : top + rows : self.stride, left : left + columns : self.stride]

    def padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        return F.pad(x, (self.before, self.behind, self.before, self.behind), value=value)

    def inside(self, padded: Tensor, x: Tensor) -> Tensor:
        """What of padded maps lies on the maps themselves."""
        return padded[..., self.before : self.before + x.shape[-2], self.before : self.before + x.shape[-1]]


def conv(x: Tensor, w: Tensor, b: Tensor, at: Window) -> Tensor:
    """a(k, i, j) = b(k) + sum_cmn w(k, c, m, n) x(c, s i + d m - p, s j + d n - p): a correlation over full depth."""
    places = at.places(x)
    total = b[:, None, None].expand(len(x), -1, *places)
    for i, j, part in at.parts(at.padded(x), places):
        total = total + torch.einsum("nchw,kc->nkhw", part, w[:, :, i, j])
    return total


def conv_input(delta: Tensor, x: Tensor, w: Tensor, at: Window) -> Tensor:
    """dL/dx: each place hands delta back to where its window lay, times the weight there; overlaps add.

    At stride 1 this is the full convolution of delta with w: sum_m delta(i - m) w(m).
    """
    padded = torch.zeros_like(at.padded(x))
    for i, j, part in at.parts(padded, at.places(x)):
        part += torch.einsum("nkhw,kc->nchw", delta, w[:, :, i, j])
    return at.inside(padded, x)


def conv_weight(delta: Tensor, x: Tensor, w: Tensor, at: Window) -> Tensor:
    """dL/dw(k, c, m, n) = sum_ij delta(k, i, j) x(c, s i + d m - p, s j + d n - p): a valid correlation."""
    found = torch.empty_like(w)
    for i, j, part in at.parts(at.padded(x), at.places(x)):
        found[:, :, i, j] = torch.einsum("nkhw,nchw->kc", delta, part)
    return found


def max_pool(x: Tensor, at: Window) -> tuple[Tensor, Tensor]:
    """The greatest of each window, and which cell of the window it was; of several that are equal, the first."""
    stack = torch.stack([part for _, _, part in at.parts(at.padded(x, -torch.inf), at.places(x))])
    best = stack.amax(0)
    which = (stack == best).to(torch.uint8).argmax(0)
    return best, which


def max_pool_input(delta: Tensor, x: Tensor, which: Tensor, at: Window) -> Tensor:
    """dL/dx: delta goes to the greatest of its window; where windows overlap, what comes together adds."""
    padded = torch.zeros_like(at.padded(x))
    for number, (_, _, part) in enumerate(at.parts(padded, at.places(x))):
        part += delta * (which == number)
    return at.inside(padded, x)


def mean_pool(x: Tensor, at: Window) -> Tensor:
    """The mean of each window, zeros of the border counted."""
    return torch.stack([part for _, _, part in at.parts(at.padded(x), at.places(x))]).mean(0)


def mean_pool_input(delta: Tensor, x: Tensor, at: Window) -> Tensor:
    """dL/dx: every cell of a window gets an equal part of delta."""
    padded = torch.zeros_like(at.padded(x))
    for _, _, part in at.parts(padded, at.places(x)):
        part += delta / (at.side[0] * at.side[1])
    return at.inside(padded, x)


def batch_norm_input(g: Tensor, xhat: Tensor, deviation: Tensor, axes: tuple[int, ...]) -> Tensor:
    """dL/dx of xhat = (x - m) / s, with m and s those of the batch: (g - m(g) - xhat m(g xhat)) / s."""
    return (g - g.mean(axes, keepdim=True) - xhat * (g * xhat).mean(axes, keepdim=True)) / deviation


# The same as primitives of a graph; `leaves` are the nodes of the module's parameters.
Leaves = dict[Tensor, Node]


def window_of(module: Any) -> Window:
    """The window of a module of torch, whose border is the same on every side."""
    stride, padding, dilation = (
        pair(value)[0] for value in (module.stride, module.padding, getattr(module, "dilation", 1))
    )
    return Window(pair(module.kernel_size), stride, padding, padding, dilation)


def conv_node(module: nn.Conv2d, x: Node, leaves: Leaves) -> Node:
    at, w = window_of(module), leaves[module.weight]
    b = leaves[module.bias] if module.bias is not None else Node(w.value.new_zeros(len(w.value)))
    return Node(
        conv(x.value, w.value, b.value, at),
        (x, lambda g: conv_input(g, x.value, w.value, at)),
        (w, lambda g: conv_weight(g, x.value, w.value, at)),
        (b, lambda g: g.sum((0, 2, 3))),
    )


def max_node(module: nn.MaxPool2d, x: Node, leaves: Leaves) -> Node:
    at = window_of(module)
    value, which = max_pool(x.value, at)
    return Node(value, (x, lambda g: max_pool_input(g, x.value, which, at)))


def mean_node(module: nn.AvgPool2d, x: Node, leaves: Leaves) -> Node:
    at = window_of(module)
    return Node(mean_pool(x.value, at), (x, lambda g: mean_pool_input(g, x.value, at)))


def global_node(module: nn.AdaptiveAvgPool2d, x: Node, leaves: Leaves) -> Node:
    height, width = x.value.shape[-2:]
    return Node(x.value.mean((2, 3), keepdim=True), (x, lambda g: (g / (height * width)).expand_as(x.value)))


def norm_node(module: nn.BatchNorm1d | nn.BatchNorm2d, x: Node, leaves: Leaves) -> Node:
    axes = (0, 2, 3)[: x.value.ndim - 1]
    shape = (1, -1, 1, 1)[: x.value.ndim]
    mean, var = x.value.mean(axes), x.value.var(axes, correction=0)
    deviation = (var + module.eps).sqrt().reshape(shape)
    xhat = (x.value - mean.reshape(shape)) / deviation
    count = x.value.numel() / x.value.shape[1]
    rate, means, variances = module.momentum or 0.0, module.running_mean, module.running_var
    if means is not None and variances is not None:
        means += rate * (mean - means)
        variances += rate * (var * count / (count - 1) - variances)
    gamma, beta = leaves[module.weight], leaves[module.bias]
    return Node(
        gamma.value.reshape(shape) * xhat + beta.value.reshape(shape),
        (x, lambda g: batch_norm_input(g * gamma.value.reshape(shape), xhat, deviation, axes)),
        (gamma, lambda g: (g * xhat).sum(axes)),
        (beta, lambda g: g.sum(axes)),
    )


def relu_node(module: nn.ReLU, x: Node, leaves: Leaves) -> Node:
    return activate(ACTIVATIONS["relu"], x)


def flat_node(module: nn.Flatten, x: Node, leaves: Leaves) -> Node:
    return Node(x.value.flatten(1), (x, lambda g: g.reshape(x.value.shape)))


def dense_node(module: nn.Linear, x: Node, leaves: Leaves) -> Node:
    return affine(x, leaves[module.weight], leaves[module.bias])


def drop_node(module: nn.Dropout, x: Node, leaves: Leaves) -> Node:
    keep = 1 - module.p
    return multiply(x, Node((torch.rand_like(x.value) < keep).to(x.value) / keep))


NODES: dict[type[nn.Module], Callable[[Any, Node, Leaves], Node]] = {
    nn.Conv2d: conv_node,
    nn.MaxPool2d: max_node,
    nn.AvgPool2d: mean_node,
    nn.AdaptiveAvgPool2d: global_node,
    nn.BatchNorm1d: norm_node,
    nn.BatchNorm2d: norm_node,
    nn.ReLU: relu_node,
    nn.Flatten: flat_node,
    nn.Linear: dense_node,
    nn.Dropout: drop_node,
}


@torch.no_grad()
def graph(layers: list[nn.Module], x: Tensor) -> tuple[Node, Leaves]:
    """What layers in training make of maps, as a graph of primitives, and the nodes of their parameters."""
    leaves: Leaves = {p: Node(p.detach()) for module in layers for p in module.parameters()}
    node = Node(x)
    for module in layers:
        node = NODES[type(module)](module, node, leaves)
    return node, leaves
