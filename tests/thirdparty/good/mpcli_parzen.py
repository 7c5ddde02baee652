"""Parzen window: a density that puts a Gaussian on every training image.

    p(x) = 1/N sum_i N(x; x_i, s^2 I)

Parzen, On Estimation of a Probability Density Function and Mode, 1962.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from mpcli.checks import Case, Sides, identity
from mpcli.kit import datasets
from mpcli.kit.datasets import Images
from mpcli.run import Run, Trained


@dataclass(frozen=True)
class Config:
    lr: Annotated[float, "learning rate of log s", Gt(0)] = 0.1
    steps: Annotated[int, "steps", Gt(0)] = 20


class Parzen(nn.Module):
    def __init__(self, cfg: Config, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("centres", torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> log p(x) [B]
        centres = self.centres.flatten(1)
        squares = torch.cdist(x.flatten(1), centres) ** 2 * torch.exp(-2 * self.log_scale)
        constant = centres.shape[1] * (self.log_scale + 0.5 * math.log(2 * math.pi)) + math.log(len(centres))
        return torch.logsumexp(-0.5 * squares, 1) - constant


def train(cfg: Config, run: Run, data: Annotated[str, "dataset of images"] = "stripes:4") -> None:
    images = datasets.load(data, Images).to(run.device)
    model = run.place(Parzen(cfg, images.train.shape))
    model.centres.copy_(images.train[:])
    adam = torch.optim.Adam(model.parameters(), cfg.lr)
    for _ in run.track(lambda step: step, cfg.steps, model=model, adam=adam):
        loss = -model(images.validation[:]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        run.log(nll=loss)
    run.save(model, cfg, shape=images.train.shape)
    run.result(nll=-model(images.test[:]).mean())


@torch.no_grad()
def sample(trained: Trained, run: Run, n: Annotated[int, "how many"] = 9) -> None:
    model = trained.load(Parzen, Config)
    centres = model.centres[torch.randint(len(model.centres), (n,))]
    run.image("samples.png", centres + model.log_scale.exp() * torch.randn_like(centres))


def gradcheck() -> Iterator[Case]:
    def density(x: Tensor, centre: Tensor) -> Sides:
        model = Parzen(Config(), (1, 2)).double()
        model.centres.copy_(centre)
        return model(x), torch.distributions.Normal(centre, 1.0).log_prob(x).sum(1)

    yield identity("one centre is a Gaussian", density, (3, 2), (1, 2))
