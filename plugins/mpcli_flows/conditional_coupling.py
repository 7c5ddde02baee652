"""Conditional coupling flow: the density of pictures given their class, and so a classifier.

    x_0 = z_0,   x_1 = t(z_0, c) + z_1 * g(A_c z_0 + b_c),   g(u) = exp(2 tanh(u / 2)) > 0
    dx/dz = [[1, 0], [..., diag g]]           det dx/dz = prod_j g_j
    log p(x | c) = log p_z(z) - sum_j log g(A_c z_0 + b_c)_j

The class c reaches the shift t, the matrix A and the vector b of every coupling; left out of them, it would reach
nothing. By Bayes' rule p(c | x) is proportional to p(x | c) p(c), whose largest entry tells the class of a picture.

Winkler, Worrall, Hoogeboom and Welling, Learning Likelihoods with Conditional Normalizing Flows, 2019. arXiv:1912.00042
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mpcli.checks import Case
from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import Images
from mpcli.kit.densities import Examples, nll
from mpcli.kit.layers import mlp
from mpcli.kit.pictures import tiles
from mpcli.old_checks import identity
from mpcli.run import Run, Trained
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Chain, Scale, Shuffle, bounded
from mpcli_flows.kit.flow import Flow, log_abs_det, to_data


@dataclass(frozen=True)
class Config:
    couplings: Annotated[int, "coupling layers", Ge(2)] = 6
    hidden: Annotated[tuple[int, ...], "widths of each t's hidden layers"] = (64,)
    base: Annotated[BaseName, "distribution of z"] = "normal"
    dropout: Annotated[float, "share of hidden units dropped while training", Interval(ge=0, lt=1)] = 0.2
    steps: Annotated[int, "training steps", Ge(1)] = 1500
    batch: Annotated[int, "pictures a step", Ge(1)] = 64
    lr: Annotated[float, "learning rate", Gt(0)] = 0.002
    weight_decay: Annotated[float, "of AdamW", Ge(0)] = 0.1


class ConditionalCoupling(nn.Module):
    """x_1 = t(z_0, c) + z_1 g(A_c z_0 + b_c); `second` says that z_0 is the second part of the vector."""

    limit, sight = 2.0, 5.0  # of |log g|, and of what t and A see of |z_0|

    def __init__(self, dim: int, classes: int, second: bool, hidden: tuple[int, ...], dropout: float):
        super().__init__()
        self.second = second
        self.sizes = dim // 2, dim - dim // 2
        kept, moved = self.sizes[::-1] if second else self.sizes
        self.classes = classes
        self.t = mlp(kept + classes, hidden, moved, dropout)
        # One matrix for all classes and what each adds to it: few pictures a class do not fill a matrix of their own.
        self.a = nn.Parameter(torch.zeros(moved, kept))
        self.a_c = nn.Parameter(torch.zeros(classes, moved, kept))
        self.b_c = nn.Parameter(torch.zeros(classes, moved))

    def parts(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # -> x_0, x_1, t, log g
        x_0, x_1 = x.split(self.sizes, 1)
        x_0, x_1 = (x_1, x_0) if self.second else (x_0, x_1)
        seen = x_0.clamp(-self.sight, self.sight)
        u = seen @ self.a.T + torch.einsum("bij,bj->bi", self.a_c[c], seen) + self.b_c[c]
        t = self.t(torch.cat((seen, F.one_hot(c, self.classes).to(seen)), 1))
        return x_0, x_1, t, bounded(u, self.limit)

    def whole(self, x_0: Tensor, x_1: Tensor) -> Tensor:
        return torch.cat((x_1, x_0) if self.second else (x_0, x_1), 1)

    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        z_0, z_1, t, log_g = self.parts(z, c)
        return self.whole(z_0, t + z_1 * log_g.exp()), log_g.sum(1)

    def inverse(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        x_0, x_1, t, log_g = self.parts(x, c)
        return self.whole(x_0, (x_1 - t) * torch.exp(-log_g)), -log_g.sum(1)


class ConditionalFlow(Flow):
    def __init__(self, cfg: Config, shape: tuple[int, ...], classes: int, levels: int = 0):
        dim = math.prod(shape)
        couplings = [
            ConditionalCoupling(dim, classes, i % 2 == 1, cfg.hidden, cfg.dropout) for i in range(cfg.couplings)
        ]
        chain = Chain([*couplings, Shuffle(dim), Scale(dim), *to_data(shape)])
        super().__init__(chain, base(cfg.base, dim), levels)


def labelled(spec: str, device: torch.device) -> tuple[Examples, Images, Tensor]:
    """Pictures, as a density sees them and as they are, and the classes of those for testing."""
    images = datasets.load(spec, Images).to(device)
    if images.labels is None:
        raise InputError(f"{spec}: has no labels; right would be labelled pictures such as digits")
    return Examples(images, images.levels), images, images.labels.test


@torch.no_grad()
def judged(model: ConditionalFlow, examples: Examples, labels: Tensor, classes: int) -> dict[str, Tensor]:
    """nll given the true class, and how often Bayes' rule with equal p(c) finds it."""
    x = examples.data.test
    each = [nll(model.eval(), x, torch.full_like(labels, c), levels=examples.levels) for c in range(classes)]
    found = torch.stack(each, 1).argmin(1)
    return {**examples.held_out(model, labels), "accuracy": (found == labels).float().mean()}


