"""Rules of differentiation, activations, backpropagation."""

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from mpcli.checks import Case
from mpcli.old_checks import gradient, identity, inequality


def normal(*shapes: tuple[int, ...]) -> Callable[[Generator], tuple[Tensor, ...]]:
    """A draw of standard normal tensors of these shapes."""
    return lambda r: tuple(torch.randn(shape, generator=r, dtype=torch.float64) for shape in shapes)


ZERO, ONE = torch.tensor([0, 1], dtype=torch.float64)


# 1. Rules of differentiation, with f = sin and g = 1 + x^2


def circle(x: Tensor) -> Tensor:  # the y > 0 that x^2 + y^2 = 1 defines
    return (1 - x**2).sqrt()


def rules() -> Iterator[Case]:
    x = normal((5,))
    f, df, g, dg = torch.sin, torch.cos, lambda x: 1 + x**2, lambda x: 2 * x

    def quotient(x: Tensor) -> Tensor:
        return (df(x) * g(x) - f(x) * dg(x)) / g(x) ** 2

    yield gradient("(f g)' = f' g + f g'", lambda x: f(x) * g(x), lambda x: df(x) * g(x) + f(x) * dg(x), x)
    yield gradient("(f / g)' = (f' g - f g') / g^2", lambda x: f(x) / g(x), quotient, x)
    yield gradient("(f o g)' = f'(g) g'", lambda x: f(g(x)), lambda x: df(g(x)) * dg(x), x)
    yield gradient("(f^-1)' = 1 / f'(f^-1), f = sinh", torch.asinh, lambda x: 1 / x.asinh().cosh(), x)
    yield gradient("(log x)' = 1 / x", torch.log, torch.reciprocal, lambda r: (x(r)[0].abs() + 0.1,))
    yield gradient("x^2 + y^2 = 1: dy/dx = -x / y", circle, lambda x: -x / circle(x), lambda r: (x(r)[0].sin() * 0.9,))


