"""C-Flow: one picture as a distribution given another, by two flows of which one steers the other.

    z_A = g^-1(x_A)              log p(x_A) = log p_z(z_A) + log |det dg^-1/dx_A|
    z_B = f^-1(x_B | x_A)        log p(x_B | x_A) = log p_z(z_B) + log |det df^-1/dx_B|
    coupling k of f              h_B -> (h_1, h_2 e^s(h_1, k_A) + t(h_1, k_A))            k_A: g's state at the same k
    transfer                     x_B^2 = f(z_B^1 | x_A^2),  z_B^1 = f^-1(x_B^1 | x_A^1)

Both flows have the same layers, and each coupling of f reads, beside its own half, what g made of x_A up to there;
since g is invertible, to be given x_A or z_A is the same. New z_B give new pictures for one x_A; the z_B of another
pair carries over how that pair's second picture was drawn.

A pair is one picture, x_A its left half and x_B its right one: any pictures will do (the right half of a digit from its
left), and folders of pairs side by side, as image-to-image translation has them, are read as they are with
`--data images:DIR`. `--direction right_to_left` exchanges the two. The networks look a few pixels far, and are given
k_A twice, as it is and mirrored: what belongs together stands in one place in a pair of views, and beside the common
border in two halves.

Pumarola, Popov, Moreno-Noguer and Ferrari, C-Flow: Conditional Generative Flow Models for Images and 3D Point Clouds,
2020. arXiv:1912.07009
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mpcli.checks import Case, Sides, identity, uniform
from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import Images
from mpcli.kit.densities import bits_per_dim, dequantised, nll, quantised
from mpcli.kit.layers import ConvNet
from mpcli.kit.pictures import tiles
from mpcli.run import Run, Trained
from mpcli_flows.conditional_coupling import ConditionalCoupling
from mpcli_flows.glow import LIMIT, SIGHT, ActNorm, LUConv1x1
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Logit, Unsqueeze
from mpcli_flows.kit.flow import log_abs_det

Direction = Literal["left_to_right", "right_to_left"]
States = list[Tensor]


@dataclass(frozen=True)
class Config:
    depth: Annotated[int, "steps K of each flow", Ge(1)] = 8
    channels: Annotated[int, "channels of the networks in the couplings", Ge(1)] = 32
    dropout: Annotated[float, "share of channels dropped while training", Interval(ge=0, lt=1)] = 0.3
    base: Annotated[BaseName, "distribution of z"] = "normal"
    steps: Annotated[int, "training steps", Ge(1)] = 800
    batch: Annotated[int, "pairs a step", Ge(1)] = 64
    lr: Annotated[float, "learning rate", Gt(0)] = 0.005
    weight_decay: Annotated[float, "of AdamW", Ge(0)] = 0.01


class Step(nn.Module):
    """Actnorm, 1x1 convolution and a coupling that also reads `given` [B, G, H, W], which may have no channels."""

    def __init__(self, channels: int, given: int, cfg: Config):
        super().__init__()
        self.norm, self.mix = ActNorm(channels), LUConv1x1(channels)
        net = ConvNet(channels // 2 + 2 * given, cfg.channels, 1, channels, cfg.dropout)
        self.coupling = ConditionalCoupling(net, (channels // 2, channels // 2), False, LIMIT, SIGHT)

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        h, coupled = self.coupling(z, both_ways(given))
        h, mixed = self.mix(h)
        x, scaled = self.norm(h)
        return x, mixed + scaled + coupled

    def inverse(self, x: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        h, scaled = self.norm.inverse(x)
        h, mixed = self.mix.inverse(h)
        z, coupled = self.coupling.inverse(h, both_ways(given))
        return z, scaled + mixed + coupled


def both_ways(state: Tensor) -> Tensor:  # [B, G, H, W] -> [B, 2G, H, W]
    """A state as it is, for pairs that agree place by place, and mirrored, for halves that meet at a border."""
    return torch.cat((state, state.flip(3)), 1)


class Steps(nn.Module):
    """K steps on squeezed pictures; steps[K-1] stands at the data, steps[0] at the latent."""

    def __init__(self, cfg: Config, shape: tuple[int, ...], conditioned: bool):
        super().__init__()
        self.inside = 4 * shape[0], shape[1] // 2, shape[2] // 2
        self.pixels = nn.ModuleList([Unsqueeze(), Logit()])
        given = self.inside[0] if conditioned else 0
        self.steps = nn.ModuleList(Step(self.inside[0], given, cfg) for _ in range(cfg.depth))

    def inverse(self, x: Tensor, given: States | None = None) -> tuple[Tensor, Tensor, States]:
        """x [B, C, H, W] -> z [B, D], log |det dz/dx| [B], and the state after every step, the data's end first."""
        h, total = self.pixels[1].inverse(x)  # type: ignore[operator]
        h = self.pixels[0].inverse(h)[0]  # type: ignore[operator]
        states = []
        for k, step in enumerate(reversed(self.steps)):
            h, logdet = step.inverse(h, given[k] if given else h[:, :0])  # type: ignore[operator]
            total = total + logdet
            states.append(h)
        return h.flatten(1), total, states

    def forward(self, z: Tensor, given: States | None = None) -> tuple[Tensor, Tensor]:
        h, total = z.reshape(len(z), *self.inside), z.new_zeros(len(z))
        for k, step in enumerate(self.steps):
            h, logdet = step(h, given[-1 - k] if given else h[:, :0])
            total = total + logdet
        x, logdet = self.pixels[1](self.pixels[0](h)[0])
        return x, total + logdet


