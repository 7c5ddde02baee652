"""Equations of maximum likelihood, in the code that trains."""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mpcli.checks import Case, Printed, Sides, gradient, identity, inequality, uniform
from mpcli_nets.maximum_likelihood import information, likelihoods, optimum
from mpcli_nets.maximum_likelihood.likelihoods import LIKELIHOODS, Laplace, Likelihood
from mpcli_nets.maximum_likelihood.optimum import Posterior

SCALE = uniform(0.3, 3)
GAUSSIAN, LAPLACE, BERNOULLI, CATEGORICAL = LIKELIHOODS.values()


def labels(g: Generator) -> Tensor:
    return torch.randint(2, (6, 1), generator=g).double()


def classes(g: Generator) -> Tensor:
    return F.one_hot(torch.randint(4, (6,), generator=g), 4).double()


def distribution(g: Generator) -> Tensor:
    return torch.randn(5, dtype=torch.float64, generator=g).softmax(0)


def gradcheck() -> Iterator[Case]:
    yield from losses()
    yield from optima()
    yield from estimates()
    yield from divergences()


def losses() -> Iterator[Case]:
    """Step 2: -log p of an example and its derivatives."""

    def of(one: Likelihood) -> tuple:
        def first(eta: Tensor, y: Tensor, s: Tensor) -> Sides:
            return one.nll(eta, y, s), one.slope(eta, y, s)

        def second(eta: Tensor, y: Tensor, s: Tensor, v: Tensor) -> Sides:
            return (one.slope(eta, y, s) * v).sum(), one.curve(eta, y, s, v)

        return first, second

    numbers, many = (6, 1), (6, 4)
    for one, name, slope, eta, y in (
        (GAUSSIAN, "gaussian", "(eta - y) / s^2", numbers, numbers),
        (Laplace(0.1), "laplace, rounded", "r / s (r^2 + eps^2)^1/2", numbers, numbers),
        (BERNOULLI, "bernoulli", "sigma(eta) - y", numbers, labels),
        (CATEGORICAL, "categorical", "softmax(eta) - y", many, classes),
    ):
        first, second = of(one)
        yield gradient(f"{name}: d nll / d eta = {slope}", first, eta, y, SCALE)
        yield gradient(f"{name}: the second derivative", second, eta, y, SCALE, eta)

    def absolute(eta: Tensor, off: Tensor, s: Tensor) -> Sides:
        y = eta.detach().round() + 0.5 + off.round()  # half a unit from the kink
        return LAPLACE.nll(eta, y, s), LAPLACE.slope(eta, y, s)

    yield gradient("laplace: d nll / d eta = sign(eta - y) / s", absolute, uniform(-0.4, 0.4, 6, 1), (6, 1), SCALE)

    def product(eta: Tensor, y: Tensor) -> Sides:
        pi = BERNOULLI.mean(eta)
        likelihood = (pi**y * (1 - pi) ** (1 - y)).prod()
        unbracketed = (-y * pi.log() + (1 - y) * (1 - pi).log()).sum()
        return -likelihood.log(), BERNOULLI.nll(eta, y, torch.ones(())).sum(), unbracketed

    printed = Printed("(10)", "-sum y log pi + (1 - y) log(1 - pi)", "-sum [y log pi + (1 - y) log(1 - pi)]")
    yield identity("bernoulli: -log of the product of all p(y)", product, (6, 1), labels, printed=printed)

    def summed(eta: Tensor, y: Tensor) -> Sides:
        pi = BERNOULLI.mean(eta)
        nll = BERNOULLI.nll(eta, y, torch.ones(()))
        return -(pi**y * (1 - pi) ** (1 - y)).prod().log(), nll.sum(), nll.mean()

    printed = Printed("(9) = (10)", "-log p = -1/N sum_i ...", "-log p = -sum_i ...; their mean is -1/N log p")
    yield identity("-log of a product is a sum, not a mean", summed, (6, 1), labels, printed=printed)


