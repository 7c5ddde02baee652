"""Glow: steps of normalisation, learned mixing of channels and affine coupling, at several levels.

From data to latent, on h [C, H, W], each step takes its Jacobian where it stands:

    actnorm     h -> (h - b) / e^a           log |det| = -H W sum_c a_c       a, b at first such that the first batch
                                                                              has mean 0 and variance 1
    1x1 conv    h -> W h at every pixel      log |det| = H W log |det W|
                W = P L (U + diag s)         log |det| = H W sum_c log |s_c|  P a fixed permutation, L unit lower,
                                                                              U strictly upper triangular
    coupling    h_B -> h_B e^s(h_A) + t(h_A)                                   as in RealNVP, on channels only
    level       squeeze; K steps; half of the channels, h_2, leave as latent z = h_2 e^s(h_1) + t(h_1)

A permutation of channels is a 1x1 convolution that cannot learn. With `--mixing permutation` a flow of digits ends
within the spread of seeds of the learned mixing: 2.06 and 2.10 bits/dim, where that has 2.08 twice.

`sample --temperature` narrows z at every level; `sample --between 3,8` walks in latent space from one test picture to
another.

Kingma and Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, 2018. arXiv:1807.03039
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit.densities import Examples, dequantised, load, quantised
from mpcli.kit.layers import ConvNet
from mpcli.kit.pictures import tiles
from mpcli.run import ANIMATIONS, Run, Trained
from mpcli_flows.glow.equations import gradcheck as gradcheck
from mpcli_flows.kit.bases import BaseName, base
from mpcli_flows.kit.bijectors import Chain, Condition, FactorOut, Logit, Reshape, Scale, Shuffle, Unsqueeze
from mpcli_flows.kit.flow import Flow, write_samples
from mpcli_flows.realnvp import AffineCoupling


@dataclass(frozen=True)
class Config:
    levels: Annotated[int, "levels L, each at half the resolution of the one before", Ge(1)] = 2
    depth: Annotated[int, "steps K of a level", Ge(1)] = 6
    channels: Annotated[int, "channels of the networks in the couplings", Ge(1)] = 32
    mixing: Annotated[
        Literal["lu", "plain", "permutation"], "of the channels: W = P L (U + diag s), any matrix, or a fixed order"
    ] = "lu"
    dropout: Annotated[float, "share of channels dropped while training", Interval(ge=0, lt=1)] = 0.3
    base: Annotated[BaseName, "distribution of z"] = "normal"
    steps: Annotated[int, "training steps", Ge(1)] = 800
    batch: Annotated[int, "pictures a step", Ge(1)] = 64
    lr: Annotated[float, "learning rate", Gt(0)] = 0.005
    weight_decay: Annotated[float, "of AdamW", Ge(0)] = 0.01


LIMIT, SIGHT = 0.5, 3.0  # tighter than RealNVP's: here many more couplings stand in a row


class ActNorm(Scale):
    """One shift and one scale a channel, set by the first batch that comes by in training, then learned."""

    ready: Tensor

    def __init__(self, channels: int):
        super().__init__(channels, 1, 1)
        self.register_buffer("ready", torch.tensor(False))  # in the state, so that a loaded model is not set again

    def inverse(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        if self.training and not self.ready:
            self.fit(x)
            self.ready.fill_(True)
        return super().inverse(x, c)


class Conv1x1(nn.Module):
    """z = W x at every pixel, W any matrix, from a random rotation; its determinant costs O(C^3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.matrix = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])

    def weight(self) -> tuple[Tensor, Tensor]:  # -> W [C, C], log |det W| []
        return self.matrix, torch.linalg.slogdet(self.matrix)[1]

    def forward(self, z: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        weight, logdet = self.weight()
        return F.conv2d(z, torch.linalg.inv(weight)[:, :, None, None]), -(z.shape[2] * z.shape[3] * logdet).expand(
            len(z)
        )

    def inverse(self, x: Tensor, c: Condition = None) -> tuple[Tensor, Tensor]:
        weight, logdet = self.weight()
        return F.conv2d(x, weight[:, :, None, None]), (x.shape[2] * x.shape[3] * logdet).expand(len(x))


class LUConv1x1(Conv1x1):
    """The same with W = P L (U + diag s): its determinant is a product of C numbers."""

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int):
        super().__init__(channels)
        p, lower, upper = torch.linalg.lu(self.matrix.detach())
        del self.matrix
        self.register_buffer("permutation", p)
        self.register_buffer("sign", upper.diag().sign())
        self.log_s = nn.Parameter(upper.diag().abs().log())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))

    def weight(self) -> tuple[Tensor, Tensor]:
        unit = torch.eye(len(self.log_s), dtype=self.log_s.dtype, device=self.log_s.device)
        upper = self.upper.triu(1) + (self.sign * self.log_s.exp()).diag()
        return self.permutation @ (self.lower.tril(-1) + unit) @ upper, self.log_s.sum()


