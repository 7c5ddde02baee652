"""RealNVP: affine couplings, on vectors and on images at several scales.

    coupling   z_A = x_A,   z_B = x_B * exp(s(x_A)) + t(x_A)        log |det dz/dx| = sum s(x_A)
    inverse    x_B = (z_B - t(z_A)) * exp(-s(z_A))                  s and t need no inverse: any network will do

Scale first and shift last on the way from data to latent, which training goes: what t adds to z_B then has the size of
z. In the other order it is multiplied by exp(s), and the narrower the data, the more its gradient jumps.

On images A is first the black fields of a checkerboard, in turn the white ones; then every 2x2 pixels become four
channels (squeeze) and A is one half of the channels; then half of the channels leave as latent variables and the other
half goes on at half the resolution. Pixels are spread over their grey level by uniform noise and over the real line by
a logit, whose log-determinants the bits/dim contain.

Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2017. arXiv:1605.08803
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from mpcli.checks import Case, Printed, Sides, identity
from mpcli.kit.densities import load
from mpcli.kit.layers import ConvNet, mlp
from mpcli.run import Run, Trained
from mpcli_flows.kit.bases import BaseName, Normal, base
from mpcli_flows.kit.bijectors import (
    Chain,
    Condition,
    FactorOut,
    Logit,
    Reshape,
    Scale,
    Units,
    Unsqueeze,
    affine,
    affine_inverse,
    bounded,
)
from mpcli_flows.kit.flow import Flow, log_abs_det, write_samples


@dataclass(frozen=True)
class Config:
    couplings: Annotated[int, "coupling layers on vectors", Ge(2)] = 8
    hidden: Annotated[tuple[int, ...], "widths of the hidden layers on vectors"] = (64, 64)
    scales: Annotated[int, "scales on images", Ge(1)] = 2
    channels: Annotated[int, "channels of the residual networks on images", Ge(1)] = 32
    blocks: Annotated[int, "residual blocks of each network on images", Ge(0)] = 1
    dropout: Annotated[float, "share of channels dropped while training on images", Interval(ge=0, lt=1)] = 0.25
    base: Annotated[BaseName, "distribution of z"] = "normal"
    steps: Annotated[int, "training steps", Ge(1)] = 1000
    batch: Annotated[int, "examples a step", Ge(1)] = 64
    lr: Annotated[float, "learning rate", Gt(0)] = 0.005
    weight_decay: Annotated[float, "of AdamW", Ge(0)] = 0.01


LIMIT, SIGHT = 2.0, 5.0  # of |s|, and of what s and t see of |z_A|: within both, a stack of couplings and its inverse
# stay within reach of float32 also far away from the data
ON_VECTORS = 4.0  # of |s| there: few couplings must make thin ridges


def scale_and_shift(net: nn.Module, a: Tensor, limit: float = LIMIT, sight: float = SIGHT) -> tuple[Tensor, Tensor]:
    s, t = net(a.clamp(-sight, sight)).chunk(2, 1)
    return bounded(s, limit), t


class VectorCouplings(nn.Module):
    """Couplings in a row, A being each half of the vector in turn; the halves stay apart, so that nothing is copied."""

    def __init__(self, cfg: Config, dim: int):
        super().__init__()
        self.sizes = dim // 2, dim - dim // 2
        sizes = [(self.sizes[i % 2], 2 * self.sizes[1 - i % 2]) for i in range(cfg.couplings)]
        nets = [mlp(inputs, cfg.hidden, outputs) for inputs, outputs in sizes]
        for net in nets:  # a little off the identity: behind a last layer of zeros the others wait for a gradient
            nn.init.normal_(net[-1].get_parameter("weight"), std=0.02)
        self.nets = nn.ModuleList(nets)

    def forward(self, z: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        halves, total = list(z.split(self.sizes, 1)), z.new_zeros(len(z))
        for i, net in enumerate(self.nets):
            a, b = i % 2, 1 - i % 2
            s, t = scale_and_shift(net, halves[a], ON_VECTORS)
            halves[b], logdet = affine_inverse(halves[b], s, t)
            total = total + logdet
        return torch.cat(halves, 1), total

    def inverse(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        halves, total = list(x.split(self.sizes, 1)), x.new_zeros(len(x))
        for i, net in reversed(list(enumerate(self.nets))):
            a, b = i % 2, 1 - i % 2
            s, t = scale_and_shift(net, halves[a], ON_VECTORS)
            halves[b], logdet = affine(halves[b], s, t)
            total = total + logdet
        return torch.cat(halves, 1), total


class AffineCoupling(nn.Module):
    """One coupling of two groups of channels, of these `sizes`; `second` says that A is the second group."""

    def __init__(
        self, net: nn.Module, sizes: tuple[int, int], second: bool, limit: float = LIMIT, sight: float = SIGHT
    ):
        super().__init__()
        self.net = net
        self.sizes = sizes
        self.second = second
        self.limit = limit
        self.sight = sight

    def read(self, a: Tensor, c: Condition) -> Tensor:  # what the network is given
        return a

    def parts(self, x: Tensor, c: Condition) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # -> A, B, s(A), t(A)
        a, b = x.split(self.sizes, 1)
        a, b = (b, a) if self.second else (a, b)
        return a, b, *scale_and_shift(self.net, self.read(a, c), self.limit, self.sight)

    def whole(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat((b, a) if self.second else (a, b), 1)

    def forward(self, z: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        a, b, s, t = self.parts(z, c)
        b, logdet = affine_inverse(b, s, t)
        return self.whole(a, b), logdet

    def inverse(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        a, b, s, t = self.parts(x, c)
        b, logdet = affine(b, s, t)
        return self.whole(a, b), logdet


class CheckerboardCoupling(nn.Module):
    """Scales and shifts the fields of one colour as a convolutional network says for those of the other."""

    a: Tensor

    def __init__(self, net: nn.Module, height: int, width: int, white: bool):
        super().__init__()
        self.net = net
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        self.register_buffer("a", ((rows + columns + white) % 2).float(), persistent=False)  # 1 where A is

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = scale_and_shift(self.net, self.a * x)
        return s * (1 - self.a), t * (1 - self.a)

    def forward(self, z: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        return affine_inverse(z, *self.parts(z))

    def inverse(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        return affine(x, *self.parts(x))


def on_images(cfg: Config, shape: tuple[int, int, int], scales: int) -> Chain:
    """From flat z to h [C, H, W]; read it from the end for the way from data to latent."""
    c, h, w = shape
    last = scales == 1 or h % 2 == 1 or w % 2 == 1

    def net(inputs: int) -> ConvNet:
        return ConvNet(inputs, cfg.channels, cfg.blocks, 2 * inputs, cfg.dropout)

    boards = [CheckerboardCoupling(net(c), h, w, i % 2 == 1) for i in range(4 if last else 3)]
    if last:
        return Chain([Reshape(*shape), *boards])
    deeper = on_images(cfg, (2 * c, h // 2, w // 2), scales - 1)
    channels = [AffineCoupling(net(2 * c), (2 * c, 2 * c), i % 2 == 1) for i in range(3)]
    return Chain([FactorOut(deeper, (4 * c, h // 2, w // 2)), *channels, Unsqueeze(), *boards])


class RealNVP(Flow):
    def __init__(self, cfg: Config, shape: tuple[int, ...], levels: int = 0):
        if len(shape) == 3:
            inner = [on_images(cfg, (shape[0], shape[1], shape[2]), cfg.scales), Scale(*shape), Logit()]
        else:
            # Data in units of their own deviation need no more than that; the first network's input needs no gradient.
            inner = [VectorCouplings(cfg, shape[0]), Units(*shape)]
        super().__init__(Chain(inner), base(cfg.base, math.prod(shape)), levels)


def train(cfg: Config, run: Run, data: Annotated[str, "dataset of pictures or of rows"] = "digits") -> None:
    examples = load(data, run.device)
    model = run.place(RealNVP(cfg, examples.shape, examples.levels))
    model.fit_scale(examples)
    adam = torch.optim.AdamW(model.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)
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
    write_samples(run, trained, trained.load(RealNVP, Config), n, temperature)


def evaluate(trained: Trained, run: Run, data: Annotated[str | None, "dataset (that of the training)"] = None) -> None:
    examples = load(data or trained.options["data"], run.device)
    run.result(**examples.held_out(trained.load(RealNVP, Config)))


def gradcheck() -> Iterator[Case]:
    def coupling(w: Tensor) -> AffineCoupling:  # [4, 2] -> of four numbers, s and t linear
        net = nn.Linear(2, 4).double().requires_grad_(False)
        net.weight.data, net.bias.data = w, w[:, 0]
        return AffineCoupling(net, (2, 2), False)

    def determinant(x: Tensor, w: Tensor) -> Sides:
        f = coupling(w)
        return f.inverse(x[None])[1][0], log_abs_det(lambda y: f.inverse(y[None])[0][0], x)

    yield identity("affine coupling: log |det dz/dx| = sum_i s_i(x_A)", determinant, (4,), (4, 2))

    def there_and_back(x: Tensor, w: Tensor) -> Sides:
        z, logdet = coupling(w).inverse(x[None])
        back, logdet_back = coupling(w)(z)
        return torch.cat((back[0], logdet_back)), torch.cat((x, -logdet))

    yield identity("x_B = (z_B - t(z_A)) exp(-s(z_A)), log |det dx/dz| = -sum s", there_and_back, (4,), (4, 2))

    def block(x: Tensor, w: Tensor) -> Sides:  # t = 0, so that z_B = h(x_B, s(x_A)) with h = x_B e^s
        f = coupling(torch.cat((w[:2], 0 * w[2:])))
        slope = jacobian(lambda y: f.parts(y[None], None)[2][0].exp(), x)[:, :2]  # e^s s'(x_A)
        return jacobian(lambda y: f.inverse(y[None])[0][0], x)[2:, :2], x[2:, None] * slope, slope

    printed = Printed("(141)", "[[h', h' beta'], [0, 1]]", "the second h' is dh/dbeta, not dh/dx_B")
    yield identity("dz_B/dx_A = dh/ds s'(x_A)", block, (4,), (4, 2), printed=printed)

    def density(x: Tensor, w: Tensor) -> Sides:
        flow = Flow(Chain([coupling(w), coupling(w.flip(0))]), Normal(4))
        z = flow.bijector.inverse(x[None])[0]
        known = torch.distributions.Normal(0, 1).log_prob(z).sum()
        whole = log_abs_det(lambda y: flow.bijector.inverse(y[None])[0][0], x)
        return flow(x[None])[0], known + whole, known

    name = "log p(x) = log p_z(f^-1(x)) + sum_k log |det df_k^-1|, each at its own input"
    yield identity(name, density, (4,), (4, 2), mistake="the determinants left out")

    def vectors(x: Tensor, w: Tensor) -> Sides:
        f = VectorCouplings(Config(couplings=3, hidden=(2,)), 4).double().requires_grad_(False)
        for net in f.nets:
            list(net.children())[-1].get_parameter("weight").data = w
        return f.inverse(x[None])[1][0], log_abs_det(lambda y: f.inverse(y[None])[0][0], x)

    yield identity("couplings of vectors: the log-determinants add", vectors, (4,), (4, 2))

    def checkerboard(x: Tensor, w: Tensor) -> Sides:
        net = nn.Conv2d(1, 2, 3, padding=1).double().requires_grad_(False)
        net.weight.data = w
        f = CheckerboardCoupling(net, 2, 2, False)
        return f.inverse(x.reshape(1, 1, 2, 2))[1][0], log_abs_det(
            lambda y: f.inverse(y.reshape(1, 1, 2, 2))[0].flatten(), x
        )

    yield identity("checkerboard: only the fields of part B are scaled", checkerboard, (4,), (2, 1, 3, 3))

    def pixels(x: Tensor) -> Sides:
        slopes = torch.func.jacrev(lambda y: torch.logit(0.05 + 0.9 * y))(x.sigmoid()).diag()
        return Logit().inverse(x.sigmoid()[None])[1][0], slopes.log().sum()

    yield identity("pixels: log p(x) = log p(h) + sum log dh/dx, h = logit(m + (1 - 2m) x)", pixels, (4,))