def train(cfg: Config, run: Run, data: Annotated[str, "dataset of labelled pictures"] = "digits") -> None:
    examples, images, labels = labelled(data, run.device)
    classes = len(images.classes)
    model = run.place(ConditionalFlow(cfg, examples.shape, classes, examples.levels))
    model.fit_scale(examples)
    adam = torch.optim.AdamW(model.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    batches = images.labelled.batches(cfg.batch, run.seed)
    for x, c in run.track(batches, cfg.steps, model=model, adam=adam, cosine=cosine):
        loss = -model(examples.continuous(x), c).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        adam.step()
        cosine.step()
        run.log(loss=loss)
    run.save(model, cfg, shape=examples.shape, classes=classes, levels=examples.levels)
    run.result(**judged(model, examples, labels, classes))


@torch.no_grad()
def sample(
    trained: Trained,
    run: Run,
    n: Annotated[int, "how many of each class", Ge(1)] = 8,
    label: Annotated[int | None, "this class only, by its number", Ge(0)] = None,
    temperature: Annotated[float, "factor on the deviations of z", Gt(0)] = 1.0,
) -> None:
    model = trained.load(ConditionalFlow, Config)
    classes = trained.extras["classes"]
    if label is not None and label >= classes:
        raise InputError(f"--label {label}: there are {classes} classes; right would be 0 to {classes - 1}")
    chosen = range(classes) if label is None else [label]
    c = torch.tensor(list(chosen) * n, device=run.device)  # a column each
    drawn = model.pictures(len(c), temperature, c).unflatten(0, (n, -1))
    heading = f"{trained.heading}\nsamples of each class at temperature {temperature:g}"
    run.figure("samples.png", tiles(drawn, heading, [f"class {label}" for label in chosen]))


def evaluate(
    trained: Trained, run: Run, data: Annotated[str | None, "labelled pictures (those of the training)"] = None
) -> None:
    examples, _, labels = labelled(data or trained.options["data"], run.device)
    run.result(**judged(trained.load(ConditionalFlow, Config), examples, labels, trained.extras["classes"]))


def gradcheck() -> Iterator[Case]:
    def drawn(g: torch.Generator) -> tuple[Tensor, ...]:  # z, and A_c, b_c of two classes
        return tuple(torch.randn(size, dtype=torch.float64, generator=g) for size in ((4,), (2, 2, 2), (2, 2)))

    def coupling(a: Tensor, b: Tensor) -> ConditionalCoupling:
        made = ConditionalCoupling(4, 2, False, (3,), 0.0).double().requires_grad_(False)
        made.a_c.data, made.b_c.data = a, b
        made.t[0].weight.data = a.reshape(-1)[:4].repeat(3, 1).sin()
        made.t[2].weight.data = b[:, :1].expand(2, 3).clone()
        return made

    def moved(f: ConditionalCoupling, z: Tensor, c: int) -> Tensor:
        return f(z[None], torch.tensor([c]))[0][0]

    def u(z: Tensor, a: Tensor, b: Tensor, c: int) -> Tensor:
        return a[c] @ z[:2] + b[c]

    def log_g(z: Tensor, a: Tensor, b: Tensor, c: int) -> Tensor:
        return 2 * torch.tanh(u(z, a, b, c) / 2)

    yield identity(
        "det dx/dz = prod_j g(A_c z_0 + b_c)_j",
        lambda z, a, b: log_abs_det(lambda y: moved(coupling(a, b), y, 1), z).exp(),
        lambda z, a, b: log_g(z, a, b, 1).exp().prod(),
        drawn,
        printed=lambda z, a, b: 1 / log_g(z, a, b, 1).exp().prod(),
    )
    yield identity(
        "log p(x | c) = log p_z(z) - sum_j log g_j",
        lambda z, a, b: _density(coupling(a, b), z),
        lambda z, a, b: -0.5 * z @ z - 2 * math.log(2 * math.pi) - log_g(z, a, b, 1).sum(),
        drawn,
        printed=lambda z, a, b: -0.5 * z @ z - 2 * math.log(2 * math.pi) - log_g(z, a, b, 1).sum().abs().log(),
    )
    yield identity(
        "the class moves x_1: its log scale changes by log g(A_1 z_0 + b_1) - log g(A_0 z_0 + b_0)",
        lambda z, a, b: _log_slope(coupling(a, b), z, 1) - _log_slope(coupling(a, b), z, 0),
        lambda z, a, b: log_g(z, a, b, 1) - log_g(z, a, b, 0),
        drawn,
        printed=lambda z, a, b: torch.zeros(2, dtype=z.dtype),
    )


def _log_slope(f: ConditionalCoupling, z: Tensor, c: int) -> Tensor:
    whole = torch.autograd.functional.jacobian(lambda y: f(y[None], torch.tensor([c]))[0][0], z)
    return whole.diag()[2:].log()


def _density(f: ConditionalCoupling, z: Tensor) -> Tensor:
    """log p(x | c = 1) at x = f(z, 1) from the Jacobian of the whole inverse, for a normal base."""
    c = torch.tensor([1])
    x = f(z[None], c)[0]
    log_base = torch.distributions.Normal(0, 1).log_prob(f.inverse(x, c)[0]).sum()
    return log_base + log_abs_det(lambda y: f.inverse(y[None], c)[0][0], x[0])
