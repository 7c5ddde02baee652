"""What every page that learns from episodes owes: resuming within one, stopping after some, playing again, refusing."""

import signal
from pathlib import Path

import gymnasium as gym
import imageio.v3 as iio
import numpy as np
import pytest

from mpcli.registry import pages
from mpcli_rl.kit import stepping

LAKE, PENDULUM = ("--env", "FrozenLake-v1"), ("--env", "Pendulum-v1(max_episode_steps=20)")
FEW = ("--eval-episodes", 3)
LEARNERS = {
    "monte_carlo": (*LAKE, *FEW),
    "q_learning": (*LAKE, *FEW),
    "sarsa": (*LAKE, *FEW),
    "dyna": (*LAKE, *FEW, "--planning", 2),
    "dqn": ("--hidden", 8, "--warmup", 20, "--memory", 60, "--trial-every", 50, "--trial-episodes", 1, *FEW),
    "reinforce": ("--hidden", 8, "--batch", 2, *FEW),
    "actor_critic": ("--hidden", 8, "--copies", 3, "--rollout", 7, "--trial-every", 50, "--trial-episodes", 1, *FEW),
}
NETWORKS = ("dqn", "reinforce", "actor_critic")
PPO = ("--objective", "ppo", "--epochs", 2, "--scale-rewards")
RESUMED = {
    **{name: (name, *options) for name, options in LEARNERS.items()},
    "td0": ("td0", "--copies", 5, "--episodes", 60, *FEW),
    "dqn with copies": ("dqn", *LEARNERS["dqn"], "--copies", 3),
    "reinforce on vectors": ("reinforce", *LEARNERS["reinforce"], *PENDULUM),
    "ppo on vectors": ("actor_critic", *LEARNERS["actor_critic"], *PENDULUM, *PPO),
}


def returns(run: Path | str) -> np.ndarray:  # [K, 3]: step, return, length
    return np.loadtxt(Path(run) / "returns.csv", delimiter=",", skiprows=1, ndmin=2)


@pytest.mark.parametrize("case", RESUMED)
def test_interrupted_within_an_episode_and_resumed_it_ends_the_same(case, mpcli, monkeypatch):
    command = ("rl-run", *RESUMED[case], "--steps", 160, "--quiet")
    taken, step = 0, stepping.Episodes.step

    def counted(self, action):
        nonlocal taken
        taken += 1
        if taken == until:
            signal.raise_signal(signal.SIGINT)
        return step(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(stepping.Episodes, "step", counted)
        until = -1
        assert mpcli(*command, "--out", "whole").code == 0
        until, taken = taken * 7 // 13, 0
        assert mpcli(*command, "--out", "cut").code == 130
    resumed = mpcli("rl-run", "cut", "--resume", "--quiet")
    assert resumed.code == 0, resumed.err
    files = {path.name for path in Path("whole").iterdir()} - {"run.json", "log.txt", "command.txt", "checkpoint.pt"}
    assert {"model.safetensors", "metrics.jsonl", "returns.csv", "returns.png"} < files
    for file in files - {"config.json", "env.json"}:
        assert (Path("whole") / file).read_bytes() == (Path("cut") / file).read_bytes(), file


@pytest.mark.parametrize("name", LEARNERS)
def test_it_stops_after_the_episodes_asked_for(name, mpcli):
    command = ("rl-run", name, "--episodes", 7, "--steps", 4000, *LEARNERS[name])
    result = mpcli(*command, "--json", "--quiet")
    assert result.code == 0, result.err
    rows, steps = returns(result.json["run"]), result.json["metrics"]["steps"]
    if name == "actor_critic":  # at the end of a rollout
        assert 7 <= len(rows) < 12 and steps % 21 == 0 and rows[-1, 0] <= steps < 1000
    else:
        assert len(rows) == 7 and steps == rows[-1, 0]


@pytest.mark.parametrize("name", LEARNERS)
def test_what_it_has_learned_is_played_again(name, mpcli, drawing):
    result = mpcli("rl-run", name, "--steps", 60, *LEARNERS[name], "--json", "--quiet")
    assert result.code == 0, result.err
    again = mpcli("evaluate", result.json["run"], *FEW, "--json", "--quiet").json["metrics"]
    assert again == {metric: result.json["metrics"][metric] for metric in ("return_mean", "return_std")}
    film = mpcli("render", result.json["run"], "--seed", 4, "--quiet")
    assert film.code == 0 and iio.imread(film.path).std() > 5
    assert iio.imread(Path(result.json["run"]) / "returns.png").shape[1] > 500


@pytest.mark.parametrize("name", [name for name, page in pages().items() if page.module.startswith("mpcli_rl")])
def test_a_wrong_environment_is_refused_and_leaves_nothing(name, mpcli):
    if name == "bandit":
        pytest.skip("has one state and no environment")
    wrong = [("CartPol-v1", "did you mean CartPole-v1"), ("CartPole-v1(x=)", "arguments cannot be read")]
    if name in NETWORKS:
        wrong.append(("FrozenLake-v1", "observations are discrete"))
    else:
        wrong.append(("CartPole-v1", "observations are a vector of 4 numbers; this page needs discrete observations"))
    if name == "dqn":
        wrong.append(("Pendulum-v1", "actions are a vector of 1 numbers; this page needs discrete actions"))
    if name in ("markov", "value_iteration", "policy_iteration", "td0"):
        wrong.append(("Blackjack-v1", "exposes no transition table"))
    for env, says in wrong:
        named = ("--chain", f"env:{env}") if name == "markov" else ("--env", env)
        result = mpcli("rl-run", name, *named)
        assert result.code == 2 and says in result.err and "Traceback" not in result.err
        assert len(result.err.strip().splitlines()) == 1
    assert not list(Path("runs").glob("*/*"))


class Undrawable(gym.Env):
    """Says that it can be drawn, and cannot."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's own way)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), 1.0, True, False, {}

    def render(self):
        raise RuntimeError("no OpenGL here")


@pytest.mark.parametrize("page", NETWORKS)
def test_a_trained_agent_is_not_lost_for_a_film_of_it(page, mpcli, monkeypatch, drawing):
    monkeypatch.setitem(gym.registry, "Undrawable-v0", gym.envs.registration.EnvSpec("Undrawable-v0", Undrawable))
    result = mpcli("rl-run", page, *LEARNERS[page], "--env", "Undrawable-v0", "--steps", 60, "--out", "run")
    assert result.code == 0 and "policy.gif was not drawn: --env Undrawable-v0: cannot be drawn" in result.err
    assert Path("run/model.safetensors").exists()
    assert mpcli("render", "run").code == 2  # here it is what was asked for
