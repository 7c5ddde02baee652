"""Equations of regularisation, in the code that trains."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, gradient, identity, inequality, uniform
from mpcli_nets.kit.rows import Standard
from mpcli_nets.regularization import layers
from mpcli_nets.regularization.layers import BatchNorm

RATE = uniform(0.01, 0.3)


def gradcheck() -> Iterator[Case]:
    yield from penalties()
    yield from dropout()
    yield from scales()


def penalties() -> Iterator[Case]:
    """L1 and L2."""
    from mpcli_nets import regularization as page

    def network(w: Tensor, b: Tensor) -> "page.Network":
        model = page.Network(page.Config(hidden=(), dropout=1.0), w.shape[1], len(w), "gaussian").double()
        with torch.no_grad():
            model.layers[0].weight.copy_(w)
            model.layers[0].bias.copy_(b)
        return model

    def penalised(penalty: str, w: Tensor, b: Tensor, by: Tensor) -> Tensor:
        model = network(w, b)
        model.penalise(penalty, float(by))
        return torch.cat([model.layers[0].weight.flatten(), model.layers[0].bias]).detach()

    def decay(w: Tensor, b: Tensor, by: Tensor) -> Sides:
        """A step of length by of gradient descent on 1/2 |W|^2; a penalty on biases is the common mistake."""
        at = w.clone().requires_grad_()
        (g,) = torch.autograd.grad(at.square().sum() / 2, at)
        right = torch.cat([(w - by * g).flatten(), b])
        return penalised("l2", w, b, by), right, torch.cat([(w - by * g).flatten(), (1 - by) * b])

    yield identity("l2: W <- W - c W, biases stay", decay, (2, 3), (2,), RATE, mistake="biases shrink too")

    def proximal(w: Tensor, b: Tensor, by: Tensor) -> Sides:
        """W <- the least of 1/2 |u - W|^2 + c |u|, number by number, on a fine grid."""
        grid = torch.linspace(-1, 1, 200_001).double() * 4
        least = ((grid[:, None] - w.flatten()) ** 2 / 2 + by * grid[:, None].abs()).argmin(0)
        subgradient = w.flatten() - by * w.flatten().sign()
        return penalised("l1", w, b, by), torch.cat([grid[least], b]), torch.cat([subgradient, b])

    mistake = "the subgradient, which steps over 0"
    yield identity("l1: the proximal step, argmin_u 1/2 |u - w|^2 + c |u|", proximal, (2, 3), (2,), uniform(0.1, 0.3),
                   mistake=mistake, atol=3e-5)  # fmt: skip

    def zero(w: Tensor) -> Sides:
        small = 0.09 * w.tanh()
        return penalised("l1", small, 0 * w[:, 0], torch.tensor(0.1)), torch.zeros(8)

    yield identity("l1: what is smaller than c becomes 0 exactly", zero, (2, 3))


def masks(width: int) -> Tensor:
    """All 2^width of them."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * width).double()


