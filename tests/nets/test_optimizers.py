"""Optimizers: the steps of torch, the optimum of scipy, rates by theory, noise by enumeration, a ball without end."""

import csv
import itertools
import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from mutants import larger, result
from scipy.optimize import minimize

from mpcli_nets.optimizers import landscapes, methods
from mpcli_nets.optimizers.landscapes import Landscape, landscape
from mpcli_nets.optimizers.methods import METHODS, Settings, decayed


def other(name, method):
    """The methods, one of them another."""
    return lambda original: {**original, name: method}


def rooted(theta, slope, rate, kept, of, s):
    """Adam with eps inside the root."""
    inside = METHODS["adam"](theta, slope, rate, kept, of, Settings(eps=0.0))
    m, t = kept["m"], float(kept["t"])
    v = kept["v"] / (1 - s.betas[1] ** t)
    return theta + (inside - theta) * v.sqrt() / (v + s.eps).sqrt() if m.any() else inside


def biased(theta, slope, rate, kept, of, s):
    """Adam that forgets how many steps it took."""
    found = METHODS["adam"](theta, slope, rate, kept, of, s)
    kept["t"].fill_(1)
    return found


MUTANTS = {
    "no momentum": (methods, "METHODS", other("polyak", METHODS["gd"])),
    "Nesterov's gradient at theta": (methods, "METHODS", other("nesterov", METHODS["polyak"])),
    "AdaGrad that forgets": (methods, "METHODS", other("adagrad", METHODS["rmsprop"])),
    "RMSProp that does not": (methods, "METHODS", other("rmsprop", METHODS["adagrad"])),
    "eps inside the root of Adam": (methods, "METHODS", other("adam", rooted)),
    "Adam without its count": (methods, "METHODS", other("adam", biased)),
    "two loops in one order": (methods, "two_loops", result(larger)),
    "L-BFGS that remembers nothing": (methods, "remember", lambda original: lambda kept, s, y, pairs: None),
    "a rate that does not fall": (methods, "decayed", lambda original: lambda rate, step, steps, decay: rate),
    "examples without tilts": (
        Landscape,
        "slope",
        lambda original: lambda self, theta, chosen=None: original(self, theta),
    ),
    "another slope between 1 and 2": (
        landscapes,
        "three_slopes",
        lambda original: lambda p: torch.where(p[..., 0] > 1, 1.01 * original(p), original(p)),
    ),
}

SMALL = {"render": ["--frames", "3"]}


def trained(mpcli, *options):
    return mpcli("train", "optimizers", *map(str, options), "--quiet", "--json").json


def gone(name, of, start, steps, rate, settings=None):
    """The path of a method."""
    theta, kept, path = torch.tensor(start).double(), {}, []
    for _ in range(steps):
        theta = METHODS[name](theta, of.slope, rate, kept, of, settings or Settings())
        path.append(theta)
    return torch.stack(path), kept


