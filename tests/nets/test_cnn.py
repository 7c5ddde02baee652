"""Convolutional network: layers against torch's, worked examples, sizes and fields, and what is reached."""

import csv
import json

import pytest
import torch
import torch.nn.functional as F
from mutants import arguments, larger, part, result
from torch import nn

from mpcli.errors import InputError
from mpcli_nets import cnn
from mpcli_nets.cnn import CNN, Config, calculator, examples, layers, written
from mpcli_nets.cnn.written import Window
from mpcli_nets.mlp.graph import Node, backward

MUTANTS = {
    "a convolution that turns the weights": (
        written,
        "conv",
        arguments(lambda x, w, b, at: (x, w.flip(2, 3), b, at)),
    ),
    "delta handed back by turned weights": (
        written,
        "conv_input",
        arguments(lambda delta, x, w, at: (delta, x, w.flip(2, 3), at)),
    ),
    "a gradient of weights that is turned": (written, "conv_weight", result(lambda g: g.flip(2, 3))),
    "the last window alone where windows overlap": (written, "max_pool_input", result(lambda g: g.clamp(-0.5, 0.5))),
    "the greatest at another place": (written, "max_pool", part(1, lambda which: which.flip(-1))),
    "a mean that is not divided": (written, "mean_pool_input", result(larger)),
    "statistics taken as constants": (
        written,
        "batch_norm_input",
        lambda original: lambda g, xhat, deviation, axes: g / deviation,
    ),
    "a size without dilation": (
        layers,
        "output_size",
        lambda original: lambda n, m, s=1, p=0, q=0, d=1: original(n, m, s, p, q),
    ),
    "a field that forgets strides": (
        calculator.Sight,
        "through",
        lambda original: lambda self, side, stride, dilation, transposed=False: original(self, side, 1, dilation),
    ),
}
SMALL = {"train": ("--layers", "conv 3 4 p1, norm, relu, pool 2, drop 0.8", "--batch", "16")}


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def any_window(g, most=4):
    def some(low, high):
        return int(torch.randint(low, high + 1, (), generator=g))

    side = (some(1, most), some(1, most))
    return Window(side, some(1, 3), some(0, 2), some(0, 2), some(1, 2)), some


def test_convolution_and_its_gradients_are_those_of_torch():
    g = torch.Generator().manual_seed(0)
    tried = 0
    while tried < 200:
        at, some = any_window(g)
        x = drawn(tried, some(1, 3), some(1, 3), some(4, 9), some(4, 9)).requires_grad_()
        if min(at.places(x)) < 1:
            continue
        w, b = (drawn(tried + k, *s).requires_grad_() for k, s in ((1, (some(1, 3), x.shape[1], *at.side)), (2, (1,))))
        b = drawn(tried, len(w)).requires_grad_()
        y = F.conv2d(at.padded(x), w, b, at.stride, 0, at.dilation)
        delta = drawn(tried + 3, *y.shape)
        expected = torch.autograd.grad(y, (x, w), delta)
        with torch.no_grad():
            assert torch.allclose(written.conv(x, w, b, at), y, atol=1e-12)
            found = written.conv_input(delta, x, w, at), written.conv_weight(delta, x, w, at)
        assert all(torch.allclose(a, e, atol=1e-11) for a, e in zip(found, expected, strict=True))
        tried += 1


