"""Planar flow: a normal distribution bent by a sequence of soft steps, each along one plane.

    f(z) = z + u h(w^T z + b),   0 <= h' <= 1   det df/dz = 1 + h'(w^T z + b) u^T w       (matrix determinant lemma)
    w^T u >= -1 keeps f invertible:             u -> u + (m(w^T u) - w^T u) w / |w|^2,   m(s) = -1 + log(1 + e^s)
    x = f(z):   -log p(x) = |z|^2 / 2 + log |1 + h' u^T w| + const                        one layer, normal base

h is tanh, or with `--bend` arctan or softsign, a / (1 + |a|), which bend more slowly and reach further.

f^-1 needs one root of a monotone function of a = w^T z:  a + (w^T u) h(a + b) = w^T x. With `--data u1` to `u4`
the flow q is fitted to an energy U, of which no sample is known, by the free energy E_q[log q + U], least (-log Z)
where q = exp(-U) / Z. u2 to u4 go on for ever along the first axis; beyond |x_0| = 4 a parabola ends them.

Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015. arXiv:1505.05770
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit.densities import Examples, load, log_integral
from mpcli.kit.randomness import generator
from mpcli.run import Run, Trained
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Chain, Condition, Scale, Units
from mpcli_flows.kit.flow import Flow, Target, write_samples
from mpcli_flows.planar.equations import gradcheck as gradcheck


@dataclass(frozen=True)
class Config:
    layers: Annotated[int, "planar maps K", Ge(1)] = 32
    bend: Annotated[Literal["tanh", "arctan", "softsign"], "the function h"] = "tanh"
    base: Annotated[BaseName, "distribution of z"] = "normal"
    steps: Annotated[int, "training steps", Ge(1)] = 3000
    batch: Annotated[int, "draws or examples a step", Ge(1)] = 256
    lr: Annotated[float, "learning rate", Gt(0)] = 0.01


class Bend(NamedTuple):
    """h, its slope h' from a and h(a), and the least upper bound of |h|."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    bound: float


BENDS = {
    "tanh": Bend(torch.tanh, lambda a, h: 1 - h * h, 1.0),
    "arctan": Bend(torch.atan, lambda a, h: 1 / (1 + a * a), math.pi / 2),
    "softsign": Bend(F.softsign, lambda a, h: (1 - h.abs()).square(), 1.0),
}


