"""Base distributions of a flow, each of about unit variance.

    normal      prod_i N(z_i; 0, 1)
    uniform     prod_i [s((z_i + a)/t) - s((z_i - a)/t)] / 2a      s the sigmoid: a box whose edges have width t
    logistic    prod_i s'(z_i/b) / b
    student_t   prod_i t_5(z_i/c) / c                              tails like |z|^-6
    mixture     sum_k w_k N(z; m_k, diag d_k^2)                    weights, means and deviations learned

A box with hard edges has no gradient outside of itself, so nothing could be fitted with it; this one is the box plus
logistic noise of scale t, and still integrates to 1. The base of a flow need not be normal: Papamakarios et al.,
Normalizing Flows for Probabilistic Modeling and Inference, 2021. arXiv:1912.02762
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BaseName = Literal["normal", "uniform", "logistic", "student_t", "mixture"]


class Base(nn.Module, ABC):
    """A distribution of vectors of `dim` numbers that tells its density and can be drawn from."""

    anchor: Tensor  # says of which type and on which device to draw

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    @abstractmethod
    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log density in nats."""

    @abstractmethod
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n dim"]:
        """n draws, their deviations from the mean multiplied by `temperature`."""

    def normals(self, *shape: int, generator: torch.Generator | None) -> Float[Tensor, "*shape"]:
        return torch.randn(shape, generator=generator, dtype=self.anchor.dtype, device=self.anchor.device)

    def uniforms(self, *shape: int, generator: torch.Generator | None) -> Float[Tensor, "*shape"]:
        return torch.rand(shape, generator=generator, dtype=self.anchor.dtype, device=self.anchor.device)


class Normal(Base):
    """Independent standard normals."""

    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        return -0.5 * z.square().sum(1) - 0.5 * math.log(2 * math.pi) * self.dim

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n dim"]:
        return temperature * self.normals(n, self.dim, generator=generator)


class Uniform(Base):
    """Independent uniforms on [-a, a] plus logistic noise of scale t."""

    edge = 0.05
    reach = math.sqrt(3 * (1 - (edge * math.pi) ** 2 / 3))  # a^2/3 + (pi t)^2/3 = 1

    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        # s(u) - s(v) = s(u) s(-v) (1 - exp(v - u)), which keeps its precision far outside the box
        inside = F.logsigmoid((z + self.reach) / self.edge) + F.logsigmoid((self.reach - z) / self.edge)
        constant = math.log1p(-math.exp(-2 * self.reach / self.edge)) - math.log(2 * self.reach)
        return inside.sum(1) + constant * self.dim

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n dim"]:
        box, noise = self.uniforms(2, n, self.dim, generator=generator)
        return temperature * (self.reach * (2 * box - 1) + self.edge * _logistic(noise))


class Logistic(Base):
    """Independent logistics."""

    scale = math.sqrt(3) / math.pi

    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        u = z / self.scale
        return (F.logsigmoid(u) + F.logsigmoid(-u)).sum(1) - math.log(self.scale) * self.dim

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n dim"]:
        return temperature * self.scale * _logistic(self.uniforms(n, self.dim, generator=generator))


class StudentT(Base):
    """Independent Student t variables."""

    freedom = 5
    scale = math.sqrt((freedom - 2) / freedom)

    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        nu = self.freedom
        constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi) - math.log(self.scale)
        return constant * self.dim - (nu + 1) / 2 * torch.log1p((z / self.scale).square() / nu).sum(1)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n dim"]:
        normal, *others = self.normals(1 + self.freedom, n, self.dim, generator=generator)
        chi2 = torch.stack(others).square().sum(0)
        return temperature * self.scale * normal * (self.freedom / chi2).sqrt()


class Mixture(Base):
    """A learned mixture of normals with diagonal covariances; its temperature narrows each of them."""

    def __init__(self, dim: int, components: int = 10):
        super().__init__(dim)
        self.weights = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(0.7 * torch.randn(components, dim))
        self.log_deviations = nn.Parameter(torch.full((components, dim), math.log(0.7)))

    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        u = (z[:, None] - self.means) * torch.exp(-self.log_deviations)  # [B, K, D]
        each = -0.5 * u.square().sum(2) - self.log_deviations.sum(1) - 0.5 * math.log(2 * math.pi) * self.dim
        return torch.logsumexp(each + self.weights.log_softmax(0), 1)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n dim"]:
        k = torch.multinomial(self.weights.softmax(0), n, replacement=True, generator=generator)
        noise = temperature * self.normals(n, self.dim, generator=generator)
        return self.means[k] + self.log_deviations[k].exp() * noise


def _logistic(u: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    u = u.clamp(1e-7, 1 - 1e-7)
    return u.log() - (-u).log1p()


def base(name: BaseName, dim: int) -> Base:
    """The base distribution of that name over vectors of `dim` numbers."""
    kinds: dict[str, Callable[[int], Base]] = {
        "normal": Normal,
        "uniform": Uniform,
        "logistic": Logistic,
        "student_t": StudentT,
        "mixture": Mixture,
    }
    return kinds[name](dim)