MIXINGS = {"lu": LUConv1x1, "plain": Conv1x1, "permutation": Shuffle}


def level(cfg: Config, shape: tuple[int, int, int], levels: int) -> Chain:
    """From flat z to h [C, H, W]; read it from the end for the way from data to latent."""
    c, h, w = 4 * shape[0], shape[1] // 2, shape[2] // 2
    steps: list[nn.Module] = []
    for _ in range(cfg.depth):
        net = ConvNet(c // 2, cfg.channels, 1, c, cfg.dropout)
        mix = MIXINGS[cfg.mixing](c)
        steps += [AffineCoupling(net, (c // 2, c // 2), False, LIMIT, SIGHT), mix, ActNorm(c)]
    if levels == 1 or h % 2 == 1 or w % 2 == 1:
        return Chain([Reshape(c, h, w), *steps, Unsqueeze()])
    deeper = FactorOut(level(cfg, (c // 2, h, w), levels - 1), (c, h, w))
    # What leaves is normal given what stays, so its whitening is one more affine coupling.
    whiten = AffineCoupling(ConvNet(c // 2, cfg.channels, 0, c), (c // 2, c // 2), False, LIMIT, SIGHT)
    return Chain([deeper, whiten, *steps, Unsqueeze()])


class Glow(Flow):
    def __init__(self, cfg: Config, shape: tuple[int, ...], levels: int):
        chain = Chain([level(cfg, (shape[0], shape[1], shape[2]), cfg.levels), Logit()])
        super().__init__(chain, base(cfg.base, math.prod(shape)), levels)


def pictures(spec: str, device: torch.device) -> Examples:
    examples = load(spec, device)
    if not examples.levels or any(side % 2 for side in examples.shape[1:]):
        found = f"pictures of {examples.shape[2]}x{examples.shape[1]}" if examples.levels else "rows"
        raise InputError(f"{spec}: holds {found}; right would be pictures with even sides, such as digits")
    return examples


def train(cfg: Config, run: Run, data: Annotated[str, "dataset of pictures with even sides"] = "digits") -> None:
    examples = pictures(data, run.device)
    model = run.place(Glow(cfg, examples.shape, examples.levels))
    adam = torch.optim.AdamW(model.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    for x in run.track(examples.batches(cfg.batch, run.seed), cfg.steps, model=model, adam=adam, cosine=cosine):
        loss = -model(x).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        adam.step()
        cosine.step()
        run.log(loss=loss)
    run.save(model, cfg, shape=examples.shape, levels=examples.levels)
    run.result(**examples.held_out(model))


@torch.no_grad()
def sample(
    trained: Trained,
    run: Run,
    n: Annotated[int, "how many pictures, or steps between two", Ge(2)] = 64,
    temperature: Annotated[float, "factor on the deviations of z", Gt(0)] = 1.0,
    between: Annotated[tuple[int, ...], "walk from one test picture to another: their numbers, such as 3,8"] = (),
) -> None:
    model = trained.load(Glow, Config)
    if not between:
        write_samples(run, trained, model, n, temperature)
        return
    test = pictures(trained.options["data"], run.device).data.test
    if len(between) != 2 or not all(0 <= number < len(test) for number in between):
        raise InputError(f"--between {','.join(map(str, between))}: right would be two numbers below {len(test)}")
    ends = model.bijector.inverse(dequantised(test[list(between)], model.levels))[0]
    z = torch.stack([torch.lerp(ends[0], ends[1], i / (n - 1)) for i in range(n)])
    steps = quantised(model.bijector(z)[0], model.levels)
    if run.suffix in ANIMATIONS:
        run.image("between.png", steps, fps=n / 4)
        return
    heading = f"{trained.heading}\nfrom test picture {between[0]} (first) to {between[1]} (last), z on a line"
    run.figure("between.png", tiles(steps, heading))


def evaluate(trained: Trained, run: Run, data: Annotated[str | None, "dataset (that of the training)"] = None) -> None:
    examples = pictures(data or trained.options["data"], run.device)
    run.result(**examples.held_out(trained.load(Glow, Config)))
