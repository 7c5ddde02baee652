"""Convolutional network: one small window of weights for all places, pooling between, and a linear read-out.

    convolution   a(k, i, j) = b(k) + sum_cmn w(k, c, m, n) x(c, s i + d m - p, s j + d n - p)
                  stride s, border of p zeros, dilation d; of full depth: every map sums over all channels c
                  dL/dw(k, c, m, n) = sum_ij delta(k, i, j) x(c, s i + d m - p, s j + d n - p)
                  dL/dx = the full convolution of delta with w, which is the correlation with w turned by half a turn
    max pool      y = max over the window, channel by channel; dL/dx: delta goes to the first greatest, overlaps add
    size          floor((n + p + p' - d (m - 1) - 1) / s) + 1        of n places, a window of m
    weights       (m^2 C + 1) K        whatever the size of the picture; a dense layer has (C H W + 1) K
    field         f' = f + d (m - 1) j, jump j' = j s        pixels that a place sees, and to the next place

`--layers` says what the network is made of, see `layers.py`; the read-out to the classes comes behind it.
`--backward written` trains by the page's own gradients (`written.py`) in place of autograd's. Training pictures are
turned, scaled and shifted at random (`--vary`). `render` draws the filters, the maps of every layer, what pooling does
against shifts, the worst pictures, and writes the table of layers: shapes, parameters, FLOPs, receptive fields.

LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition, 1998. Proc. IEEE 86
Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016. arXiv:1603.07285
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from mpcli.run import Run, Trained
from mpcli_nets.cnn import written
from mpcli_nets.cnn.calculator import COLUMNS, Row, cells, table, totals
from mpcli_nets.cnn.equations import gradcheck as gradcheck
from mpcli_nets.cnn.examples import (
    Batch,
    Descent,
    Fold,
    Other,
    Pictured,
    Rate,
    Schedule,
    Vary,
    batches,
    by_autograd,
    channels_last,
    descend,
    differentiated,
    fit,
    held_out,
    judge,
    known,
    on_varied,
    pictured,
    rising_and_falling,
    varied,
)
from mpcli_nets.cnn.layers import build
from mpcli_nets.cnn.show import evenly, maps, show, windows
from mpcli_nets.maximum_likelihood import LIKELIHOODS
from mpcli_nets.mlp.graph import backward as backpropagated
from mpcli_nets.mlp.graph import mean_nll

__all__ = [
    "CNN",
    "COLUMNS",
    "Batch",
    "Config",
    "Descent",
    "Fold",
    "Other",
    "Pictured",
    "Rate",
    "Row",
    "Schedule",
    "Vary",
    "batches",
    "build",
    "by_autograd",
    "cells",
    "channels_last",
    "descend",
    "differentiated",
    "evenly",
    "fit",
    "held_out",
    "judge",
    "known",
    "maps",
    "on_varied",
    "pictured",
    "rising_and_falling",
    "show",
    "table",
    "totals",
    "varied",
    "windows",
]

LAYERS = "conv 3 32 p1, norm, relu, conv 3 32 p1, norm, relu, pool 2, conv 3 64 p1, norm, relu, pool 2, drop 0.7"


@dataclass(frozen=True)
class Config:
    layers: Annotated[str, "what lies between the picture and the read-out"] = LAYERS
    steps: Annotated[int, "training steps", Ge(1)] = 2000
    batch: Batch = 64
    lr: Rate = 0.01
    vary: Vary = 0.6


class CNN(nn.Module):
    """eta [N, K] of pictures [N, C, H, W]: logits of classes."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int], classes: int):
        super().__init__()
        self.maps, sizes = build(cfg.layers, shape)
        self.top = nn.Linear(sizes.units, classes)

    def features(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, D]
        """What the last layer says: of maps the mean over all places."""
        z = self.maps(x)
        return z.mean((2, 3)) if z.ndim == 4 else z

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.maps(x).flatten(1))


def by_hand(model: CNN, x: Tensor, t: Tensor) -> Tensor:
    """The loss, with every parameter's `grad` by the page's own layers and backpropagation."""
    eta, leaves = written.graph([*model.maps, nn.Flatten(), model.top], x)
    loss = mean_nll(LIKELIHOODS["categorical"], eta, F.one_hot(t, eta.value.shape[1]).to(x))
    gradients = backpropagated(loss)
    for parameter, leaf in leaves.items():
        parameter.grad = gradients[leaf]
    return loss.value


BACKWARD: dict[str, Callable[[CNN, Tensor, Tensor], Tensor]] = {"written": by_hand, "autograd": by_autograd}


def train(
    cfg: Config,
    run: Run,
    data: Annotated[str, "pictures with classes"] = "digits",
    fold: Fold = None,
    backward: Annotated[Literal["autograd", "written"], "who takes the gradients"] = "autograd",
) -> None:
    given = pictured(data, fold).to(run.device)
    run.say(given.describe())
    model = run.place(channels_last(CNN(cfg, given.shape, given.outputs)))
    fit(run, cfg, model, given, BACKWARD[backward])
    run.save(model, cfg, shape=given.shape, classes=given.outputs)
    run.result(**held_out(model, given))


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    judge(run, trained, data, CNN, Config)


def render(trained: Trained, run: Run, data: Other = None) -> None:
    model, given = known(trained, data, CNN, Config)
    show(run, trained.heading, model.cpu(), given)