class CFlow(nn.Module):
    def __init__(self, cfg: Config, shape: tuple[int, ...], levels: int):
        super().__init__()
        self.levels = levels
        self.g, self.f = Steps(cfg, shape, False), Steps(cfg, shape, True)
        self.base = base(cfg.base, math.prod(shape))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:  # x_B, x_A [B, C, H, W] -> log p(x_A), log p(x_B | x_A) [B, 2]
        z_a, logdet_a, states = self.g.inverse(c)
        z_b, logdet_b, _ = self.f.inverse(x, states)
        return torch.stack((self.base.log_prob(z_a) + logdet_a, self.base.log_prob(z_b) + logdet_b), 1)

    def second(self, z_b: Tensor, x_a: Tensor) -> Tensor:  # pixels [B, C, H, W] from z_B and the pixels of x_A
        return quantised(self.f(z_b, self.given(x_a))[0], self.levels)

    def given(self, x_a: Tensor) -> States:
        return self.g.inverse(self.middle(x_a))[2]

    def latent(self, x_b: Tensor, x_a: Tensor) -> Tensor:  # -> z_B [B, D]
        return self.f.inverse(self.middle(x_b), self.given(x_a))[0]

    def middle(self, x: Tensor) -> Tensor:  # the middle of each pixel's grey level, in place of noise
        return ((x * (self.levels - 1)).round() + 0.5) / self.levels


def pairs(spec: str, device: torch.device) -> Images:
    images = datasets.load(spec, Images).to(device)
    _, h, w = images.shape
    if h % 2 or w % 4:
        raise InputError(f"{spec}: its pictures are {w}x{h}; right would be pairs of even sides, such as 128x64")
    return images


