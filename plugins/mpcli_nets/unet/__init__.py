"""U-Net: down by halves and up again, with a copy of what went down beside what comes up.

    down    x_0 = F_0(x),  x_l = F_l(max pool x_(l-1))        F: twice 3x3 convolution, norm, max(0, .)
    up      y_L = x_L,     y_l = G_l([x_l, T_l y_(l+1)])      T: transposed convolution 2x2 of stride 2
    out     W y_0 + b                                         a score for each class at every pixel
    with a condition c:  z (1 + s) + b  behind the first norm of each F and G,  (s, b) = A c

The copies x_l carry where things end, which is lost on the way down: `--skips none` leaves them out. Learned from
crops, turned and mirrored, by -log p of the class of each pixel and 1 - Dice. Objects of a mask are told apart by the
watershed of the distance to its border. `evaluate` gives Dice, IoU of the boundaries (2 pixels wide) and AP at IoU 0.5,
beside Otsu's threshold. `sample` writes the mask and the objects of any picture; one larger than 1024 pixels is seen in
tiles, which give what the whole would. `render` draws predictions from the worst to the best, with errors and objects.

Ronneberger, Fischer and Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015. arXiv:1505.04597
Perez, Strub, de Vries, Dumoulin and Courville, FiLM, 2018. arXiv:1709.07871
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import imageio.v3 as imageio
import torch
from annotated_types import Ge
from torch import nn

from mpcli.errors import InputError
from mpcli.kit.datasets.files import planes, read_image
from mpcli.run import Run, Trained
from mpcli_nets import cnn, fcn
from mpcli_nets.cnn import Rate
from mpcli_nets.fcn import Batch, Crop, Given, Other, Some
from mpcli_nets.resnet import Norm
from mpcli_nets.unet.equations import gradcheck as gradcheck
from mpcli_nets.unet.net import Level, Skips, UNet
from mpcli_nets.unet.tiles import classes_of

__all__ = ["Config", "Level", "Segmenter", "UNet"]


@dataclass(frozen=True)
class Config:
    widths: Annotated[tuple[int, ...], "maps of each level, from the full size down", Ge(1)] = (8, 16, 32, 64, 64)
    norm: Annotated[Norm, "normalisation: over the batch, over groups of channels of each picture"] = "batch"
    skips: Annotated[Skips, "copies of what went down beside what comes up"] = "copy"
    steps: Annotated[int, "training steps", Ge(1)] = 1000
    batch: Batch = 6
    crop: Crop = 128
    lr: Rate = 5e-3


class Segmenter(UNet):
    """Scores [N, K, H, W] of pictures [N, C, H, W]: logits of the class of each pixel."""

    def __init__(self, cfg: Config, channels: int, classes: int):
        if len(cfg.widths) < 2:
            raise InputError("--widths: has one level; right would be two or more, such as 8,16,32")
        super().__init__(channels, classes, cfg.widths, norm=cfg.norm, skips=cfg.skips)
        # From 0, all classes but the commonest are pushed down alike, and several may never come up again.
        nn.init.kaiming_normal_(self.top.weight)


def train(cfg: Config, run: Run, data: Given = "cells") -> None:
    given = fcn.masked(data).to(run.device)
    run.say(given.describe())
    model = run.place(cnn.channels_last(Segmenter(cfg, given.channels, len(given.classes))))
    fcn.fit(run, cfg, model, given.train)
    run.save(model, cfg, channels=given.channels, classes=len(given.classes))
    run.result(**fcn.held_out(model, given, classes_of))


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    fcn.judge(run, trained, data, Segmenter, Config, classes_of)


def sample(
    trained: Trained,
    run: Run,
    image: Annotated[Path | None, "picture to segment (the first test picture)"] = None,
) -> None:
    if image is None:
        model, given = fcn.known(trained, None, Segmenter, Config)
        x = given.test.pictures[0]
    else:
        model = trained.load(Segmenter, Config)
        mode = "L" if trained.extras["channels"] == 1 else "RGB"
        x = torch.tensor(planes(read_image(image, mode, upright=True)))
    said = classes_of(model, x.to(run.device)).cpu()
    for name, numbers in (("mask.png", said), ("objects.png", fcn.measures.objects(said > 0).long())):
        with run.file(name) as path:
            imageio.imwrite(path, fcn.as_written(numbers), extension=".png")


def render(trained: Trained, run: Run, data: Other = None, shown: Some = 4) -> None:
    model, given = fcn.known(trained, data, Segmenter, Config)
    said = fcn.all_said(model.cpu(), given, classes_of)
    run.figure("predictions.png", fcn.predictions(trained.heading, given, said, shown))
    x = given.test.pictures[0]
    with torch.no_grad():
        run.figure("maps.png", cnn.maps(trained.heading, model, fcn.grey(x)[None]))
    run.table("layers.csv", cnn.COLUMNS, map(cnn.cells, cnn.table(model, tuple(x.shape))))
