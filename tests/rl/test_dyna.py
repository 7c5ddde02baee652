"""Dyna: equal to Q-learning without planning, and in need of fewer real steps with it."""

import json
from pathlib import Path

import numpy as np
import pytest
from mutants import arguments, larger, result

from mpcli.run import Run, Trained, seed_everything
from mpcli_rl import dyna, q_learning
from mpcli_rl.dyna import Model
from mpcli_rl.kit import mdp, tabular

SMALL = {"rl_run": ["--env", "CliffWalking-v1(max_episode_steps=30)", "--eval-episodes", "2"]}
MUTANTS = {
    "imagination is stuck": (Model, "imagine", lambda original: lambda model, which, outcome: model.steps[0]),
    "the first outcome of a pair": (Model, "imagine", arguments(lambda model, which, outcome: (model, which, 0.0))),
    "every outcome remembered as the end": (
        Model,
        "remember",
        arguments(lambda model, step: (model, (*step[:4], True))),
    ),
    "another discount": (dyna, "target", arguments(lambda r, end, gamma, q: (r, end, 0.9 * gamma, q))),
    "distance of models too large": (dyna, "wrong", result(larger)),
}

MAZE = "mpcli/Gridworld-v0(step_reward=-1, goal=0)"
BEST = -(1 - 0.95**14) / (1 - 0.95)  # fourteen steps


def learn(directory: Path, env: str, steps: int, seed: int = 0, page=dyna, episodes=None, **options) -> Run:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"env": env}))
    seed_everything(seed)
    run = Run(directory, seed=seed, device="cpu")
    page.rl_run(page.Config(**options), run, env, steps, episodes, eval_episodes=20)
    return run


def learned(run: Run) -> tabular.Q:
    return tabular.load(Trained(run.dir, "cpu"))


def test_without_planning_it_is_q_learning_bit_for_bit(tmp_path):
    options = {"gamma": 0.9, "alpha": 0.3, "alpha_power": 0.5, "epsilon_start": 0.8, "explore": 0.4, "initial": 0.5}
    one = learn(tmp_path / "dyna", "FrozenLake-v1", 3000, planning=0, **options)
    other = learn(tmp_path / "q", "FrozenLake-v1", 3000, page=q_learning, **options)
    np.testing.assert_array_equal(learned(one).q.numpy(), learned(other).q.numpy())
    assert (one.dir / "returns.csv").read_bytes() == (other.dir / "returns.csv").read_bytes()


@pytest.mark.parametrize("seed", [0, 1])
def test_fewer_real_steps_than_q_learning_to_the_same_return(tmp_path, seed):
    """Real steps until ten episodes in a row took at most 20 steps through the maze whose shortest way is 14."""
    options = {"alpha": 0.1}
    needed = {}
    for planning in (0, 5, 50):
        run = learn(tmp_path / str(planning), MAZE, 20_000, seed, episodes=150, planning=planning, **options)
        step, _, length = np.loadtxt(run.dir / "returns.csv", delimiter=",", skiprows=1).T
        long = np.convolve(length, np.ones(10) / 10, "valid")
        reached = np.flatnonzero(long <= 20)
        needed[planning] = step[reached[0] + 9] if len(reached) else np.inf
    assert needed[50] < needed[5] < needed[0] and needed[50] < needed[0] / 5


def test_the_maze_is_solved(tmp_path):
    run = learn(tmp_path / "run", MAZE, 6000)
    assert run.metrics["value_start_exact"] == pytest.approx(BEST)
    assert run.metrics["value_start_greedy"] == pytest.approx(BEST)
    assert run.metrics["value_start"] == pytest.approx(BEST, rel=0.01)
    assert run.metrics["backups"] == 11 * 6000 and run.metrics["model_error"] == 0  # a certain world
    nothing = learn(tmp_path / "none", MAZE, 10)
    assert nothing.metrics["value_start_greedy"] < BEST - 5


def test_the_model_tends_to_the_world_and_the_policy_to_the_best(tmp_path):
    options = {"gamma": 0.99, "alpha": 1.0, "alpha_power": 0.6, "epsilon_start": 1.0, "epsilon": 0.3, "initial": 1.0}
    short = learn(tmp_path / "short", "FrozenLake-v1", 300, **options)
    run = learn(tmp_path / "run", "FrozenLake-v1", 10_000, **options)
    assert run.metrics["model_error"] < 0.08 < short.metrics["model_error"]
    assert run.metrics["value_start_greedy"] == pytest.approx(run.metrics["value_start_exact"], rel=0.01)


def test_the_error_of_a_model_is_its_total_variation():
    truth = mdp.transition_table(tabular.world("FrozenLake-v1"))
    model = Model()
    for reached in (0, 0, 0, 4):  # left at the start: 0 twice in three, 4 once; here 3/4 and 1/4
        model.remember((0, 0, 0.0, reached, False))
    assert dyna.wrong(model, truth) == pytest.approx(3 / 4 - 2 / 3)
    model.remember((14, 2, 1.0, 15, True))  # right beside the goal: it ends once in three times
    assert dyna.wrong(model, truth) == pytest.approx((3 / 4 - 2 / 3) / 2 + (2 / 3) / 2)


def test_a_model_imagines_what_it_has_seen_and_is_kept():
    model = Model()
    for step in ((0, 1, 0.5, 2, False), (0, 1, 0.0, 3, True), (0, 1, 0.5, 2, False), (2, 0, 1.0, 2, False)):
        model.remember(step)
    again = Model()
    again.load_state_dict(model.state_dict())
    assert (again.steps, again.pairs, again.outcomes) == (model.steps, model.pairs, model.outcomes)
    seen = [again.imagine(*chances) for chances in np.random.default_rng(0).random((3000, 2))]
    assert seen.count((2, 0, 1.0, 2, False)) == pytest.approx(1500, abs=130)
    assert seen.count((0, 1, 0.0, 3, True)) == pytest.approx(500, abs=100)


def test_the_markov_property_is_told_from_its_absence():
    """Under the null hypothesis the p-value is uniform; a walker that tends to go on as before is found out."""
    rng = np.random.default_rng(0)

    def walk(momentum: float) -> list[dyna.Step]:
        steps, place, way = [], 3, 1
        for _ in range(4000):
            way = way if rng.random() < momentum else rng.choice((-1, 1))
            reached = (place + way) % 7
            steps.append((place, 0, 0.0, int(reached), False))
            place = int(reached)
        return steps

    chances = [dyna.markov(walk(0.0)) for _ in range(60)]
    assert np.mean(chances) == pytest.approx(0.5, abs=0.15) and min(chances) > 1e-4
    assert dyna.markov(walk(0.2)) < 1e-6
    assert dyna.markov([(0, 0, 0.0, 1, False), (1, 0, 0.0, 0, False)] * 100) == 1