class Planar(nn.Module):
    """f(z) = z + u h(w^T z + b)."""

    slack = 1e-2  # 1 + w^T u stays above it, so that the inverse loses at most two digits

    def __init__(self, dim: int, h: str = "tanh"):
        super().__init__()
        self.h = h
        self.w = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.u = nn.Parameter(0.1 * torch.randn(dim) / math.sqrt(dim))  # small: many maps in a row must not explode
        self.b = nn.Parameter(torch.zeros(()))

    def invertible_u(self) -> tuple[Tensor, Tensor]:  # -> u [D], w^T u []
        wu = self.w @ self.u
        allowed = self.slack - 1 + F.softplus(wu)
        return self.u + (allowed - wu) * self.w / (self.w @ self.w), allowed

    def forward(self, z: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        u, wu = self.invertible_u()
        h, slope = self.bent(z @ self.w + self.b)  # [B]
        return z + h[:, None] * u, torch.log1p(wu * slope)

    def inverse(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        u, wu = self.invertible_u()
        h, slope = self.bent(root(x @ self.w + self.b, wu, self.h))
        return x - h[:, None] * u, -torch.log1p(wu * slope)

    def bent(self, a: Tensor) -> tuple[Tensor, Tensor]:  # -> h(a), h'(a)
        bend = BENDS[self.h]
        h = bend.value(a)
        return h, bend.slope(a, h)


def root(y: Tensor, s: Tensor, h: str = "tanh") -> Tensor:  # [B], [] -> a [B] with a + s h(a) = y
    """The root by Newton's method inside a shrinking bracket; its gradient by one more step, differentiated."""
    value, slope_at, bound = BENDS[h]
    with torch.no_grad():
        low, high, a = y - bound * s.abs(), y + bound * s.abs(), y
        moved = high - low
        for _ in range(100):
            bent = value(a)
            excess = a + s * bent - y
            low, high = torch.where(excess < 0, a, low), torch.where(excess > 0, a, high)
            step = a - excess / (1 + s * slope_at(a, bent))
            # A step of Newton that leaves the bracket, or does not halve the one before, could go round in circles.
            good = (step >= low) & (step <= high) & ((step - a).abs() <= moved / 2)
            new = torch.where(good, step, (low + high) / 2)
            moved = (new - a).abs()
            done = ((new - a).abs() <= torch.finfo(a.dtype).eps ** 0.75 * (1 + a.abs())).all()
            a = new
            if done:
                break
        slope = 1 + s * slope_at(a, value(a))
    return a - (a + s * value(a) - y) / slope


Energy = Callable[[Tensor], Tensor]


class PlanarFlow(Flow):
    def __init__(self, cfg: Config, dim: int):
        super().__init__(
            Chain([*(Planar(dim, cfg.bend) for _ in range(cfg.layers)), Scale(dim), Units(dim)]), base(cfg.base, dim)
        )


class FreeEnergy(nn.Module):
    """log q(x) + t U(x) at x = f(z): its mean over draws z of the base is what a flow q has to make small."""

    def __init__(self, flow: Flow, energy: Energy):
        super().__init__()
        self.flow = flow
        self.energy = energy

    def forward(self, z: Tensor, t: float = 1.0) -> Tensor:  # [B, D] -> [B]
        x, logdet = self.flow.bijector(z)
        return self.flow.base.log_prob(z) - logdet + t * self.energy(x)


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
    flow = PlanarFlow(cfg, examples.shape[0] if examples else 2).to(run.device)
    if examples:
        flow.fit_scale(examples)
    model = run.place(FreeEnergy(flow, energy) if energy else flow)
    adam = torch.optim.Adam(flow.parameters(), cfg.lr, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    rows = examples.batches(cfg.batch, run.seed) if examples else None

    def batch(step: int) -> tuple[int, Tensor]:  # rows x of the data, or draws z of the base
        if rows:
            return step, rows(step)
        seed = generator(run.seed, step).initial_seed()
        return step, flow.base.sample(cfg.batch, generator=torch.Generator(run.device).manual_seed(seed))

    for step, given in run.track(batch, cfg.steps, model=flow, adam=adam, cosine=cosine):
        # The energy is turned on over the first half, or the flow settles in the first mode that it finds.
        t = min(1.0, 0.01 + 2 * step / cfg.steps)
        loss = model(given, t).mean() if energy else -model(given).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        adam.step()
        cosine.step()
        run.log(loss=loss)
    run.save(flow, cfg, dim=flow.base.dim)
    run.result(**held_out(flow, energy, examples))


@torch.no_grad()
def held_out(flow: PlanarFlow, energy: Energy | None, examples: Examples | None) -> dict[str, Tensor]:
    """nll of held-out data; or the free energy and its gap to -log Z, which is KL(q || p), with Z by quadrature."""
    if examples:
        return examples.held_out(flow)
    assert energy
    free = FreeEnergy(flow, energy)(flow.base.sample(50_000)).mean()
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
        found = held_out(model, energy, None)
        log_z = found["gap"] - found["free_energy"]
        target = Target(lambda x: -energy(x) - log_z, 5.0, float(found["gap"]))
    write_samples(run, trained, model, n, temperature, target)


def evaluate(
    trained: Trained, run: Run, data: Annotated[str | None, "energy or dataset (that of the training)"] = None
) -> None:
    run.result(**held_out(trained.load(PlanarFlow, Config), *goal(data or trained.options["data"], run.device)))
