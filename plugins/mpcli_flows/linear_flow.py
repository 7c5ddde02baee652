"""Linear flow and change of variables: the density of an invertibly transformed random variable.

    x = f(z),  z ~ p_z       log p(x) = log p_z(f^-1(x)) + log |det df^-1/dx|        the Jacobian taken at x
                                      = log p_z(z)       - log |det df/dz|           the Jacobian taken at z = f^-1(x)
    x = A z + b              log p(x) = log p_z(A^-1 (x - b)) - log |det A|
    A = L U                  log |det A| = sum_i log U_ii   L has ones on its diagonal: O(D), a whole matrix O(D^3)

With a normal base this fits the full Gaussian; with any other base it is independent component analysis.

Papamakarios, Nalisnick, Rezende, Mohamed and Lakshminarayanan, Normalizing Flows for Probabilistic Modeling and
Inference, 2021. arXiv:1912.02762. Bell and Sejnowski, An Information-Maximization Approach to Blind Separation and
Blind Deconvolution, 1995.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mpcli.checks import Case
from mpcli.kit.densities import load, log_integral
from mpcli.old_checks import identity
from mpcli.run import Run, Trained
from mpcli_flows.kit.bases import BaseName, Normal, base
from mpcli_flows.kit.bijectors import Chain, Condition, Scale
from mpcli_flows.kit.flow import Flow, log_abs_det, to_data, write_samples


@dataclass(frozen=True)
class Config:
    base: Annotated[BaseName, "distribution of z"] = "normal"
    steps: Annotated[int, "training steps", Ge(1)] = 2000
    batch: Annotated[int, "examples a step", Ge(1)] = 256
    lr: Annotated[float, "learning rate", Gt(0)] = 0.01


class Linear(nn.Module):
    """x = L U z: an invertible matrix in factors whose determinant is a product of D numbers."""

    def __init__(self, dim: int):
        super().__init__()
        self.below = nn.Parameter(torch.zeros(dim, dim))
        self.above = nn.Parameter(torch.zeros(dim, dim))
        self.log_diagonal = nn.Parameter(torch.zeros(dim))

    def factors(self) -> tuple[Tensor, Tensor]:
        unit = torch.eye(len(self.log_diagonal), dtype=self.below.dtype, device=self.below.device)
        return self.below.tril(-1) + unit, self.above.triu(1) + self.log_diagonal.exp().diag()

    def forward(self, z: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.factors()
        return z @ (lower @ upper).T, self.log_diagonal.sum().expand(len(z))

    def inverse(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        lower, upper = self.factors()
        y = torch.linalg.solve_triangular(lower, x.T, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, y, upper=True).T, -self.log_diagonal.sum().expand(len(x))


class LinearFlow(Flow):
    def __init__(self, cfg: Config, shape: tuple[int, ...], levels: int = 0):
        dim = math.prod(shape)
        super().__init__(Chain([Linear(dim), Scale(dim), *to_data(shape)]), base(cfg.base, dim), levels)


def train(cfg: Config, run: Run, data: Annotated[str, "dataset of rows or of pictures"] = "moons") -> None:
    examples = load(data, run.device)
    model = run.place(LinearFlow(cfg, examples.shape, examples.levels))
    adam = torch.optim.Adam(model.parameters(), cfg.lr)
    for x in run.track(examples.batches(cfg.batch, run.seed), cfg.steps, model=model, adam=adam):
        loss = -model(x).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        run.log(loss=loss)
    run.save(model, cfg, shape=examples.shape, levels=examples.levels)
    run.result(**examples.held_out(model))


@torch.no_grad()
def sample(
    trained: Trained,
    run: Run,
    n: Annotated[int | None, "how many (64 pictures or 5000 points)", Ge(1)] = None,
    temperature: Annotated[float, "factor on the deviations of z", Gt(0)] = 1.0,
) -> None:
    write_samples(run, trained, trained.load(LinearFlow, Config), n, temperature)


def evaluate(trained: Trained, run: Run, data: Annotated[str | None, "dataset (that of the training)"] = None) -> None:
    examples = load(data or trained.options["data"], run.device)
    run.result(**examples.held_out(trained.load(LinearFlow, Config)))


def gradcheck() -> Iterator[Case]:
    def one(g: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn(5, dtype=torch.float64, generator=g),)

    def vector(g: torch.Generator) -> tuple[Tensor, ...]:
        return torch.randn(3, dtype=torch.float64, generator=g), torch.randn(3, 3, dtype=torch.float64, generator=g)

    yield identity(
        "p_x(x) = p_z(f^-1(x)) |d f^-1/dx|, f = exp: the log-normal density",
        lambda z: torch.distributions.Normal(0, 1).log_prob(z).exp() * (-z).exp(),
        lambda z: torch.distributions.LogNormal(0, 1).log_prob(z.exp()).exp(),
        one,
        printed=lambda z: torch.distributions.Normal(0, 1).log_prob(z).exp() * z.abs(),
    )
    yield identity(
        "log p(x) = log p_z(A^-1 x) - log |det A|, x = A z",
        lambda z, a: torch.distributions.MultivariateNormal(torch.zeros_like(z), a @ a.T).log_prob(a @ z),
        lambda z, a: Normal(3).log_prob(z[None])[0] - a.det().abs().log(),
        vector,
        printed=lambda z, a: Normal(3).log_prob(z[None])[0] - a.det().abs().log().abs(),
    )
    yield identity(
        "det df^-1/dx at x = 1 / det df/dz at z, f = sinh(A z)",
        lambda z, a: torch.linalg.inv(a).det() / (1 + (a @ z).sinh().square()).sqrt().prod(),
        lambda z, a: 1 / torch.func.jacrev(lambda u: (a @ u).sinh())(z).det(),
        vector,
        printed=lambda z, a: 1 / torch.func.jacrev(lambda u: (a @ u).sinh())((a @ z).sinh()).det(),
    )
    yield identity(
        "log |det d(g o f)/dz| = log |det df/dz at z| + log |det dg/dy at y = f(z)|",
        lambda z, a: log_abs_det(lambda u: (a @ u.sinh()).sinh(), z),
        lambda z, a: log_abs_det(torch.sinh, z) + log_abs_det(lambda u: (a @ u).sinh(), z.sinh()),
        vector,
        printed=lambda z, a: log_abs_det(torch.sinh, z) + log_abs_det(lambda u: (a @ u).sinh(), z),
    )
    yield identity(
        "int int h(x, y) dx dy = int int h(v, sinh u) |J| du dv,  J = -cosh u",
        lambda a: math.pi / (1 + a.square()),
        lambda a: _substituted(1 + a.square(), torch.abs),
        one,
        printed=lambda a: _substituted(1 + a.square(), lambda j: j),
    )
    yield identity(
        "a linear flow integrates to 1",
        lambda z, a: log_integral(_plane(a), (-30.0, -30.0), (30.0, 30.0), 400, like=a).exp(),
        lambda z, a: torch.ones(()),
        vector,
    )


def _plane(a: Tensor) -> Flow:
    linear = Linear(2).double()
    linear.below.data, linear.above.data = a[:2, :2].tanh(), a[:2, 1:].tanh()
    linear.log_diagonal.data = 0.5 * a[2, :2].tanh()
    return Flow(Chain([linear]), base("logistic", 2).double()).requires_grad_(False)


def _substituted(s: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:  # [N] -> [N]
    """The integral of exp(-s (x^2 + y^2)) over the plane in the variables u and v of x = v, y = sinh(u)."""
    grid = (torch.arange(800, dtype=s.dtype) - 399.5) / 100
    over_v = torch.exp(-s[:, None] * (2 * grid).square()).sum(1) / 50
    return over_v * (torch.exp(-s[:, None] * grid.sinh().square()) * measure(-grid.cosh())).sum(1) / 100
