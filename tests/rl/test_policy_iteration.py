"""Policy iteration: exact and truncated evaluation reach the same optimum, and what it costs."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mutants import arguments, larger, part, result

from mpcli.run import Run, Trained, seed_everything
from mpcli_rl import policy_iteration
from mpcli_rl.kit import mdp, tabular
from mpcli_rl.policy_iteration import Config
from mpcli_rl.value_iteration import Bellman

SMALL = {"rl_run": ["--env", "FrozenLake-v1", "--episodes", "2", "--eval-episodes", "2"]}
MUTANTS = {
    "the value that was known before": (policy_iteration, "value", lambda original: lambda cfg, model, pi, v: v),
    "another discount": (policy_iteration, "value", arguments(lambda cfg, *rest: (replace(cfg, gamma=0.7), *rest))),
    "a sweep too many": (policy_iteration, "value", arguments(lambda cfg, *rest: (replace(cfg, sweeps=4), *rest))),
    "in place from the old values": (
        policy_iteration,
        "swept_in_place",
        lambda original: lambda p, r, v, gamma: r + gamma * (p @ v),
    ),
    "values too large": (policy_iteration, "value", result(larger)),
    "no improvement": (policy_iteration, "improved", lambda original: lambda model, pi, v, gamma: (pi, 1.0)),
    "nothing left to do": (policy_iteration, "improved", part(1, lambda change: 0.0)),
}

ISSUE = {
    "FrozenLake-v1": 0.54203,
    'FrozenLake-v1(map_name="8x8")': 0.41464,
    "Taxi-v4": 6.32746,
    "CliffWalking-v1": -12.2479,
}


def learn(directory: Path, env: str, steps: int = 1000, **options) -> Run:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"env": env}))
    seed_everything(0)
    run = Run(directory, seed=0, device="cpu")
    policy_iteration.rl_run(Config(**options), run, env, steps, episodes=3, eval_episodes=5)
    return run


@pytest.mark.parametrize("env", ISSUE)
def test_exact_and_truncated_evaluation_reach_the_optimum_with_fewer_backups_than_value_iteration(tmp_path, env):
    exact, truncated = learn(tmp_path / "exact", env), learn(tmp_path / "truncated", env, evaluation="truncated")
    placed = learn(tmp_path / "placed", env, evaluation="in_place")
    for run in (exact, truncated, placed):
        assert run.metrics["value_start"] == pytest.approx(ISSUE[env], abs=5e-5)
        assert run.metrics["value_start_greedy"] == pytest.approx(run.metrics["value_start_exact"], rel=1e-9)
    q, other = (tabular.load(Trained(run.dir, "cpu")).q.numpy() for run in (exact, truncated))
    np.testing.assert_allclose(q, other, atol=1e-7)
    model = mdp.transition_table(tabular.world(env))
    np.testing.assert_allclose(q, model.backup(mdp.solve(model, 0.99), 0.99), atol=1e-10)
    assert exact.metrics["solves"] == exact.metrics["steps"] <= 20 and truncated.metrics["solves"] == 0
    assert exact.metrics["backups"] < truncated.metrics["backups"] and placed.metrics["solves"] == 0
    if "Lake" in env:  # where chance makes values settle slowly
        assert truncated.metrics["backups"] < truncated.metrics["backups_of_value_iteration"] / 1.5


def test_one_sweep_of_evaluation_is_value_iteration(tmp_path):
    run = learn(tmp_path / "run", "FrozenLake-v1", steps=30, evaluation="truncated", sweeps=1, tolerance=0.0)
    model = mdp.transition_table(tabular.world("FrozenLake-v1"))
    bellman, v = Bellman(model), np.zeros(16)
    for _ in range(30):
        v = bellman(v, 0.99)
    q = tabular.load(Trained(run.dir, "cpu")).q.numpy()
    np.testing.assert_allclose(q, model.backup(v, 0.99), rtol=1e-12)


def test_every_iteration_is_better_until_the_last(tmp_path):
    model = mdp.transition_table(tabular.world('FrozenLake-v1(map_name="8x8")'))
    pi, v, seen = np.zeros(64, int), np.zeros(64), []
    for _ in range(30):
        v = policy_iteration.value(Config(), model, pi, v)
        new, off = policy_iteration.improved(model, pi, v, 0.99)
        seen.append((v, off))
        if (new == pi).all():
            break
        pi = new
    for (before, _), (after, _) in itertools.pairwise(seen):
        assert (after >= before - 1e-12).all() and after.sum() > before.sum()
    assert 3 < len(seen) < 20 and seen[-1][1] < 1e-12


def test_the_bound_holds(tmp_path):
    run = learn(tmp_path / "run", "FrozenLake-v1", steps=12, evaluation="truncated", sweeps=3, tolerance=0.0)
    model = mdp.transition_table(tabular.world("FrozenLake-v1"))
    v = tabular.load(Trained(run.dir, "cpu")).q.numpy().max(1)  # T v, nearer than v
    assert 1e-6 < np.abs(v - mdp.solve(model, 0.99)).max() <= run.metrics["bound"]


def test_from_the_shell(mpcli, drawing):
    result = mpcli("rl-run", "policy_iteration", "--env", "mpcli/Gridworld-v0", "--json", "--quiet")
    assert result.code == 0, result.err
    names = [Path(path).name for path in result.json["artifacts"]]
    assert names == ["convergence.csv", "convergence.png", "returns.csv", "returns.png", "values.png"]
    assert result.json["metrics"]["value_start"] == pytest.approx(0.99**13)
    film = mpcli("render", result.json["run"], "--out", "maze.gif", "--quiet")
    assert film.code == 0 and film.path.stat().st_size > 1000
