"""Planar flow: a normal distribution bent by a sequence of soft steps, each along one plane.

    f(z) = z + u h(w^T z + b),   h = tanh       det df/dz = 1 + h'(w^T z + b) u^T w       (matrix determinant lemma)
    w^T u >= -1 keeps f invertible:             u -> u + (m(w^T u) - w^T u) w / |w|^2,   m(s) = -1 + log(1 + e^s)
    x = f(z):   -log p(x) = |z|^2 / 2 + log |1 + h' u^T w| + const                        one layer, normal base

f^-1 needs one root of a monotone function of a = w^T z:  a + (w^T u) h(a + b) = w^T x. With `--data u1` to `u4`
the flow q is fitted to an energy U, of which no sample is known, by the free energy E_q[log q + U], least (-log Z)
where q = exp(-U) / Z. u2 to u4 go on for ever along the first axis; beyond |x_0| = 4 a parabola ends them.

Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015. arXiv:1505.05770
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mpcli.checks import Case
from mpcli.errors import InputError
from mpcli.kit.densities import Examples, load, log_integral
from mpcli.old_checks import gradient, identity, inequality
from mpcli.run import Run, Trained
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Chain, Condition, Scale
from mpcli_flows.kit.flow import Flow, Target, log_abs_det, write_samples


@dataclass(frozen=True)
class Config:
    layers: Annotated[int, "planar maps K", Ge(1)] = 32
    base: Annotated[BaseName, "distribution of z"] = "normal"
    steps: Annotated[int, "training steps", Ge(1)] = 3000
    batch: Annotated[int, "draws or examples a step", Ge(1)] = 256
    lr: Annotated[float, "learning rate", Gt(0)] = 0.01


class Planar(nn.Module):
    """f(z) = z + u tanh(w^T z + b)."""

    slack = 1e-2  # 1 + w^T u stays above it, so that the inverse loses at most two digits

    def __init__(self, dim: int):
        super().__init__()
        self.w = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.u = nn.Parameter(0.1 * torch.randn(dim) / math.sqrt(dim))  # small: many maps in a row must not explode
        self.b = nn.Parameter(torch.zeros(()))

    def invertible_u(self) -> tuple[Tensor, Tensor]:  # -> u [D], w^T u []
        wu = self.w @ self.u
        allowed = self.slack - 1 + F.softplus(wu)
        return self.u + (allowed - wu) * self.w / (self.w @ self.w), allowed

    def forward(self, z: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        u, wu = self.invertible_u()
        h = torch.tanh(z @ self.w + self.b)  # [B]
        return z + h[:, None] * u, torch.log1p(wu * (1 - h * h))

    def inverse(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        u, wu = self.invertible_u()
        h = torch.tanh(root(x @ self.w + self.b, wu))
        return x - h[:, None] * u, -torch.log1p(wu * (1 - h * h))


def root(y: Tensor, s: Tensor) -> Tensor:  # [B], [] -> a [B] with a + s tanh(a) = y
    """The root by Newton's method inside a shrinking bracket; its gradient by one more step, differentiated."""
    with torch.no_grad():
        low, high, a = y - s.abs(), y + s.abs(), y
        moved = high - low
        for _ in range(100):
            h = torch.tanh(a)
            excess = a + s * h - y
            low, high = torch.where(excess < 0, a, low), torch.where(excess > 0, a, high)
            step = a - excess / (1 + s * (1 - h * h))
            # A step of Newton that leaves the bracket, or does not halve the one before, could go round in circles.
            good = (step >= low) & (step <= high) & ((step - a).abs() <= moved / 2)
            new = torch.where(good, step, (low + high) / 2)
            moved = (new - a).abs()
            done = ((new - a).abs() <= torch.finfo(a.dtype).eps ** 0.75 * (1 + a.abs())).all()
            a = new
            if done:
                break
        slope = 1 + s * (1 - torch.tanh(a).square())
    return a - (a + s * torch.tanh(a) - y) / slope


Energy = Callable[[Tensor], Tensor]


