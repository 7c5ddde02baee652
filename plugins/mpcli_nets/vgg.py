"""VGG and AlexNet: deep stacks of convolutions and pools under two dense layers.

    five 3x3 convolutions see 11x11 pixels, as one of 11x11 does, with 45 weights for 121 and four more f between
    without f between they are one convolution:      w_5 * w_4 * ... * w_1      in full
    AlexNet   11x11 of stride 4, 5x5, three of 3x3
    VGG-N     stages of 3x3, twice the channels in each up to the fourth, halved by a pool: N layers with weights

`--width` is the number of channels of the first layer (64 in the papers), `--units` that of the dense layers (4096);
pictures are scaled to `--size` (224). With those of the papers AlexNet has 61 100 840 parameters, and VGG-16
138 357 544, of which 123 642 856 are in its dense layers. AlexNet needs 63 pixels at least.

Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012. NIPS
Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015. arXiv:1409.1556
Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014. arXiv:1404.5997
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from mpcli.checks import Case, Sides, identity
from mpcli.run import Run, Trained
from mpcli_nets import cnn
from mpcli_nets.cnn import Batch, Fold, Other, Rate, Vary

__all__ = ["VGG", "Config", "text"]

Arch = Literal["alexnet", "vgg11", "vgg13", "vgg16", "vgg19"]

# Convolutions of each stage.
STAGES: dict[Arch, tuple[int, ...]] = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


@dataclass(frozen=True)
class Config:
    arch: Annotated[Arch, "which network"] = "vgg11"
    width: Annotated[int, "channels of the first layer (the papers have 64)", Ge(1)] = 16
    units: Annotated[int, "units of each of the two dense layers (the papers have 4096)", Ge(1)] = 128
    size: Annotated[int, "pixels along the pictures, which are scaled to it", Ge(1)] = 32
    norm: Annotated[bool, "batch normalisation behind each convolution (the papers have none)"] = True
    steps: Annotated[int, "training steps", Ge(1)] = 800
    batch: Batch = 64
    lr: Rate = 3e-3
    vary: Vary = 0.6


def text(arch: Arch, width: int = 64, units: int = 4096, norm: bool = False) -> str:
    """The layers of an architecture, as `cnn.build` takes them."""
    behind = ", norm, relu" if norm else ", relu"
    if arch == "alexnet":
        convolutions = [
            f"conv 11 {width} s4 p2{behind}, pool 3 s2",
            f"conv 5 {3 * width} p2{behind}, pool 3 s2",
            f"conv 3 {6 * width} p1{behind}, conv 3 {4 * width} p1{behind}, conv 3 {4 * width} p1{behind}, pool 3 s2",
        ]
    else:
        convolutions = [
            ", ".join([f"conv 3 {width * min(2**stage, 8)} p1{behind}"] * count) + ", pool 2"
            for stage, count in enumerate(STAGES[arch])
        ]
    return ", ".join([*convolutions, *[f"drop 0.5, dense {units}, relu"] * 2])


class VGG(nn.Module):
    """eta [N, K] of pictures [N, C, H, W]: logits of classes."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int], classes: int):
        super().__init__()
        self.size = cfg.size
        layers = text(cfg.arch, cfg.width, cfg.units, cfg.norm)
        self.layers, sizes = cnn.build(layers, (shape[0], cfg.size, cfg.size), f"--size {cfg.size}")
        self.top = nn.Linear(sizes.units, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(torch.as_tensor(module.bias))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return self.top(self.layers(x))


def collapsed(weights: Sequence[Tensor]) -> Tensor:
    """The one convolution that several are, one behind the other with nothing between them.

    Weights [K, C, M, N], the C of each the K of the one before -> [K, C, M + M' - 1 ..., N + N' - 1 ...].
    """
    whole = weights[0]
    for w in weights[1:]:
        m, n = w.shape[-2:]
        whole = F.conv2d(whole.transpose(0, 1), w.flip(2, 3), padding=(m - 1, n - 1)).transpose(0, 1)
    return whole


def longest(layers: nn.Sequential) -> list[nn.Conv2d]:
    """The most convolutions that no pool lies between."""
    stages: list[list[nn.Conv2d]] = [[]]
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            stages.append([])
        elif isinstance(layer, nn.Conv2d):
            stages[-1].append(layer)
    return max(stages, key=len)


def train(cfg: Config, run: Run, data: Annotated[str, "pictures with classes"] = "digits", fold: Fold = None) -> None:
    given = cnn.pictured(data, fold).to(run.device)
    run.say(given.describe())
    model = run.place(cnn.channels_last(VGG(cfg, given.shape, given.outputs)))
    cnn.fit(run, cfg, model, given, cnn.by_autograd)
    run.save(model, cfg, shape=given.shape, classes=given.outputs)
    run.result(**cnn.held_out(model, given))


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    cnn.judge(run, trained, data, VGG, Config)


def render(trained: Trained, run: Run, data: Other = None) -> None:
    model, given = cnn.known(trained, data, VGG, Config)
    cnn.show(run, trained.heading, model.cpu(), given)
    stack = longest(model.layers)
    whole = collapsed([layer.weight.detach() for layer in stack])
    side = whole.shape[-1]
    what = f"{len(stack)} convolutions of 3x3 as one of {side}x{side}, without f: mean over the maps that go in"
    run.figure("stack.png", cnn.windows(f"{trained.heading}\n{what}", whole))


def gradcheck() -> Iterator[Case]:
    def one(x: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Sides:
        """Three correlations, one behind the other, and one with the windows that they are."""
        whole = collapsed([first, second, third])
        step = F.conv2d(F.conv2d(F.conv2d(x, first), second), third)
        return step, F.conv2d(x, whole), F.conv2d(x, whole.flip(2, 3))

    shapes = (1, 2, 9, 8), (3, 2, 3, 3), (2, 3, 3, 3), (4, 2, 3, 3)
    yield identity("w_3 * w_2 * w_1: one convolution", one, *shapes, mistake="turned by half a turn")

    def counted(_: Tensor) -> Sides:
        """Weights, biases, and the pixels that the last place sees, of five 3x3 and of one 11x11."""
        found: list[int] = []
        for layers in (", ".join(["conv 3 1"] * 5), "conv 11 1"):
            net = cnn.build(layers, (1, 32, 32))[0]
            field = cnn.table(net, (1, 32, 32))[-1].field
            found += [sum(p.numel() for p in net.parameters()), field or 0]
        return torch.tensor(found), torch.tensor([45 + 5, 11, 121 + 1, 11]), torch.tensor([45, 11, 121, 11])

    yield identity("five 3x3: 45 weights for 121, the same field", counted, (1,), mistake="without the biases")

    def sizes(_: Tensor) -> Sides:
        """Parameters of AlexNet and VGG-16 as in the papers, by formula: (m^2 C + 1) K and (D + 1) K."""

        def convolutions(*layers: tuple[int, int, int]) -> int:
            return sum((m * m * before + 1) * after for m, before, after in layers)

        def dense(first: int) -> int:
            return (first + 1) * 4096 + 4097 * 4096 + 4097 * 1000

        alex = convolutions((11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256)) + dense(6 * 6 * 256)
        pairs = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
        pairs += [(256, 512), *[(512, 512)] * 5]
        deep = convolutions(*[(3, before, after) for before, after in pairs])
        right = torch.tensor([alex, deep + dense(7 * 7 * 512)])
        found = []
        archs: tuple[Arch, ...] = ("alexnet", "vgg16")
        for arch in archs:
            with torch.device("meta"):
                net = VGG(Config(arch=arch, width=64, units=4096, size=224, norm=False), (3, 224, 224), 1000)
            found.append(sum(p.numel() for p in net.parameters()))
        return torch.tensor(found), right, torch.tensor([alex, deep])

    yield identity("AlexNet 61 100 840, VGG-16 138 357 544", sizes, (1,), mistake="VGG without its dense layers")

    def depths(_: Tensor) -> Sides:
        """Layers with weights."""
        found = [text(arch).count("conv") + text(arch).count("dense") + 1 for arch in get_args(Arch)]
        return torch.tensor(found), torch.tensor([8, 11, 13, 16, 19])

    yield identity("VGG-N: N layers with weights", depths, (1,))
