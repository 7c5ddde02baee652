"""Equations of the multilayer perceptron, in the code that trains."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, gradient, identity
from mpcli_nets.maximum_likelihood import LIKELIHOODS
from mpcli_nets.mlp import graph
from mpcli_nets.mlp.activations import ACTIVATIONS, Activation, Name
from mpcli_nets.mlp.graph import Node


def off_zero(g: torch.Generator) -> Tensor:
    """Where no activation has a kink."""
    x = torch.randn(4, 5, dtype=torch.float64, generator=g)
    return x + 0.1 * x.sign()


def gradcheck() -> Iterator[Case]:
    yield from slopes()
    yield from primitives()
    yield from networks()


def slopes() -> Iterator[Case]:
    """Activations."""

    def of(a: Activation) -> Callable[[Tensor, Tensor], Sides]:
        def sides(x: Tensor, g: Tensor) -> Sides:
            leaf = Node(x)
            out = graph.dot(graph.activate(a, leaf), Node(g))
            return out.value, graph.backward(out)[leaf]

        return sides

    for name, a in ACTIVATIONS.items():
        yield gradient(f"{name}: f = {a.formula}, f' = {a.slope}", of(a), off_zero, (4, 5))

    def diagonal(x: Tensor, g: Tensor) -> Sides:
        leaf = Node(x)
        out = graph.activate(ACTIVATIONS["softmax"], leaf)
        y = out.value
        return graph.backward(graph.dot(out, Node(g)))[leaf], g @ (torch.diag(y) - torch.outer(y, y)), g * y * (1 - y)

    yield identity("softmax: J = diag(y) - y y^T", diagonal, (5,), (5,), mistake="its diagonal alone")

    def hyperbolic(x: Tensor) -> Sides:
        leaf = Node(x)
        out = graph.activate(ACTIVATIONS["tanh"], leaf)
        y = out.value
        rows = [graph.backward(graph.dot(out, Node(unit)))[leaf] for unit in torch.eye(len(x)).double()]
        return torch.stack(rows), torch.diag(1 - y**2), torch.eye(len(x)) - y**2

    printed = Printed("(51)", "dh/da = diag(I - h^2)", "dh/da = diag(1 - h^2), 1 a vector of ones")
    yield identity("tanh: dh/da = diag(1 - h^2)", hyperbolic, (5,), printed=printed)


def primitives() -> Iterator[Case]:
    """What a graph is made of."""

    def neuron(x: Tensor, y: Tensor) -> Sides:
        a, b = Node(x), Node(y)
        out = graph.activate(ACTIVATIONS["sigmoid"], graph.dot(a, b))
        n = (x @ y).sigmoid()
        return out.value, graph.backward(out)[a], n * (1 - n) * x

    yield gradient("n = s(x . y): dn/dx = n (1 - n) y", neuron, (4,), (4,), mistake="n (1 - n) x")

    def twice(x: Tensor, y: Tensor) -> Sides:
        a, b = Node(x), Node(y)
        both = graph.add(graph.multiply(a, b), graph.activate(ACTIVATIONS["tanh"], a))
        loss = graph.dot(both, both)
        total = x * y + x.tanh()
        return loss.value, graph.backward(loss)[a], 2 * total * y

    yield gradient("a value used twice: the sum of both ways", twice, (5,), (5,), mistake="one way alone")

    def affine(w: Tensor, x: Tensor, b: Tensor, v: Tensor) -> Sides:
        leaves = Node(x), Node(w), Node(b)
        loss = total(graph.multiply(graph.affine(*leaves), Node(v)))
        return (v * (x @ w.T + b)).sum(), graph.backward(loss)[leaves[1]]

    yield gradient("a = x W^T + b: dL/dW = delta^T x", affine, (3, 4), (6, 4), (3,), (6, 3))


def total(x: Node) -> Node:
    """The sum of all numbers."""
    return Node(x.value.sum(), (x, lambda g: g.expand_as(x.value)))


def networks() -> Iterator[Case]:
    """Layers."""
    from mpcli_nets import mlp

    def made(activation: Name, sizes: tuple[int, ...], likelihood: str, *values: Tensor) -> "mlp.MLP":
        model = mlp.MLP(mlp.Config(hidden=sizes[1:-1], activation=activation), sizes[0], sizes[-1], likelihood).double()
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), values, strict=True):
                parameter.copy_(value)
        return model

    shapes = (5, 4), (5,), (5, 5), (5,), (3, 5), (3,)  # W and b of two hidden layers and the last

    def loss(number: int) -> Callable[..., Sides]:
        def sides(value: Tensor, x: Tensor, y: Tensor, *others: Tensor) -> Sides:
            values = [*others[:number], value, *others[number:]]
            model = made("tanh", (4, 5, 5, 3), "categorical", *values)
            at = mlp.written(model, x, y.softmax(1), None)
            return at, list(model.parameters())[number].grad

        return sides

    for number, name in enumerate(("dL/dW_1", "dL/db_1", "dL/dW_2", "dL/db_2", "dL/dW_3", "dL/db_3")):
        others = shapes[:number] + shapes[number + 1 :]
        yield gradient(f"backpropagation: {name}", loss(number), shapes[number], (6, 4), (6, 3), *others)

    def outer(x: Tensor, y: Tensor, *values: Tensor) -> Sides:
        """dL/dW_2 = delta_2 z_1^T; the notes have z_2 in place of z_1."""
        model = made("tanh", (4, 5, 5, 3), "categorical", *values)
        mlp.written(model, x, y.softmax(1), None)
        w1, b1, w2, b2, w3, b3 = values
        z1 = (x @ w1.T + b1).tanh()
        z2 = (z1 @ w2.T + b2).tanh()
        delta = ((z2 @ w3.T + b3).softmax(1) - y.softmax(1)) / len(x) @ w3 * (1 - z2**2)
        return list(model.parameters())[2].grad, delta.T @ z1, delta.T @ z2

    printed = Printed("002 10", "dz_k^(l)/dw_ij^(l) = f'(a)_k z_j^(l) [k = i]", "f'(a)_k z_j^(l-1) [k = i]")
    yield identity("dL/dW_l = delta_l z_(l-1)^T", outer, (6, 4), (6, 3), *shapes, printed=printed)

    def biased(x: Tensor, *values: Tensor) -> Sides:
        model = made("relu", (4, 5, 5, 3), "categorical", *values)
        z, bare = x, x
        for w, b in zip(values[::2], values[1::2], strict=True):
            z, bare = (z @ w.T + b).clamp(min=0), (bare @ w.T).clamp(min=0)
        return model(x).clamp(min=0), z, bare

    printed = Printed("(3)", "x^(l) = f(W^(l) x^(l-1))", "x^(l) = f(W^(l) x^(l-1) + b^(l))")
    yield identity("z_l = f(W_l z_(l-1) + b_l)", biased, (6, 4), *shapes, printed=printed)

    def straight(x: Tensor, *values: Tensor) -> Sides:
        model = made("linear", (4, 5, 5, 3), "gaussian", *values)
        w, b = model.collapsed()
        w1, b1, w2, b2, w3, b3 = values
        product = torch.cat([w3 @ w2 @ w1, (w3 @ (w2 @ b1 + b2) + b3)[:, None]], 1)
        return torch.cat([w, b[:, None]], 1), product, torch.cat([w3 @ w2 @ w1, (b1 + b2).sum() + b3[:, None]], 1)

    yield identity("linear layers: W = W_3 W_2 W_1, b = W_3 (W_2 b_1 + b_2) + b_3", straight, (6, 4), *shapes,
                   mistake="biases that only add up")  # fmt: skip

    def same(x: Tensor, *values: Tensor) -> Sides:
        model = made("linear", (4, 5, 5, 3), "gaussian", *values)
        w, b = model.collapsed()
        return model(x), x @ w.T + b

    yield identity("linear layers: one affine map", same, (6, 4), *shapes)

    def dropped(x: Tensor, keep: Tensor, *values: Tensor) -> Sides:
        model = made("relu", (4, 5, 5, 3), "gaussian", *values)
        p = float(keep)
        masks = model.masks(len(x), p)
        kept, _ = model.graph(x, masks)
        w1, b1, w2, b2, w3, b3 = values
        z = (x @ w1.T + b1).clamp(min=0) * (masks[0] > 0) / p
        z = (z @ w2.T + b2).clamp(min=0) * (masks[1] > 0) / p
        return kept.value, z @ w3.T + b3

    yield identity("dropout: z * r / p, r ~ Bernoulli(p)", dropped, (6, 4), lambda g: torch.tensor(0.6), *shapes)

    def squared(eta: Tensor, y: Tensor) -> Sides:
        leaf = Node(eta)
        out = graph.mean_nll(LIKELIHOODS["gaussian"], leaf, y)
        return out.value, graph.backward(out)[leaf], eta - y

    mistake = "the sum's gradient where the loss is a mean"
    yield gradient("L = mean (y - eta)^2 / 2: dL/d eta = (eta - y) / N", squared, (6, 1), (6, 1), mistake=mistake)
