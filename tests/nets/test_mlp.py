"""Multilayer perceptron: backpropagation against autograd, linear layers that are one, and what networks reach."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from mutants import larger, part, result

from mpcli.run import Trained
from mpcli_nets import mlp
from mpcli_nets.mlp import MLP, Config, bases, graph
from mpcli_nets.mlp.activations import ACTIVATIONS
from mpcli_nets.mlp.examples import examples
from mpcli_nets.mlp.graph import Node, backward


def last_way_alone(original):
    """Where a value is used twice, the last gradient takes the place of the sum."""

    def backward(loss):
        right = original(loss)
        gradients = {loss: torch.ones_like(loss.value)}
        for node in right:
            for parent, pull in node.parents:
                gradients[parent] = pull(gradients.get(node, right[node]))
        return gradients

    return backward


def of_outputs(original):
    """dL/dW = delta^T z_l, as the notes print it."""

    def affine(x, w, b):
        node = original(x, w, b)
        if w.value.shape[0] != w.value.shape[1]:
            return node
        return Node(node.value, node.parents[0], (w, lambda g: g.T @ node.value.tanh()), node.parents[2])

    return affine


MUTANTS = {
    "no sum where a value is used twice": (graph, "backward", last_way_alone),
    "the values behind a layer in its gradient": (mlp, "affine", of_outputs),
    "a loss that is not divided by the number of examples": (
        graph,
        "mean_nll",
        lambda original: (
            lambda of, eta, y: Node(
                original(of, eta, y).value, (eta, lambda g: g * of.slope(eta.value, y, y.new_ones(())))
            )
        ),
    ),
    "layers without biases": (
        mlp.MLP,
        "forward",
        lambda original: lambda self, x, masks=None: original(self, x, masks) - self.layers[-1].bias,
    ),
    "a product in the wrong order": (mlp.MLP, "collapsed", part(0, lambda w: w.flip(0))),
    "dropout that is not divided by p": (
        mlp.MLP,
        "masks",
        result(lambda masks: [(mask > 0).to(mask) for mask in masks]),
    ),
    "a tanh of another slope": (
        mlp,
        "activate",
        lambda original: (
            lambda a, x: Node(
                original(a, x).value, *((p, lambda g, pull=pull: larger(pull(g))) for p, pull in original(a, x).parents)
            )
        ),
    ),
}

SMALL = {"train": ["--hidden", "16,16"]}


def trained(mpcli, *options):
    return mpcli("train", "mlp", *map(str, options), "--quiet", "--json").json


def grown(seed):
    """A random graph with shared nodes, and the same in torch: leaves, the root, and torch's root."""
    g = torch.Generator().manual_seed(seed)
    leaves = [torch.randn(3, 4, generator=g).double() for _ in range(3)]
    square, bias = torch.randn(4, 4, generator=g).double(), torch.randn(4, generator=g).double()
    ours = [Node(x) for x in (*leaves, square, bias)]
    theirs = [x.clone().requires_grad_() for x in (*leaves, square, bias)]
    known, twins = ours[:3], theirs[:3]
    names = [name for name in ACTIVATIONS if name != "step"]
    for _ in range(12):
        i, j, kind = (int(torch.randint(high, (), generator=g)) for high in (len(known), len(known), 4))
        x, y, a, b = known[i], known[j], twins[i], twins[j]
        if kind == 0:
            made = graph.add(x, y), a + b
        elif kind == 1:
            made = graph.multiply(x, y), a * b
        elif kind == 2:
            made = graph.affine(x, ours[3], ours[4]), a @ theirs[3].T + theirs[4]
        else:
            f = ACTIVATIONS[names[int(torch.randint(len(names), (), generator=g))]]
            made = graph.activate(f, x), f.f(a)
        known.append(made[0])
        twins.append(made[1])
        # So that nothing grows out of the range in which rounding is small.
        known.append(graph.activate(ACTIVATIONS["tanh"], known[-1]))
        twins.append(twins[-1].tanh())
    root, twin = known[-1], twins[-1]
    for x, a in zip(known[:-1], twins[:-1], strict=True):
        root, twin = graph.add(root, x), twin + a
    return ours, theirs, graph.dot(root, root), twin.square().sum(-1)


