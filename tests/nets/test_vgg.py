"""VGG and AlexNet: the papers' counts, stacks that are one window, and what they reach."""

import pytest
import torch
from mutants import result

from mpcli_nets import cnn, vgg
from mpcli_nets.vgg import VGG, Config

MUTANTS = {
    "a convolution less in each stage": (
        vgg,
        "text",
        lambda original: lambda *args: original(*args).replace("conv 3", "pool 1", 1),
    ),
    "one dense layer": (vgg, "text", result(lambda text: text.rsplit(", drop", 1)[0])),
    "windows turned": (vgg, "collapsed", result(lambda w: w.flip(2, 3))),
}
SMALL = {"train": ("--width", "2", "--units", "8", "--batch", "8")}


@pytest.mark.parametrize(
    ("arch", "parameters", "flops"),
    [("alexnet", 61_100_840, 1.43e9), ("vgg11", 132_863_336, 15.2e9), ("vgg19", 143_667_240, 39.3e9)],
)
def test_counts_are_those_of_the_papers(arch, parameters, flops):
    with torch.device("meta"):
        model = VGG(Config(arch=arch, width=64, units=4096, size=224, norm=False), (3, 224, 224), 1000)
    found = cnn.totals(model, (3, 224, 224))
    assert found[0] == parameters and found[1] == pytest.approx(flops, rel=0.01)
    assert found[2] == (8 if arch == "alexnet" else int(arch[3:]))


def test_the_last_place_of_vgg16_sees_212_pixels():
    net, _ = cnn.build(vgg.text("vgg16").split(", drop")[0], (3, 224, 224))
    assert cnn.table(net, (3, 224, 224))[-1].field == 212


def test_pictures_of_any_size_are_scaled():
    model = VGG(Config(width=2, units=4), (1, 8, 8), 3).eval()
    assert model(torch.rand(2, 1, 8, 8)).shape == model(torch.rand(2, 1, 50, 31)).shape == (2, 3)


@pytest.mark.parametrize(
    ("arch", "count", "side"), [("vgg11", 2, 5), ("vgg16", 3, 7), ("vgg19", 4, 9), ("alexnet", 3, 7)]
)
def test_the_longest_stack_is_one_window(arch, count, side):
    model = VGG(Config(arch=arch, width=2, units=4, size=64), (1, 8, 8), 3)
    stack = vgg.longest(model.layers)
    whole = vgg.collapsed([layer.weight for layer in stack])
    assert len(stack) == count and whole.shape == (stack[-1].out_channels, stack[0].in_channels, side, side)


def test_too_few_pixels_are_refused(mpcli):
    refused = mpcli("train", "vgg", "--arch", "alexnet", "--size", 62)
    assert refused.code == 2 and "--size 62" in refused.err and "nothing is left of pictures 62x62" in refused.err
    assert mpcli("train", "vgg", "--arch", "alexnet", "--size", 63, "--steps", 1, *SMALL["train"]).code == 0


@pytest.mark.learning
def test_digits_are_learned(mpcli):
    done = mpcli("train", "vgg", "--steps", 300, "--width", 8, "--json")
    assert done.json["metrics"]["accuracy"] >= 0.96
    found = mpcli("evaluate", "vgg", "--json").json["metrics"]
    assert found["accuracy"] == done.json["metrics"]["accuracy"] and found["svc_accuracy"] > 0.9
