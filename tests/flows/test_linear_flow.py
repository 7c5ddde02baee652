"""The engine and its simplest map: the closed-form Gaussian, independent components, and what the verbs write."""

import csv
import math

import numpy as np
import pytest
import torch
from mutants import larger, part, result

from mpcli.kit.datasets import table
from mpcli.kit.densities import Examples, load
from mpcli_flows.kit import bases, bijectors, flow
from mpcli_flows.linear_flow import Config, Linear, LinearFlow

MUTANTS = {
    "log-determinant": (Linear, "inverse", part(1, larger)),
    "log-determinant of a composition": (bijectors.Chain, "inverse", part(1, larger)),
    "log-determinant of the logit": (bijectors.Logit, "inverse", part(1, larger)),
    "factors that do not match the way to data": (Linear, "factors", result(lambda lu: (lu[0], lu[1].T))),
    "no log-determinant in the density": (
        flow.Flow,
        "forward",
        lambda original: lambda self, x, c=None: self.base.log_prob(self.bijector.inverse(x, c)[0]),
    ),
    "a base of another width": (bases.Normal, "log_prob", result(larger)),
}


def test_a_normal_base_finds_the_gaussian_of_the_data(mpcli):
    result = mpcli("train", "linear_flow", "--data", "pinwheel", "--steps", 600, "--quiet", "--json")
    data = table("pinwheel")
    known = torch.distributions.MultivariateNormal(data.train.mean(0), torch.cov(data.train.T))
    assert result.code == 0, result.err
    assert abs(result.json["metrics"]["nll"] + float(known.log_prob(data.test).mean())) < 0.01


def test_another_base_finds_independent_components():
    """Two mixed logistic sources come apart: A^-1 times the mixing is a scaled permutation."""
    mixing = torch.tensor([[2.0, 1.0], [-1.0, 1.5]])
    u = torch.rand(20_000, 2).clamp(1e-6, 1 - 1e-6)
    x = (u.log() - (-u).log1p()).pow(3) @ mixing.T  # cubed: far from normal
    x = x / x.std(0)
    model = LinearFlow(Config(base="student_t"), (2,))
    adam = torch.optim.Adam(model.parameters(), 0.02)
    for step in range(400):
        loss = -model(x[step % 10 :: 10]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        sources = model.bijector.inverse(x)[0]
        truth = (u.log() - (-u).log1p()).pow(3)
        matched = torch.corrcoef(torch.cat((sources, truth), 1).T)[:2, 2:].abs().sort(1).values
    assert (matched[:, 1] > 0.98).all() and (matched[:, 0] < 0.2).all()


@pytest.fixture
def trained(mpcli):
    result = mpcli("train", "linear_flow", "--steps", 2, "--quiet")
    assert result.code == 0, result.err
    return result.path


def test_points_are_written_with_their_density(mpcli, trained):
    path = mpcli("sample", trained, "-n", 100, "--out", "points.csv").path
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["x0", "x1", "log_density"] and len(rows) == 101
    values = np.array(rows[1:], float)
    arrays = np.load(mpcli("sample", trained, "-n", 100, "--out", "points.npz").path)
    np.testing.assert_allclose(values[:, :2], arrays["samples"], rtol=1e-5)
    np.testing.assert_allclose(values[:, 2], arrays["log_density"], rtol=1e-5)
    assert mpcli("sample", trained, "--out", "density.png").path.name == "density.png"


def test_temperature_narrows(mpcli, trained):
    wide, narrow = (
        np.load(mpcli("sample", trained, "-n", 4000, "--temperature", t, "--out", f"{t}.npz").path)["samples"].std(0)
        for t in (1, 0.25)
    )
    np.testing.assert_allclose(narrow / wide, 0.25, rtol=0.02)


def test_evaluate_repeats_what_training_reported(mpcli):
    first = mpcli("train", "linear_flow", "--data", "digits", "--steps", 3, "--quiet", "--json").json
    again = mpcli("evaluate", first["run"], "--json").json
    assert again["metrics"] == pytest.approx(first["metrics"], rel=1e-6)
    assert first["metrics"]["bits_per_dim"] == pytest.approx(first["metrics"]["nll"] / 64 / math.log(2), rel=1e-6)


def test_nll_of_pictures_counts_their_grey_levels():
    """A density of 1 on the unit cube says that every one of 17^64 pictures is as probable as any other."""

    class Flat(torch.nn.Module):
        def forward(self, x, c=None):
            return x.new_zeros(len(x))

    digits = load("digits", torch.device("cpu"))
    assert float(digits.held_out(Flat())["bits_per_dim"]) == pytest.approx(math.log2(17), rel=1e-6)
    rows = Examples(table("moons"), 0)
    assert float(rows.held_out(Flat())["nll"]) == 0


def test_what_is_no_dataset_is_refused(mpcli):
    result = mpcli("train", "linear_flow", "--data", "mooons")
    assert result.code == 2 and "mooons" in result.err
