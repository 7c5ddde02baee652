"""ResNet: blocks that begin as the identity, the paper's counts, and depth that does not hurt."""

import json

import pytest
import torch
from mutants import result
from torch import nn

from mpcli.errors import InputError
from mpcli_nets import cnn, resnet
from mpcli_nets.resnet import Block, Config, ResNet, blocks, stages
from mpcli_nets.resnet.blocks import normed

MUTANTS = {
    "no sum": (Block, "forward", lambda original: lambda self, x: self.relu(self.inner(x))),
    "f before the sum alone": (
        Block,
        "forward",
        lambda original: lambda self, x: self.shortcut(x) + self.relu(self.inner(x)),
    ),
    "normalisation behind nothing": (Block, "inner", result(lambda y: 1.01 * y)),
    "groups over the batch": (
        blocks,
        "normed",
        lambda original: lambda norm, channels: nn.BatchNorm2d(channels),
    ),
}
SMALL = {
    "train": ("--depth", "6", "--width", "4", "--batch", "16"),
    "render": ("--look", "2"),
}


@pytest.mark.parametrize(
    ("depth", "parameters", "flops"),
    [(18, 11_689_512, 3.63e9), (34, 21_797_672, 7.33e9), (50, 25_557_032, 8.18e9)],
)
def test_counts_are_those_of_the_paper(depth, parameters, flops):
    with torch.device("meta"):
        model = ResNet(Config(depth=depth, width=64, stem="large"), (3, 224, 224), 1000)
    found = cnn.totals(model, (3, 224, 224))
    assert found[0] == parameters and found[1] == pytest.approx(flops, rel=0.01)
    # Convolutions and the read-out, less the 1x1 convolutions beside the stages' first blocks.
    assert found[2] == depth + (3 if depth < 50 else 4)


def test_a_deep_network_whose_last_gammas_are_zero_is_the_shallow_one_to_the_bit():
    torch.manual_seed(0)
    deep, shallow = (ResNet(Config(depth=depth), (1, 8, 8), 10).eval() for depth in (56, 8))
    # The shallow one has the first block of each stage.
    first = {0: 0, 9: 1, 18: 2}
    weights = {}
    for name, value in deep.state_dict().items():
        if not name.startswith("blocks."):
            weights[name] = value
            continue
        _, number, rest = name.split(".", 2)
        if int(number) in first:
            weights[f"blocks.{first[int(number)]}.{rest}"] = value
    shallow.load_state_dict(weights)
    for number, block in enumerate(deep.blocks):
        if number not in first:
            nn.init.zeros_(block.norms[-1].weight)
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(deep(x), shallow(x))


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_blocks_take_any_size(order, norm, bottleneck):
    for height, width in ((1, 1), (1, 5), (7, 4)):
        block = Block(3, 8, 2, norm, order, bottleneck=bottleneck).eval()
        assert block(torch.rand(2, 3, height, width)).shape == (2, 8, -(-height // 2), -(-width // 2))


def test_groups_divide_the_channels():
    assert [normed("group", channels).num_groups for channels in (16, 12, 7, 1)] == [8, 6, 7, 1]


@pytest.mark.parametrize(
    ("depth", "expected"), [(4, (1,)), (6, (1, 1)), (14, (2, 2, 2)), (20, (3, 3, 3)), (16, (3, 2, 2))]
)
def test_depth_is_spread_over_stages(depth, expected):
    counts, bottleneck = stages(depth)
    assert counts == expected and not bottleneck
    model = ResNet(Config(depth=depth, width=2), (1, 8, 8), 3)
    weighty = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighty) - (len(counts) - 1) == depth


def test_an_odd_depth_is_refused(mpcli):
    with pytest.raises(InputError):
        stages(15)
    refused = mpcli("train", "resnet", "--depth", 15)
    assert refused.code == 2 and "right would be an even number such as 16" in refused.err


@pytest.mark.learning
def test_plain_networks_learn_the_worse_the_deeper_and_residual_ones_do_not():
    given = cnn.pictured("digits")
    found = {
        (plain, depth): resnet.lost(depth, plain, given, 120, 0)[0] for plain in (True, False) for depth in (8, 44)
    }
    assert found[True, 44] > 10 * found[True, 8] and found[False, 44] < 0.1 * found[True, 44]


@pytest.mark.learning
def test_digits_are_learned(mpcli):
    done = mpcli("train", "resnet", "--steps", 300, "--json")
    assert done.json["metrics"]["accuracy"] >= 0.97
    evaluated = mpcli("evaluate", "resnet", "--json").json["metrics"]
    assert evaluated["accuracy"] == done.json["metrics"]["accuracy"]


def test_depth_is_drawn_with_its_table(mpcli):
    mpcli("train", "resnet", "--steps", 2, *SMALL["train"])
    drawn = json.loads(mpcli("render", "resnet", "--look", 1, "--json").out)
    names = [path.rpartition("/")[2] for path in drawn["artifacts"]]
    assert names[-3:] == ["layers.csv", "depth.png", "depth.csv"]