def test_fifty_random_graphs_with_shared_values_have_the_gradients_of_autograd():
    for seed in range(50):
        ours, theirs, root, twin = grown(seed)
        torch.testing.assert_close(root.value, twin.detach(), rtol=1e-13, atol=1e-13)
        expected = torch.autograd.grad(twin.sum(), theirs, allow_unused=True, materialize_grads=True)
        found = backward(root)
        for leaf, gradient in zip(ours, expected, strict=True):
            scale = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(
                found.get(leaf, torch.zeros_like(gradient)), gradient, rtol=0, atol=1e-12 * scale
            )


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "softmax", "leaky_relu"])
def test_both_backward_passes_give_the_same_gradients(activation):
    torch.manual_seed(0)
    model = MLP(Config(hidden=(7, 6, 5), activation=activation), 4, 3, "categorical").double()
    x, y = torch.randn(9, 4).double(), torch.randn(9, 3).double().softmax(1)
    masks = model.masks(9, 0.8)
    mlp.by_autograd(model, x, y, masks)
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    mlp.written(model, x, y, masks)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)


def test_the_written_backward_pass_trains_as_autograd_does(mpcli):
    rows = {}
    for way in ("written", "autograd"):
        run = trained(mpcli, "--backward", way, "--activation", "tanh", "--steps", 40, "--hidden", "32,32")
        logged = Path(run["run"], "metrics.jsonl").read_text().splitlines()
        rows[way] = [json.loads(line)["loss"] for line in logged]
    np.testing.assert_allclose(rows["written"], rows["autograd"], rtol=1e-4)
    assert rows["written"][-1] < 0.7 * rows["written"][0]


def test_linear_layers_are_the_product_of_their_matrices():
    torch.manual_seed(0)
    model = MLP(Config(hidden=(9, 8, 7), activation="linear"), 5, 3, "gaussian").double()
    for layer in model.layers:
        torch.nn.init.normal_(layer.bias)
    w, b = model.collapsed()
    x = torch.randn(20, 5).double()
    torch.testing.assert_close(model(x), x @ w.T + b, rtol=1e-12, atol=1e-12)


def test_the_one_matrix_is_printed_and_written(mpcli, tmp_path):
    done = mpcli("train", "mlp", "--data", "xor", "--activation", "linear", "--hidden", "3,3", "--steps", "9", "--json")
    assert "3 linear layers are one: W x + b with W [2, 2]" in done.err
    (table,) = (path for path in done.json["artifacts"] if path.endswith("collapsed.csv"))
    rows = list(csv.DictReader(Path(table).read_text().splitlines()))
    model = Trained(Path(done.json["run"])).load(MLP, Config)
    x = torch.tensor([[0.0, 1.0]])
    seen = [
        float(row["b"]) + model.inputs(x)[0] @ torch.tensor([float(row[n]) for n in ("x1", "x2")]).double()
        for row in rows
    ]
    torch.testing.assert_close(torch.stack(seen), model(x)[0].double(), rtol=1e-5, atol=1e-6)


@pytest.mark.learning
def test_exclusive_or_is_learned_with_each_of_twenty_seeds(mpcli):
    for seed in range(20):
        options = "--data", "xor", "--hidden", 8, "--activation", "tanh", "--steps", 400, "--lr", 0.02, "--seed", seed
        assert trained(mpcli, *options)["metrics"]["accuracy"] == 1
    straight = trained(mpcli, "--data", "xor", "--activation", "linear", "--hidden", 8, "--steps", 400)
    assert straight["metrics"]["accuracy"] < 1


def test_digits_are_learned_in_short(mpcli):
    metrics = trained(mpcli, "--steps", 500, "--hidden", "64", "--fold", 2)["metrics"]
    assert metrics["accuracy"] > 0.95
    assert trained(mpcli, "--steps", 500, "--hidden", "64", "--activation", "step")["metrics"]["accuracy"] > 0.7


