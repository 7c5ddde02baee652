"""TD(0) and Monte Carlo against the exact values, and the textbook's curves of the random walk."""

from pathlib import Path

import numpy as np
import pytest
from mutants import arguments, result
from safetensors.numpy import load_file

from mpcli.run import Run, seed_everything
from mpcli_rl import td0
from mpcli_rl.td0 import Config

SMALL = {"rl_run": ["--eval-episodes", "2", "--copies", "3"]}
MUTANTS = {
    "the other sign": (td0, "td_error", result(lambda d: -d)),
    "no discount": (td0, "td_error", arguments(lambda r, value, following, gamma: (r, value, following, 1.0))),
    "nothing follows": (
        td0,
        "td_error",
        arguments(lambda r, value, following, gamma: (r, value, 0 * following, gamma)),
    ),
    "the error of twice the value": (td0, "td_error", arguments(lambda r, value, *rest: (r, 2 * value, *rest))),
}

WALK = 'mpcli/Gridworld-v0(map=["H..S..G"], hole=0)'
TRUE = np.arange(1, 6) / 6


def learn(directory: Path, env: str = WALK, episodes: int = 100, steps: int = 5000, **options) -> Run:
    directory.mkdir()
    seed_everything(0)
    run = Run(directory, seed=0, device="cpu")
    td0.rl_run(Config(**options), run, env, steps, episodes, eval_episodes=20)
    return run


def curve(run: Run) -> np.ndarray:  # [episodes, 3]: episode, td, mc
    return np.loadtxt(run.dir / "errors.csv", delimiter=",", skiprows=1)


@pytest.fixture(scope="module")
def textbook(tmp_path_factory):
    """Errors after 0 ... 100 episodes for the step sizes of Sutton and Barto's figure beside Example 6.2."""
    folder = tmp_path_factory.mktemp("walk")
    pairs = ((0.15, 0.04), (0.1, 0.03), (0.05, 0.01))
    return {(a, m): learn(folder / f"{a}", alpha=a, alpha_mc=m, copies=60) for a, m in pairs}


@pytest.mark.learning
def test_the_textbook_curves(textbook):
    curves = {pair: curve(run) for pair, run in textbook.items()}
    td = {a: rows[:, 1] for (a, _), rows in curves.items()}
    mc = {m: rows[:, 2] for (_, m), rows in curves.items()}
    assert all(len(rows) == 100 for rows in curves.values())
    # All begin at the error of 1/2 everywhere, sqrt(2/5 (1/36 + 4/36)) = 0.236.
    assert all(0.18 < rows[0, 1] <= 0.24 for rows in curves.values())
    assert td[0.15][9] < td[0.1][9] < td[0.05][9]  # large steps are faster at first
    assert td[0.05][-1] < td[0.1][-1] < td[0.15][-1]  # and tremble more at last
    # "TD was consistently better than MC on this task".
    assert max(curve[-1] for curve in td.values()) < min(curve[-1] for curve in mc.values()) + 0.03
    assert min(curve[-1] for curve in td.values()) < min(curve[-1] for curve in mc.values()) - 0.02
    assert td[0.05][-1] == pytest.approx(0.045, abs=0.02) and mc[0.01][-1] == pytest.approx(0.09, abs=0.03)


@pytest.mark.learning
def test_td_varies_less_than_monte_carlo(textbook):
    """At step sizes with which both have lost most of their bias, it is the deviation that differs."""
    seen = textbook[(0.1, 0.03)].metrics
    for name in ("td", "mc"):
        assert seen[f"{name}_bias"] < 0.05 and seen[f"{name}_rms"] > seen[f"{name}_bias"]
    assert seen["td_std"] < seen["mc_std"]


def test_td_is_biased_by_the_first_values_and_monte_carlo_forgets_them(tmp_path):
    """One episode with steps of 1: Monte Carlo's table holds the latest return, whose mean is the exact value."""
    run = learn(tmp_path / "run", episodes=1, alpha=1.0, alpha_mc=1.0, copies=300)
    tables = load_file(run.dir / "model.safetensors")
    td, mc = (tables[name][:, 1:6] for name in ("td", "mc"))
    middle = mc[:, 2]  # visited by all
    assert abs(middle.mean() - 0.5) < 4 * middle.std() / np.sqrt(300) and middle.std() == pytest.approx(0.5, abs=0.01)
    assert td[:, 2].std() < 0.3 and set(np.unique(mc)) == {0.0, 0.5, 1.0}
    one = learn(tmp_path / "high", episodes=1, alpha=0.1, alpha_mc=0.1, copies=100, initial=3.0)
    assert one.metrics["td_bias"] > 1.5


@pytest.mark.parametrize(
    ("env", "gamma"), [(WALK, 1.0), ('mpcli/Gridworld-v0(map=["S..", ".#H", "..G"], slip=0.2)', 0.8)]
)
def test_it_tends_to_the_exact_values(tmp_path, env, gamma):
    short, run = (
        learn(tmp_path / str(n), env, 10**6, n, gamma=gamma, alpha=0.1, alpha_mc=0.05, copies=30, initial=1.0)
        for n in (50, 1200)
    )
    for name in ("td_bias", "mc_bias"):
        assert run.metrics[name] < 0.06 < 0.2 < short.metrics[name]
    assert run.metrics["value_start"] == pytest.approx(run.metrics["value_start_exact"], abs=0.06)


def test_it_values_the_policy_that_another_page_learned(mpcli):
    world = ("--env", 'mpcli/Gridworld-v0(map=["S..", ".#H", "..G"], slip=0.2)', "--quiet")
    planned = mpcli("rl-run", "policy_iteration", *world, "--out", "planned")
    found = mpcli("rl-run", "td0", *world, "--policy", "planned", "--gamma", 0.9, "--copies", 20, "--json").json
    assert planned.code == 0
    best = found["metrics"]["value_start_exact"]
    assert found["metrics"]["value_start"] == pytest.approx(best, abs=0.06)
    random = mpcli("rl-run", "td0", *world, "--gamma", 0.9, "--copies", 2, "--steps", 5, "--json").json["metrics"]
    assert random["value_start_exact"] < best - 0.1
    other = mpcli("rl-run", "td0", "--policy", "planned", "--quiet")
    assert other.code == 2 and "--policy planned: has a table of 9 x 4; right would be 7 x 2" in other.err
    agent = ("--steps", 20, "--warmup", 10, "--eval-episodes", 1, "--out", "agent", "--quiet")
    assert mpcli("rl-run", "dqn", *agent).code == 0
    assert "agent" in (refused := mpcli("rl-run", "td0", "--policy", "agent", "--quiet")).err and refused.code == 2