def every(z: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """What `dropped` can give of z [D], each with its probability: by enumeration. [2^D, D], [2^D]."""
    m = masks(len(z))
    return m * z, (keep**m * (1 - keep) ** (1 - m)).prod(1)


def dropout() -> Iterator[Case]:
    """The ensemble that a dropped layer is."""
    keep = 0.6

    def expected(w: Tensor, z: Tensor) -> Sides:
        values, p = every(z, keep)
        return w @ layers.dropped(z, keep, False), p @ (values @ w.T), (p @ values) @ w.T / keep

    yield identity("a linear layer: E[W (r z)] = p W z, the arithmetic mean", expected, (3, 6), (6,), mistake="W z")

    def geometric(w: Tensor, b: Tensor, z: Tensor) -> Sides:
        """Of a softmax: the normalised geometric mean of all subnetworks."""
        values, p = every(z, keep)
        mean = p @ (values @ w.T + b).log_softmax(1)
        arithmetic = p @ (values @ w.T + b).softmax(1)
        return (w @ layers.dropped(z, keep, False) + b).softmax(0), mean.softmax(0), arithmetic

    mistake = "their arithmetic mean"
    yield identity("a softmax layer: weight scaling is the geometric mean", geometric, (3, 6), (3,), (6,),
                   mistake=mistake)  # fmt: skip

    def through(w: Tensor, b: Tensor, z: Tensor) -> Sides:
        """What the notes say weight scaling is behind a ReLU: the mean of all subnetworks."""
        values, p = every(z, keep)
        scaled = (w @ layers.dropped(z, keep, False) + b).clamp(min=0)
        return scaled, (keep * w @ z + b).clamp(min=0), p @ (values @ w.T + b).clamp(min=0)

    printed = Printed("000 2.2", "exact for models with nonlinearities", "exact without nonlinearities alone")
    yield identity("behind a ReLU: f(p W z + b), no mean of subnetworks", through, (3, 6), (3,), (6,), printed=printed)

    def drawn(z: Tensor) -> Sides:
        """The shares of what is kept, of 200 000 draws."""
        torch.manual_seed(0)
        kept = layers.dropped(torch.ones(200_000).double(), keep, True)
        return (kept.mean() - keep).abs(), torch.tensor(0.005)

    yield inequality("r ~ Bernoulli(p), p the probability to keep", drawn, (1,), draws=1)


def scales() -> Iterator[Case]:
    """Standardised columns and batches."""

    def standard(x: Tensor) -> Sides:
        one = Standard(x.shape[1])
        one.measure(x)
        deviation = (x - x.mean(0)).square().mean(0).sqrt()
        return one(x), (x - x.mean(0)) / deviation, (x - x.mean(0)) / deviation**2

    printed = Printed("000 2.3", "sigma = 1/(n-1) sum (x - mu)^2", "sigma = (1/n sum (x - mu)^2)^1/2")
    yield identity("(x - mu) / sigma has mean 0 and deviation 1", standard, (7, 3), printed=printed)

    def normalise(z: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
        norm = BatchNorm(z.shape[1], eps).double()
        norm.gamma.data, norm.beta.data = gamma, beta
        return norm(z)

    def batch(z: Tensor, gamma: Tensor, beta: Tensor) -> Sides:
        var = z.var(0, correction=0)
        right = gamma * (z - z.mean(0)) / (var + 1e-5).sqrt() + beta
        wrong = gamma * (z - z.mean(0)) / (z.var(0) + 1e-5).sqrt() + beta
        return normalise(z, gamma, beta), right, wrong

    printed = Printed("000 2.3", "v = 1/(n-1) sum (z - m)^2", "v = 1/n sum (z - m)^2")
    yield identity("batch: gamma (z - m) / (v + eps)^1/2 + beta", batch, (8, 3), (3,), (3,), printed=printed)

    def smaller(z: Tensor, gamma: Tensor) -> Sides:
        """By n - 1 the values are smaller by ((n - 1) / n)^1/2, to the bit, at eps 0."""
        n = len(z)
        by = gamma * (z - z.mean(0)) / z.var(0).sqrt()
        return ((n - 1) / n) ** 0.5 * normalise(z, gamma, 0 * gamma, 0.0), by

    yield identity("by 1 / (n - 1): ((n - 1) / n)^1/2 of it, at eps 0", smaller, (8, 3), (3,))

    def shifted(z: Tensor, b: Tensor, gamma: Tensor, beta: Tensor) -> Sides:
        return normalise(z + b, gamma, beta), normalise(z, gamma, beta)

    yield identity("BN(z + b) = BN(z): a bias before it is redundant", shifted, (8, 3), (3,), (3,), (3,))

    def backward(z: Tensor, gamma: Tensor, beta: Tensor, v: Tensor) -> Sides:
        """dL/dz = gamma / s (g - mean g - z^ mean(g z^)), z^ = (z - m) / s."""
        s = (z.var(0, correction=0) + 1e-5).sqrt()
        unit = (z - z.mean(0)) / s
        back = gamma / s * (v - v.mean(0) - unit * (v * unit).mean(0))
        return (normalise(z, gamma, beta) * v).sum(), back, gamma / s * v

    yield gradient("dL/dz = gamma / s (g - mean(g) - z^ mean(g z^))", backward, (8, 3), (3,), (3,), (8, 3),
                   mistake="m and v taken for constants")  # fmt: skip

    def running(z: Tensor) -> Sides:
        norm = BatchNorm(3).double()
        norm(z)
        return torch.cat([norm.running_mean, norm.running_var]), torch.cat([0.1 * z.mean(0), 0.9 + 0.1 * z.var(0)])

    yield identity("running: a tenth of m and of the unbiased v", running, (8, 3))

    def bounded(z: Tensor, g: Tensor) -> Sides:
        """No value of a batch of n is further from its mean than (n - 1)^1/2 deviations."""
        return normalise(z, 0 * g + 1, 0 * g).abs().max(), torch.tensor(float(len(z) - 1)).sqrt()

    yield inequality("|BN(z)| <= (n - 1)^1/2 for gamma 1, beta 0", bounded, (8, 3), (3,))