# 2. Activations


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x) for x >= 0 and e^x / (1 + e^x) below: neither overflows, at no x."""
    e = torch.exp(-x.abs())
    return torch.where(x >= 0, 1 / (1 + e), e / (1 + e))


def log_sigmoid(x: Tensor) -> Tensor:
    return x.clamp(max=0) - torch.exp(-x.abs()).log1p()


def softmax(x: Tensor) -> Tensor:  # [D] -> [D]; a constant added to x cancels, so the largest is taken away
    e = torch.exp(x - x.max())
    return e / e.sum()


def softmax_jacobian(x: Tensor) -> Tensor:  # [D] -> [D, D]
    y = softmax(x)
    return torch.diag(y) - torch.outer(y, y)


def activations() -> Iterator[Case]:
    x = normal((6,))

    def off_zero(r: Generator) -> tuple[Tensor]:  # at 0 the step and both ReLUs have no derivative, only a convention
        return (x(r)[0] + 0.1 * x(r)[0].sign(),)

    def far(r: Generator) -> tuple[Tensor]:
        return (400 * x(r)[0],)

    yield gradient("step: [x > 0]' = 0", lambda x: (x > 0).double(), torch.zeros_like, off_zero)
    yield gradient("linear: (c x)' = c", lambda x: 3 * x, lambda x: torch.full_like(x, 3), x)
    yield gradient("sigmoid: s' = s (1 - s)", sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), x)
    yield identity("s(x) = 1 / (1 + e^-x)", sigmoid, lambda x: 1 / (1 + torch.exp(-x)), x)
    yield identity("s(x) = e^x / (1 + e^x)", sigmoid, lambda x: x.exp() / (1 + x.exp()), x)
    yield identity("s(x) + s(-x) = 1, x to a thousand", lambda x: sigmoid(x) + sigmoid(-x), torch.ones_like, far)
    yield gradient("(log s)'(x) = s(-x), x to a thousand", log_sigmoid, lambda x: sigmoid(-x), far)
    yield identity(
        "tanh: dh/dx = diag(1 - h^2)",
        lambda x: torch.autograd.functional.jacobian(torch.tanh, x),
        lambda x: torch.diag(1 - x.tanh() ** 2),
        x,
        printed=lambda x: torch.eye(len(x)) - x.tanh() ** 2,  # the identity matrix where a vector of ones belongs
    )
    yield identity("tanh(x) = 2 s(2x) - 1", torch.tanh, lambda x: 2 * sigmoid(2 * x) - 1, x)
    yield gradient("ReLU: max(0, x)' = [x > 0]", lambda x: x.clamp(min=0), lambda x: (x > 0).double(), off_zero)
    name = "leaky ReLU: max(x, x / 10)' = 1 or 1 / 10"
    yield gradient(name, lambda x: torch.maximum(x, x / 10), lambda x: torch.where(x > 0, ONE, ONE / 10), off_zero)
    name = "softmax: d(v . y)/dx = (diag(y) - y y^T) v"
    yield gradient(name, lambda x, v: v @ softmax(x), lambda x, v: softmax_jacobian(x) @ v, normal((6,), (6,)))
    yield identity("sum_i softmax(x)_i = 1, x to a thousand", lambda x: softmax(x).sum(), lambda x: ONE, far)
    yield inequality("0 <= s", torch.zeros_like, sigmoid, x)
    yield inequality("|tanh| <= 1", lambda x: x.tanh().abs(), torch.ones_like, x)


# 3. Backpropagation, first through one neuron, then through layers of them


def neuron(x: Tensor, y: Tensor) -> Tensor:
    return sigmoid(x @ y)


def neuron_gradient(x: Tensor, y: Tensor) -> Tensor:  # with respect to x: the derivatives of s and of x . y
    return neuron(x, y) * (1 - neuron(x, y)) * y


def forward(w: Tensor, b: Tensor, x: Tensor) -> list[Tensor]:  # [L, D, D], [L, D], [D] -> z_0 = x, ..., z_L
    z = [x]
    for weight, bias in zip(w, b, strict=True):
        z.append(torch.tanh(weight @ z[-1] + bias))
    return z


def loss(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * ((forward(w, b, x)[-1] - y) ** 2).sum()


def backward(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dw, dL/db and dL/dx, from the loss inwards: all that the layers above contribute is in d, computed once."""
    z, dw, db = forward(w, b, x), torch.zeros_like(w), torch.zeros_like(b)
    d = z[-1] - y
    for layer in reversed(range(len(w))):
        db[layer] = d * (1 - z[layer + 1] ** 2)  # through tanh
        dw[layer] = torch.outer(db[layer], z[layer])  # z[layer] went into the layer, z[layer + 1] came out of it
        d = w[layer].T @ db[layer]
    return dw, db, d


def backward_misprint(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """dL/dw with what came out of a layer in the place of what went in."""
    return torch.stack([torch.outer(*pair) for pair in zip(backward(w, b, x, y)[1], forward(w, b, x)[1:], strict=True)])


def backpropagation() -> Iterator[Case]:
    w, b, x = (3, 4, 4), (3, 4), (4,)  # three layers of four units
    yield gradient("n = s(x . y): dn/dx = n (1 - n) y", neuron, neuron_gradient, normal(x, x))
    name = "dL/dW_l = (d_l * f'(a_l)) z_(l-1)^T"
    yield gradient(name, loss, lambda *a: backward(*a)[0], normal(w, b, x, x), printed=backward_misprint)
    yield gradient(
        "dL/db_l = d_l * f'(a_l)",
        lambda b, w, x, y: loss(w, b, x, y),
        lambda b, w, x, y: backward(w, b, x, y)[1],
        normal(b, w, x, x),
    )
    yield gradient(
        "d_(l-1) = W_l^T (d_l * f'(a_l))",
        lambda x, w, b, y: loss(w, b, x, y),
        lambda x, w, b, y: backward(w, b, x, y)[2],
        normal(x, w, b, x),
    )
