"""Conditional coupling flow: the density of pictures given their class, and so a classifier.

    z_0 = x_0,   z_1 = t(x_0, c) + x_1 * g(A_c x_0 + b_c),   g(u) = exp(2 tanh(u / 2)) > 0
    dz/dx = [[1, 0], [..., diag g]]           det dz/dx = prod_j g_j
    log p(x | c) = log p_z(z) + sum_j log g(A_c x_0 + b_c)_j

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

from mpcli.checks import Case, Printed, Sides, identity
from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.densities import Examples, nll
from mpcli.kit.layers import mlp
from mpcli.run import Run, Trained
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Chain, Condition, Scale, Shuffle
from mpcli_flows.kit.flow import Flow, to_data
from mpcli_flows.realnvp import AffineCoupling


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


class ConditionalCoupling(AffineCoupling):
    """RealNVP's coupling, whose network also reads a condition c, which stands behind A along the channels."""

    def read(self, a: Tensor, c: Condition) -> Tensor:
        return torch.cat((a, c), 1)


class ByClass(nn.Module):
    """u = A_c x_0 + b_c and t(x_0, c), of x_0 and the class c, one of `classes`, one-hot behind it."""

    def __init__(self, sizes: tuple[int, int], classes: int, hidden: tuple[int, ...], dropout: float):
        super().__init__()
        kept, moved = sizes
        self.sizes = kept, classes
        self.t = mlp(kept + classes, hidden, moved, dropout)
        # One matrix for all classes and what each adds to it: few pictures a class do not fill a matrix of their own.
        self.a = nn.Parameter(torch.zeros(moved, kept))
        self.a_c = nn.Parameter(torch.zeros(classes, moved, kept))
        self.b_c = nn.Parameter(torch.zeros(classes, moved))

    def forward(self, given: Tensor) -> Tensor:  # [B, kept + classes] -> u and t [B, 2 moved]
        x_0, c = given.split(self.sizes, 1)
        u = x_0 @ self.a.T + torch.einsum("bk,kij,bj->bi", c, self.a_c, x_0) + c @ self.b_c
        return torch.cat((u, self.t(given)), 1)


class ClassCoupling(ConditionalCoupling):
    """z_1 = t(x_0, c) + x_1 g(A_c x_0 + b_c) of classes c [B]; `second` says that x_0 is the second part."""

    def __init__(self, cfg: Config, dim: int, classes: int, second: bool):
        sizes = dim // 2, dim - dim // 2
        net = ByClass(sizes[::-1] if second else sizes, classes, cfg.hidden, cfg.dropout)
        super().__init__(net, sizes, second)
        self.classes = classes

    def read(self, a: Tensor, c: Condition) -> Tensor:
        return super().read(a, F.one_hot(c, self.classes).to(a))


class ConditionalFlow(Flow):
    def __init__(self, cfg: Config, shape: tuple[int, ...], classes: int, levels: int = 0):
        dim = math.prod(shape)
        couplings = [ClassCoupling(cfg, dim, classes, i % 2 == 1) for i in range(cfg.couplings)]
        chain = Chain([*couplings, Shuffle(dim), Scale(dim), *to_data(shape)])
        super().__init__(chain, base(cfg.base, dim), levels)


def labelled(spec: str, device: torch.device) -> tuple[Examples, datasets.Images, Tensor]:
    """Pictures, as a density sees them and as they are, and the classes of those for testing."""
    images = datasets.images(spec).to(device)
    if images.test_labels is None or images.train_labels is None:
        raise InputError(f"{spec}: has no labels; right would be labelled pictures such as digits")
    return Examples(images, images.levels), images, images.test_labels