def halves(x: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:  # [B, C, H, 2W] -> x_A, x_B [B, C, H, W]
    left, right = x.chunk(2, 3)
    return (left, right) if direction == "left_to_right" else (right, left)


def train(
    cfg: Config,
    run: Run,
    data: Annotated[str, "dataset of pictures, each a pair side by side"] = "digits",
    direction: Annotated[Direction, "which half is given and which is asked for"] = "left_to_right",
) -> None:
    images = pairs(data, run.device)
    c, h, w = images.shape
    model = run.place(CFlow(cfg, (c, h, w // 2), images.levels))
    adam = torch.optim.AdamW(model.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    batches = images.batches(cfg.batch, run.seed)
    for x in run.track(batches, cfg.steps, model=model, adam=adam, cosine=cosine):
        x_a, x_b = halves(dequantised(x, images.levels), direction)
        loss = -model(x_b, x_a).sum(1).mean()  # log p(x_A, x_B), the joint density
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        adam.step()
        cosine.step()
        run.log(loss=loss)
    run.save(model, cfg, shape=(c, h, w // 2), levels=images.levels)
    run.result(**held_out(model.eval(), images, direction))


@torch.no_grad()
def held_out(model: CFlow, images: Images, direction: Direction) -> dict[str, Tensor]:
    """nll of x_B given x_A on the test pairs, the same given a wrong x_A, and that of x_A alone."""
    x_a, x_b = halves(images.test[:], direction)
    noisy = dequantised(x_a, images.levels, torch.Generator(x_a.device).manual_seed(1))
    given = (noisy, noisy.roll(1, 0))  # each its own, and each that of another
    (nll_a, nll_b), (_, wrong) = (nll(model, x_b, a, levels=images.levels).mean(0) for a in given)
    size = x_b[0].numel()
    return {
        "nll": nll_b,
        "bits_per_dim": bits_per_dim(nll_b, size),
        "bits_per_dim_wrong_pair": bits_per_dim(wrong, size),
        "bits_per_dim_given": bits_per_dim(nll_a, size),
    }


@torch.no_grad()
def sample(
    trained: Trained,
    run: Run,
    n: Annotated[int, "how many test pairs, a row each", Ge(2)] = 8,
    each: Annotated[int, "how many x_B of each x_A", Ge(1)] = 6,
    temperature: Annotated[float, "factor on the deviations of z_B", Ge(0)] = 0.8,
) -> None:
    """Rows of the true pair and x_A with new x_B; and a table of transfers, z_B of row i with x_A of column j."""
    model = trained.load(CFlow, Config)
    images, direction = pairs(trained.options["data"], run.device), trained.options["direction"]
    x_a, x_b = halves(images.test[:n], direction)

    def beside(first: Tensor, second: Tensor) -> Tensor:
        return torch.cat((first, second) if direction == "left_to_right" else (second, first), -1)

    new = [model.second(model.base.sample(len(x_a), temperature), x_a) for _ in range(each)]
    sheet = torch.stack([beside(x_a, x_b), *(beside(x_a, x) for x in new)], 1)
    height, width = sheet.shape[-2:]
    left = 0 if direction == "left_to_right" else width // 2
    given = [(*place, (left, 0, left + width // 2, height)) for place in product(range(len(x_a)), range(each + 1))]
    names = ["true", f"completions at temperature {temperature:g}"]
    run.figure("samples.png", tiles(sheet, f"{trained.heading}\ncompletions of the framed half", names, marks=given))
    z_b = model.latent(x_b, x_a)
    rows = [model.second(z[None].expand_as(z_b), x_a) for z in z_b]
    table = torch.stack([beside(x_a, row) for row in rows])  # [n, n, C, H, 2W], the true pairs on its diagonal
    heading = f"{trained.heading}\ntransfers: z_B of each row with the half x_A of each column; framed: true pairs"
    names = [f"pair {pair + 1}" for pair in range(len(table))]
    diagonal = [(i, i, (0, 0, width, height)) for i in range(len(table))]
    run.figure("transfers.png", tiles(table, heading, names, names, marks=diagonal))


def evaluate(trained: Trained, run: Run, data: Annotated[str | None, "pairs (those of the training)"] = None) -> None:
    images = pairs(data or trained.options["data"], run.device)
    run.result(**held_out(trained.load(CFlow, Config), images, trained.options["direction"]))


def gradcheck() -> Iterator[Case]:
    pixels = uniform(0, 1, 1, 1, 2, 2)
    drawn = pixels, pixels, ()  # x_A, x_B, and where the weights begin

    def made(v: Tensor) -> CFlow:
        flow = CFlow(Config(depth=2, channels=2), (1, 2, 2), 17).double().eval().requires_grad_(False)
        for i, p in enumerate(flow.parameters()):
            p.copy_(torch.sin(1.7 * torch.arange(p.numel(), dtype=p.dtype) + i + 9 * v).reshape(p.shape) / 2)
        for m in flow.modules():
            if isinstance(m, LUConv1x1):
                m.permutation, m.sign = torch.eye(4).to(v), torch.ones(4).to(v)
        return flow

    def joint(a: Tensor, b: Tensor, v: Tensor) -> Sides:
        flow = made(v)

        def both(x: Tensor) -> Tensor:  # (x_A, x_B) -> (z_A, z_B), flat
            z_a, _, states = flow.g.inverse(x[:4].reshape(a.shape))
            return torch.cat((z_a[0], flow.f.inverse(x[4:].reshape(b.shape), states)[0][0]))

        x = torch.cat((a.flatten(), b.flatten()))
        log_base = flow.base.log_prob(both(x).reshape(2, 4)).sum()
        return flow(b, a).sum(), log_base + log_abs_det(both, x), log_base

    name = "log p(x_A, x_B) = log p(x_A) + log p(x_B | x_A), from the Jacobian of both flows together"
    yield identity(name, joint, *drawn, mistake="the determinants left out")

    def there_and_back(a: Tensor, b: Tensor, v: Tensor) -> Sides:
        flow = made(v)
        states, others = (flow.g.inverse(x)[2] for x in (a, 1 - a))
        z_b, logdet, _ = flow.f.inverse(b, states)
        (x_b, back), (wrong, _) = flow.f(z_b, states), flow.f(z_b, others)
        left, right, other = (torch.cat((x.flatten(), by)) for x, by in ((x_b, back), (b, -logdet), (wrong, back)))
        return left, right, other

    name = "x_B = f(f^-1(x_B | x_A) | x_A), and its log |det| is the negative of that of f^-1"
    yield identity(name, there_and_back, *drawn, mistake="another x_A on the way back")