class PlanarFlow(Flow):
    def __init__(self, cfg: Config, dim: int):
        super().__init__(Chain([*(Planar(dim) for _ in range(cfg.layers)), Scale(dim)]), base(cfg.base, dim))

    def free_energy(self, energy: Energy, n: int) -> tuple[Tensor, Tensor]:
        """E[log q(x)] and E[U(x)] over n draws x of the flow."""
        z = self.base.sample(n)
        x, logdet = self.bijector(z)
        return (self.base.log_prob(z) - logdet).mean(), energy(x).mean()


def u1(x: Tensor) -> Tensor:  # [B, 2] -> U [B]: two arcs of a ring
    ring = 0.5 * ((x.norm(dim=1) - 2) / 0.4).square()
    return ring - torch.logaddexp(-0.5 * ((x[:, 0] - 2) / 0.6).square(), -0.5 * ((x[:, 0] + 2) / 0.6).square())


def u2(x: Tensor) -> Tensor:  # a wave
    return 0.5 * ((x[:, 1] - _w1(x)) / 0.4).square() + _ends(x)


def u3(x: Tensor) -> Tensor:  # a wave that splits in the middle
    w2 = 3 * torch.exp(-0.5 * ((x[:, 0] - 1) / 0.6).square())
    y = x[:, 1] - _w1(x)
    return _ends(x) - torch.logaddexp(-0.5 * (y / 0.35).square(), -0.5 * ((y + w2) / 0.35).square())


def u4(x: Tensor) -> Tensor:  # a wave that splits for good
    w3 = 3 * torch.sigmoid((x[:, 0] - 1) / 0.3)
    y = x[:, 1] - _w1(x)
    return _ends(x) - torch.logaddexp(-0.5 * (y / 0.4).square(), -0.5 * ((y + w3) / 0.35).square())


def _w1(x: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * x[:, 0] / 4)


def _ends(x: Tensor) -> Tensor:
    return 0.5 * (F.relu(x[:, 0].abs() - 4) / 0.2).square()


ENERGIES: dict[str, Energy] = {"u1": u1, "u2": u2, "u3": u3, "u4": u4}


def goal(data: str, device: torch.device) -> tuple[Energy | None, Examples | None]:
    """An energy of that name, or the dataset."""
    if data in ENERGIES:
        return ENERGIES[data], None
    examples = load(data, device)
    if len(examples.shape) != 1:
        raise InputError(f"{data}: holds pictures; right would be rows such as moons, or an energy such as u1")
    return None, examples


