"""Value iteration against linear solves, its printed bounds, and a map too wide to be solved exactly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mutants import arguments, larger, result
from scipy import sparse

from mpcli.run import Run, Trained, seed_everything
from mpcli_rl import value_iteration
from mpcli_rl.kit import mdp, tabular
from mpcli_rl.value_iteration import Bellman, Config

SMALL = {"rl_run": ["--env", "FrozenLake-v1", "--episodes", "2", "--eval-episodes", "2"]}
MUTANTS = {
    "another discount": (Bellman, "__call__", arguments(lambda self, v, gamma: (self, v, 0.9 * gamma))),
    "in place from the old values": (
        value_iteration.InPlace,
        "__call__",
        lambda original: lambda self, v, gamma: np.array([original(self, v, gamma)[0], *v[1:]]),
    ),
    "values too large": (Bellman, "__call__", result(larger)),
    "no rewards": (Bellman, "__init__", arguments(lambda self, model: (self, replace(model, r=0 * model.r)))),
    "the greedy policy takes the next action": (value_iteration, "greedy", result(lambda a: (a + 1) % 3)),
}

ISSUE = {
    "FrozenLake-v1": 0.54203,
    'FrozenLake-v1(map_name="8x8")': 0.41464,
    "Taxi-v4": 6.32746,
    "CliffWalking-v1": -12.2479,
}


def learn(directory: Path, env: str, steps: int = 5000, eval_episodes: int = 20, **options) -> Run:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"env": env}))
    seed_everything(0)
    run = Run(directory, seed=0, device="cpu")
    value_iteration.rl_run(Config(**options), run, env, steps, episodes=3, eval_episodes=eval_episodes)
    return run


def convergence(directory: Path) -> dict[str, np.ndarray]:
    rows = np.genfromtxt(directory / "convergence.csv", delimiter=",", names=True)
    return {name: rows[name] for name in rows.dtype.names}


@pytest.mark.parametrize("env", ISSUE)
def test_the_exact_values_are_met(tmp_path, env):
    run = learn(tmp_path / "run", env)
    seen = run.metrics
    assert seen["value_start"] == pytest.approx(ISSUE[env], abs=5e-5)
    assert seen["value_start"] == pytest.approx(seen["value_start_exact"], abs=1e-8)
    assert seen["value_start_greedy"] == pytest.approx(seen["value_start_exact"], rel=1e-9)
    assert seen["error"] <= seen["bound"] + 1e-12 and seen["bound"] <= 1e-8


@pytest.mark.parametrize("env", ISSUE)
@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_the_error_stays_under_its_bounds_at_every_sweep_and_falls_at_the_rate_gamma(tmp_path, env, gamma):
    learn(tmp_path / "run", env, eval_episodes=1, gamma=gamma)
    seen = convergence(tmp_path / "run")
    error, sweep = seen["error"], seen["sweep"]
    rounding = 1e-12 * (1 + error[0])
    assert len(error) > 5 and error[0] > 0
    assert (error <= seen["bound"] + rounding).all()
    assert (error <= gamma**sweep / (1 - gamma) * seen["change"][0] + rounding).all()
    assert (error[1:] <= gamma * error[:-1] + rounding).all()


def test_the_policy_is_best_after_finitely_many_sweeps_and_the_values_are_not(tmp_path):
    run = learn(tmp_path / "run", "FrozenLake-v1", tolerance=1e-6)
    seen = convergence(tmp_path / "run")
    best = int(run.metrics["sweeps_to_best_policy"])
    assert (seen["loss_of_greedy"][best - 1 :] <= 1e-9).all() and seen["loss_of_greedy"][best - 2] > 1e-9
    assert best < len(seen["error"]) / 2 and (seen["error"][best - 1 :] > 1e-9).all()


def test_trials_see_the_goal_once_its_value_has_come_to_the_start(tmp_path):
    """Six steps lead to it; the seventh sweep changes nothing and is the last."""
    learn(tmp_path / "run", "FrozenLake-v1(is_slippery=False)")
    rows = np.loadtxt(tmp_path / "run" / "returns.csv", delimiter=",", skiprows=1)
    assert rows.tolist() == [[1, 0], [2, 0], [4, 0], [7, 1]]


def test_the_near_sighted_are_done_sooner(tmp_path):
    sweeps = [learn(tmp_path / str(g), "FrozenLake-v1", gamma=g).metrics["steps"] for g in (0.0, 0.5, 0.9, 0.99)]
    assert sweeps[0] <= 2 and sweeps == sorted(sweeps) and sweeps[-1] > 5 * sweeps[1]


def some(ending, uneven, seed=0, states=700, actions=3):
    rng = np.random.default_rng(seed)
    dense = np.zeros((states * actions, states))
    for row in dense:
        row[rng.choice(states, 4, replace=False)] = rng.random(4)
    if uneven:
        dense[5] = rng.random(states)
    dense *= (1 - ending * rng.random((len(dense), 1))) / dense.sum(1, keepdims=True)
    return mdp.Table(sparse.csr_array(dense), rng.normal(size=(states, actions)), np.full(states, 1 / states)), rng


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("block", [64, 4096])
def test_a_sweep_in_blocks_is_the_backup_of_the_model(uneven, block, monkeypatch):
    monkeypatch.setattr(value_iteration, "BLOCK", block)
    table, rng = some(0.3, uneven)
    v = rng.normal(size=700)
    kept_sparse = [sparse.issparse(following) for _, following, _ in Bellman(table).blocks]
    assert any(kept_sparse) == uneven and not (all(kept_sparse) and block == 64)
    np.testing.assert_allclose(Bellman(table)(v, 0.9), table.backup(v, 0.9).max(1), rtol=1e-12)


def test_a_certain_world_that_ends_with_some_probability_is_not_taken_for_one_that_goes_on():
    p = sparse.csr_array(np.array([[0.0, 0.5], [1.0, 0.0], [0.0, 0.0], [0.25, 0.0]]))
    table = mdp.Table(p, np.zeros((2, 2)), np.array([1.0, 0]))
    np.testing.assert_allclose(Bellman(table)(np.array([3.0, 8.0]), 0.5), [2.0, 0.375])


def test_a_map_too_wide_to_be_solved_exactly(tmp_path, monkeypatch):
    """The values of a maze are powers of gamma in the length of the shortest way, found breadth first."""
    monkeypatch.chdir(tmp_path)
    cells = np.full((400, 400), ".")
    cells[::20, :] = "#"
    cells[::20, 10::30] = "."  # gaps in the walls
    cells[201, 201], cells[1, 0] = "G", "S"
    Path("wide.txt").write_text("\n".join("".join(row) for row in cells))
    env = 'mpcli/Gridworld-v0(map="wide.txt")'
    run = learn(tmp_path / "run", env, steps=60, eval_episodes=1, tolerance=0.0)
    table = tabular.load(Trained(run.dir, "cpu"))
    assert table.q.shape == (160_000, 4)
    near = np.full((400, 400), np.inf)
    near[201, 201] = 0
    free = cells != "#"
    for _ in range(61):
        grown = near.copy()
        grown[1:] = np.minimum(grown[1:], near[:-1] + 1)
        grown[:-1] = np.minimum(grown[:-1], near[1:] + 1)
        grown[:, 1:] = np.minimum(grown[:, 1:], near[:, :-1] + 1)
        grown[:, :-1] = np.minimum(grown[:, :-1], near[:, 1:] + 1)
        near = np.where(free, grown, np.inf)
    value = table.q.numpy().max(1).reshape(400, 400)
    exact = np.where(np.isfinite(near) & (near > 0), 0.99 ** (near - 1), 0)
    assert (exact > 0).sum() > 1500
    np.testing.assert_allclose(value, exact, rtol=1e-12)
    kept = sum(part.nbytes for row in Bellman(_model(env)).blocks for part in row if part is not None)
    assert kept == 160_000 * 4 * 16


def _model(env):
    return mdp.transition_table(tabular.world(env))


def test_environments_without_a_model_are_refused(mpcli):
    result = mpcli("rl-run", "value_iteration", "--env", "Blackjack-v1")
    assert result.code == 2 and "exposes no transition table" in result.err
    result = mpcli("rl-run", "value_iteration", "--env", 'mpcli/Gridworld-v0(map="no.txt")')
    assert result.code == 2 and "no.txt: cannot be read" in result.err and len(result.err.strip().splitlines()) == 1
    assert mpcli("rl-run", "value_iteration", "--gamma", "1").code == 2


def test_from_the_shell(mpcli):
    result = mpcli("rl-run", "value_iteration", "--json", "--quiet")
    assert result.code == 0, result.err
    names = [Path(path).name for path in result.json["artifacts"]]
    assert names == ["convergence.csv", "convergence.png", "returns.csv", "returns.png", "values.png", "curves.png"]
    again = mpcli("evaluate", result.json["run"], "--json", "--quiet").json["metrics"]
    assert again["return_mean"] == result.json["metrics"]["return_mean"]


@pytest.mark.parametrize("env", ["CliffWalking-v1", 'FrozenLake-v1(map_name="8x8")'])
def test_sweeps_in_place_need_fewer_for_the_same_optimum(mpcli, env):
    metrics = {}
    for sweeps in ("synchronous", "in_place"):
        options = ("--sweeps", sweeps, "--gamma", 0.95, "--episodes", 0, "--eval-episodes", 1, "--json", "--quiet")
        metrics[sweeps] = mpcli("rl-run", "value_iteration", "--env", env, *options).json["metrics"]
        assert metrics[sweeps]["error"] < 1e-8
    # on the cliff news comes from the last state, and each sweep carries it one state on, either way
    share = 1 if env.startswith("Cliff") else 0.9
    assert metrics["in_place"]["steps"] <= share * metrics["synchronous"]["steps"]
