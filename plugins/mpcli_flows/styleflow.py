"""StyleFlow: edit one attribute of a picture in the latent space of its generator and keep the others.

    x = G(w)                               a generator that is trained already, here the decoder of a VAE
    w = f(z; a),  z ~ p_z                  log p(w | a) = log p_z(f^-1(w; a)) + log |det df^-1/dw|
    edit a -> a'                           w' = f(f^-1(w; a); a')

f takes the place of a generator's mapping from z to w, with the attributes a as its condition. If it fits, z is
independent of a and keeps all that a does not say; so z held and a changed is the edit. In the paper f is an ordinary
differential equation and G is StyleGAN; here f is a chain of affine couplings. The attributes are measured on G(w):

    ink = mean of the pixels     slant = m_xy / m_yy     width = sqrt(m_xx)     m the second central moments

and a labelled dataset adds the class. With `--generator RUN` the VAE is that run's; without, the first half of the
training steps trains one.

Abdal, Zhu, Mitra and Wonka, StyleFlow: Attribute-conditioned Exploration of StyleGAN-Generated Images using Conditional
Continuous Normalizing Flows, 2021. arXiv:2008.02401
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mpcli.checks import Case, Sides, identity, uniform
from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.layers import mlp
from mpcli.run import Run, Trained
from mpcli_flows.conditional_coupling import ConditionalCoupling
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Chain
from mpcli_flows.kit.flow import Flow, log_abs_det
from mpcli_latent import vae

NAMES = ("ink", "slant", "width")


@dataclass(frozen=True)
class Config:
    latent: Annotated[int, "dimension of w, of a generator trained here", Ge(2)] = 16
    couplings: Annotated[int, "coupling layers", Ge(2)] = 8
    hidden: Annotated[tuple[int, ...], "widths of the hidden layers of each coupling"] = (64, 64)
    dropout: Annotated[float, "share of hidden units dropped while training", Interval(ge=0, lt=1)] = 0.0
    base: Annotated[BaseName, "distribution of z"] = "normal"
    steps: Annotated[int, "training steps, with those of the generator", Ge(1)] = 5000
    batch: Annotated[int, "pictures a step", Ge(1)] = 128
    lr: Annotated[float, "learning rate at the start of both halves", Gt(0)] = 0.002


def attributes(x: Tensor) -> Tensor:  # [B, C, H, W] -> ink, slant, width [B, 3]
    p = x.mean(1)
    mass = p.sum((1, 2)).clamp(min=1e-6)  # a black picture has no slant, and no error either
    up = torch.linspace(1, -1, p.shape[1], device=x.device, dtype=x.dtype)[:, None]
    right = torch.linspace(-1, 1, p.shape[2], device=x.device, dtype=x.dtype)

    def mean(of: Tensor) -> Tensor:
        return (p * of).sum((1, 2)) / mass

    dx, dy = right - mean(right)[:, None, None], up - mean(up)[:, None, None]
    return torch.stack(
        (p.mean((1, 2)), mean(dx * dy) / mean(dy * dy).clamp(min=1e-6), mean(dx * dx).clamp(min=1e-6).sqrt()), 1
    )


def couplings(cfg: Config, dim: int, conditions: int) -> Chain:
    """z_A = w_A,  z_B = w_B e^s(w_A, a) + t(w_A, a), A being each half of the vector in turn."""
    sizes = dim // 2, dim - dim // 2
    nets = [mlp(sizes[i % 2] + conditions, cfg.hidden, 2 * sizes[1 - i % 2], cfg.dropout) for i in range(cfg.couplings)]
    return Chain(ConditionalCoupling(net, sizes, i % 2 == 1) for i, net in enumerate(nets))


class StyleFlow(nn.Module):
    """The generator, the unit of each attribute, and the flow of w given a."""

    mean: Tensor
    unit: Tensor

    def __init__(self, cfg: Config, generator: dict[str, Any], shape: tuple[int, ...], classes: int, data: str):
        super().__init__()
        self.data = data  # what its pictures are, for the verbs that come later
        self.generator = vae.VAE(vae.Config(**generator), shape)
        self.classes = classes
        self.register_buffer("mean", torch.zeros(len(NAMES)))
        self.register_buffer("unit", torch.ones(len(NAMES)))
        dim = self.generator.cfg.latent
        self.flow = Flow(couplings(cfg, dim, len(NAMES) + classes), base(cfg.base, dim))

    def image(self, w: Tensor) -> Tensor:  # G: [B, D] -> [B, C, H, W]
        return self.generator.likelihood(w).mean.clamp(0, 1)

    def measured(self, x: Tensor, label: Tensor | None) -> Tensor:  # -> a [B, 3 + classes], in units of deviations
        a = (attributes(x) - self.mean) / self.unit
        return a if label is None else torch.cat((a, F.one_hot(label, self.classes).to(a)), 1)

    def forward(self, w: Tensor, a: Tensor) -> Tensor:  # -> log p(w | a) [B]
        return self.flow(w, a)

    def edit(self, w: Tensor, a: Tensor, wanted: Tensor) -> Tensor:  # -> w' [B, D]
        return self.flow.bijector(self.flow.bijector.inverse(w, a)[0], wanted)[0]


def train(
    cfg: Config,
    run: Run,
    data: Annotated[str | None, "dataset of pictures (that of the generator, or digits)"] = None,
    generator: Annotated[Path | None, "run of `train vae`; without it one is trained first"] = None,
) -> None:
    before = Trained(generator, str(run.device)) if generator else None
    known = before.load(vae.VAE, vae.Config) if before else None
    spec = data or (before.options["data"] if before else "digits")
    images = datasets.images(spec, known.shape if known else None).to(run.device)
    classes = 0 if images.train_labels is None else len(images.classes)
    settings = dataclasses.asdict(known.cfg if known else vae.Config(latent=cfg.latent))
    model = run.place(StyleFlow(cfg, settings, images.shape, classes, spec))
    if known:
        model.generator.load_state_dict(known.state_dict())
    a = attributes(images.train)
    model.mean.copy_(a.mean(0))
    model.unit.copy_(a.std(0))
    half = 0 if known else cfg.steps // 2

    def falling(step: int) -> float:  # to zero as a half cosine, once for the generator and once for the flow
        done = step / half if step < half else (step - half) / (cfg.steps - half)
        return 0.5 * (1 + math.cos(math.pi * done))

    adam = torch.optim.Adam(model.parameters(), cfg.lr, fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(adam, falling)
    index = datasets.shuffled(len(images.train), cfg.batch, run.seed)
    batches = lambda step: (step, index(step).to(run.device))  # noqa: E731
    for step, chosen in run.track(batches, cfg.steps, model=model, adam=adam, rate=rate):
        x = images.train[chosen]
        label = images.train_labels[chosen] if images.train_labels is not None else None
        model.generator.train(step < half)
        if step < half:
            loss = -model.generator(x).mean()
        else:
            with torch.no_grad():
                w = model.generator.posterior(x).sample()
                a = model.measured(model.image(w), label)
            loss = -model(w, a).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        rate.step()
        run.log(loss=loss)
    run.save(model, cfg, generator=settings, shape=images.shape, classes=classes, data=spec)
    run.result(**held_out(model.eval(), images))


@torch.no_grad()
def held_out(model: StyleFlow, images: datasets.Images) -> dict[str, Tensor]:
    """Edits of the test pictures, each attribute by half a deviation up and down, measured on what G makes of them.

    `moved` is the share of the change asked for that the attribute made, `drift` how far the others went, in their
    deviations, and `class_kept` how many pictures their nearest neighbours still call the same. `class_reached`: how
    many are called the class of another picture after an edit to all of its attributes (a class alone would be asked
    for with a width that it never has).
    """
    w, label = model.generator.posterior(images.test).mean, images.test_labels
    a = model.measured(model.image(w), label)
    found = {"nll": -model(w, a).mean()}
    moved, drift, seen = [], [], []
    for i in range(len(NAMES)):
        for by in (-0.5, 0.5):
            wanted = a.clone()
            wanted[:, i] += by
            x = model.image(model.edit(w, a, wanted))
            change = model.measured(x, label)[:, : len(NAMES)] - a[:, : len(NAMES)]
            moved.append(change[:, i] / by)
            drift.append(torch.cat((change[:, :i], change[:, i + 1 :]), 1).abs())
            seen.append(x)
    found |= {"moved": torch.cat(moved).mean(), "drift": torch.cat(drift).mean()}
    if label is None or images.train_labels is None:
        return found
    known = model.image(model.generator.posterior(images.train).mean)

    def called(x: Tensor) -> Tensor:  # the class of most of the five nearest training pictures
        near = torch.cdist(x.flatten(1), known.flatten(1)).topk(5, largest=False).indices
        return images.train_labels[near].mode(1).values  # type: ignore[index]

    before = called(model.image(w))
    found["class_kept"] = torch.stack([called(x) == before for x in seen]).float().mean()
    found["class_reached"] = (called(model.image(model.edit(w, a, a.roll(1, 0)))) == label.roll(1)).float().mean()
    return found


@torch.no_grad()
def sample(
    trained: Trained,
    run: Run,
    n: Annotated[int, "how many test pictures, a row each", Ge(1)] = 8,
    attribute: Annotated[Literal["ink", "slant", "width", "class"], "what changes along a row"] = "slant",
    reach: Annotated[float, "how far to both sides, in deviations", Gt(0)] = 1.0,
) -> None:
    """Each row: the test picture, what the generator makes of it, and the edits."""
    model = trained.load(StyleFlow, Config)
    if attribute == "class" and not model.classes:
        raise InputError(f"{trained.dir}: was trained without labels; right would be --attribute {' or '.join(NAMES)}")
    images = datasets.images(model.data, model.generator.shape).to(run.device)
    x, label = images.test[:n], images.test_labels[:n] if images.test_labels is not None else None
    w = model.generator.posterior(x).mean
    a = model.measured(model.image(w), label)
    columns = [model.generator.data(x), model.image(w)]
    for value in torch.linspace(-reach, reach, 7) if attribute != "class" else torch.arange(model.classes):
        wanted = a.clone()
        if attribute == "class":
            wanted[:, len(NAMES) :] = F.one_hot(value, model.classes)
        else:
            wanted[:, NAMES.index(attribute)] += value
        columns.append(model.image(model.edit(w, a, wanted)))
    run.image("edits.png", torch.stack(columns, 1))


def evaluate(
    trained: Trained, run: Run, data: Annotated[str | None, "pictures (those of the training)"] = None
) -> None:
    model = trained.load(StyleFlow, Config)
    run.result(**held_out(model, datasets.images(data or model.data, model.generator.shape).to(run.device)))


def gradcheck() -> Iterator[Case]:
    drawn = (1, 4), (1, 3), (4, 5)  # w, a, weights

    def made(v: Tensor) -> StyleFlow:
        generator = {"latent": 4, "hidden": 1}
        model = StyleFlow(Config(couplings=2, hidden=()), generator, (1, 2, 2), 0, "").double().requires_grad_(False)
        for i, p in enumerate(model.flow.bijector.parameters()):
            p.data = v.roll(i, 1) if p.ndim == 2 else v[:, i]
        return model

    def density(w: Tensor, a: Tensor, v: Tensor) -> Sides:
        model = made(v)
        whole = log_abs_det(lambda y: model.flow.bijector.inverse(y[None], a)[0][0], w[0])
        log_base = model.flow.base.log_prob(model.flow.bijector.inverse(w, a)[0])[0]
        return model(w, a)[0], log_base + whole, log_base

    name = "log p(w | a) = log p_z(f^-1(w; a)) + log |det df^-1/dw|"
    yield identity(name, density, *drawn, mistake="the determinant left out")

    def edited(z: Tensor, a: Tensor, v: Tensor, wanted: Tensor) -> Sides:
        model = made(v)
        w, new = (model.flow.bijector(z, of)[0] for of in (a, wanted))
        return model.edit(w, a, wanted), new, model.edit(w, wanted, a)

    name = "w' = f(f^-1(w; a); a') is f(z; a'): an edit keeps z"
    yield identity(name, edited, *drawn, (1, 3), mistake="a and a' exchanged")

    def blob(k: Tensor) -> Sides:  # normal in y and in x - k y
        side, s = torch.linspace(-1, 1, 32, dtype=k.dtype), 0.12
        y, x = -side[:, None], side
        found = attributes(torch.exp(-((x - k * y).square() + y.square()) / (2 * s**2))[None, None])[0]
        ink, width = 2 * math.pi * s**2 * (31 / 64) ** 2 + 0 * k, s * (1 + k**2).sqrt()
        return found, torch.stack((ink, k, width)), torch.stack((ink, k / (1 + k**2), width**2))

    name = "of x = k y + noise of deviation s: slant = m_xy / m_yy = k, width = sqrt(m_xx) = s sqrt(1 + k^2)"
    yield identity(name, blob, uniform(-0.5, 0.5), mistake="m_xy / m_xx, and m_xx without its root")
