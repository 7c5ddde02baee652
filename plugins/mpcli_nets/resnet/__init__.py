"""ResNet: blocks that add to what they are given, so that a network may be deep and still learn.

    y = f(x + F(x))      F: 3x3 convolution, norm, f, 3x3 convolution, norm; f = max(0, .)      two layers a block
    y = x + F(x)         F: norm, f, 3x3 convolution, norm, f, 3x3 convolution                  --order pre
    where channels or places change, x goes through a 1x1 convolution of the same stride
    dL/dx = dL/dy (I + dF/dx)          the gradient has a way past F

`--plain` leaves the sums out: the same layers, which learn the worse the more of them there are. A depth of 18, 34 or
50 is that of the paper, in four stages, 50 of bottlenecks (1x1, 3x3, 1x1); another even number N has (N - 2) / 2 blocks
in three stages. Each stage has twice the channels of the one before, and half the places. `--stem large` begins as
for pictures of 224 pixels: a 7x7 convolution and a pool, of stride 2 each. `render` draws training losses against
depth, with and without the sums.

He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, 2016. arXiv:1512.03385
He, Zhang, Ren and Sun, Identity Mappings in Deep Residual Networks, 2016. arXiv:1603.05027
Wu and He, Group Normalization, 2018. arXiv:1803.08494
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.run import Run, Trained
from mpcli_nets import cnn
from mpcli_nets.cnn import Batch, Fold, Other, Rate, Vary
from mpcli_nets.resnet import pictures
from mpcli_nets.resnet.blocks import Block, Norm, Order, normed
from mpcli_nets.resnet.equations import gradcheck as gradcheck

__all__ = ["Block", "Config", "Norm", "ResNet", "normed"]

# Blocks of each stage, and whether they are bottlenecks.
PAPER = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}
DEPTHS = (8, 20, 44)  # layers of the networks that `render` compares


@dataclass(frozen=True)
class Config:
    depth: Annotated[int, "layers: 18, 34 or 50 as in the paper, or another even number", Ge(4)] = 14
    width: Annotated[int, "channels of the first stage (the paper's have 64)", Ge(1)] = 16
    stem: Annotated[Literal["small", "large"], "how it begins: a 3x3 convolution, or 7x7 and a pool"] = "small"
    plain: Annotated[bool, "leave the sums out"] = False
    norm: Annotated[Norm, "normalisation: over the batch, over groups of channels of each picture"] = "batch"
    order: Annotated[Order, "f behind the sum, or norm and f before the convolutions"] = "post"
    steps: Annotated[int, "training steps", Ge(1)] = 1000
    batch: Batch = 64
    lr: Rate = 5e-3
    vary: Vary = 0.6


def stages(depth: int) -> tuple[tuple[int, ...], bool]:
    """Blocks of each stage, and whether they are bottlenecks.

    Raises:
        InputError: the depth is odd.
    """
    if depth in PAPER:
        return PAPER[depth]
    if depth % 2:
        raise InputError(f"--depth {depth}: a block has two layers; right would be an even number such as {depth + 1}")
    blocks = (depth - 2) // 2
    return tuple(blocks // 3 + (stage < blocks % 3) for stage in range(3) if blocks > stage), False


class ResNet(nn.Module):
    """eta [N, K] of pictures [N, C, H, W]: logits of classes."""

    def __init__(self, cfg: Config, shape: tuple[int, int, int], classes: int):
        super().__init__()
        counts, bottleneck = stages(cfg.depth)
        width = cfg.width
        large = cfg.stem == "large"
        first = nn.Conv2d(shape[0], width, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
        self.stem = nn.Sequential(first, normed(cfg.norm, width), nn.ReLU())
        if large:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential()
        inputs = width
        for stage, count in enumerate(counts):
            outputs = width * 2**stage * (4 if bottleneck else 1)
            for number in range(count):
                stride = 2 if number == 0 and stage > 0 else 1
                self.blocks.append(
                    Block(inputs, outputs, stride, cfg.norm, cfg.order, plain=cfg.plain, bottleneck=bottleneck)
                )
                inputs = outputs
        # What blocks of the other order add is not normalised by anything behind them.
        self.last = nn.Sequential(normed(cfg.norm, inputs), nn.ReLU()) if cfg.order == "pre" else nn.Identity()
        self.top = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, D]
        """What the last block says, the mean over all places."""
        return self.last(self.blocks(self.stem(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.features(x))


def train(cfg: Config, run: Run, data: Annotated[str, "pictures with classes"] = "digits", fold: Fold = None) -> None:
    given = cnn.pictured(data, fold).to(run.device)
    run.say(given.describe())
    model = run.place(cnn.channels_last(ResNet(cfg, given.shape, given.outputs)))
    cnn.fit(run, cfg, model, given, cnn.by_autograd)
    run.save(model, cfg, shape=given.shape, classes=given.outputs)
    run.result(**cnn.held_out(model, given))


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    cnn.judge(run, trained, data, ResNet, Config)


def render(
    trained: Trained,
    run: Run,
    data: Other = None,
    look: Annotated[int, "steps of each training that is compared by depth", Ge(1)] = 200,
) -> None:
    model, given = cnn.known(trained, data, ResNet, Config)
    cnn.show(run, trained.heading, model.cpu(), given)
    rows = [
        (name, depth, *lost(depth, name == "plain", given, look, run.seed))
        for name in ("plain", "residual")
        for depth in DEPTHS
    ]
    run.figure("depth.png", pictures.by_depth(trained.heading, look, rows))
    run.table("depth.csv", ["network", "layers", "train_loss", "accuracy"], rows)


def lost(depth: int, plain: bool, given: cnn.Pictured, steps: int, seed: int) -> tuple[float, float]:
    """The mean training loss of the last tenth of a short training, and the accuracy then."""
    torch.manual_seed(seed)
    cfg = Config(depth=depth, plain=plain, steps=steps, vary=0.0)
    model = cnn.channels_last(ResNet(cfg, given.shape, given.outputs))
    descent = cnn.Descent(cfg, model, cnn.on_varied(cfg, model, given, cnn.by_autograd))
    index = cnn.batches(cfg, len(given.train), seed)
    losses = [float(descent.step(index(step))) for step in range(steps)]
    model.eval()
    some = losses[-max(1, steps // 10) :]
    return sum(some) / len(some), float(cnn.held_out(model, given)["accuracy"])
