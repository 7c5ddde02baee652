"""The deep Q-network: its memory, its targets in worlds whose values are known, learning, resuming."""

import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from mutants import arguments, larger, result

from mpcli.run import Run, Trained, seed_everything
from mpcli_rl import dqn
from mpcli_rl.dqn import Config, Memory, Q
from mpcli_rl.kit import mdp, playing, stepping, worlds

SMALL = {"rl_run": ["--hidden", "8", "--warmup", "2", "--eval-episodes", "2"], "evaluate": ["--eval-episodes", "2"]}
MUTANTS = {
    "the gradient leaks through the target": (dqn, "target", lambda original: original.__wrapped__),
    "a value after the end": (dqn, "target", arguments(lambda *a: (*a[:5], 0 * a[5]))),
    "the two networks change places": (dqn, "target", arguments(lambda cfg, q, frozen, *rest: (cfg, frozen, q, *rest))),
    "double forgotten": (dqn, "target", arguments(lambda cfg, *rest: (replace(cfg, double=False), *rest))),
    "a loss too large": (dqn, "loss", result(larger)),
    "the value of another action": (dqn, "loss", arguments(lambda cfg, q, s, a, y: (cfg, q, s, 0 * a, y))),
}


class Clock(gym.Env):
    """A reward of 1 at every step, whatever is done; `ends` says whether the world ends after the first."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, ends=False):
        self._ends = ends

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), 1.0, self._ends, False, {}


class Lake(gym.ObservationWrapper):
    """FrozenLake without ice, its state as a one-hot vector: a linear network is then a table."""

    def __init__(self, render_mode=None):
        super().__init__(gym.make("FrozenLake-v1", is_slippery=False, render_mode=render_mode).unwrapped)
        self.observation_space = gym.spaces.Box(0, 1, (16,))

    def observation(self, state):
        return np.eye(16, dtype=np.float32)[state]


class Sides(gym.Env):
    """A picture with one bright half; naming the side earns 1, and the episode is over."""

    observation_space = gym.spaces.Box(0, 255, (9, 8, 1), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._side = int(self.np_random.integers(2))
        return self._seen(), {}

    def _seen(self):
        picture = self.np_random.integers(0, 60, (9, 8, 1), np.uint8)
        picture[:, 4 * self._side : 4 * self._side + 4] += 150
        return picture

    def step(self, action):
        return self._seen(), float(action == self._side), True, False, {}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    gym.register("Clock-v0", entry_point=Clock, max_episode_steps=5)
    gym.register("OneHotLake-v0", entry_point=Lake, max_episode_steps=50)
    gym.register("Sides-v0", entry_point=Sides)
    yield
    for name in ("Clock-v0", "OneHotLake-v0", "Sides-v0"):
        del gym.registry[name]


def learn(directory: Path, env: str, steps: int, eval_episodes: int = 20, trial_every: int = 10**6, **options) -> Q:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"env": env}))
    seed_everything(0)
    run = Run(directory, seed=0, device="cpu")
    dqn.rl_run(Config(**options), run, env, steps, trial_every=trial_every, eval_episodes=eval_episodes)
    return Trained(directory, "cpu").load(Q, Config)


# The memory.


def memory_of(capacity: int, count: int, rows: int = 3) -> Memory:
    memory = Memory(capacity, np.zeros(2, np.float32))
    for first in range(0, count, rows):
        number = np.arange(first, first + rows)
        s = np.stack([number, -number], 1).astype(np.float32)
        memory.add(s, number, s + 1, number.astype(np.float32), number % 2 == 0)
    return memory


def test_memory_keeps_the_latest_transitions_together():
    memory = memory_of(10, 24)
    s, a, following, r, end = memory.sample(1000, torch.device("cpu"))
    assert set(a.tolist()) == set(range(14, 24))  # a ring of ten
    torch.testing.assert_close(s, torch.stack([a, -a], 1).float())
    torch.testing.assert_close(following, s + 1)
    torch.testing.assert_close(r, a.float())
    torch.testing.assert_close(end, (a % 2 == 0).float())


def test_memory_gives_nothing_that_it_has_not_seen():
    assert set(memory_of(100, 6).sample(500, torch.device("cpu"))[1].tolist()) == set(range(6))


@pytest.mark.parametrize("count", [6, 24])
def test_memory_is_restored_exactly(count, tmp_path):
    memory, other = memory_of(10, count), memory_of(10, 0)
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    other.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    for one in (memory, other):
        one.add(*(column[:4] for column in memory_of(10, 9).columns))
    assert memory.seen == other.seen
    for left, right in zip(memory.columns, other.columns, strict=True):
        np.testing.assert_array_equal(left, right)
    with pytest.raises(ValueError, match="remembers"):
        Memory(10, np.zeros(3, np.float32)).load_state_dict(memory.state_dict())


def test_memory_takes_the_correlation_out_of_a_minibatch():
    """Neighbours in the stream are nearly equal; neighbours in a minibatch are strangers."""
    worlds = stepping.Copies(lambda: dqn.world("CartPole-v1"), 1, seed=0)
    memory, stream = Memory(4000, worlds.observation[0]), []
    for action in np.random.default_rng(0).integers(0, 2, (4000, 1)):
        stream.append(worlds.observation[0])
        memory.add(worlds.observation, action, *worlds.step(action))
    batch = memory.sample(4000, torch.device("cpu"))[0].numpy()

    def neighbours(rows: np.ndarray) -> float:  # correlation of the pole's angle
        return float(np.corrcoef(rows[:-1, 2], rows[1:, 2])[0, 1])

    assert neighbours(np.array(stream)) > 0.7
    assert abs(neighbours(batch)) < 0.1


# Values that are known.


def test_a_step_limit_is_no_end_but_the_end_of_the_world_is(tmp_path):
    options = {"hidden": (), "gamma": 0.8, "warmup": 0, "learn_every": 1, "target_every": 10, "lr": 0.05}
    cut = learn(tmp_path / "cut", "Clock-v0", 1500, **options)(torch.ones(1, 1)).detach()
    ended = learn(tmp_path / "ended", "Clock-v0(ends=True)", 500, **options)(torch.ones(1, 1)).detach()
    torch.testing.assert_close(cut, torch.full((1, 2), 1 / (1 - 0.8)), atol=0.05, rtol=0)
    torch.testing.assert_close(ended, torch.ones(1, 2), atol=0.02, rtol=0)


@pytest.mark.parametrize("double", [False, True])
def test_a_linear_network_on_one_hot_states_learns_the_exact_optimum(tmp_path, double):
    q = learn(
        tmp_path / "run", "OneHotLake-v0", 4000, hidden=(), gamma=0.7, warmup=50, learn_every=1, target_every=20,
        lr=0.02, epsilon=1.0, double=double, copies=2,
    )  # fmt: skip
    model = mdp.transition_table(worlds.make("FrozenLake-v1(is_slippery=False)", ("discrete",), ("discrete",)))
    exact = model.backup(mdp.solve(model, 0.7), 0.7)
    with torch.no_grad():
        learned = q(torch.eye(16)).numpy()
    inside = model.terminal.min(1) < 1  # holes and the goal are never acted in
    np.testing.assert_allclose(learned[inside], exact[inside], atol=0.05)


def test_images_go_through_the_encoder(tmp_path):
    q = learn(
        tmp_path / "run", "Sides-v0", 600, eval_episodes=100, hidden=(16,), warmup=50, learn_every=2, batch=32, copies=2
    )
    result = playing.evaluate(lambda: dqn.world("Sides-v0"), q.greedy, 100, seed=3)
    assert result.mean() >= 0.95  # 0.5 without having seen anything


# The page from the shell.


@pytest.mark.learning
def test_it_learns_to_balance(mpcli):
    command = ("rl-run", "dqn", "--steps", 6000, "--hidden", "64,64", "--trial-every", 1000, "--eval-episodes", 20)
    result = mpcli(*command, "--json", "--quiet")
    assert result.code == 0, result.err
    metrics = result.json["metrics"]
    assert metrics["return_mean"] > 100 and metrics["steps"] == 6000  # a network not trained: about 9, chance: 22
    assert [Path(path).name for path in result.json["artifacts"]] == [
        "returns.csv",
        "returns.png",
        "policy.gif",
        "curves.png",
    ]
    rows = np.loadtxt(result.json["artifacts"][0], delimiter=",", skiprows=1)
    assert (rows[:, 1] == rows[:, 2]).all() and rows[:, 2].sum() == rows[-1, 0] <= 6000


def test_the_best_network_of_the_trials_is_kept(tmp_path, monkeypatch):
    scores = iter([3.0, 9.0, 4.0])
    seen: list[np.ndarray] = []

    def evaluate(make, policy, episodes, seed, purpose=stepping.EVALUATION):
        seen.append(policy.__self__.head[0].weight.detach().numpy().copy())
        return np.array([next(scores) if purpose == stepping.SELECTION else 0.0])

    monkeypatch.setattr(playing, "evaluate", evaluate)
    q = learn(tmp_path / "run", "Clock-v0", 300, trial_every=100, hidden=(), warmup=0)
    assert len(seen) == 4 and (seen[1] != seen[2]).any()
    np.testing.assert_array_equal(q.head[0].weight.detach().numpy(), seen[1])
    np.testing.assert_array_equal(seen[3], seen[1])  # and the reported return is its own


def test_an_environment_that_cannot_be_drawn_is_learned_all_the_same(mpcli):
    result = mpcli("rl-run", "dqn", "--env", "Clock-v0", "--steps", 20, "--eval-episodes", 2, "--json", "--quiet")
    assert result.code == 0, result.err
    assert [Path(path).name for path in result.json["artifacts"]] == ["returns.csv", "returns.png", "curves.png"]
    refused = mpcli("render", result.json["run"], "--quiet")
    assert refused.code == 2 and "Clock-v0: cannot be made" in refused.err
