"""Fully convolutional networks: a class for every pixel, of pictures of any size.

    patch             a classifier of the window around each pixel, one window after the other
    sliding           the same, its dense layer a convolution, over the whole picture at once: equal at every pixel
    flat              convolutions without pools: every layer has as many places as there are pixels
    encoder-decoder   down by 2 four times, and up again

    nearest       x(i, j) = y(i / 2, j / 2)            adjoint: the sum over each 2x2 window
    nails         y at the top left of each window     adjoint: every second place
    unpool        y where the greatest was             adjoint: what is where the greatest was
    transposed    sum_ij y(i, j) w, laid 2 apart       adjoint: the 3x3 convolution of stride 2
    straight      scores of the deepest level, each laid over 16x16 pixels: no way up

Learned from crops, turned and mirrored, by -log p of the class of each pixel and 1 - Dice. `evaluate` gives Dice, IoU
of the boundaries (2 pixels wide) and, where the data tell objects apart, AP at IoU 0.5, beside Otsu's threshold.
`render` draws predictions with their errors, what each way up makes of four numbers, and what each scheme costs.

Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation, 2015. arXiv:1411.4038
Noh, Hong and Han, Learning Deconvolution Network for Semantic Segmentation, 2015. arXiv:1505.04366
"""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Ge
from torch import Tensor, nn

from mpcli.run import Run, Trained
from mpcli_nets import cnn
from mpcli_nets.cnn import Rate
from mpcli_nets.fcn import measures, pictures
from mpcli_nets.fcn.equations import gradcheck as gradcheck
from mpcli_nets.fcn.examples import (
    Batch,
    Crop,
    Given,
    Other,
    Some,
    all_said,
    as_written,
    by_pixel,
    classes_of,
    fit,
    grey,
    held_out,
    judge,
    known,
    masked,
)
from mpcli_nets.fcn.nets import WINDOW, EncoderDecoder, Flat, Upsample, Windows
from mpcli_nets.fcn.pictures import predictions

__all__ = [
    "Batch",
    "Crop",
    "Given",
    "Other",
    "Some",
    "all_said",
    "as_written",
    "fit",
    "grey",
    "held_out",
    "judge",
    "known",
    "masked",
    "measures",
    "predictions",
]

Scheme = Literal["patch", "sliding", "flat", "encoder-decoder"]

PIXELS = 128  # of each crop, whose windows are learned from by `patch`


@dataclass(frozen=True)
class Config:
    scheme: Annotated[Scheme, "how a class is found for every pixel"] = "encoder-decoder"
    upsample: Annotated[Upsample, "how an encoder-decoder goes up"] = "transposed"
    width: Annotated[int, "maps of the second level, or of the first layer elsewhere", Ge(2)] = 16
    steps: Annotated[int, "training steps", Ge(1)] = 500
    batch: Batch = 6
    crop: Crop = 128
    lr: Rate = 5e-3


class FCN(nn.Module):
    """Scores [N, K, H, W] of pictures [N, C, H, W]: logits of the class of each pixel."""

    def __init__(self, cfg: Config, channels: int, classes: int):
        super().__init__()
        self.net: nn.Module
        if cfg.scheme == "encoder-decoder":
            self.net = EncoderDecoder(cfg.width, channels, classes, cfg.upsample)
        else:
            self.net = (Flat if cfg.scheme == "flat" else Windows)(cfg.width, channels, classes)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """At all pixels; or, where the network is one of windows, at pixels `at` [N, M, 2], [N, K, M, 1]."""
        return self.net(x) if at is None else self.net(x, at)


def by_window(model: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and classes of some pixels of each picture, drawn by chance, by the windows around them."""
    height, width = t.shape[1:]
    at = torch.stack([torch.randint(most, (len(x), PIXELS)) for most in (height, width)], -1)
    rows, columns = at.to(t.device).unbind(-1)
    return model(x, at), t[torch.arange(len(t), device=t.device)[:, None], rows, columns][..., None]


def train(cfg: Config, run: Run, data: Given = "cells") -> None:
    given = masked(data).to(run.device)
    run.say(given.describe())
    model = run.place(cnn.channels_last(FCN(cfg, given.channels, len(given.classes))))
    fit(run, cfg, model, given.train, by_window if cfg.scheme == "patch" else by_pixel)
    run.save(model, cfg, channels=given.channels, classes=len(given.classes))
    run.result(**held_out(model, given))


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    judge(run, trained, data, FCN, Config)


def render(trained: Trained, run: Run, data: Other = None, shown: Some = 4) -> None:
    model, given = known(trained, data, FCN, Config)
    run.figure("predictions.png", predictions(trained.heading, given, all_said(model.cpu(), given, classes_of), shown))
    run.figure("upsampling.png", pictures.upsampling(trained.heading))
    channels, height, width = given.test.pictures[0].shape
    rows = costs((channels, height, width), len(given.classes))
    run.figure("schemes.png", pictures.schemes(f"{trained.heading}\npictures of {height}x{width}", rows))
    run.table("schemes.csv", ["scheme", "parameters", "flops"], rows)
    run.table("layers.csv", cnn.COLUMNS, map(cnn.cells, cnn.table(model, (channels, height, width))))


def costs(shape: tuple[int, int, int], classes: int) -> list[tuple[str, int, int]]:
    """(scheme, parameters, FLOPs of one picture [C, H, W]), of networks as wide as by default."""
    rows = []
    for scheme in get_args(Scheme):
        made = FCN(Config(scheme=scheme), shape[0], classes)
        if scheme == "patch":
            assert isinstance(made.net, Windows)
            made.net.lay(apart=False)
            parameters, flops, _ = cnn.totals(made.net.layers, (shape[0], WINDOW, WINDOW))
            flops *= shape[1] * shape[2]
        else:
            parameters, flops, _ = cnn.totals(made, shape)
        rows.append((scheme, parameters, flops))
    return rows
