"""Q-learning against the exact optimum, and what it owes to exploration."""

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from imageio_ffmpeg import count_frames_and_secs
from mutants import arguments

from mpcli.run import Run, Trained, seed_everything
from mpcli_rl import q_learning
from mpcli_rl.kit import mdp, tabular
from mpcli_rl.q_learning import Config

SMALL = {"rl_run": ["--env", "CliffWalking-v1(max_episode_steps=30)", "--eval-episodes", "2"]}
MUTANTS = {
    "the worst next action": (q_learning, "target", arguments(lambda *a: (*a[:3], [min(a[3])]))),
    "a value after the end": (q_learning, "target", arguments(lambda r, end, *rest: (r, False, *rest))),
    "another discount": (q_learning, "target", arguments(lambda r, end, gamma, q: (r, end, 0.9 * gamma, q))),
    "no reward": (q_learning, "target", arguments(lambda r, *rest: (0.0, *rest))),
}


def learn(directory: Path, env: str, steps: int, seed: int = 0, eval_episodes: int = 20, **options) -> Run:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"env": env}))
    seed_everything(seed)
    run = Run(directory, seed=seed, device="cpu")
    q_learning.rl_run(Config(**options), run, env, steps, eval_episodes=eval_episodes)
    return run


def learned(run: Run) -> tabular.Q:
    return tabular.load(Trained(run.dir, "cpu"))


def episodes(directory: Path) -> np.ndarray:  # [K, 3]: step, return, length
    return np.loadtxt(directory / "returns.csv", delimiter=",", skiprows=1)


def test_cliff_walking_is_solved_from_the_shell(mpcli, drawing):
    result = mpcli("rl-run", "q-learning", "--steps", 20000, "--epsilon-start", 0.2, "--json", "--quiet")
    assert result.code == 0, result.err
    metrics = result.json["metrics"]
    assert metrics["return_mean"] == metrics["return_exact"] == -13 and metrics["return_std"] == 0
    assert metrics["value_start_exact"] == pytest.approx(-12.2479, abs=1e-4)
    assert metrics["value_start"] == pytest.approx(metrics["value_start_exact"], rel=1e-6)
    assert metrics["value_start_greedy"] == pytest.approx(metrics["value_start_exact"], rel=1e-9)
    assert [Path(path).name for path in result.json["artifacts"]] == [
        "returns.csv",
        "returns.png",
        "values.png",
        "curves.png",
    ]
    rows = episodes(Path(result.json["run"]))
    assert rows[:, 2].sum() == rows[-1, 0] <= 20000
    assert rows[:, 1].max() == -13 and rows[-100:, 1].mean() > rows[:10, 1].mean()

    again = mpcli("evaluate", result.json["run"], "--json", "--quiet").json["metrics"]
    assert again == {"return_mean": -13, "return_std": 0}
    for name, count in (
        ("walk.gif", lambda p: len(iio.imread(p))),
        ("walk.mp4", lambda p: count_frames_and_secs(p)[0]),
    ):
        film = mpcli("render", result.json["run"], "--out", name)
        assert film.code == 0, film.err
        assert count(film.path) == 14  # the start, and 13 steps


def test_an_agent_that_has_learned_nothing_misses_the_optimum(tmp_path):
    run = learn(tmp_path / "run", "CliffWalking-v1", 20)
    assert run.metrics["return_mean"] < -100 and run.metrics["value_start_greedy"] < -50


def test_values_of_the_best_policy_are_learned_while_behaving_at_random(tmp_path):
    """With alpha 1 and no chance in the world every visit is an exact backup: the table becomes Q* itself."""
    lake = "FrozenLake-v1(is_slippery=False)"
    run = learn(tmp_path / "run", lake, 15_000, gamma=0.9, alpha=1.0, epsilon=1.0)
    table, model = learned(run), mdp.transition_table(tabular.world(lake))
    visited = table.visits.numpy() > 0
    assert visited.sum() == 11 * 4  # every pair but those of the holes and the goal
    exact = model.backup(mdp.solve(model, 0.9), 0.9)
    np.testing.assert_allclose(table.q.numpy()[visited], exact[visited], rtol=1e-12)
    assert run.metrics["return_mean"] == 1  # a way it never walked on purpose


@pytest.mark.learning
@pytest.mark.parametrize(
    ("env", "steps", "options"),
    [
        ("Taxi-v4", 100_000, {"alpha": 1.0, "epsilon_start": 0.3}),
        ("FrozenLake-v1", 50_000, {"alpha": 1.0, "alpha_power": 0.6, "epsilon_start": 0.1, "initial": 1.0}),
    ],
)
def test_learned_policy_is_worth_the_exact_optimum(tmp_path, env, steps, options):
    run = learn(tmp_path / "run", env, steps, **options)
    assert run.metrics["value_start_greedy"] == pytest.approx(run.metrics["value_start_exact"], rel=0.01)


def test_without_exploration_it_is_stuck_with_its_first_habit(tmp_path):
    lake = "FrozenLake-v1(is_slippery=False)"
    greedy = learn(tmp_path / "greedy", lake, 2000, epsilon_start=0.0, epsilon=0.0)
    decaying = learn(tmp_path / "decaying", lake, 20_000, epsilon_start=1.0, epsilon=0.0)
    assert greedy.metrics["return_mean"] == 0 and greedy.metrics["value_start"] == 0
    assert decaying.metrics["return_mean"] == 1
    returns = episodes(tmp_path / "decaying")[:, 1]
    assert returns[-20:].mean() == 1 > returns[:20].mean()  # less exploration later


def test_a_pair_never_visited_keeps_its_first_value(tmp_path):
    table = learned(learn(tmp_path / "run", "Taxi-v4", 2000, initial=-7.25))
    q, visits = table.q.numpy(), table.visits.numpy()
    assert visits.sum() == 2000 and (visits == 0).sum() > 1000
    assert (q[visits == 0] == -7.25).all() and (q[visits > 0] != -7.25).any()


def test_environments_with_a_tuple_of_discrete_parts(tmp_path):
    run = learn(tmp_path / "run", "Blackjack-v1", 15_000, eval_episodes=1000, alpha=0.05, gamma=1.0)
    # Sticking always earns about -0.16 a hand, random play -0.4; the best policy -0.045 (Sutton and Barto, 2018, 5.1).
    assert -0.15 < run.metrics["return_mean"] < 0.06
    assert not (tmp_path / "run" / "values.png").exists() and "value_start_exact" not in run.metrics


def test_gamma_of_one_is_compared_within_the_step_limit(tmp_path):
    run = learn(tmp_path / "run", "CliffWalking-v1", 15_000, gamma=1.0, epsilon_start=0.2)
    assert run.metrics["value_start"] == pytest.approx(-13, rel=1e-6)
    assert run.metrics["value_start_exact"] == run.metrics["value_start_greedy"] == -13
