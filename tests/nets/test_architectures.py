"""Architectures: counts by formula, tables that add up, and texts that are counted as they are built."""

import csv
import dataclasses
import json

import pytest
import torch
from mutants import result

from mpcli_nets import architectures, cnn
from mpcli_nets.cnn import calculator, layers


def unbiased(words, sizes):
    made, after = layers.dense(words, sizes)
    return [*made[:-1], torch.nn.Linear(sizes.units, int(words[0]), bias=False)], after


MUTANTS = {
    "a window without dilation": (layers, "window", result(lambda at: {**at, "dilation": 1})),
    "a dense layer without bias": (layers, "LAYERS", lambda original: {**original, "dense": unbiased}),
    "a field without dilation": (
        calculator.Sight,
        "through",
        lambda original: lambda self, side, stride, dilation, transposed=False: original(self, side, stride, 1),
    ),
    "operations counted once": (
        cnn,
        "table",
        result(lambda rows: [dataclasses.replace(row, flops=row.flops // 2) for row in rows]),
    ),
}


@pytest.mark.parametrize("net", architectures.NETS)
def test_tables_add_up(net):
    model = architectures.named(net, None, (3, 224, 224), 1000)
    rows = cnn.table(model, (3, 224, 224))
    parameters, flops, weighty = cnn.totals(model, (3, 224, 224))
    assert parameters == sum(row.parameters for row in rows) and flops == sum(row.flops for row in rows)
    assert all(p.device.type == "meta" for p in model.parameters()) and weighty >= 8
    assert rows[-1].shape[0] == 1000 and (rows[-1].field is None) == (net != "unet")
    fields = [row.field for row in rows if row.field is not None]
    assert fields[0] in (3, 7, 11) and max(fields) > 100


def test_a_text_is_counted(mpcli):
    done = mpcli(
        "render", "architectures", "--layers", "conv 3 16 p1, relu, pool 2, dense 10", "--shape", "1,28,28", "--json"
    )
    found = json.loads(done.out)
    assert found["metrics"]["parameters"] == 160 + 31370 and found["metrics"]["flops"] == 225792 + 62720
    with open(f"{found['run']}/layers.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["shape"] for row in rows] == ["16x28x28", "16x28x28", "16x14x14", "3136", "10"]
    with open(f"{found['run']}/family.csv") as file:
        names = [row["network"] for row in csv.DictReader(file)]
    assert names == [*architectures.NETS, "these layers"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--shape", "3,224"), "right would be channels,height,width"),
        (("--shape", "3,224,200"), "vgg16 takes squares"),
        (("--layers", "conv 3"), "has 'conv 3'; right would be conv SIDE CHANNELS"),
        (("--net", "alexnet", "--shape", "3,60,60"), "nothing is left of pictures 60x60"),
    ],
)
def test_what_cannot_be_counted_is_refused(mpcli, options, said):
    refused = mpcli("render", "architectures", *options)
    assert refused.code == 2 and said in refused.err
