"""GoogLeNet: windows of several sizes side by side behind 1x1 bottlenecks, and heads on the way that carry gradients.

    inception    y = (1x1 x, 3x3 1x1 x, 5x5 1x1 x, 1x1 pool x)        joined along the channels
    bottleneck   K windows m x m on C channels cost m^2 C K a place; behind r channels of 1x1: C r + m^2 r K
    loss         L = L_top + 0.3 (L_a + L_b)                          heads a, b: dropped once the network is trained
    read-out     of the mean over all places: no dense layers before it

22 layers with weights, in nine inception modules. `--width` is the number of channels of the first layer (64 in the
paper), of which all others are in proportion; `--stem large` begins as for pictures of 224 pixels. With the paper's
width and stem it has 6 998 552 parameters for 1000 classes, without its heads. `render` also draws the size of the
gradient of every layer at the start, with and without heads, and tells what the bottlenecks save.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich, Going Deeper with Convolutions, 2015.
arXiv:1409.4842
"""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn

from mpcli.run import Run, Trained
from mpcli_nets import cnn
from mpcli_nets.cnn import Batch, Fold, Other, Rate, Vary
from mpcli_nets.googlenet import pictures
from mpcli_nets.googlenet.equations import gradcheck as gradcheck
from mpcli_nets.googlenet.inception import Head, Inception, convolution, flops
from mpcli_nets.googlenet.loss import total

__all__ = ["Config", "GoogLeNet", "Inception"]

# Channels of each module at a width of 64, see `Inception`; a pool of stride 2 lies before 4a and 5a.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED = ("4a", "5a")
HEADS = ("4a", "4d")


@dataclass(frozen=True)
class Config:
    width: Annotated[int, "channels of the first layer (the paper has 64)", Ge(1)] = 16
    stem: Annotated[Literal["small", "large"], "how it begins: two convolutions, or those of the paper with pools"] = (
        "small"
    )
    norm: Annotated[bool, "batch normalisation behind each convolution (the paper has none)"] = True
    bottleneck: Annotated[bool, "1x1 convolutions before those of 3x3 and 5x5"] = True
    heads: Annotated[bool, "auxiliary heads while it is trained"] = True
    steps: Annotated[int, "training steps", Ge(1)] = 600
    batch: Batch = 64
    lr: Rate = 3e-3
    vary: Vary = 0.6


class GoogLeNet(nn.Module):
    """eta [N, K] of pictures [N, C, H, W]; in training also those of the two heads."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int], classes: int):
        super().__init__()

        def of(channels: int) -> int:
            return max(1, round(channels * cfg.width / 64))

        large = cfg.stem == "large"
        first = convolution(shape[0], of(64), 7 if large else 3, cfg.norm, 2 if large else 1)
        pool = [nn.MaxPool2d(3, 2, 1)] if large else []
        second = [convolution(of(64), of(64), 1, cfg.norm), convolution(of(64), of(192), 3, cfg.norm)]
        self.stem = nn.Sequential(first, *pool, *second, *pool)
        self.inceptions = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        channels = of(192)
        for name, widths in MODULES.items():
            one, a, three, b, five, pooled = map(of, widths)
            module = Inception(channels, (one, a, three, b, five, pooled), cfg.norm, cfg.bottleneck)
            self.inceptions[name] = module
            channels = module.outputs
            if name in HEADS and cfg.heads:
                self.heads[name] = Head(channels, of(128), of(1024), classes, cfg.norm)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.drop = nn.Dropout(0.4)
        self.top = nn.Linear(channels, classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(torch.as_tensor(layer.bias))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        z, said = self.stem(x), []
        for name, module in self.inceptions.items():
            z = module(self.pool(z) if name in POOLED else z)
            if self.training and name in self.heads:
                said.append(self.heads[name](z))
        eta = self.top(self.drop(self.mean(z)))
        return (eta, said) if self.training else eta


def by_heads(model: GoogLeNet, x: Tensor, t: Tensor) -> Tensor:
    """The loss, with every parameter's `grad`."""
    eta, said = model(x)
    return cnn.differentiated(model, total(eta, said, t))


def train(cfg: Config, run: Run, data: Annotated[str, "pictures with classes"] = "digits", fold: Fold = None) -> None:
    given = cnn.pictured(data, fold).to(run.device)
    run.say(given.describe())
    model = run.place(cnn.channels_last(GoogLeNet(cfg, given.shape, given.outputs)))
    cnn.fit(run, cfg, model, given, by_heads)
    run.save(model, cfg, shape=given.shape, classes=given.outputs)
    run.result(**cnn.held_out(model, given))


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    cnn.judge(run, trained, data, GoogLeNet, Config)


def render(trained: Trained, run: Run, data: Other = None) -> None:
    model, given = cnn.known(trained, data, GoogLeNet, Config)
    cnn.show(run, trained.heading, model.cpu(), given)
    cfg = Config(**{field.name: trained.options[field.name] for field in fields(Config)})
    found = gradients(cfg, given, run.seed)
    run.figure("gradients.png", pictures.gradients(trained.heading, found))
    rows = enumerate(zip(*found.values(), strict=True), 1)
    run.table("gradients.csv", ["layer", *found], [(number, *row) for number, row in rows])
    for name, bottleneck in (("flops", True), ("flops_without_bottlenecks", False)):
        plain = GoogLeNet(replace(cfg, bottleneck=bottleneck), given.shape, given.outputs)
        run.result(**{name: flops(plain, given.shape)})


def gradients(cfg: Config, given: cnn.Pictured, seed: int) -> dict[str, list[float]]:
    """|dL/dW| of the layers along the 3x3 branches, from the first to the read-out, of one network as it begins.

    Weights are those that torch gives a layer, too small for a network so deep without normalisation; the loss is taken
    with those of the heads and without.
    """
    torch.manual_seed(seed)
    model = GoogLeNet(replace(cfg, norm=False, heads=True), given.shape, given.outputs)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.reset_parameters()
    eta, said = model(given.train[:256])
    along = [layer for layer in model.stem.modules() if isinstance(layer, nn.Conv2d)]
    for module in model.inceptions.values():
        along += [layer for layer in cast(Inception, module).three.modules() if isinstance(layer, nn.Conv2d)]
    weights = [*(layer.weight for layer in along), model.top.weight]
    t = given.targets.train[:256]
    return {
        name: [float(g.norm()) for g in torch.autograd.grad(total(eta, heads, t), weights, retain_graph=True)]
        for name, heads in (("with heads", said), ("without", []))
    }