@pytest.mark.parametrize("kind", ["max", "mean"])
def test_pooling_is_that_of_torch_and_ties_go_to_the_first(kind):
    for seed in range(60):
        g = torch.Generator().manual_seed(seed)
        side = int(torch.randint(1, 4, (), generator=g))
        stride, border = (
            int(torch.randint(1, 4, (), generator=g)),
            int(torch.randint(0, side // 2 + 1, (), generator=g)),
        )
        # Few values, so that many are equal.
        x = torch.randint(0, 3, (2, 2, 7, 6), generator=g).double().requires_grad_()
        at = Window((side, side), stride, border, border)
        y = (F.max_pool2d if kind == "max" else F.avg_pool2d)(x, side, stride, border)
        delta = drawn(seed, *y.shape)
        (expected,) = torch.autograd.grad(y, x, delta)
        with torch.no_grad():
            if kind == "max":
                value, which = written.max_pool(x, at)
                found = written.max_pool_input(delta, x, which, at)
            else:
                value, found = written.mean_pool(x, at), written.mean_pool_input(delta, x, at)
        assert torch.allclose(value, y, atol=1e-12) and torch.allclose(found, expected, atol=1e-12)


def test_output_sizes_are_those_of_torch():
    g = torch.Generator().manual_seed(0)
    for _ in range(2000):
        at, some = any_window(g, 7)
        n = some(1, 40)
        size = layers.output_size(n, at.side[0], at.stride, at.before, at.before, at.dilation)
        x, w = torch.empty(1, 1, n, 1, device="meta"), torch.empty(1, 1, at.side[0], 1, device="meta")
        if size < 1:
            with pytest.raises(RuntimeError):
                F.conv2d(x, w, None, (at.stride, 1), (at.before, 0), (at.dilation, 1))
            continue
        assert F.conv2d(x, w, None, (at.stride, 1), (at.before, 0), (at.dilation, 1)).shape[2] == size


def test_a_worked_example_of_a_convolution_a_pool_and_their_way_back():
    x = torch.tensor(
        [[0, 0, 1, 1, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 0], [1, 0, 1, 1, 0], [1, 1, 0, 1, 1]], dtype=torch.float64
    )[None, None]
    k = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 1, 0]], dtype=torch.float64)[None, None]
    at, turned = Window((3, 3)), k.flip(2, 3)
    y = written.conv(x, turned, torch.zeros(1).double(), at)
    assert y[0, 0].tolist() == [[3, 3, 3], [4, 2, 3], [2, 4, 3]]
    whole = Window((3, 3))
    value, which = written.max_pool(y, whole)
    assert float(value) == 4
    # Two places hold 4; as in torch the first is taken.
    delta = written.max_pool_input(torch.ones(1, 1, 1, 1).double(), y, which, whole)
    assert delta[0, 0].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    back = written.conv_input(delta, x, turned, at)
    assert back[0, 0].tolist() == [[0] * 5, [0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0] * 5]


TEXT = "conv 3 4 p1, norm, relu, pool 3 s2 p1, conv 2 5 d2, relu, mean 2, dense 7, norm, relu"


def test_written_gradients_of_a_whole_network_are_those_of_autograd():
    torch.manual_seed(0)
    model = CNN(Config(layers=TEXT), (2, 10, 9), 3).double()
    x, t = drawn(1, 6, 2, 10, 9), torch.tensor([0, 1, 2, 2, 1, 0])
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss = cnn.by_hand(model, x, t)
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    kept = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    model.load_state_dict(before)
    assert torch.allclose(cnn.by_autograd(model, x, t), loss, atol=1e-12)
    for name, p in model.named_parameters():
        assert torch.allclose(ours[name], p.grad, atol=1e-12), name
    for name, value in kept.items():
        assert torch.allclose(value, model.state_dict()[name], atol=1e-12), name


def test_pooling_over_all_places_hands_each_an_equal_part():
    leaf = Node(drawn(0, 2, 3, 4, 5))
    out = written.global_node(nn.AdaptiveAvgPool2d(1), leaf, {})
    total = Node(out.value.sum(), (out, lambda g: g.expand_as(out.value)))
    assert torch.allclose(backward(total)[leaf], torch.full((2, 3, 4, 5), 1 / 20).double())


def test_features_are_one_number_a_map_of_whatever_the_last_layer_is():
    x = torch.rand(3, 1, 8, 8)
    model = CNN(Config(layers="conv 3 6 p1, relu"), (1, 8, 8), 4).eval()
    assert torch.equal(model.features(x), model.maps(x).mean((2, 3)))
    flat = CNN(Config(layers="conv 3 6 p1, relu, dense 5"), (1, 8, 8), 4).eval()
    assert flat.features(x).shape == (3, 5) and torch.equal(flat.top(flat.features(x)), flat(x))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("conf 3 4", "has 'conf 3 4'; right would be conv SIDE CHANNELS"),
        ("conv 3", "has 'conv 3'"),
        ("conv 3 4 x2", "has 'conv 3 4 x2'"),
        ("conv 3 0", "has 'conv 3 0'"),
        ("pool 2 p2", "has 'pool 2 p2'"),
        ("drop 2", "has 'drop 2'"),
        ("dense 4, conv 3 4", "has 'conv 3 4'"),
        ("conv 3 99999999999", "has 'conv 3 99999999999'"),
        ("pool 2, pool 2, pool 2, conv 3 4", "at 'conv 3 4' nothing is left of pictures 8x8"),
        ("", "has ''"),
    ],
)
def test_what_is_no_layer_is_refused(text, said):
    with pytest.raises(InputError) as refused:
        layers.build(text, (1, 8, 8))
    assert said in str(refused.value) and "right would be" in str(refused.value)