def optima() -> Iterator[Case]:
    """Step 3: the optimum, from the steps that train."""

    def taught(at: Posterior, likelihood: bool = True) -> tuple[Tensor, Posterior]:
        w = at.x.new_zeros(at.x.shape[1], at.y.shape[1])
        memory = optimum.begun(at, w)
        for _ in range(2000):
            if optimum.step(at, memory):
                break
        return memory["weights"], at

    def ridge(x: Tensor, y: Tensor, s: Tensor, tau: Tensor) -> Sides:
        found, _ = taught(Posterior(GAUSSIAN, GAUSSIAN, tau, x, y, s))
        free = torch.eye(x.shape[1]).double()
        free[-1, -1] = 0  # b has no prior
        closed = torch.linalg.solve(x.T @ x + s**2 / tau**2 * free, x.T @ y)
        twice = torch.linalg.solve(x.T @ x + 2 * s**2 / tau**2 * free, x.T @ y)
        return found, closed, twice

    printed = Printed("004 1.2", "p(theta) prod_i p(y_i|theta) p(theta)", "p(theta) prod_i p(y_i|theta)")
    name = "gaussian prior: W = (X^T X + lambda I)^-1 X^T y, lambda = s^2 / tau^2"
    yield identity(name, ridge, (12, 4), (12, 1), SCALE, SCALE, printed=printed)

    def lasso(x: Tensor, y: Tensor, s: Tensor, tau: Tensor) -> Sides:
        tau = 0.2 * tau
        w, at = taught(Posterior(GAUSSIAN, LAPLACE, tau, x, y, s))
        g = replace(at, prior=None).slope(w)
        pull = torch.where(w == 0, torch.minimum(g.abs(), 1 / tau) * g.sign(), -w.sign() / tau)
        pull[-1] = 0
        return g, pull

    name = "laplace prior: X^T r / s^2 = -sign(W) / tau, or at most 1 / tau where W = 0"
    yield identity(name, lasso, (12, 4), (12, 1), SCALE, SCALE, atol=1e-7)

    def curved(x: Tensor, eta: Tensor, v: Tensor) -> Sides:
        at = Posterior(BERNOULLI, None, torch.ones(()), x, 0 * x[:, :1], torch.ones(()))
        pi = (x @ eta).sigmoid()
        return at.curve(eta)(v), x.T @ (pi * (1 - pi) * x) @ v

    yield identity("bernoulli: the Hessian is X^T S X, S = diag(pi (1 - pi))", curved, (9, 4), (4, 1), (4, 1))

    def flat(x: Tensor, y: Tensor, w: Tensor) -> Sides:
        at = Posterior(CATEGORICAL, GAUSSIAN, torch.ones(()), x, F.one_hot(y.argmax(1), 3).double(), torch.ones(()))
        return at.value(w), at.slope(w)

    yield gradient("W: d(-log p(y|X, W) p(W)) / dW", lambda w, x, y: flat(x, y, w), (4, 3), (9, 4), (9, 3))

    def nearer(w: Tensor, by: Tensor) -> Sides:
        """w - |w|'s subgradient at the new point, times `by`, is the new point."""
        new = optimum.soft(w, by)
        inside = torch.where(new == 0, w / by, new.sign())
        return new, w - by * inside.clamp(-1, 1)

    yield identity("the proximal map of |w|: u = w - by * d|u|", nearer, (8,), SCALE)


def estimates() -> Iterator[Case]:
    """Constants: the most likely one in closed form, and how far off it is."""

    def best(one: Likelihood, y: Tensor) -> Sides:
        found = one.estimate(y)
        scale = one.scale(found, y)
        least = one.nll(found, y, scale).sum()
        beside = ((a, b) for a in (-0.05, 0, 0.05) for b in (0.9, 1, 1.1) if (a, b) != (0, 1))
        others = [one.nll(found + a, y, scale * b).sum() for a, b in beside]
        return least, torch.stack(others).min()

    yield inequality("gaussian: mean, and deviation by 1 / n", lambda y: best(GAUSSIAN, y), (9, 1))
    yield inequality("laplace: median, and mean absolute deviation", lambda y: best(LAPLACE, y), (9, 1))

    def frequency(y: Tensor) -> Sides:
        p = CATEGORICAL.estimate(y)
        return torch.bincount(y.argmax(1), minlength=4) / 6, p

    yield identity("categorical: frequencies", frequency, classes)

    def efficient(mean: Tensor, s: Tensor) -> Sides:
        """The variance that the page expects, against E[(d log p / d mean)^2] of the page's own draws."""
        y = GAUSSIAN.draw(mean, s, (200_000,), torch.Generator().manual_seed(0))
        found = 1 / GAUSSIAN.slope(mean.expand(len(y), 1), y, s).square().mean()
        return (found / GAUSSIAN.variance(mean, s) - 1).abs(), torch.tensor(0.02)

    yield inequality("gaussian: 1 / I = s^2, to 2% in 200 000 draws", efficient, (1,), SCALE, draws=2)

    def sharp(mean: Tensor, s: Tensor) -> Sides:
        y = LAPLACE.draw(mean, s, (1000,), torch.Generator().manual_seed(0))
        return 1 / LAPLACE.slope(mean.expand(len(y), 1), y, s).square().mean(), LAPLACE.variance(mean, s)

    yield identity("laplace: 1 / I = s^2", sharp, (1,), SCALE)

    def spread(mean: Tensor, s: Tensor) -> Sides:
        off = likelihoods.errors(GAUSSIAN, mean, s, [25, 100], 20_000, torch.Generator().manual_seed(0))
        return (off / s * torch.tensor([5.0, 10.0]) - 1).abs(), torch.full((2,), 0.02)

    yield inequality("gaussian: the error of the mean of n is s / n^1/2, to 2%", spread, (1,), SCALE, draws=2)


def divergences() -> Iterator[Case]:
    """Entropy and divergences."""
    h, cross, kl, js = information.entropy, information.cross_entropy, information.kl, information.js
    pair = distribution, distribution

    def parts(p: Tensor, q: Tensor) -> Sides:
        return cross(p, q), h(p) + (p * (p / q).log()).sum(), h(q) + kl(p, q)

    mistake = "the entropy of the wrong one"
    yield identity("H(p, q) = H(p) + KL(p || q)", parts, *pair, mistake=mistake)
    yield identity("KL = sum p log(p / q)", lambda p, q: (kl(p, q), (p * (p / q).log()).sum(), kl(q, p)), *pair,
                   mistake="KL taken for symmetric")  # fmt: skip
    yield inequality("0 <= KL", lambda p, q: (torch.zeros(()), kl(p, q)), *pair)
    yield identity("JS(p, q) = JS(q, p)", lambda p, q: (js(p, q), js(q, p)), *pair)
    yield inequality(
        "JS <= log 2, and is it for what has nothing in common", lambda p, q: (js(p, q), torch.tensor(2.0).log()), *pair
    )
    apart = identity(
        "JS = log 2 for distributions with nothing in common",
        lambda p: (js(torch.cat([p, 0 * p]), torch.cat([0 * p, p])), torch.tensor(2.0, dtype=torch.float64).log()),
        distribution,
    )
    yield apart
