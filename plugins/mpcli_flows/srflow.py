"""SRFlow: super-resolution as a distribution, a flow over large pictures given the small one.

    log p(x | y) = log p_z(f^-1(x; y)) + log |det df^-1/dx|        x [C, 4H, 4W] large,  y [C, H, W] small

From data to latent, with u = g(y) from a network of its own, on h [C, H, W]:

    residual          h -> h - B y                      B y the bicubic enlargement: an injector with nothing to learn
    affine injector   h -> h e^a(u) + b(u)              log |det| = sum_ijk a(u)_ijk        every channel moves
    coupling          h_B -> h_B e^s(h_A, u) + t(h_A, u)                                    half of them, as in Glow
    actnorm, 1x1 convolution, squeeze, split            as in Glow

Many large pictures have the same small one, so there is no right answer but a density of them: each z gives another,
and all should give y back when they are made small again. z = 0 (temperature 0) gives the one nearest to their mean,
which is what the PSNR against the true picture rewards.

Lugmayr, Danelljan, Van Gool and Timofte, SRFlow: Learning the Super-Resolution Space with Normalizing Flow, 2020.
arXiv:2006.14200
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mpcli.checks import Case, Printed, Sides, identity, uniform
from mpcli.errors import InputError
from mpcli.kit import datasets, metrics
from mpcli.kit.densities import bits_per_dim, dequantised, nll
from mpcli.kit.layers import ConvNet
from mpcli.run import Run, Trained
from mpcli_flows.conditional_coupling import ConditionalCoupling
from mpcli_flows.glow import LIMIT, SIGHT, ActNorm, LUConv1x1
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Chain, Condition, FactorOut, Reshape, Unsqueeze, affine, affine_inverse, bounded
from mpcli_flows.kit.flow import Flow, log_abs_det


@dataclass(frozen=True)
class Config:
    depth: Annotated[int, "steps K of each of the two levels", Ge(1)] = 4
    channels: Annotated[int, "channels of the networks", Ge(1)] = 24
    blocks: Annotated[int, "residual blocks of the network that reads the small picture", Ge(0)] = 2
    dropout: Annotated[float, "share of channels dropped while training", Interval(ge=0, lt=1)] = 0.2
    base: Annotated[BaseName, "distribution of z"] = "normal"
    steps: Annotated[int, "training steps", Ge(1)] = 600
    batch: Annotated[int, "pictures a step", Ge(1)] = 16
    lr: Annotated[float, "learning rate", Gt(0)] = 0.003
    weight_decay: Annotated[float, "of AdamW", Ge(0)] = 0.05


FACTOR = 4  # two squeezes bring a large picture to the resolution of the small one

Given = tuple[Tensor, Tensor]  # y [B, C, H, W], u [B, U, H, W]


def small(x: Tensor) -> Tensor:  # [B, C, 4H, 4W] -> [B, C, H, W]
    size = x.shape[2] // FACTOR, x.shape[3] // FACTOR
    return F.interpolate(x, size, mode="bicubic", antialias=True)


def large(y: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, 4H, 4W]
    return F.interpolate(y, scale_factor=float(FACTOR), mode="bicubic", align_corners=False)


class Residual(nn.Module):
    """x = z + B y."""

    def forward(self, z: Tensor, c: Given) -> tuple[Tensor, Tensor]:
        return z + large(c[0]), z.new_zeros(len(z))

    def inverse(self, x: Tensor, c: Given) -> tuple[Tensor, Tensor]:
        return x - large(c[0]), x.new_zeros(len(x))


def seen_from(u: Tensor, h: Tensor) -> Tensor:  # u at the resolution of h
    return u if u.shape[2:] == h.shape[2:] else F.interpolate(u, h.shape[2:], mode="nearest")


class AffineInjector(nn.Module):
    """z = e^a(u) x + b(u), for every channel of every pixel."""

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.net = ConvNet(features, features, 0, 2 * channels)

    def parts(self, h: Tensor, c: Given) -> tuple[Tensor, Tensor]:  # -> a, b, both of the shape of h
        a, b = self.net(seen_from(c[1], h)).chunk(2, 1)
        return bounded(a, LIMIT), b

    def forward(self, z: Tensor, c: Given) -> tuple[Tensor, Tensor]:
        return affine_inverse(z, *self.parts(z, c))

    def inverse(self, x: Tensor, c: Given) -> tuple[Tensor, Tensor]:
        return affine(x, *self.parts(x, c))


class Coupling(ConditionalCoupling):
    """z_A = x_A,  z_B = x_B e^s(x_A, u) + t(x_A, u), on the two halves of the channels."""

    def __init__(self, channels: int, cfg: Config):
        net = ConvNet(channels // 2 + cfg.channels, cfg.channels, 1, channels, cfg.dropout)
        super().__init__(net, (channels // 2, channels // 2), False, LIMIT, SIGHT)

    def read(self, a: Tensor, c: Given) -> Tensor:
        return super().read(a, seen_from(c[1], a))


def level(cfg: Config, shape: tuple[int, int, int], levels: int) -> Chain:
    """From flat z to h [C, H, W]; read it from the end for the way from data to latent."""
    c, h, w = 4 * shape[0], shape[1] // 2, shape[2] // 2
    steps: list[nn.Module] = []
    for _ in range(cfg.depth):
        steps += [Coupling(c, cfg), AffineInjector(c, cfg.channels), LUConv1x1(c), ActNorm(c)]
    if levels == 1:
        return Chain([Reshape(c, h, w), *steps, Unsqueeze()])
    deeper = level(cfg, (c // 2, h, w), levels - 1)
    return Chain([FactorOut(deeper, (c, h, w)), AffineInjector(c, cfg.channels), *steps, Unsqueeze()])


class SRFlow(Flow):
    def __init__(self, cfg: Config, shape: tuple[int, ...], levels: int):
        chain = Chain([level(cfg, (shape[0], shape[1], shape[2]), 2), Residual()])
        super().__init__(chain, base(cfg.base, math.prod(shape)), levels)
        reader = ConvNet(shape[0], cfg.channels, cfg.blocks, cfg.channels, cfg.dropout)
        nn.init.normal_(reader.last.weight, std=0.05)  # u is read, not added: from zero it would learn nothing
        self.encoder = nn.Sequential(reader, nn.GroupNorm(1, cfg.channels))

    def given(self, y: Tensor) -> Given:  # [B, C, H, W]
        return y, self.encoder(y - 0.5)

    def forward(self, x: Tensor, c: Condition = None) -> Tensor:  # [B, C, 4H, 4W], y [B, C, H, W] -> log p(x | y) [B]
        return super().forward(x, self.given(c))

    def enlarge(self, y: Tensor, temperature: float) -> Tensor:  # -> [B, C, 4H, 4W] in [0, 1]
        return self.pictures(len(y), temperature, self.given(y))


def pictures(spec: str, device: torch.device) -> datasets.Images:
    """Pictures from which `cut` takes what has sides that are multiples of 4."""
    images = datasets.images(spec).to(device)
    h, w = images.shape[1:]
    if min(h, w) < 2 * FACTOR:
        raise InputError(f"{spec}: its pictures are {w}x{h}; right would be at least {2 * FACTOR}x{2 * FACTOR}")
    return images


def cut(x: Tensor, down: int = 0, right: int = 0) -> Tensor:
    h, w = (side // FACTOR * FACTOR for side in x.shape[2:])
    return x[:, :, down : down + h, right : right + w]


def varied(x: Tensor) -> Tensor:
    """Mirrored and cut in all ways that there are, by chance: few pictures do not show that these mean nothing."""
    x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x, x.flip(3))
    down, right = (int(torch.randint(side % FACTOR + 1, ())) for side in x.shape[2:])
    return cut(x, down, right)


def train(cfg: Config, run: Run, data: Annotated[str, "dataset of pictures"] = "faces") -> None:
    images = pictures(data, run.device)
    shape = images.shape[0], *(side // FACTOR * FACTOR for side in images.shape[1:])
    model = run.place(SRFlow(cfg, shape, images.levels))
    adam = torch.optim.AdamW(model.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    batches = images.batches(cfg.batch, run.seed)
    for whole in run.track(batches, cfg.steps, model=model, adam=adam, cosine=cosine):
        x = varied(whole)
        loss = -model(dequantised(x, images.levels), small(x)).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        adam.step()
        cosine.step()
        run.log(loss=loss)
    run.save(model, cfg, shape=shape, levels=images.levels)
    run.result(**held_out(model.eval(), images))


@torch.no_grad()
def held_out(model: SRFlow, images: datasets.Images, draws: int = 8) -> dict[str, Tensor]:
    """On the test pictures: likelihood, PSNR beside that of bicubic, and of several outputs their agreement with y."""
    x = cut(images.test)
    y = small(x)
    mean = nll(model, x, y, levels=images.levels).mean()
    torch.manual_seed(0)
    many = torch.stack([model.enlarge(y, 0.8) for _ in range(draws)])  # [K, N, C, H, W]
    return {
        "nll": mean,
        "bits_per_dim": bits_per_dim(mean, x[0].numel()),
        "psnr": metrics.psnr(model.enlarge(y, 0.0), x).mean(),
        "psnr_of_mean": metrics.psnr(many.mean(0), x).mean(),
        "psnr_bicubic": metrics.psnr(large(y).clamp(0, 1), x).mean(),
        "psnr_small": metrics.psnr(small(many.flatten(0, 1)), y.repeat(draws, 1, 1, 1)).mean(),
        "diversity": many.std(0).mean(),
    }


@torch.no_grad()
def sample(
    trained: Trained,
    run: Run,
    n: Annotated[int, "how many small pictures", Ge(1)] = 6,
    each: Annotated[int, "how many large ones of each", Ge(1)] = 4,
    temperature: Annotated[float, "factor on the deviations of z", Ge(0)] = 0.8,
    data: Annotated[str | None, "pictures to make small first (that of the training)"] = None,
) -> None:
    """Rows of: the small picture, bicubic, temperature 0, draws, and the true one."""
    model = trained.load(SRFlow, Config)
    x = cut(pictures(data or trained.options["data"], run.device).test[:n])
    if x.shape[1:] != tuple(trained.extras["shape"]):
        has, needs = ("x".join(map(str, shape)) for shape in (x.shape[1:], trained.extras["shape"]))
        raise InputError(f"--data {data}: its pictures are {has}; right would be {needs}, as in training")
    y = small(x)
    draws = [model.enlarge(y, temperature) for _ in range(each)]
    shown = F.interpolate(y, scale_factor=float(FACTOR), mode="nearest")
    run.image("samples.png", torch.stack([shown, large(y), model.enlarge(y, 0.0), *draws, x], 1))


def evaluate(
    trained: Trained, run: Run, data: Annotated[str | None, "pictures (those of the training)"] = None
) -> None:
    run.result(**held_out(trained.load(SRFlow, Config), pictures(data or trained.options["data"], run.device)))


def gradcheck() -> Iterator[Case]:
    drawn = (1, 2, 2, 2), (1, 3, 2, 2)  # h, u

    def stirred(module: nn.Module, by: Tensor) -> nn.Module:
        module.double().eval().requires_grad_(False)
        for i, p in enumerate(module.parameters()):
            p.copy_(torch.sin(torch.arange(p.numel(), dtype=p.dtype) + i + by.mean()).reshape(p.shape) / 3)
        return module

    def injector(u: Tensor) -> AffineInjector:
        made = stirred(AffineInjector(2, 3), u)
        assert isinstance(made, AffineInjector)
        return made

    def determinant(h: Tensor, u: Tensor) -> Sides:
        f, c = injector(u), (u, u)
        a, whole = f.parts(h, c)[0], log_abs_det(lambda y: f.inverse(y.reshape(h.shape), c)[0].flatten(), h.flatten())
        return torch.stack((f.inverse(h, c)[1][0], a.sum())), whole.expand(2), a[:, :, 0, 0].sum().expand(2)

    name = "affine injector: log |det| = sum_ijk a(u)_ijk"
    yield identity(name, determinant, *drawn, mistake="the sum over one pixel")

    def there_and_back(h: Tensor, u: Tensor) -> Sides:
        f, c = injector(u), (u, u)
        (a, _), (_, other) = f.parts(h, c), f.parts(h, (u, u.flip(1)))
        z = f.inverse(h, c)[0]
        return f(z, c)[0], h, (z - other) * torch.exp(-a)

    printed = Printed("002 section 4", "h + b(u), no step n at b", "h + b^n(u), a and b those of the same step")
    yield identity("h = ((h e^a(u) + b(u)) - b(u)) e^-a(u)", there_and_back, *drawn, printed=printed)

    def density(x: Tensor, y: Tensor, by: Tensor) -> Sides:
        flow = stirred(SRFlow(Config(depth=1, channels=2, blocks=0), (1, 4, 4), 256), by)
        assert isinstance(flow, SRFlow)
        c, other = flow.given(y), flow.given(1 - y)
        z = flow.bijector.inverse(x, c)[0]
        whole = log_abs_det(lambda z: flow.bijector(z[None], c)[0].flatten(), z[0])
        log_base, wrong = (flow.base.log_prob(flow.bijector.inverse(x, given)[0])[0] for given in (c, other))
        return flow(x, y)[0], log_base - whole, wrong - whole

    pictures = uniform(0, 1, 1, 1, 4, 4), uniform(0, 1, 1, 1, 1, 1)
    name = "log p(x | y) = log p_z(f^-1(x; y)) + log |det df^-1/dx|"
    yield identity(name, density, *pictures, (3,), mistake="another small picture")