def train(cfg: Config, run: Run, data: Annotated[str, "energy u1, u2, u3 or u4, or a dataset of rows"] = "u1") -> None:
    energy, examples = goal(data, run.device)
    model = run.place(PlanarFlow(cfg, examples.shape[0] if examples else 2))
    if examples:
        model.fit_scale(examples)
    adam = torch.optim.Adam(model.parameters(), cfg.lr, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    draw = examples.batches(cfg.batch, run.seed) if examples else lambda step: None
    for step, x in run.track(lambda step: (step, draw(step)), cfg.steps, model=model, adam=adam, cosine=cosine):
        if energy:
            log_q, u = model.free_energy(energy, cfg.batch)
            # The energy is turned on over the first half, or the flow settles in the first mode that it finds.
            loss = log_q + min(1.0, 0.01 + 2 * step / cfg.steps) * u
        else:
            loss = -model(x).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        adam.step()
        cosine.step()
        run.log(loss=loss)
    run.save(model, cfg, dim=model.base.dim)
    run.result(**judged(model, energy, examples))


@torch.no_grad()
def judged(model: PlanarFlow, energy: Energy | None, examples: Examples | None) -> dict[str, Tensor]:
    """Held-out nll; or the free energy and its gap to -log Z, which is KL(q || p), with Z by quadrature."""
    if examples:
        return examples.held_out(model)
    assert energy
    log_q, u = model.free_energy(energy, 50_000)
    free = log_q + u
    log_z = log_integral(lambda x: -energy(x), (-8.0, -8.0), (8.0, 8.0), 1000, like=free)
    return {"free_energy": free, "gap": free + log_z}


@torch.no_grad()
def sample(
    trained: Trained,
    run: Run,
    n: Annotated[int, "how many points", Ge(1)] = 5000,
    temperature: Annotated[float, "factor on the deviations of z", Gt(0)] = 1.0,
) -> None:
    model, (energy, _) = trained.load(PlanarFlow, Config), goal(trained.options["data"], run.device)
    target = None
    if energy:
        found = judged(model, energy, None)
        log_z = found["gap"] - found["free_energy"]
        target = Target(lambda x: -energy(x) - log_z, 5.0, float(found["gap"]))
    write_samples(run, trained, model, n, temperature, target)


def evaluate(
    trained: Trained, run: Run, data: Annotated[str | None, "energy or dataset (that of the training)"] = None
) -> None:
    run.result(**judged(trained.load(PlanarFlow, Config), *goal(data or trained.options["data"], run.device)))


def gradcheck() -> Iterator[Case]:
    def drawn(g: torch.Generator) -> tuple[Tensor, ...]:  # z, w, u, b
        return tuple(torch.randn(size, dtype=torch.float64, generator=g) for size in (3, 3, 3, ()))

    def slope(z: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return 1 - torch.tanh(w @ z + b).square()

    def layer(w: Tensor, u: Tensor, b: Tensor) -> Planar:
        made = Planar(3).double().requires_grad_(False)
        made.w.data, made.u.data, made.b.data = w, u, b
        return made

    def lemma(z: Tensor, w: Tensor, u: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        a = torch.eye(3, dtype=z.dtype) + torch.outer(z, w).sin() / 4
        return a, (a + torch.outer(u, w)).det()

    yield identity(
        "det(A + u w^T) = (1 + w^T A^-1 u) det A",
        lambda z, w, u, b: lemma(z, w, u, b)[1],
        lambda z, w, u, b: (1 + w @ torch.linalg.solve(lemma(z, w, u, b)[0], u)) * lemma(z, w, u, b)[0].det(),
        drawn,
    )
    yield identity(
        "det df/dz = 1 + h'(w^T z + b) u^T w",
        lambda z, w, u, b: torch.func.jacrev(lambda y: y + u * torch.tanh(w @ y + b))(z).det(),
        lambda z, w, u, b: 1 + slope(z, w, b) * (u @ w),
        drawn,
    )
    yield identity(
        "-log p(x) = |z|^2/2 + log |1 + h' u^T w| + (D/2) log 2 pi",
        lambda z, w, u, b: -_known_density(layer(w, u, b), z),
        lambda z, w, u, b: 0.5 * z @ z + layer(w, u, b)(z[None])[1][0] + 1.5 * math.log(2 * math.pi),
        drawn,
        printed=lambda z, w, u, b: z @ z + layer(w, u, b)(z[None])[1][0],
    )
    yield inequality(
        "w^T u >= -1 for every u as parametrised",
        lambda z, w, u, b: torch.tensor(-1.0),
        lambda z, w, u, b: layer(w, 3 * u, b).invertible_u()[0] @ w,
        drawn,
    )
    yield identity(
        "f^-1 by the root of a + (w^T u) h(a + b) = w^T x",
        lambda z, w, u, b: layer(w, u, b).inverse(layer(w, u, b)(z[None])[0])[0][0],
        lambda z, w, u, b: z,
        drawn,
    )
    yield gradient(
        "the root's gradient: da/dy = 1 / (1 + s h'(a))",
        lambda z, w, u, b: root(z, w.tanh()[0]),
        lambda z, w, u, b: 1 / (1 + w.tanh()[0] * (1 - root(z, w.tanh()[0]).tanh().square())),
        drawn,
    )


def _known_density(f: Planar, z: Tensor) -> Tensor:
    """log p(x) at x = f(z) from the Jacobian of f^-1 in full, for a normal base."""
    x = f(z[None])[0][0]
    back = f.inverse(x[None])[0][0]
    return torch.distributions.Normal(0, 1).log_prob(back).sum() - log_abs_det(lambda y: f(y[None])[0][0], z)
