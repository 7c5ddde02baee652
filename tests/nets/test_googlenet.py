"""GoogLeNet: the paper's counts, heads that change nothing afterwards, bottlenecks that save."""

import csv
import json

import pytest
import torch
from mutants import arguments, larger, result

from mpcli_nets import cnn, googlenet
from mpcli_nets.googlenet import Config, GoogLeNet, inception, loss

MUTANTS = {
    "heads that weigh a third": (loss, "WEIGHT", lambda original: 1 / 3),
    "a branch twice": (
        inception.Inception,
        "forward",
        lambda original: lambda self, x: torch.cat([self.one(x), self.three(x), self.three(x), self.pooled(x)], 1),
    ),
    "no f": (inception, "convolution", lambda original: lambda *args, **options: original(*args, **options)[:1]),
    "operations counted once": (inception, "flops", result(lambda count: count // 2)),
    "a head's loss alone": (loss, "total", arguments(lambda eta, said, t: (larger(eta), said, t))),
}
SMALL = {"train": ("--width", "4", "--batch", "8")}


def test_counts_are_those_of_the_paper():
    with torch.device("meta"):
        model = GoogLeNet(Config(width=64, stem="large", norm=False), (3, 224, 224), 1000)
    assert sum(p.numel() for name, p in model.named_parameters() if "heads" not in name) == 6_998_552
    parameters, flops, layers = cnn.totals(model, (3, 224, 224))
    assert parameters > 6_998_552 and flops == pytest.approx(3.2e9, rel=0.05)
    # 3 before the modules, 6 in each of 9, and the read-out: 22 behind one another.
    assert layers == 3 + 9 * 6 + 1


def test_heads_change_no_test_output():
    torch.manual_seed(0)
    model, bare = (GoogLeNet(Config(width=4, heads=heads), (1, 8, 8), 10) for heads in (True, False))
    bare.load_state_dict({name: value for name, value in model.state_dict().items() if "heads" not in name})
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.eval()(x), bare.eval()(x))
    eta, said = model.train()(x)
    assert eta.shape == (3, 10) and [head.shape for head in said] == [(3, 10)] * 2


def test_bottlenecks_save_operations():
    with torch.device("meta"):
        narrow, wide = (
            GoogLeNet(Config(width=64, stem="large", bottleneck=on), (3, 224, 224), 1000) for on in (True, False)
        )
    flops = [inception.flops(model, (3, 224, 224)) for model in (narrow, wide)]
    assert flops[1] > 2.5 * flops[0]


@pytest.mark.parametrize("seed", range(3))
def test_heads_make_gradients_of_low_layers_larger(seed):
    found = googlenet.gradients(Config(width=8), cnn.pictured("digits"), seed)
    heads, without = found["with heads"], found["without"]
    assert len(heads) == len(without) == 3 + 9 * 2 + 1
    assert heads[0] > 10 * without[0]
    # Above the last head both are one.
    assert heads[-1] == without[-1] and heads[-3] == pytest.approx(without[-3])


@pytest.mark.learning
def test_digits_are_learned(mpcli):
    done = mpcli("train", "googlenet", "--steps", 400, "--json")
    assert done.json["metrics"]["accuracy"] >= 0.95
    found = mpcli("evaluate", "googlenet", "--json").json["metrics"]
    assert found["accuracy"] == done.json["metrics"]["accuracy"]


def test_gradients_are_drawn_with_their_table(mpcli):
    mpcli("train", "googlenet", "--steps", 2, *SMALL["train"])
    drawn = json.loads(mpcli("render", "googlenet", "--json").out)
    assert drawn["metrics"]["flops_without_bottlenecks"] > drawn["metrics"]["flops"]
    with open(f"{drawn['run']}/gradients.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 22 and set(rows[0]) == {"layer", "with heads", "without"}