@torch.no_grad()
def held_out(model: ConditionalFlow, examples: Examples, labels: Tensor, classes: int) -> dict[str, Tensor]:
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
    batches = images.labelled_batches(cfg.batch, run.seed)
    for x, c in run.track(batches, cfg.steps, model=model, adam=adam, cosine=cosine):
        loss = -model(examples.continuous(x), c).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        adam.step()
        cosine.step()
        run.log(loss=loss)
    run.save(model, cfg, shape=examples.shape, classes=classes, levels=examples.levels)
    run.result(**held_out(model, examples, labels, classes))


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
    c = torch.tensor(list(chosen), device=run.device).repeat_interleave(n)
    run.image("samples.png", model.pictures(len(c), temperature, c).unflatten(0, (-1, n)))


def evaluate(
    trained: Trained, run: Run, data: Annotated[str | None, "labelled pictures (those of the training)"] = None
) -> None:
    examples, _, labels = labelled(data or trained.options["data"], run.device)
    run.result(**held_out(trained.load(ConditionalFlow, Config), examples, labels, trained.extras["classes"]))


def gradcheck() -> Iterator[Case]:
    drawn = (4,), (2, 2, 2), (2, 2)  # a vector, and A_c, b_c of two classes
    second = torch.tensor([1])

    def coupling(a: Tensor, b: Tensor) -> ClassCoupling:
        f = ClassCoupling(Config(hidden=(3,), dropout=0.0), 4, 2, False).double().requires_grad_(False)
        f.get_parameter("net.a_c").data, f.get_parameter("net.b_c").data = a, b
        f.get_parameter("net.t.2.weight").data = b[:, :1].expand(2, 3).clone()
        return f

    def log_g(x: Tensor, a: Tensor, b: Tensor, c: int) -> Tensor:
        return 2 * torch.tanh((a[c] @ x[:2] + b[c]) / 2)

    def whole(f: ClassCoupling, x: Tensor, c: Tensor) -> Tensor:  # dz/dx
        return torch.autograd.functional.jacobian(lambda y: f.inverse(y[None], c)[0][0], x)

    def determinant(x: Tensor, a: Tensor, b: Tensor) -> Sides:
        f, known = coupling(a, b), log_g(x, a, b, 1).sum().exp()
        both = torch.stack((f.inverse(x[None], second)[1][0].exp(), known))
        return both, whole(f, x, second).det().expand(2), 1 / known.expand(2)

    printed = Printed("(161)", "det = (prod_j g_j)^-1", "det = prod_j g_j")
    yield identity("det dz/dx = prod_j g(A_c x_0 + b_c)_j", determinant, *drawn, printed=printed)

    def density(x: Tensor, a: Tensor, b: Tensor) -> Sides:
        flow, scales = ConditionalFlow(Config(), (4,), 2).double(), log_g(x, a, b, 1).sum()
        flow.bijector = Chain([coupling(a, b)])
        log_base = flow.base.log_prob(flow.bijector.inverse(x[None], second)[0])[0]
        return flow(x[None], second)[0], log_base + scales, log_base - scales.abs().log()

    printed = Printed("(157)", "log p_z(z) - log |log |det df^-1/dx||", "log p_z(z) + log |det df^-1/dx|")
    yield identity("log p(x | c) = log p_z(z) + sum_j log g_j", density, *drawn, printed=printed)

    def moved(x: Tensor, a: Tensor, b: Tensor) -> Sides:
        f = coupling(a, b)
        left, right = (whole(f, x, c).diag()[2:].log() for c in (second, 1 - second))
        change = log_g(x, a, b, 1) - log_g(x, a, b, 0)
        return left - right, change, 0 * change

    printed = Printed("(158)", "g(A z_0 + b), t(z_0)", "g(A_c z_0 + b_c), t(z_0, c)")
    yield identity("the class moves x_1: its log scale changes by that of g", moved, *drawn, printed=printed)

    def there_and_back(x: Tensor, a: Tensor, b: Tensor) -> Sides:
        f = coupling(a, b)
        z, logdet = f.inverse(x[None], second)
        back, logdet_back = f(z, second)
        return torch.cat((back[0], logdet_back)), torch.cat((x, -logdet))

    yield identity("x_1 = (z_1 - t(z_0, c)) / g(A_c z_0 + b_c)", there_and_back, *drawn)
