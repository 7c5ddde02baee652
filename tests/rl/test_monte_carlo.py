"""Monte Carlo: unbiased means against linear solves, and control against the exact optimum."""

import json
from pathlib import Path

import numpy as np
import pytest
from mutants import arguments, result

from mpcli.run import Run, Trained, seed_everything
from mpcli_rl import monte_carlo
from mpcli_rl.kit import mdp, tabular
from mpcli_rl.monte_carlo import Config

SMALL = {"rl_run": ["--eval-episodes", "2"]}
MUTANTS = {
    "no discount": (monte_carlo, "returns", arguments(lambda rewards, gamma: (rewards, 1.0))),
    "returns in the order of their computation": (monte_carlo, "returns", result(lambda g: g[::-1])),
    "every visit for the first": (monte_carlo, "counted", arguments(lambda pairs, visits: (pairs, "every"))),
    "the last visit": (monte_carlo, "counted", result(lambda steps: steps[-1:])),
}

WALK = 'mpcli/Gridworld-v0(map=["H..S..G"], hole=0.0)'


def learn(directory: Path, env: str, steps: int, seed: int = 0, episodes=None, eval_episodes=20, **options) -> Run:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"env": env}))
    seed_everything(seed)
    run = Run(directory, seed=seed, device="cpu")
    monte_carlo.rl_run(Config(**options), run, env, steps, episodes, eval_episodes)
    return run


def learned(run: Run) -> tabular.Q:
    return tabular.load(Trained(run.dir, "cpu"))


def worth_at_random(env: str, gamma: float) -> np.ndarray:  # [S, A]
    model = mdp.transition_table(tabular.world(env))
    return model.backup(mdp.policy_value(model, np.full(model.r.shape, 1 / model.r.shape[1]), gamma), gamma)


def test_which_visits_count():
    pairs = [(0, 1), (2, 0), (0, 1), (0, 0), (2, 0)]
    assert monte_carlo.counted(pairs, "first") == [0, 1, 3]
    assert monte_carlo.counted(pairs, "every") == [0, 1, 2, 3, 4]
    assert monte_carlo.returns([1.0, 2.0, 4.0], 0.5) == [3.0, 4.0, 4.0]


@pytest.mark.parametrize("visits", ["first", "every"])
@pytest.mark.parametrize(("env", "gamma"), [(WALK, 1.0), ("FrozenLake-v1", 0.95)])
def test_evaluation_tends_to_the_value_of_the_policy(tmp_path, visits, env, gamma):
    runs = [
        learn(tmp_path / str(n), env, n, control="none", visits=visits, gamma=gamma, alpha=0.0, eval_episodes=1)
        for n in (400, 30_000)
    ]
    table = learned(runs[1])
    q, count, exact = table.q.numpy(), table.visits.numpy(), worth_at_random(env, gamma)
    often = count > 200
    assert often.sum() > 8
    # A return lies in [0, 1]: its deviation is at most 1/2, that of the mean 1/2 / sqrt(N).
    assert (np.abs(q - exact)[often] < 4 * 0.5 / np.sqrt(count[often])).all()
    assert runs[1].metrics["value_start"] == pytest.approx(runs[1].metrics["value_start_random"], abs=0.03)
    assert runs[1].metrics["rms_error"] < 0.03 and runs[1].metrics["rms_error"] < runs[0].metrics["rms_error"] / 2


def test_in_one_episode_the_first_visit_is_unbiased_and_every_visit_is_not(tmp_path):
    """Mean over many runs of one episode each; the middle state of the walk is visited in all."""
    seen = {"first": [], "every": []}
    rng = np.random.default_rng(0)
    for _ in range(4000):
        place, pairs, rewards = 2, [], []
        while 0 < place < 4:  # three states between an end worth 0 and one worth 1
            pairs.append((place, 0))
            place += rng.choice((-1, 1))
            rewards.append(float(place == 4))
        g = monte_carlo.returns(rewards, 0.5)
        for visits, means in seen.items():
            means.append(np.mean([g[step] for step in monte_carlo.counted(pairs, visits) if pairs[step] == (2, 0)]))
    # v(2) = sum over 2, 4, 6, ... steps of gamma^(n - 1) / 2^(n / 2) = 0.5 / 4 / (1 - 1 / 8) * 2 / 2
    exact = sum(0.5 ** (n - 1) * 0.5 ** (n / 2) for n in range(2, 60, 2)) / 1 * 0.5
    error = {visits: np.mean(means) - exact for visits, means in seen.items()}
    spread = np.std(seen["first"]) / np.sqrt(4000)
    assert abs(error["first"]) < 4 * spread and error["every"] > 8 * spread


@pytest.mark.parametrize("control", ["starts", "epsilon_soft"])
def test_control_finds_the_shortest_way(tmp_path, control):
    maze = 'mpcli/Gridworld-v0(map=["S..#", ".#..", "...G"], max_episode_steps=30)'
    run = learn(tmp_path / "run", maze, 15_000, gamma=0.9, alpha=0.0, control=control)
    assert run.metrics["value_start_exact"] == pytest.approx(0.9**4)
    assert run.metrics["value_start_greedy"] == pytest.approx(0.9**4)
    if control == "starts":
        assert (learned(run).visits.numpy().sum(1) > 0).sum() == 9  # every cell but walls and the goal


def test_exploring_starts_on_ice(tmp_path):
    run = learn(tmp_path / "run", "FrozenLake-v1", 100_000)
    assert run.metrics["value_start_greedy"] > 0.95 * run.metrics["value_start_exact"]
    nothing = learn(tmp_path / "none", "FrozenLake-v1", 20)
    assert nothing.metrics["value_start_greedy"] < 0.5 * nothing.metrics["value_start_exact"]


def test_exploring_starts_need_a_state_that_can_be_set(mpcli):
    result = mpcli("rl-run", "monte_carlo", "--env", "Blackjack-v1")
    assert result.code == 2 and "use --control epsilon_soft" in result.err and len(result.err.splitlines()) == 1


@pytest.mark.learning
def test_blackjack_with_epsilon_soft_control(tmp_path):
    run = learn(tmp_path / "run", "Blackjack-v1", 25_000, control="epsilon_soft", gamma=1.0, eval_episodes=600)
    # Sticking always earns about -0.16 a hand, random play -0.4; the best policy -0.045 (Sutton and Barto, 2018, 5.1).
    assert -0.15 < run.metrics["return_mean"] < 0.07
