"""Distributions of a target y given a number eta: -log p(y|eta), its first two derivatives, and its best parameters.

`eta` is [N, K] and `y` [N, K] throughout, K = 1 but for the categorical distribution, whose y has a one at the class.
A scale s is a number. The prior of weights is one of these too: that of y = 0 given them.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


class Likelihood(Protocol):
    """What a distribution owes the page."""

    @property
    def scaled(self) -> bool:
        """Whether it has a scale of its own to be estimated."""

    def nll(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        """-log p(y|eta) in nats [N]."""

    def slope(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        """d nll / d eta [N, K]."""

    def curve(self, eta: Tensor, y: Tensor, s: Tensor, v: Tensor) -> Tensor:
        """The second derivative times v [N, K]."""

    def scale(self, eta: Tensor, y: Tensor) -> Tensor:
        """The most likely scale."""

    def mean(self, eta: Tensor) -> Tensor:
        """E[y|eta] [N, K]."""

    def estimate(self, y: Tensor) -> Tensor:
        """The most likely constant E[y] [..., K] of targets [..., N, K], in closed form."""

    def variance(self, mean: Tensor, s: Tensor) -> Tensor:
        """The trace of the inverse Fisher information of E[y], of one example."""

    def draw(self, mean: Tensor, s: Tensor, shape: tuple[int, ...], g: Generator) -> Tensor:
        """Targets [*shape, K] of one constant."""


@dataclass(frozen=True)
class Gaussian:
    """y ~ N(eta, s^2): a squared error."""

    scaled = True

    def nll(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return (((y - eta) / s) ** 2 / 2 + s.log() + 0.5 * math.log(2 * math.pi)).sum(-1)

    def slope(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return (eta - y) / s**2

    def curve(self, eta: Tensor, y: Tensor, s: Tensor, v: Tensor) -> Tensor:
        return v / s**2

    def scale(self, eta: Tensor, y: Tensor) -> Tensor:
        return (y - eta).square().mean().sqrt()

    def mean(self, eta: Tensor) -> Tensor:
        return eta

    def estimate(self, y: Tensor) -> Tensor:
        return y.mean(-2)

    def variance(self, mean: Tensor, s: Tensor) -> Tensor:
        return s**2

    def draw(self, mean: Tensor, s: Tensor, shape: tuple[int, ...], g: Generator) -> Tensor:
        return mean + s * torch.randn(*shape, 1, generator=g, dtype=torch.float64)


@dataclass(frozen=True)
class Laplace:
    """y ~ Laplace(eta, s): an absolute error, |r| = (r^2 + eps^2)^1/2 where eps is not 0."""

    eps: float = 0.0

    scaled = True

    def _size(self, eta: Tensor, y: Tensor) -> Tensor:
        return ((y - eta).square() + self.eps**2).sqrt()

    def nll(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return (self._size(eta, y) / s + (2 * s).log()).sum(-1)

    def slope(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return (eta - y) / self._size(eta, y) / s if self.eps else (eta - y).sign() / s

    def curve(self, eta: Tensor, y: Tensor, s: Tensor, v: Tensor) -> Tensor:
        return v * self.eps**2 / self._size(eta, y) ** 3 / s

    def scale(self, eta: Tensor, y: Tensor) -> Tensor:
        return (y - eta).abs().mean()

    def mean(self, eta: Tensor) -> Tensor:
        return eta

    def estimate(self, y: Tensor) -> Tensor:
        ordered, n = y.sort(-2).values, y.shape[-2]
        return (ordered[..., (n - 1) // 2, :] + ordered[..., n // 2, :]) / 2  # the median

    def variance(self, mean: Tensor, s: Tensor) -> Tensor:
        return s**2

    def draw(self, mean: Tensor, s: Tensor, shape: tuple[int, ...], g: Generator) -> Tensor:
        u = torch.rand(2, *shape, 1, generator=g, dtype=torch.float64).clamp(min=1e-300).log()
        return mean + s * (u[0] - u[1])


@dataclass(frozen=True)
class Bernoulli:
    """y ~ Bernoulli(sigma(eta)), sigma(x) = 1 / (1 + exp(-x)): logistic regression."""

    scaled = False

    def nll(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return -(y * F.logsigmoid(eta) + (1 - y) * F.logsigmoid(-eta)).sum(-1)

    def slope(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return eta.sigmoid() - y

    def curve(self, eta: Tensor, y: Tensor, s: Tensor, v: Tensor) -> Tensor:
        return eta.sigmoid() * (-eta).sigmoid() * v

    def scale(self, eta: Tensor, y: Tensor) -> Tensor:
        return eta.new_ones(())

    def mean(self, eta: Tensor) -> Tensor:
        return eta.sigmoid()

    def estimate(self, y: Tensor) -> Tensor:
        return y.mean(-2)

    def variance(self, mean: Tensor, s: Tensor) -> Tensor:
        return (mean * (1 - mean)).sum()

    def draw(self, mean: Tensor, s: Tensor, shape: tuple[int, ...], g: Generator) -> Tensor:
        return (torch.rand(*shape, 1, generator=g, dtype=torch.float64) < mean).double()


@dataclass(frozen=True)
class Categorical:
    """y ~ Categorical(softmax(eta)): softmax regression."""

    scaled = False

    def nll(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return -(y * eta.log_softmax(-1)).sum(-1)

    def slope(self, eta: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return eta.softmax(-1) - y

    def curve(self, eta: Tensor, y: Tensor, s: Tensor, v: Tensor) -> Tensor:
        p = eta.softmax(-1)
        return p * (v - (p * v).sum(-1, keepdim=True))

    def scale(self, eta: Tensor, y: Tensor) -> Tensor:
        return eta.new_ones(())

    def mean(self, eta: Tensor) -> Tensor:
        return eta.softmax(-1)

    def estimate(self, y: Tensor) -> Tensor:
        return y.mean(-2)

    def variance(self, mean: Tensor, s: Tensor) -> Tensor:
        return (mean * (1 - mean)).sum()

    def draw(self, mean: Tensor, s: Tensor, shape: tuple[int, ...], g: Generator) -> Tensor:
        u = torch.rand(*shape, 1, generator=g, dtype=torch.float64)
        number = (u > mean.cumsum(-1)[:-1]).sum(-1)
        return F.one_hot(number, len(mean)).double()


LIKELIHOODS: dict[str, Likelihood] = {
    "gaussian": Gaussian(),
    "laplace": Laplace(),
    "bernoulli": Bernoulli(),
    "categorical": Categorical(),
}


def errors(of: Likelihood, mean: Tensor, s: Tensor, sizes: list[int], draws: int, g: Generator) -> Tensor:
    """Root mean square error of `estimate` from so many examples each, over `draws` samples. [len(sizes)].

    Args:
        mean: the truth E[y] [K].
        s: its scale.
    """
    off = []
    for n in sizes:
        part = max(1, min(draws, 2_000_000 // (n * len(mean))))  # samples at once, 16 MB
        found = [of.estimate(of.draw(mean, s, (min(part, draws - k), n), g)) for k in range(0, draws, part)]
        off.append((torch.cat(found) - mean).square().sum(-1).mean().sqrt())
    return torch.stack(off)
