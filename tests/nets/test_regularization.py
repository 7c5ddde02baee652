"""Regularisation: batch normalisation as in torch, the zeros of the lasso, every subnetwork of dropout, their use."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mutants import result
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso

from mpcli.run import Trained
from mpcli_nets import regularization
from mpcli_nets.kit.rows import Standard
from mpcli_nets.regularization import BatchNorm, Config, Network, draws, known, layers
from mpcli_nets.regularization.layers import dropped, shrunk, soft


def by_n_minus_1(original):
    def forward(self, z):
        n = len(z)
        return (original(self, z) - self.beta) * math.sqrt((n - 1) / n) + self.beta

    return forward


MUTANTS = {
    "a batch's variance by n - 1": (BatchNorm, "forward", by_n_minus_1),
    "dropout whose p drops": (
        layers,
        "dropped",
        lambda original: lambda z, keep, training: original(z, 1 - keep, training),
    ),
    "no scaling at test time": (
        layers,
        "dropped",
        lambda original: lambda z, keep, training: original(z, keep, True) if training else z,
    ),
    "biases are penalised": (
        Network,
        "weights",
        lambda original: lambda self: [*original(self), *(layer.bias for layer in self.layers)],
    ),
    "a subgradient step in place of the proximal one": (
        regularization,
        "soft",
        lambda original: lambda w, by: w - by * w.sign(),
    ),
    "a standard deviation without its root": (
        Standard,
        "measure",
        lambda original: lambda self, x: (original(self, x), self.scale.square_())[0],
    ),
    "a decay that does not depend on the rate": (
        regularization,
        "shrunk",
        lambda original: lambda w, by: original(w, 0.1),
    ),
    "a standardised value that is not shifted": (Standard, "forward", result(lambda z: z + 0.1)),
}

SMALL = {
    "train": ["--hidden", "16", "--examples", "200"],
    "evaluate": ["--passes", "3"],
    "sample": ["--passes", "3", "-n", "2"],
    "render": ["--look", "3"],
}


def trained(mpcli, *options):
    return mpcli("train", "regularization", *map(str, options), "--quiet", "--json").json


def noisy(path, columns=50):
    """Diabetes with columns of noise beside its ten."""
    data = load_diabetes(scaled=False)
    noise = np.random.RandomState(1).randn(len(data.data), columns)
    names = [*data.feature_names, *(f"noise{i}" for i in range(columns)), "progression"]
    rows = np.column_stack([data.data, noise, data.target])
    path.write_text("\n".join([",".join(names), *(",".join(map(repr, row)) for row in rows.tolist())]))
    return names


def columns_of(run, names):
    """The columns whose weight is not 0, of a linear model."""
    model = Trained(Path(run["run"])).load(Network, Config)
    return [name for name, w in zip(names, model.layers[0].weight[0], strict=False) if w != 0]


def test_batch_normalisation_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(4).double(), torch.nn.BatchNorm1d(4).double()
    for own, other in ((ours.gamma, theirs.weight), (ours.beta, theirs.bias)):
        torch.nn.init.normal_(own)
        other.data = own.data.clone()
    for _ in range(3):
        z = torch.randn(9, 4).double().requires_grad_()
        twin, v = z.detach().clone().requires_grad_(), torch.randn(9, 4).double()
        torch.testing.assert_close(ours(z), theirs(twin), rtol=1e-12, atol=1e-12)
        found = torch.autograd.grad((ours(z) * v).sum(), [z, ours.gamma, ours.beta])
        expected = torch.autograd.grad((theirs(twin) * v).sum(), [twin, theirs.weight, theirs.bias])
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean.double(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.running_var, theirs.running_var.double(), rtol=1e-12, atol=1e-12)
    z = torch.randn(5, 4).double()
    torch.testing.assert_close(ours.eval()(z), theirs.eval()(z), rtol=1e-12, atol=1e-12)


def test_a_bias_before_batch_normalisation_has_no_gradient():
    torch.manual_seed(0)
    norm, z = BatchNorm(4).double(), torch.randn(9, 4).double()
    bias = torch.randn(4).double().requires_grad_()
    (g,) = torch.autograd.grad((norm(z + bias) * torch.randn(9, 4).double()).sum(), bias)
    assert g.abs().max() < 1e-13
    model = Network(Config(hidden=(5, 6), batchnorm=True), 4, 3, "categorical")
    assert [layer.bias is None for layer in model.layers] == [True, True, False]


@pytest.mark.parametrize("width", [10])
def test_all_subnetworks_of_a_layer_of_ten(width):
    """Weight scaling: the geometric mean for a softmax, the arithmetic for a linear net, neither with a hidden ReLU."""
    g = torch.Generator().manual_seed(0)
    z, w, b = (torch.randn(*shape, generator=g).double() for shape in ((width,), (3, width), (3,)))
    keep = 0.5
    z = z / 2
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * width).double()
    assert len(masks) == 2**width
    inside = masks * z @ w.T + b
    scaled = w @ dropped(z, keep, training=False) + b
    torch.testing.assert_close(scaled.softmax(0), inside.log_softmax(1).mean(0).softmax(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scaled, inside.mean(0), rtol=1e-12, atol=1e-12)
    assert (scaled.softmax(0) - inside.softmax(1).mean(0)).abs().max() > 0.01
    hidden, v = torch.randn(width, width, generator=g).double(), w
    behind = ((masks * z @ hidden.T).clamp(min=0) @ v.T + b).log_softmax(1).mean(0).softmax(0)
    through = (v @ (hidden @ dropped(z, keep, training=False)).clamp(min=0) + b).softmax(0)
    assert (behind - through).abs().max() > 0.01


def test_draws_of_dropout_come_nearer_to_their_mean_as_the_root_of_their_number():
    torch.manual_seed(0)
    model = Network(Config(hidden=(6,), dropout=0.5), 3, 1, "gaussian").double().eval()
    x = torch.randn(1, 3).double()
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).double()
    first, last = model.layers
    z = (x @ first.weight.T + first.bias).clamp(min=0)
    exact = ((masks * z) @ last.weight.T + last.bias).mean().detach()
    off = []
    for passes in (4, 16, 64):
        many = draws(model, x, passes * 400).reshape(400, passes).mean(1).detach()
        off.append(float((many - exact).square().mean().sqrt()))
    slope = np.polyfit(np.log([4, 16, 64]), np.log(off), 1)[0]
    assert abs(slope + 0.5) < 0.06


def test_the_zeros_of_l1_are_those_of_the_lasso_and_l2_has_none(mpcli, tmp_path):
    names = noisy(tmp_path / "noisy.csv")
    options = "--data", tmp_path / "noisy.csv", "--hidden", 0, "--dropout", 1, "--batch", 500, "--steps", 1000
    kept = {}
    for penalty in ("l1", "l2"):
        run = trained(mpcli, *options, "--penalty", penalty, "--strength", 0.12)
        kept[penalty] = columns_of(run, names)
    _, given = known(Trained(Path(run["run"])), None)
    x, y = (Standard(60), given.train), (Standard(1), given.targets.train[:, None])
    for standard, of in (x, y):
        standard.measure(of)
    peer = Lasso(alpha=0.12, tol=1e-12).fit(*(standard(of).numpy() for standard, of in (x, y)))
    assert kept["l1"] == [name for name, w in zip(names, peer.coef_, strict=False) if w]
    assert sum(name.startswith("noise") for name in kept["l1"]) <= 10
    assert {"bmi", "s5"} <= set(kept["l1"])
    assert len(kept["l2"]) == 60


def test_the_subgradient_of_l1_has_no_zero_in_ten_thousand_steps():
    """Least squares in three directions, of which the third has nothing to tell."""
    x, y = torch.eye(3).double(), torch.tensor([2.0, 1.0, 0.05]).double()
    sharp, proximal = torch.full((3,), 0.5).double(), torch.full((3,), 0.5).double()
    zeros = 0
    for step in range(10_000):
        rate = 0.1 / (1 + step / 100)
        sharp = sharp - rate * (x.T @ (x @ sharp - y) + 0.1 * sharp.sign())
        proximal = soft(proximal - rate * x.T @ (x @ proximal - y), torch.tensor(rate * 0.1))
        zeros += int((sharp == 0).sum())
    assert zeros == 0 and proximal.tolist()[2] == 0
    torch.testing.assert_close(proximal, torch.tensor([1.9, 0.9, 0]).double(), atol=1e-6, rtol=0)


def test_decay_alone_takes_weights_down_as_a_geometric_series():
    w = torch.ones(3)
    for _ in range(10):
        w = shrunk(w, 0.1)
    torch.testing.assert_close(w, torch.full((3,), 0.9**10))


def test_units_of_columns_matter_only_where_they_are_not_taken_away(mpcli, tmp_path):
    """Inputs a thousand times as large: C10 of the course."""
    x = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    found = {}
    for name, factor in (("small", 1.0), ("large", 1024.0)):
        lines = [f"{a * factor!r},{b!r},{'up' if a + b > 0 else 'down'}" for a, b in x.tolist()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,c", *lines]))
        for how in ("--standardize", "--no-standardize"):
            options = "--data", tmp_path / f"{name}.csv", how, "--hidden", 16, "--steps", 300, "--dropout", 1
            done = mpcli("train", "regularization", *options, "--quiet", "--json")
            found[name, how] = done.json["metrics"]["nll"] if done.code == 0 else math.inf
    assert found["small", "--standardize"] == pytest.approx(found["large", "--standardize"], rel=1e-4)
    assert found["small", "--standardize"] < 0.25
    assert found["large", "--no-standardize"] > 2 * found["small", "--no-standardize"]


def test_evaluate_uses_what_training_measured(mpcli, tmp_path):
    run = trained(mpcli, "--data", "diabetes", "--hidden", 8, "--steps", 200, "--examples", 100)
    again = mpcli("evaluate", run["run"], "--passes", 5, "--json").json["metrics"]
    assert again["nll"] == pytest.approx(run["metrics"]["nll"], rel=1e-6)
    model = Trained(Path(run["run"])).load(Network, Config)
    _, given = known(Trained(Path(run["run"])), None)
    assert len(given.train) == 100
    torch.testing.assert_close(model.inputs.centre, given.train.double().mean(0))


def test_predictions_are_drawn_for_numbers_and_for_classes(mpcli, tmp_path):
    for data, classes in (("diabetes", 1), ("digits", 10)):
        run = trained(mpcli, "--data", data, "--hidden", 8, "--steps", 5)
        made = mpcli("sample", run["run"], "-n", 3, "--passes", 7, "--quiet", "--json").json["artifacts"]
        rows = list(csv.DictReader(Path(made[1]).read_text().splitlines()))
        assert len(rows) == 3 and len(rows[0]) == 2 + 2 * classes
        assert max(float(value) for name, value in rows[0].items() if name.startswith("deviation")) > 0


@pytest.mark.learning
def test_dropout_and_l2_help_where_there_are_a_hundred_digits(mpcli):
    forms = {
        "plain": ("--penalty", "none", "--dropout", 1),
        "l2": ("--penalty", "l2", "--strength", 0.003, "--dropout", 1),
        "dropout": ("--penalty", "none", "--dropout", 0.7),
    }
    found = {}
    for name, options in forms.items():
        rows = [trained(mpcli, *options, "--examples", 100, "--steps", 800, "--seed", seed) for seed in range(5)]
        found[name] = {of: np.mean([row["metrics"][of] for row in rows]) for of in ("nll", "accuracy")}
    assert found["dropout"]["accuracy"] > found["plain"]["accuracy"]
    assert found["dropout"]["nll"] < 0.9 * found["plain"]["nll"]
    assert found["l2"]["nll"] < 0.97 * found["plain"]["nll"]


@pytest.mark.learning
def test_gradients_are_predicted_better_under_batch_normalisation(mpcli):
    run = trained(mpcli, "--steps", 5)["run"]
    made = mpcli("render", run, "--quiet", "--json").json["artifacts"]
    rows = list(csv.DictReader(Path(made[1]).read_text().splitlines()))
    plain, batch = (np.median([float(row[name]) for row in rows]) for name in ("plain", "batch normalisation"))
    assert batch < 0.8 * plain


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--examples", "5000"), "--examples 5000: digits has 1197 to train"),
        (("--dropout", "0"), "dropout"),
        (("--hidden=-3",), "hidden"),
    ],
)
def test_what_cannot_be_is_refused(mpcli, options, said):
    refused = mpcli("train", "regularization", *options)
    assert refused.code == 2 and said in refused.err


def test_a_run_of_another_kind_of_target_is_refused(mpcli):
    run = trained(mpcli, "--data", "diabetes", "--steps", 2, "--hidden", 4)["run"]
    assert json.loads(Path(run, "config.json").read_text())["hidden"] == [4]
    refused = mpcli("evaluate", run, "--data", "digits")
    assert refused.code == 2 and "has 64 numbers an example, but the model was trained on 10" in refused.err