def test_the_table_says_what_a_layer_is_without_touching_the_model():
    model = CNN(Config(layers="conv 3 8 p1 s2, relu, pool 2, conv 3 4, dense 5"), (3, 32, 24), 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = cnn.table(model, (3, 32, 24))
    assert [row.kind for row in rows] == ["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "Flatten", "Linear", "Linear"]
    assert [row.shape for row in rows[:4]] == [(8, 16, 12), (8, 16, 12), (8, 8, 6), (4, 6, 4)]
    assert [row.field for row in rows] == [3, 3, 5, 13, None, None, None]
    assert [row.jump for row in rows[:4]] == [2, 2, 4, 4]
    assert rows[0].flops == 2 * 27 * 8 * 16 * 12 and rows[5].flops == 2 * 96 * 5
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_field_of_sums_and_joins_is_that_of_the_branch_that_sees_farthest():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.far, self.near = nn.Conv2d(1, 2, 5, padding=2), nn.Conv2d(1, 2, 1)
            self.after = nn.Conv2d(4, 1, 3)

        def forward(self, x):
            return self.after(torch.cat([self.far(x), self.near(x)], 1).relu() + 1)

    assert [row.field for row in cnn.table(Branches(), (1, 16, 16))] == [5, 1, 7]


@pytest.mark.parametrize(("side", "stride"), [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (3, 3), (4, 1)])
def test_the_field_of_a_transposed_convolution(side, stride):
    net = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2), nn.ConvTranspose2d(1, 1, side, stride=stride)).double()
    for module in net:
        nn.init.ones_(module.weight)
    x = torch.ones(1, 1, 41, 41, dtype=torch.float64, requires_grad=True)
    out = net(x)
    seen = []
    for place in range(out.shape[-1] // 2, out.shape[-1] // 2 + stride):
        (g,) = torch.autograd.grad(out[0, 0, place, place], x, retain_graph=True)
        rows = g[0, 0].abs().sum(1).nonzero()
        seen.append(int(rows.max() - rows.min()) + 1 if len(rows) else 0)
    assert cnn.table(net, (1, 41, 41))[-1].field == max(seen)


def test_pictures_are_varied_within_bounds_and_not_at_all_by_zero():
    torch.manual_seed(0)
    x = torch.zeros(200, 1, 17, 17)
    x[:, :, 8, 8] = 1
    assert examples.varied(x, 0.0) is x
    moved = examples.varied(x, 1.0)
    grid = torch.arange(17.0)
    weight = moved.sum((1, 2, 3))
    rows = (moved[:, 0].sum(2) * grid).sum(1) / weight
    assert (rows - 8).abs().max() <= 17 / 8 + 0.6 and rows.std() > 0.5
    assert torch.allclose(examples.varied(torch.full((3, 1, 9, 9), 0.7), 1.0), torch.tensor(0.7))


@pytest.mark.learning
@pytest.mark.parametrize("backward", ["autograd", "written"])
def test_digits_are_learned(mpcli, backward):
    steps = 1000 if backward == "autograd" else 300
    done = mpcli("train", "cnn", "--steps", steps, "--fold", 0, "--backward", backward, "--json")
    assert done.json["metrics"]["accuracy"] >= (0.985 if backward == "autograd" else 0.97)
    found = mpcli("evaluate", "cnn", "--json").json["metrics"]
    assert found["accuracy"] == done.json["metrics"]["accuracy"] and found["perceptron_accuracy"] < 0.96


def test_a_network_is_drawn_with_its_table(mpcli):
    mpcli("train", "cnn", "--steps", 3, *SMALL["train"])
    drawn = json.loads(mpcli("render", "cnn", "--json").out)
    names = [path.rpartition("/")[2] for path in drawn["artifacts"]]
    assert names == ["maps.png", "filters.png", "pooling.png", "confusions.png", "layers.csv"]
    with open(f"{drawn['run']}/layers.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "layer": "maps.0",
        "kind": "Conv2d",
        "shape": "4x8x8",
        "parameters": "40",
        "flops": str(2 * 9 * 4 * 64),
        "field": "3",
        "jump": "1",
    }


def test_other_pictures_are_refused(mpcli, tmp_path):
    mpcli("train", "cnn", "--steps", 2, *SMALL["train"])
    assert mpcli("train", "cnn", "--data", "breast_cancer").code == 2
    refused = mpcli("train", "cnn", "--fold", 5)
    assert refused.code == 2 and "right would be 0 to 4" in refused.err
    refused = mpcli("train", "cnn", "--layers", "conv 9 4")
    assert refused.code == 2 and "nothing is left of pictures 8x8" in refused.err