@pytest.mark.learning
def test_digits_are_learned_on_all_folds(mpcli):
    runs = [trained(mpcli, "--fold", fold)["run"] for fold in range(5)]
    rows = [json.loads(line) for line in mpcli("evaluate", *runs, "--json").out.splitlines()]
    mean = rows[-1]["metrics"]
    assert rows[-1]["subject"] == "mlp (mean)"
    assert mean["accuracy"] == pytest.approx(np.mean([row["metrics"]["accuracy"] for row in rows[:-1]]))
    assert mean["accuracy"] >= 0.982 > 0.96 > mean["perceptron_accuracy"]


@pytest.mark.learning
def test_thirty_two_units_come_within_a_twentieth_of_a_function(mpcli):
    options = "--data", "function", "--hidden", 32, "--activation", "tanh", "--batch", 512, "--lr", 0.02
    for seed in range(3):
        assert trained(mpcli, *options, "--seed", seed)["metrics"]["sup_error"] < 0.05


def test_more_random_units_come_nearer_to_a_function():
    given = examples("function")
    off = []
    for units in (4, 8, 16, 32, 128):
        fit = bases.random_units(given.train, given.targets.train, units, torch.tanh)
        off.append(float((fit(given.test) - given.targets.test).abs().max()))
    assert all(later < earlier for earlier, later in pairwise(off))
    assert off[0] > 0.5 and off[3] < 0.05 and off[4] < 0.01


def test_folds_are_those_of_scikit_learn():
    from sklearn.model_selection import StratifiedKFold

    whole = examples("digits")
    x, t = (torch.cat(list(of.parts().values())) for of in (whole, whole.targets))
    for fold, (_, test) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(x, t)):
        given = examples("digits", fold)
        assert torch.equal(given.test, x[test]) and torch.equal(given.targets.test, t[test])
        assert len(given.train) + len(given.validation) + len(given.test) == len(x)


def test_a_number_is_predicted_better_than_by_its_mean(mpcli):
    run = trained(mpcli, "--data", "diabetes", "--hidden", 16, "--steps", 300)
    rows = mpcli("evaluate", run["run"], "--json").json["metrics"]
    assert rows["rmse"] < 65 < 83 and rows["linear_rmse"] == pytest.approx(54.59, abs=0.1)
    assert 5.2 < rows["nll"] < 5.8


def test_what_is_drawn_depends_on_the_data(mpcli):
    drawn = {}
    for data in ("xor", "function", "digits"):
        run = trained(mpcli, "--data", data, "--hidden", "8,8", "--steps", 5)["run"]
        made = mpcli("render", run, "--quiet", "--json").json["artifacts"]
        drawn[data] = [Path(path).name for path in made]
        rows = list(csv.DictReader(Path(made[-1]).read_text().splitlines()))
        norms = {row["activation"]: [float(row[f"norm_{k}"]) for k in (1, 2, 3)] for row in rows}
        assert norms["step"][:2] == [0, 0] and norms["step"][2] > 0
        assert norms["sigmoid"][0] < norms["tanh"][0]
    assert drawn["xor"] == ["regions.png", "layers.png", "layers.csv"]
    assert drawn["function"] == ["approximation.png", "layers.png", "layers.csv"]
    assert drawn["digits"] == ["layers.png", "layers.csv"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data", "xor", "--fold", "1"), "--fold 1: xor is not cut into folds"),
        (("--data", "moons"), "its rows have no target"),
        (("--fold", "5"), "4"),
        (("--keep", "0"), "keep"),
    ],
)
def test_what_cannot_be_trained_is_refused(mpcli, options, said):
    refused = mpcli("train", "mlp", *options)
    assert refused.code == 2 and said in refused.err


@pytest.mark.parametrize(("data", "said"), [("function", "has 1 numbers an example"), ("diabetes", "has 10 numbers")])
def test_data_of_another_kind_are_refused(mpcli, data, said):
    run = trained(mpcli, "--data", "xor", "--steps", 2, "--hidden", 4)["run"]
    refused = mpcli("evaluate", run, "--data", data)
    assert refused.code == 2 and said in refused.err