@pytest.mark.parametrize("name", ["gd", "polyak", "nesterov", "adagrad", "rmsprop", "adam"])
def test_fifty_steps_are_those_of_torch(name):
    of, rate = landscape("rosenbrock", 1.0, 0.0, 0), 2e-4
    makers = {
        "gd": lambda p: torch.optim.SGD(p, rate),
        "polyak": lambda p: torch.optim.SGD(p, rate, momentum=0.9),
        "nesterov": lambda p: torch.optim.SGD(p, rate, momentum=0.9, nesterov=True),
        "adagrad": lambda p: torch.optim.Adagrad(p, rate, eps=1e-8),
        "rmsprop": lambda p: torch.optim.RMSprop(p, rate, alpha=0.99, eps=1e-8),
        "adam": lambda p: torch.optim.Adam(p, rate, eps=1e-8),
    }
    parameter = torch.tensor([-1.2, 1.0]).double().requires_grad_()
    peer, theirs = makers[name]([parameter]), []
    for _ in range(50):
        peer.zero_grad()
        of.value(parameter).backward()
        peer.step()
        theirs.append(parameter.detach().clone())
    ours, kept = gone(name, of, [-1.2, 1.0], 50, rate)
    if name == "nesterov":  # torch's parameter looks ahead already
        assert (ours - torch.stack(theirs)).abs().max() > 1e-3
        ours, theirs = ours[-1] + 0.9 * kept["v"], theirs[-1:]
    torch.testing.assert_close(
        ours.expand(len(theirs), 2) if ours.ndim == 1 else ours, torch.stack(theirs), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("kappa", [10, 100])
def test_the_rates_on_a_quadratic_are_those_of_theory(mpcli, kappa):
    steps = {10: 150, 100: 1000}[kappa]
    options = "--kappa", kappa, "--methods", "gd,polyak,newton", "--steps", steps
    metrics = trained(mpcli, *options)["metrics"]
    root = kappa**0.5
    assert metrics["contraction_gd"] == pytest.approx((kappa - 1) / (kappa + 1), abs=5e-4)
    assert metrics["contraction_polyak"] == pytest.approx((root - 1) / (root + 1), abs=1e-3)
    assert metrics["loss_newton"] < 1e-25


@pytest.mark.parametrize("name", ["rosenbrock", "beale", "double_well", "quadratic"])
def test_lbfgs_and_newton_end_where_scipy_does(name):
    of = landscape(name, 100.0, 0.0, 0)
    peer = minimize(
        lambda x: of.value(torch.from_numpy(x)).item(),
        np.array(of.start),
        jac=lambda x: of.slope(torch.from_numpy(x)).numpy(),
        method="L-BFGS-B",
        options={"ftol": 1e-16, "gtol": 1e-12},
    )
    for method in ("lbfgs", "newton"):
        path, _ = gone(method, of, of.start, 80, 1.0)
        np.testing.assert_allclose(path[-1].numpy(), peer.x, atol=1e-6)
        values = of.f(path)
        assert (values.diff() <= 1e-15).all()


def test_newton_leaves_a_saddle_that_attracts_its_own_step():
    """At (0.05, 1) the curvature along x is negative: a Newton step would go to the saddle near x = 0.03."""
    of = landscape("double_well", 1.0, 0.0, 0)
    path, _ = gone("newton", of, (0.05, 1.0), 30, 1.0)
    assert of.slope(path[-1]).abs().max() < 1e-9
    assert torch.linalg.eigvalsh(of.hessian(path[-1])).min() > 0


def test_the_heavy_ball_goes_round_for_ever_and_nesterovs_does_not():
    of = landscape("three_slopes", 1.0, 0.0, 0)
    cycle = [0.6465, -1.8024, 2.1159]
    path, _ = gone("polyak", of, [3.3], 300, 1 / 9, Settings(momentum=4 / 9))
    seen = path[-3:, 0].tolist()
    turn = next(k for k in range(3) if abs(seen[k] - cycle[0]) < 1e-3)
    assert [*seen[turn:], *seen[:turn]] == pytest.approx(cycle, abs=1e-4)
    for start in (3.0, 3.5):
        path, _ = gone("polyak", of, [start], 300, 1 / 9, Settings(momentum=4 / 9))
        assert path[-1].abs() < 1e-10
    for start in (3.0, 3.3, 3.5):
        path, _ = gone("nesterov", of, [start], 300, 1 / 25, Settings(momentum=2 / 3))
        assert path[-1].abs() < 1e-10


@pytest.mark.parametrize("m", [1, 2, 3, 7, 8])
def test_minibatches_of_eight_examples_have_the_mean_and_the_variance_of_theory(m):
    tilts = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).double()
    of = Landscape(landscapes.beale, (0.0, 0.0), ((), ()), landscapes.tuned(1, 1), tilts - tilts.mean(0))
    theta = torch.tensor([0.3, -0.2]).double()
    g, spread = of.slope(theta), of.tilts.var(0, correction=0)
    without = torch.stack([of.slope(theta, torch.tensor(c)) for c in itertools.combinations(range(8), m)])
    torch.testing.assert_close(without.mean(0), g, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(without.var(0, correction=0), spread / m * (8 - m) / 7, rtol=1e-10, atol=1e-12)
    if m <= 3:
        again = torch.stack([of.slope(theta, torch.tensor(c)) for c in itertools.product(range(8), repeat=m)])
        torch.testing.assert_close(again.var(0, correction=0), spread / m, rtol=1e-10, atol=1e-12)


def test_a_constant_rate_hovers_and_a_falling_one_arrives():
    """Many walks side by side on L x^2 / 2 with noise of deviation s."""
    rate, curvature, s, walks = 0.2, 2.0, 0.7, 4000
    g = torch.Generator().manual_seed(0)
    for decay in ("constant", "inverse"):
        x = torch.ones(walks).double()
        for step in range(2000):
            now = decayed(rate, step, 2000, decay)
            noise = s * torch.randn(walks, generator=g).double()
            x = METHODS["sgd"](x, lambda at, noise=noise: curvature * at + noise, now, {}, None, Settings())
        if decay == "constant":
            expected = rate**2 * s**2 / (1 - (1 - rate * curvature) ** 2)
            assert float(x.square().mean()) == pytest.approx(expected, rel=0.08)
        else:
            assert x.square().mean() < 0.02 * expected


def test_a_falling_rate_quietens_the_noise_of_the_race(mpcli):
    last = {}
    for decay in ("constant", "linear"):
        run = trained(mpcli, "--methods", "sgd", "--decay", decay, "--lr", 0.015, "--steps", 400)["run"]
        logged = [json.loads(line)["loss_sgd"] for line in Path(run, "metrics.jsonl").read_text().splitlines()]
        last[decay] = np.mean(logged[-20:])
    assert last["linear"] < 0.2 * last["constant"]


def test_a_method_that_diverges_is_taken_out_and_the_others_go_on(mpcli):
    done = mpcli("train", "optimizers", "--methods", "gd,adam", "--lr", 0.3, "--json")
    assert done.code == 0 and "gd is out: beyond all bounds at step" in done.err
    assert done.json["metrics"]["loss_adam"] < 1e-3 < 1e3 < done.json["metrics"]["loss_gd"]


def test_paths_and_the_race_are_drawn(mpcli, tmp_path):
    for data, numbers in (("beale", 2), ("three_slopes", 1)):
        run = trained(mpcli, "--data", data, "--steps", 12, "--methods", "polyak,lbfgs")["run"]
        out = tmp_path / f"{data}.gif"
        made = mpcli("render", run, "--frames", 5, "--out", out, "--quiet", "--json").json["artifacts"]
        assert len(iio.imread(out)) >= 4
        rows = list(csv.DictReader(Path(made[2]).read_text().splitlines()))
        assert list(rows[0]) == ["step", "polyak", "lbfgs"] and len(rows) == 13
        start = torch.tensor(landscape(data, 1.0, 0.0, 0).start).double()
        assert len(start) == numbers
        assert float(rows[0]["polyak"]) == pytest.approx(landscape(data, 1.0, 0.0, 0).value(start).item())


def test_the_loss_of_a_run_of_a_network_is_raced_on(mpcli):
    run = mpcli("train", "mlp", "--data", "xor", "--hidden", 4, "--steps", 2, "--quiet", "--json").json["run"]
    race = trained(mpcli, "--data", f"run:{run}", "--steps", 60)
    assert race["metrics"]["loss_lbfgs"] < 0.01 and race["metrics"]["loss_newton"] < 0.01
    assert race["metrics"]["loss_gd"] < 0.8
    made = mpcli("render", race["run"], "--quiet", "--json").json["artifacts"]
    assert [Path(path).name for path in made] == ["race.png", "race.csv"]


def test_a_run_of_another_page_is_refused(mpcli):
    run = mpcli("train", "maximum_likelihood", "--steps", 1, "--quiet", "--json").json["run"]
    refused = mpcli("train", "optimizers", "--data", f"run:{run}")
    assert refused.code == 2 and "is no run of a network; right would be a run of mlp" in refused.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--methods", "gd,sdg"), "--methods gd,sdg: right would be some of gd, sgd, minibatch"),
        (("--methods", "gd,gd"), "each once"),
        (("--start", "1,2,3"), "quadratic has 2 numbers; right would be as many"),
        (("--data", "himmelblau"), "himmelblau: is no landscape; right would be quadratic, rosenbrock"),
        (("--data", "run:nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_raced_is_refused(mpcli, options, said):
    refused = mpcli("train", "optimizers", *options)
    assert refused.code == 2 and said in refused.err


def test_newton_takes_no_part_where_there_are_many_numbers(mpcli):
    run = mpcli("train", "mlp", "--hidden", 8, "--steps", 2, "--quiet", "--json").json["run"]
    done = mpcli("train", "optimizers", "--data", f"run:{run}", "--steps", 2, "--json")
    assert "newton does not take part" in done.err and "loss_newton" not in done.json["metrics"]
    refused = mpcli("train", "optimizers", "--data", f"run:{run}", "--methods", "newton", "--steps", 2)
    assert refused.code == 2 and "a Hessian is too large" in refused.err
