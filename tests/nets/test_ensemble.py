"""Ensembles: scikit-learn's trees in tensors, the ambiguity identity, and that the whole beats its parts."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from mutants import larger, result
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mpcli.run import Trained
from mpcli_nets import ensemble
from mpcli_nets.ensemble import Config, Ensemble, ambiguity, members, stacked
from mpcli_nets.mlp import examples

MUTANTS = {
    "the mean of errors for the error of the mean": (
        ensemble,
        "ambiguity",
        lambda original: lambda f, y, w: (original(f, y, w)[1], *original(f, y, w)[1:]),
    ),
    "a mean that is a sum": (ensemble, "mean", result(larger)),
    "draws without replacement": (
        members,
        "bootstrap",
        lambda original: lambda count, generator: torch.randperm(count, generator=generator),
    ),
    "a tree that turns the other way": (
        members,
        "walk",
        lambda original: lambda member, x: original({**member, "left": member["right"], "right": member["left"]}, x),
    ),
    "a linear model without its constant": (
        members,
        "straight",
        lambda original: lambda member, x: original({"w": torch.cat([member["w"][:-1], 0 * member["w"][-1:]])}, x),
    ),
    "stacked weights that are equal": (ensemble, "stacked", result(lambda w: torch.full_like(w, 1 / len(w)))),
    "logits for probabilities": (members, "through", result(lambda p: p.log())),
}

SMALL = {"train": ["--classes", "tree,linear", "--data", "diabetes"]}


def trained(mpcli, *options):
    return mpcli("train", "ensemble", *map(str, options), "--quiet", "--json").json


@pytest.mark.parametrize("leaf", [1, 7])
def test_a_tree_in_tensors_says_what_scikit_learns_says(leaf):
    for data, kind in (("digits", DecisionTreeClassifier), ("diabetes", DecisionTreeRegressor)):
        given = examples(data)
        units = members.Units(given)
        x, y, test = units.inputs(given.train), units.targets(given.targets.train), units.inputs(given.test)
        peer = kind(random_state=3, min_samples_leaf=leaf)
        peer.fit(x.float().numpy(), (y.argmax(1) if given.classes else y[:, 0]).numpy())
        found = members.walk(members.tree(x, y, 3, leaf), test)
        expected = (
            peer.predict_proba(test.float().numpy()) if given.classes else peer.predict(test.float().numpy())[:, None]
        )
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_a_tree_whose_bootstrap_lacks_a_class_gives_it_no_probability():
    x = torch.arange(6.0)[:, None].double()
    y = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 2, 2, 2]), 4).double()
    found = members.walk(members.tree(x, y, 0), x)
    assert torch.equal(found, y)


def test_linear_members_are_those_of_scikit_learn():
    given = examples("diabetes")
    units = members.Units(given)
    x, y = units.inputs(given.train), units.targets(given.targets.train)
    peer = LinearRegression().fit(x.numpy(), y[:, 0].numpy())
    np.testing.assert_allclose(
        members.straight(members.linear(x, y, 0), x)[:, 0].numpy(), peer.predict(x.numpy()), atol=1e-9
    )
    given = examples("digits")
    units = members.Units(given)
    x, y = units.inputs(given.train), units.targets(given.targets.train)
    logistic = LogisticRegression(solver="newton-cholesky", tol=1e-12).fit(x.numpy(), given.targets.train.numpy())
    np.testing.assert_allclose(
        members.straight(members.linear(x, y, 0), x).numpy(), logistic.predict_proba(x.numpy()), atol=1e-6
    )


def test_the_error_of_the_mean_is_exactly_that_of_the_members_less_their_spread():
    g = torch.Generator().manual_seed(0)
    for outputs in (1, 5):
        f, y = torch.randn(9, 50, outputs, generator=g).double(), torch.randn(50, outputs, generator=g).double()
        weights = torch.rand(9, generator=g).double()
        error, of_members, spread = ambiguity(f, y, weights / weights.sum())
        torch.testing.assert_close(error, of_members - spread, rtol=1e-12, atol=1e-12)
        assert (spread > 0).all()


def test_stacked_weights_are_the_best_of_a_fine_grid():
    g = torch.Generator().manual_seed(0)
    y = torch.randn(60, 1, generator=g).double()
    f = torch.stack([y + 0.3 * torch.randn(60, 1, generator=g), y + 0.6 * torch.randn(60, 1, generator=g)])
    w = stacked(f, y)
    grid = torch.linspace(0, 1, 1001).double()
    off = [(a * f[0] + (1 - a) * f[1] - y).square().sum() for a in grid]
    assert abs(float(grid[int(torch.stack(off).argmin())] - w[0])) < 0.02
    assert w.sum() == pytest.approx(1) and 0.6 < w[0] < 0.95


def test_twenty_five_bagged_trees_are_five_points_better_than_one(mpcli):
    metrics = trained(mpcli)["metrics"]
    assert metrics["accuracy"] > metrics["best_member_accuracy"] + 0.05
    assert metrics["accuracy"] > metrics["member_accuracy"] + 0.05
    assert metrics["oob_accuracy"] == pytest.approx(metrics["accuracy"], abs=0.03)
    assert metrics["out_of_bag"] == pytest.approx(np.exp(-1), abs=0.01)
    assert metrics["error"] == pytest.approx(metrics["member_error"] - metrics["spread"])


@pytest.mark.learning
@pytest.mark.parametrize("data", ["digits", "diabetes", "breast_cancer"])
def test_a_mixed_ensemble_is_no_worse_than_its_best_member(mpcli, data):
    mixed = "--classes", "linear,tree,network", "--steps", 3, "--no-bootstrap", "--weights", "stacked", "--leaf", 5
    metrics = trained(mpcli, "--data", data, *mixed)["metrics"]
    if data == "diabetes":
        assert metrics["rmse"] <= metrics["best_member_rmse"] < 56
        assert metrics["error"] == pytest.approx(metrics["rmse"] ** 2)
    else:
        assert metrics["accuracy"] >= metrics["best_member_accuracy"] > 0.97
    assert "oob_accuracy" not in metrics


def test_networks_are_kept_as_they_were_taught():
    given = examples("diabetes")
    units = members.Units(given)
    x, y = units.inputs(given.train[:40]), units.targets(given.targets.train[:40])
    found = members.network(x, y, 5)
    again = members.network(x, y, 5)
    assert all(torch.equal(found[name], again[name]) for name in found)
    off = members.through(found, x) - y
    assert off.square().mean() < 0.2 * y.square().mean()


def test_the_error_by_members_is_written(mpcli, tmp_path):
    run = trained(mpcli, "--data", "diabetes", "--steps", 6)["run"]
    made = mpcli("render", run, "--out", tmp_path / "m.png", "--quiet", "--json").json["artifacts"]
    rows = list(csv.DictReader(Path(made[1]).read_text().splitlines()))
    model = Trained(Path(run)).load(Ensemble, Config)
    given = examples("diabetes")
    f = model.numbers.inverse(model(given.test)[:, :, 0].T).T
    for count, row in enumerate(rows, 1):
        off = f[:count].mean(0) - given.targets.test
        assert float(row["together"]) == pytest.approx(float(off.square().mean().sqrt()), rel=1e-6)
    assert len(rows) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--classes", "tree,forest"), "--classes tree,forest: right would be some of tree, linear, network"),
        (("--steps", "0"), "steps"),
    ],
)
def test_what_cannot_be_is_refused(mpcli, options, said):
    refused = mpcli("train", "ensemble", *options)
    assert refused.code == 2 and said in refused.err


def test_another_kind_of_target_is_refused(mpcli, tmp_path):
    run = trained(mpcli, "--data", "diabetes", "--steps", 2)["run"]
    lines = [f"{','.join(str(k + j) for j in range(10))},{'ab'[k % 2]}" for k in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d,e,f,g,h,i,j,kind", *lines]))
    refused = mpcli("evaluate", run, "--data", tmp_path / "t.csv")
    assert refused.code == 2 and "has a target of another kind; right would be a number" in refused.err
