"""SARSA against the exact best of the epsilon-greedy policies, and beside Q-learning on the cliff."""

import json
from pathlib import Path

import numpy as np
import pytest
from mutants import arguments, larger, result

from mpcli.run import Run, Trained, seed_everything
from mpcli_rl import q_learning, sarsa
from mpcli_rl.kit import mdp, playing, tabular

SMALL = {"rl_run": ["--env", "CliffWalking-v1(max_episode_steps=30)", "--eval-episodes", "2"]}
MUTANTS = {
    "a value after the end": (sarsa, "target", arguments(lambda r, end, *rest: (r, False, *rest))),
    "another discount": (sarsa, "target", arguments(lambda r, end, gamma, q: (r, end, 0.9 * gamma, q))),
    "nothing follows": (sarsa, "target", arguments(lambda r, end, *rest: (r, True, *rest))),
    "targets too large": (sarsa, "target", result(larger)),
}


def learn(directory: Path, env: str, steps: int, seed: int = 0, page=sarsa, **options) -> Run:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"env": env}))
    seed_everything(seed)
    run = Run(directory, seed=seed, device="cpu")
    page.rl_run(page.Config(**options), run, env, steps, eval_episodes=20)
    return run


def learned(run: Run) -> tabular.Q:
    return tabular.load(Trained(run.dir, "cpu"))


def rows_walked(run: Run) -> list[int]:
    """The rows of the map that the greedy policy walks through; the cliff is below row 2."""
    path = playing.walk(lambda: tabular.world("CliffWalking-v1"), learned(run).greedy, 0)
    assert path[-1] == 47
    return [state // 12 for state in path[1:-1]]


def test_it_takes_the_safe_path_and_q_learning_the_optimal_one(tmp_path):
    explored = {"epsilon_start": 0.1, "epsilon": 0.1}
    safe = learn(tmp_path / "sarsa", "CliffWalking-v1", 40_000, **explored)
    short = learn(tmp_path / "q", "CliffWalking-v1", 40_000, page=q_learning, **explored)
    assert short.metrics["return_mean"] == -13 and -17 <= safe.metrics["return_mean"] <= -15
    assert rows_walked(short).count(2) == 12
    assert rows_walked(safe).count(2) == 2  # up from the start, down to the goal
    earned = [np.loadtxt(run.dir / "returns.csv", delimiter=",", skiprows=1)[-1000:, 1].mean() for run in (safe, short)]
    assert earned[0] > earned[1] + 10  # while they explore, the safe path is the better one


def test_its_policy_is_the_best_of_the_epsilon_greedy_ones(tmp_path):
    # steps that shrink faster than by default: on Taxi they would learn too slowly, here they end nearer
    run = learn(tmp_path / "run", "CliffWalking-v1", 60_000, alpha_power=0.7)
    soft = mdp.transition_table(tabular.world("CliffWalking-v1")).soft(0.1)
    worth = mdp.policy_value(soft, learned(run).q.numpy().argmax(1), 0.99) @ soft.start
    exact = run.metrics["value_start_soft_exact"]
    assert exact == pytest.approx(-19.2898, abs=1e-4)
    assert worth == pytest.approx(exact, rel=0.01)
    assert run.metrics["value_start_soft"] == pytest.approx(exact, rel=0.05)
    assert run.metrics["value_start_exact"] == pytest.approx(-12.2479, abs=1e-4)


def test_with_exploration_dying_out_it_finds_the_optimum(tmp_path):
    options = {"alpha": 0.5, "alpha_power": 0.0, "epsilon_start": 0.2, "epsilon": 0.0, "explore": 0.8, "initial": 1.0}
    run = learn(tmp_path / "run", "mpcli/Gridworld-v0", 15_000, **options)
    assert run.metrics["value_start_exact"] == pytest.approx(0.99**13)
    assert run.metrics["value_start_greedy"] == pytest.approx(run.metrics["value_start_exact"], rel=0.01)
    assert run.metrics["value_start"] == pytest.approx(run.metrics["value_start_exact"], rel=0.01)


def test_an_agent_that_has_learned_nothing_misses_it(tmp_path):
    run = learn(tmp_path / "run", "CliffWalking-v1", 20)
    assert run.metrics["value_start_soft"] > -2 and run.metrics["value_start_greedy"] < -50
