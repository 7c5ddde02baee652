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

from mpcli.checks import Case
from mpcli.kit.densities import load
from mpcli.kit.layers import mlp
from mpcli.old_checks import identity
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
    write_samples(run, trained, trained.load(NICE, Config), n, temperature)


def evaluate(trained: Trained, run: Run, data: Annotated[str | None, "dataset (that of the training)"] = None) -> None:
    examples = load(data or trained.options["data"], run.device)
    run.result(**examples.held_out(trained.load(NICE, Config)))


def gradcheck() -> Iterator[Case]:
    def drawn(g: torch.Generator) -> tuple[Tensor, ...]:  # z and weights of a network from two numbers to two
        return tuple(torch.randn(*size, dtype=torch.float64, generator=g) for size in ((4,), (2, 2), (2, 2)))

    def coupled(z: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """h(z_B, m) = sinh(z_B) e^m: an element-wise h of which the additive and the affine coupling are cases."""
        m = v @ torch.tanh(w @ z[:2])
        return torch.cat((z[:2], z[2:].sinh() * m.exp()))

    def additive(v: Tensor, w: Tensor) -> AdditiveCoupling:
        made = AdditiveCoupling(4, False, (2,), 0.0).double().requires_grad_(False)
        made.m[0].weight.data, made.m[2].weight.data = w, v
        return made

    yield identity(
        "any coupling: det dx/dz = prod_i dh/dz_i over part B",
        lambda z, v, w: torch.func.jacrev(coupled)(z, v, w).det(),
        lambda z, v, w: (z[2:].cosh() * (v @ torch.tanh(w @ z[:2])).exp()).prod(),
        drawn,
    )
    yield identity(
        "any coupling: dx_B/dz_A = (dh/dm) m'(z_A), which is not (dh/dz_B) m'(z_A)",
        lambda z, v, w: torch.func.jacrev(coupled)(z, v, w)[2:, :2],
        lambda z, v, w: torch.diag(coupled(z, v, w)[2:]) @ _slope(z, v, w),
        drawn,
        printed=lambda z, v, w: torch.diag(z[2:].cosh() * (v @ torch.tanh(w @ z[:2])).exp()) @ _slope(z, v, w),
    )
    yield identity(
        "additive coupling: det dx/dz = 1",
        lambda z, v, w: log_abs_det(lambda y: additive(v, w)(y[None])[0][0], z).exp(),
        lambda z, v, w: torch.ones(()),
        drawn,
    )


def _slope(z: Tensor, v: Tensor, w: Tensor) -> Tensor:
    return torch.func.jacrev(lambda a: v @ torch.tanh(w @ a))(z[:2])
