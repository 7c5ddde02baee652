"""NICE: a volume-preserving flow of additive couplings, and a learned scale for every coordinate.

    coupling   x_A = z_A,   x_B = z_B + m(z_A)       dx/dz = [[1, 0], [m', 1]]      log |det| = 0, whatever m is
    scale      x_i = b_i + exp(a_i) z_i              log |det| = sum_i a_i

The Jacobian of any coupling x_B = h(z_B, m(z_A)) is triangular, so its determinant is the product of dh/dz_B. One
coupling leaves half of its input as it was; the next one exchanges the roles of the halves. The scale is the only part
that changes volumes, so exp(a_i) tells how much of the data each latent coordinate carries.

Dinh, Krueger and Bengio, NICE: Non-linear Independent Components Estimation, 2015. arXiv:1410.8516
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mpcli.checks import Case, Printed, Sides, identity
from mpcli.kit.densities import load
from mpcli.kit.layers import mlp
from mpcli.run import Run, Trained
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Chain, Condition, Scale, Shuffle
from mpcli_flows.kit.flow import Flow, log_abs_det, to_data, write_samples


@dataclass(frozen=True)
class Config:
    couplings: Annotated[int, "coupling layers", Ge(2)] = 4
    hidden: Annotated[tuple[int, ...], "widths of each m's hidden layers"] = (128, 128)
    split: Annotated[Literal["halves", "random"], "what the two parts of a vector are"] = "random"
    base: Annotated[BaseName, "distribution of z"] = "logistic"
    dropout: Annotated[float, "share of hidden units dropped while training", Interval(ge=0, lt=1)] = 0.1
    steps: Annotated[int, "training steps", Ge(1)] = 3000
    batch: Annotated[int, "examples a step", Ge(1)] = 128
    lr: Annotated[float, "learning rate", Gt(0)] = 0.001


class AdditiveCoupling(nn.Module):
    """x_B = z_B + m(z_A); `second` says that A is the second part of the vector."""

    sight = 5.0  # of what m sees of |z_A|: far from the data a stack of couplings would grow beyond float32

    def __init__(self, dim: int, second: bool, hidden: tuple[int, ...], dropout: float):
        super().__init__()
        self.second = second
        self.sizes = dim // 2, dim - dim // 2
        a, b = self.sizes[::-1] if second else self.sizes
        self.m = mlp(a, hidden, b, dropout)

    def shifted(self, x: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.sizes, 1)
        if self.second:
            first = first + sign * self.m(second.clamp(-self.sight, self.sight))
        else:
            second = second + sign * self.m(first.clamp(-self.sight, self.sight))
        return torch.cat((first, second), 1), x.new_zeros(len(x))

    def forward(self, z: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        return self.shifted(z, 1)

    def inverse(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        return self.shifted(x, -1)


class NICE(Flow):
    def __init__(self, cfg: Config, shape: tuple[int, ...], levels: int = 0):
        dim = math.prod(shape)
        couplings = [AdditiveCoupling(dim, i % 2 == 1, cfg.hidden, cfg.dropout) for i in range(cfg.couplings)]
        order = [Shuffle(dim)] if cfg.split == "random" else []
        super().__init__(Chain([Scale(dim), *couplings, *order, *to_data(shape)]), base(cfg.base, dim), levels)


def train(cfg: Config, run: Run, data: Annotated[str, "dataset of pictures or of rows"] = "digits") -> None:
    examples = load(data, run.device)
    model = run.place(NICE(cfg, examples.shape, examples.levels))
    model.fit_scale(examples)
    adam = torch.optim.Adam(model.parameters(), cfg.lr, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    for x in run.track(examples.batches(cfg.batch, run.seed), cfg.steps, model=model, adam=adam, cosine=cosine):
        loss = -model(x).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        cosine.step()
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
    write_samples(run, trained.load(NICE, Config), n, temperature)


def evaluate(trained: Trained, run: Run, data: Annotated[str | None, "dataset (that of the training)"] = None) -> None:
    examples = load(data or trained.options["data"], run.device)
    run.result(**examples.held_out(trained.load(NICE, Config)))


def gradcheck() -> Iterator[Case]:
    drawn = (4,), (2, 2), (2, 2)  # a vector, and weights of m(z_A) = v relu(w z_A)

    def additive(v: Tensor, w: Tensor, second: bool = False) -> AdditiveCoupling:
        made = AdditiveCoupling(4, second, (2,), 0.0).double().requires_grad_(False)
        made.m[0].weight.data, made.m[0].bias.data, made.m[2].weight.data = w, w[0], v
        return made

    def shift(z: Tensor, v: Tensor, w: Tensor) -> Sides:
        of_a, of_b = (v @ (w @ part + w[0]).relu() for part in (z[:2], z[2:]))
        return additive(v, w)(z[None])[0][0], torch.cat((z[:2], z[2:] + of_a)), torch.cat((z[:2], z[2:] + of_b))

    yield identity("x_A = z_A, x_B = z_B + m(z_A)", shift, *drawn, mistake="m reads the part that it moves")

    def there_and_back(z: Tensor, v: Tensor, w: Tensor) -> Sides:
        f = additive(v, w, second=True)
        x = f(z[None])[0]
        return f.inverse(x)[0][0], z, f(x)[0][0]

    yield identity("z_B = x_B - m(x_A)", there_and_back, *drawn, mistake="m added on the way back too")

    def volume(z: Tensor, v: Tensor, w: Tensor) -> Sides:
        f = additive(v, w)
        known = log_abs_det(lambda y: f(y[None])[0][0], z)
        return torch.cat((f(z[None])[1], f.inverse(z[None])[1])).exp(), known.exp().expand(2)

    yield identity("additive coupling: |det| = 1", volume, *drawn)

    def density(x: Tensor, v: Tensor, w: Tensor) -> Sides:
        flow = NICE(Config(couplings=2, hidden=(2,), dropout=0.0), (4,)).double().requires_grad_(False)
        flow.get_parameter("bijector.0.log_scale").data = v.flatten()
        flow.get_parameter("bijector.1.m.0.weight").data, flow.get_parameter("bijector.1.m.2.weight").data = w, v
        log_base = flow.base.log_prob(flow.bijector.inverse(x[None])[0])
        return flow(x[None]), log_base - v.sum(), log_base

    printed = Printed("004 section 7.4", "p(x) = p_z(f^-1(x))", "p(x) = p_z(f^-1(x)) |det df^-1/dx|")
    yield identity("log p(x) = log p_z(f^-1(x)) - sum_i a_i", density, *drawn, printed=printed)
