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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mpcli.checks import Case, Printed, Sides, identity
from mpcli.kit.densities import load, on_grid
from mpcli.run import Run, Trained
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Chain, Condition, Logit, Scale
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
    model.fit_scale(examples)
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
    def flow(w: Tensor, b: Tensor, shape: tuple[int, ...] = ()) -> tuple[LinearFlow, Tensor]:
        made = LinearFlow(Config(), shape or b.shape).double().requires_grad_(False)
        linear, scale, *_ = made.bijector
        linear.below.data, linear.above.data, linear.log_diagonal.data = w, w, w.diag() / 2
        scale.shift.data = b
        lower, upper = linear.factors()  # type: ignore[operator]
        return made, lower @ upper  # x = A z + b, and A

    def line(x: Tensor, w: Tensor, b: Tensor) -> Sides:
        f, a = flow(w, b)
        h = f.bijector.inverse(x[:, None])[0]
        p_z = f.base.log_prob(h).exp()
        return f(x[:, None]).exp(), p_z / a[0, 0], p_z * h[:, 0].abs()

    printed = Printed("001 section 10", "p_z(h(x)) |h(x)|", "p_z(h(x)) |h'(x)|")
    yield identity("one dimension: p(x) = p_z(h(x)) |h'(x)|, h = f^-1", line, (5,), (1, 1), (1,), printed=printed)

    def gaussian(x: Tensor, w: Tensor, b: Tensor) -> Sides:
        f, a = flow(w, b)
        z = torch.linalg.solve(a, x - b)
        known = torch.distributions.MultivariateNormal(b, a @ a.T).log_prob(x)
        return f(x[None])[0], known, f.base.log_prob(z[None])[0] + torch.linalg.slogdet(a)[1].abs()

    printed = Printed("(144)", "log p_z(z) + |log det df^-1/dx|", "log p_z(z) + log |det df^-1/dx|")
    yield identity("log p(x) = log p_z(A^-1 (x - b)) - log |det A|", gaussian, (3,), (3, 3), (3,), printed=printed)

    def other_way(x: Tensor, w: Tensor) -> Sides:
        f, back = flow(w, 0 * x)
        densities = (f.base.log_prob(x[None] @ a.T)[0] + torch.linalg.slogdet(a)[1] for a in (back.inverse(), back))
        return f(x[None])[0], *densities

    printed = Printed("001 section 10", "z = A x: p_z(A^-1 x) |det A^-1|", "x = A z: p_z(A^-1 x) |det A^-1|")
    yield identity("z = A x: p(x) = p_z(A x) |det A|", other_way, (3,), (3, 3), printed=printed)

    def bent(z: Tensor, w: Tensor) -> Sides:
        f = flow(w, w[0], (1, 1, 2))[0].bijector
        x = f(z[None])[0]
        return f.inverse(x)[1][0], *(-log_abs_det(lambda y: f(y[None])[0].flatten(), y) for y in (z, x.flatten()))

    printed = Printed("below (137)", "|det df(x)/dx|^-1", "|det df(z)/dz|^-1, z = f^-1(x)")
    yield identity("log |det df^-1/dx| at x = -log |det df/dz| at z = f^-1(x)", bent, (2,), (2, 2), printed=printed)

    def composed(z: Tensor, w: Tensor) -> Sides:
        chain = Chain([Logit(), *flow(w, w[0])[0].bijector, Logit()])
        x = chain(z[None])[0]
        whole = -log_abs_det(lambda y: chain(y[None])[0][0], z)
        return chain.inverse(x)[1][0], whole, sum(f.inverse(x)[1][0] for f in chain)  # type: ignore[operator]

    printed = Printed("(143)", "det of each df_k^-1 at x", "det of each df_k^-1 at its own input")
    yield identity("log |det df^-1/dx| = sum_k log |det df_k^-1|", composed, (2,), (2, 2), printed=printed)

    def volume(w: Tensor) -> Sides:
        f, a = flow(w, w[0])
        turned = a.flip(1)  # x = b + A (v, u): another orientation, det < 0
        density = on_grid(lambda u: f(u @ turned.T + w[0]), (-8, -8), (8, 8), 100, like=w).exp().sum() * 0.16**2
        return density * turned.det().abs(), torch.ones(()), density * turned.det()

    printed = Printed("001 section 10", "int int h(x, y) dx dy = int int h J du dv", "int int h |J| du dv")
    yield identity("int int p(x) dx = int int p(x(u, v)) |J| du dv = 1", volume, (2, 2), printed=printed)
