"""Rules of differentiation, activations, backpropagation."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, gradient, identity, inequality, uniform

ZERO, ONE = torch.tensor([0, 1], dtype=torch.float64)


# 1. Rules of differentiation, with f = sin and g = 1 + x^2


def circle(x: Tensor) -> Tensor:  # the y > 0 that x^2 + y^2 = 1 defines
    return (1 - x**2).sqrt()


def rules() -> Iterator[Case]:
    f, df, g, dg = torch.sin, torch.cos, lambda x: 1 + x**2, lambda x: 2 * x

    def product(x: Tensor) -> Sides:
        return f(x) * g(x), df(x) * g(x) + f(x) * dg(x)

    def quotient(x: Tensor) -> Sides:
        return f(x) / g(x), (df(x) * g(x) - f(x) * dg(x)) / g(x) ** 2

    def chain(x: Tensor) -> Sides:
        return f(g(x)), df(g(x)) * dg(x)

    def inverse(x: Tensor) -> Sides:
        return x.asinh(), 1 / x.asinh().cosh()

    def implicit(x: Tensor) -> Sides:
        return circle(x), -x / circle(x)

    yield gradient("(f g)' = f' g + f g'", product, (5,))
    yield gradient("(f / g)' = (f' g - f g') / g^2", quotient, (5,))
    yield gradient("(f o g)' = f'(g) g'", chain, (5,))
    yield gradient("(f^-1)' = 1 / f'(f^-1), f = sinh", inverse, (5,))
    yield gradient("(log x)' = 1 / x", lambda x: (x.log(), 1 / x), uniform(0.1, 3, 5))
    yield gradient("x^2 + y^2 = 1: dy/dx = -x / y", implicit, uniform(-0.9, 0.9, 5))


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
    def off_zero(g: torch.Generator) -> Tensor:  # at 0 the step and both ReLUs have no derivative, only a convention
        x = torch.randn(6, dtype=torch.float64, generator=g)
        return x + 0.1 * x.sign()

    far = uniform(-1000, 1000, 6)

    def slope(x: Tensor) -> Sides:
        return sigmoid(x), sigmoid(x) * (1 - sigmoid(x))

    yield gradient("step: [x > 0]' = 0", lambda x: ((x > 0).double(), 0 * x), off_zero)
    yield gradient("linear: (c x)' = c", lambda x: (3 * x, torch.full_like(x, 3)), (6,))
    yield gradient("sigmoid: s' = s (1 - s)", slope, (6,))
    yield identity("s(x) = 1 / (1 + e^-x)", lambda x: (sigmoid(x), 1 / (1 + torch.exp(-x))), (6,))
    yield identity("s(x) = e^x / (1 + e^x)", lambda x: (sigmoid(x), x.exp() / (1 + x.exp())), (6,))
    yield identity("s(x) + s(-x) = 1, x to a thousand", lambda x: (sigmoid(x) + sigmoid(-x), torch.ones(6)), far)
    yield gradient("(log s)'(x) = s(-x), x to a thousand", lambda x: (log_sigmoid(x), sigmoid(-x)), far)

    def hyperbolic(x: Tensor) -> Sides:
        found = torch.autograd.functional.jacobian(torch.tanh, x)
        return found, torch.diag(1 - x.tanh() ** 2), torch.eye(len(x)) - x.tanh() ** 2

    printed = Printed("(51)", "dh/da = diag(I - h^2)", "dh/da = diag(1 - h^2), 1 a vector of ones")
    yield identity("tanh: dh/da = diag(1 - h^2)", hyperbolic, (6,), printed=printed)
    yield identity("tanh(x) = 2 s(2x) - 1", lambda x: (x.tanh(), 2 * sigmoid(2 * x) - 1), (6,))

    def leaky(x: Tensor) -> Sides:
        return torch.maximum(x, x / 10), torch.where(x > 0, ONE, ONE / 10)

    yield gradient("ReLU: max(0, x)' = [x > 0]", lambda x: (x.clamp(min=0), (x > 0).double()), off_zero)
    yield gradient("leaky ReLU: max(x, x / 10)' = 1 or 1 / 10", leaky, off_zero)

    def normalised(x: Tensor, v: Tensor) -> Sides:
        return v @ softmax(x), softmax_jacobian(x) @ v

    yield gradient("softmax: d(v . y)/dx = (diag(y) - y y^T) v", normalised, (6,), (6,))
    yield identity("sum_i softmax(x)_i = 1, x to a thousand", lambda x: (softmax(x).sum(), ONE), far)
    yield inequality("0 <= s <= 1", lambda x: ((sigmoid(x) - 0.5).abs(), torch.full((6,), 0.5)), (6,))


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


def backpropagation() -> Iterator[Case]:
    w, b, x = (3, 4, 4), (3, 4), (4,)  # three layers of four units

    def unit(x: Tensor, y: Tensor) -> Sides:
        return neuron(x, y), neuron_gradient(x, y)

    yield gradient("n = s(x . y): dn/dx = n (1 - n) y", unit, x, x)

    def weights(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Sides:
        dw, db, _ = backward(w, b, x, y)
        return loss(w, b, x, y), dw, db[:, :, None] * torch.stack(forward(w, b, x)[1:])[:, None]

    printed = Printed("002 10", "dz_k^(l)/dw_ij^(l) = f'(a)_k z_j^(l) [k = i]", "f'(a)_k z_j^(l-1) [k = i]")
    yield gradient("dL/dW_l = (d_l * f'(a_l)) z_(l-1)^T", weights, w, b, x, x, printed=printed)

    def once(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Sides:  # L = 1/2 |z - y|^2 has the second derivative I
        return loss(w, b, x, y), backward(w, b, x, y)[0], torch.eye(4)

    printed = Printed("002 10", "d^2 L/dz dz = delta dz/dw_ij", "dL/dw_ij = delta dz/dw_ij")
    yield gradient("dL/dw_ij = delta dz/dw_ij in the last layer", once, (1, 4, 4), (1, 4), x, x, printed=printed)

    def biases(b: Tensor, w: Tensor, x: Tensor, y: Tensor) -> Sides:
        return loss(w, b, x, y), backward(w, b, x, y)[1]

    def inputs(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Sides:
        return loss(w, b, x, y), backward(w, b, x, y)[2]

    yield gradient("dL/db_l = d_l * f'(a_l)", biases, b, w, x, x)
    yield gradient("d_(l-1) = W_l^T (d_l * f'(a_l))", inputs, x, w, b, x)
