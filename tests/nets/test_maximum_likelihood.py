"""Maximum likelihood: scikit-learn's optima, the bound of Cramér and Rao, and what has no optimum."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mutants import larger, nothing, result
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, QuantileRegressor, Ridge

from mpcli.kit.randomness import generator
from mpcli.run import Trained
from mpcli_nets.kit.rows import classified, rows
from mpcli_nets.maximum_likelihood import Config, Linear, information, likelihoods, optimum
from mpcli_nets.maximum_likelihood.likelihoods import LIKELIHOODS, Bernoulli, Categorical, Gaussian, Laplace, errors

MUTANTS = {
    "a Gaussian slope without its variance": (
        Gaussian,
        "slope",
        lambda original: lambda self, eta, y, s: original(self, eta, y, s) * s,
    ),
    "a Bernoulli loss without the bracket": (
        Bernoulli,
        "nll",
        lambda original: lambda self, eta, y, s: (-y * eta.sigmoid().log() + (1 - y) * (-eta).sigmoid().log()).sum(-1),
    ),
    "a mean where the median is the most likely": (Laplace, "estimate", lambda original: lambda self, y: y.mean(-2)),
    "a softmax with the Hessian of sigmoids": (
        Categorical,
        "curve",
        lambda original: lambda self, eta, y, s, v: eta.softmax(-1) * (1 - eta.softmax(-1)) * v,
    ),
    "a proximal map that pulls too hard": (
        optimum,
        "soft",
        lambda original: lambda w, by: original(w, 1.1 * by),
    ),
    "a prior on b": (optimum.Posterior, "slope", result(larger)),
    "KL the other way": (information, "kl", lambda original: lambda p, q: original(q, p)),
    "no entropy": (information, "entropy", result(nothing)),
    "errors that are not square": (likelihoods, "errors", result(lambda off: off.square())),
}

SMALL = {"render": ["--draws", "20"]}


def taught(mpcli, *options):
    """The trained model, and its inputs without the column of ones, standardised as it has them, and targets."""
    done = mpcli("train", "maximum_likelihood", *options, "--quiet", "--json").json
    trained = Trained(Path(done["run"]))
    model = trained.load(Linear, Config)
    data = rows(trained.options["data"])
    data = data if trained.extras["likelihood"] in ("gaussian", "laplace") else classified("", data)
    return model, model.inputs(data.train)[:, :-1].numpy(), data.targets.train.numpy(), done["metrics"]


def close(model, weights, intercept, scale):
    np.testing.assert_allclose(model.w[:-1].numpy().T, np.atleast_2d(weights), atol=1e-6 * scale)
    np.testing.assert_allclose(model.w[-1].numpy(), np.atleast_1d(intercept), atol=1e-6 * scale)


def test_gaussian_is_least_squares(mpcli):
    model, x, y, metrics = taught(mpcli)
    peer = LinearRegression().fit(x, y)
    close(model, peer.coef_, peer.intercept_, y.std())
    assert math.isclose(metrics["scale"], np.sqrt(np.mean((y - peer.predict(x)) ** 2)), rel_tol=1e-7)
    assert metrics["rmse"] < 0.7 * metrics["base_rmse"] and metrics["nll"] < metrics["base_nll"] - 0.3


def test_a_gaussian_prior_is_ridge_regression(mpcli):
    model, x, y, _ = taught(mpcli, "--prior", "gaussian", "--tau", "0.1")
    peer = Ridge(alpha=float(model.s / model.tau) ** 2, tol=1e-12).fit(x, y)
    close(model, peer.coef_, peer.intercept_, y.std())


def test_a_laplace_prior_is_the_lasso(mpcli):
    model, x, y, metrics = taught(mpcli, "--prior", "laplace", "--tau", "0.03")
    peer = Lasso(alpha=float(model.s**2 / model.tau) / len(y), tol=1e-13, max_iter=100_000).fit(x, y)
    close(model, peer.coef_, peer.intercept_, y.std())
    assert (model.w[:-1, 0].numpy() == 0).tolist() == (peer.coef_ == 0).tolist()
    assert metrics["zero_weights"] == (peer.coef_ == 0).sum() > 2


@pytest.mark.parametrize("tau", [None, 0.02])
def test_laplace_is_the_median_regression_of_a_linear_program(mpcli, tau):
    options = ["--prior", "laplace", "--tau", str(tau)] if tau else []
    model, x, y, _ = taught(mpcli, "--likelihood", "laplace", *options)
    alpha = float(model.s / model.tau) / 2 / len(y) if tau else 0
    peer = QuantileRegressor(quantile=0.5, alpha=alpha).fit(x, y)
    close(model, peer.coef_, peer.intercept_, y.std())
    assert (model.w[:-1, 0].numpy() == 0).tolist() == (np.abs(peer.coef_) < 1e-9).tolist()


@pytest.mark.parametrize("prior", ["gaussian", "laplace"])
def test_bernoulli_is_logistic_regression(mpcli, prior):
    tau = ["--tau", "0.2"] if prior == "laplace" else []
    model, x, y, metrics = taught(mpcli, "--data", "breast_cancer", "--prior", prior, *tau)
    if prior == "gaussian":
        peer = LogisticRegression(solver="newton-cholesky", tol=1e-12).fit(x, y)
        close(model, peer.coef_, peer.intercept_, 1)
    else:  # scikit-learn's own are not as exact: the conditions of the optimum are
        off = torch.from_numpy(x).T @ (model(rows("breast_cancer").train).sigmoid() - torch.from_numpy(y)[:, None])
        zero = model.w[:-1] == 0
        assert zero.sum() > 5 and (off[zero].abs() <= 1 / model.tau).all()
        torch.testing.assert_close(off[~zero], -model.w[:-1][~zero].sign() / model.tau, atol=1e-6, rtol=0)
    assert metrics["accuracy"] > 0.95 and metrics["nll"] < 0.15


def test_categorical_is_softmax_regression(mpcli):
    model, x, y, metrics = taught(mpcli, "--data", "digits", "--prior", "gaussian")
    peer = LogisticRegression(solver="newton-cholesky", tol=1e-12).fit(x, y)
    close(model, peer.coef_, peer.intercept_ - peer.intercept_.mean() + float(model.w[-1].mean()), 1)
    assert metrics["accuracy"] > 0.96 > 0.3 > metrics["base_accuracy"]
    assert metrics["cross_entropy"] == pytest.approx(metrics["entropy"] + metrics["kl"])
    assert 0 <= metrics["js"] < 0.01


def test_two_columns_that_do_not_separate_have_an_optimum_without_a_prior(mpcli, tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(120, 2, generator=g)
    t = torch.rand(120, generator=g) < (2 * x[:, 0] - x[:, 1]).sigmoid()
    lines = [f"{a},{b},{int(c)}" for (a, b), c in zip(x.tolist(), t, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c", *lines]))
    options = "--data", tmp_path / "t.csv", "--likelihood", "bernoulli"
    model, x, y, metrics = taught(mpcli, *options)
    peer = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(x, y)
    close(model, peer.coef_, peer.intercept_, 1)
    assert metrics["separable"] == 0


def test_classes_that_hyperplanes_separate_have_no_optimum(mpcli):
    done = mpcli("train", "maximum_likelihood", "--data", "breast_cancer", "--json")
    assert done.json["metrics"]["separable"] == 1
    assert "has no maximum; --prior gaussian gives it one" in done.err


@pytest.mark.parametrize(
    ("name", "mean", "s"),
    [
        ("gaussian", [3.0], 2.0),
        ("laplace", [3.0], 2.0),
        ("bernoulli", [0.3], 1.0),
        ("categorical", [0.2, 0.5, 0.3], 1.0),
    ],
)
def test_estimates_reach_the_bound_of_cramer_and_rao(name, mean, s):
    of, mean, s = LIKELIHOODS[name], torch.tensor(mean).double(), torch.tensor(s).double()
    sizes = [100, 300, 1000]
    off = errors(of, mean, s, sizes, 8000, generator(0))
    efficiency = off.square() * torch.tensor(sizes) / of.variance(mean, s)
    assert abs(efficiency[-1] - 1) < 0.05
    slope = np.polyfit(np.log(sizes), off.log().numpy(), 1)[0]
    assert abs(slope + 0.5) < 0.02


def test_the_error_by_size_and_the_weights_are_written(mpcli, tmp_path):
    run = mpcli("train", "maximum_likelihood", "--data", "digits", "--prior", "gaussian", "--quiet", "--json").json
    made = mpcli("render", run["run"], "--draws", "200", "--out", tmp_path / "e.png", "--quiet", "--json").json
    files = [Path(path) for path in made["artifacts"] if path.endswith(".csv")]
    tables = {path.stem: list(csv.DictReader(path.read_text().splitlines())) for path in files}
    assert [float(row["error"]) / float(row["cramer_rao"]) for row in tables["errors"]] == pytest.approx(
        [1] * 7, abs=0.15
    )
    assert len(tables["weights"]) == 65 and list(tables["weights"][0]) == ["column", *"0123456789"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--likelihood", "bernoulli"), "its target progression is 214 different numbers; right would be classes"),
        (
            ("--data", "digits", "--likelihood", "bernoulli"),
            "is one of 10 classes; right would be --likelihood categorical",
        ),
        (("--data", "digits", "--likelihood", "laplace"), "right would be --likelihood categorical"),
        (("--data", "moons"), "its rows have no target"),
    ],
)
def test_a_likelihood_that_does_not_suit_the_target_is_refused(mpcli, options, said):
    refused = mpcli("train", "maximum_likelihood", *options)
    assert refused.code == 2 and said in refused.err


@pytest.mark.parametrize(("target", "said", "code"), [("7", "is the same everywhere", 2), ("x", "a linear map", 1)])
def test_a_target_without_noise_is_told(mpcli, tmp_path, target, said, code):
    lines = [f"{x},{x * x % 7},{x if target == 'x' else target}" for x in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c", *lines]))
    told = mpcli("train", "maximum_likelihood", "--data", tmp_path / "t.csv")
    assert told.code == code and said in told.err


def test_another_number_of_classes_is_refused(mpcli, tmp_path):
    lines = [f"{','.join('0' * 64)},{'abc'[k % 3]}" for k in range(30)]
    (tmp_path / "t.csv").write_text("\n".join([",".join(f"p{k}" for k in range(64)) + ",c", *lines]))
    run = mpcli("train", "maximum_likelihood", "--data", "digits", "--steps", "2", "--quiet", "--json").json["run"]
    refused = mpcli("evaluate", run, "--data", tmp_path / "t.csv")
    assert refused.code == 2 and "has 3 classes, but the model was trained on 10" in refused.err
