"""Actor-critic: its advantages, its two objectives, worlds whose values are known, learning, resuming."""

import json
import math
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from mutants import arguments, larger, result
from safetensors.numpy import load_file
from torch import nn

from mpcli.run import Run, Trained, seed_everything
from mpcli_rl import actor_critic
from mpcli_rl.actor_critic import ActorCritic, Config, Scale, actor_loss, advantages, loss, play
from mpcli_rl.kit import playing, stepping
from mpcli_rl.kit.policy import shapes, world

SMALL = {
    "rl_run": ["--hidden", "8", "--copies", "1", "--rollout", "1", "--eval-episodes", "2"],
    "evaluate": ["--eval-episodes", "2"],
}
MUTANTS = {
    "a step limit taken for the end": (actor_critic, "advantages", arguments(lambda *a: (*a[:2], a[3], *a[3:]))),
    "nothing cut at the border": (actor_critic, "advantages", arguments(lambda *a: (*a[:3], 0 * a[3], *a[4:]))),
    "the value of the state left": (actor_critic, "advantages", arguments(lambda *a: (*a[:5], a[4]))),
    "the other sign": (actor_critic, "actor_loss", result(lambda x: -x)),
    "a wider clip": (actor_critic, "actor_loss", arguments(lambda cfg, *rest: (replace(cfg, clip=0.3), *rest))),
    "no entropy": (actor_critic, "loss", arguments(lambda cfg, *rest: (replace(cfg, entropy=0.0), *rest))),
    "a loss too large": (actor_critic, "loss", result(larger)),
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


class Push(gym.Env):
    """Eight steps on a line: each pushes by up to 1 and costs the squared distance from 0."""

    observation_space = gym.spaces.Box(-5, 5, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, price=1.0):
        self._price = price

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._at, self._left = self.np_random.uniform(-2, 2, 1).astype(np.float32), 8
        return self._at, {}

    def step(self, action):
        self._at, self._left = self._at + action, self._left - 1
        return self._at, -self._price * float(self._at[0] ** 2), self._left == 0, False, {}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    gym.register("Clock-v1", entry_point=Clock, max_episode_steps=5)
    gym.register("Push-v0", entry_point=Push)
    yield
    for name in ("Clock-v1", "Push-v0"):
        del gym.registry[name]


def learn(directory: Path, env: str, steps: int, **options) -> tuple[ActorCritic, Run]:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"env": env}))
    seed_everything(0)
    run = Run(directory, seed=0, device="cpu")
    actor_critic.rl_run(Config(**options), run, env, steps, eval_episodes=50)
    return Trained(directory, "cpu").load(ActorCritic, Config), run


# Advantages.


def random_rollout(t: int = 7, n: int = 3) -> list[torch.Tensor]:
    r, v = torch.randn(2, t, n)
    return [r, torch.zeros(t, n), torch.zeros(t, n), v, v.roll(-1, 0)]


def test_lambda_1_sums_up_all_rewards_and_lambda_0_trusts_the_next_value():
    r, end, over, v, following = random_rollout()
    n_step = advantages(Config(lam=1, gamma=0.5), r, end, over, v, following)
    expected = sum(0.5**k * r[k] for k in range(7)) + 0.5**7 * following[-1] - v[0]
    torch.testing.assert_close(n_step[0], expected)
    torch.testing.assert_close(
        advantages(Config(lam=0, gamma=0.5), r, end, over, v, following), r + 0.5 * following - v
    )


@pytest.mark.parametrize("cut", [False, True])
def test_nothing_flows_back_over_the_border_of_two_episodes(cut):
    r, end, over, v, following = random_rollout()
    over[3, 1], end[3, 1] = 1, float(not cut)
    before = advantages(Config(), r, end, over, v, following)
    r[4:, 1] += 100
    after = advantages(Config(), r, end, over, v, following)
    torch.testing.assert_close(after[:4], before[:4])
    assert (after[4:, 1] - before[4:, 1]).min() > 50
    following[3, 1] += (
        100  # a limit cut it: what the state reached is worth still counts; the end of the world: nothing
    )
    moved = advantages(Config(), r, end, over, v, following)[3, 1] - after[3, 1]
    assert float(moved) == pytest.approx(99 if cut else 0, abs=1e-3)


def test_a_rollout_reports_the_state_reached_and_both_ways_to_end():
    worlds = stepping.Copies(lambda: world("CartPole-v1(max_episode_steps=12)"), 4, seed=0)
    model = ActorCritic(Config(rollout=60), **shapes(world("CartPole-v1")))
    s, a, r, end, over, reached = play(Config(rollout=60), model, worlds)
    assert s.shape == reached.shape == (60, 4, 4) and a.shape == r.shape == end.shape == over.shape == (60, 4)
    fallen = (reached[..., 2].abs() > 12 * np.pi / 180) | (reached[..., 0].abs() > 2.4)
    assert torch.equal(end.bool(), fallen) and 0 < end.sum() < over.sum()
    assert (over >= end).all()
    within = over[:-1] == 0
    torch.testing.assert_close(s[1:][within], reached[:-1][within])
    assert s[1:][~within].abs().max() <= 0.05  # the next episode has begun
    assert float(over.sum()) == worlds.ended == len(worlds.finished)


# Objectives.


def test_ppo_stops_pushing_once_the_ratio_is_out_of_its_range():
    old = torch.zeros(4)
    log_pi = torch.log(torch.tensor([1.3, 0.7, 1.3, 0.7])).requires_grad_()
    a = torch.tensor([1.0, 1.0, -1.0, -1.0])
    (slope,) = torch.autograd.grad(actor_loss(Config("ppo"), log_pi, old, a), log_pi)
    torch.testing.assert_close(slope * 4, torch.tensor([0.0, -0.7, 1.3, 0.0]))
    (slope,) = torch.autograd.grad(actor_loss(Config("a2c"), log_pi, old, a), log_pi)
    torch.testing.assert_close(slope * 4, -a)


def test_the_loss_has_its_three_parts():
    cfg = Config("a2c", entropy=0.3, hidden=(4,))
    model = ActorCritic(cfg, **shapes(world("CartPole-v1")))
    s, action = torch.randn(6, 4), torch.randint(2, (6,))
    old, a, goal = torch.randn(3, 6)
    pi = torch.distributions.Categorical(logits=model.actor.mean(s))
    expected = -(a * pi.log_prob(action)).mean() - 0.3 * pi.entropy().mean()
    expected = expected + ((model.critic(s).squeeze(1) - goal) ** 2).mean() / 2
    torch.testing.assert_close(loss(cfg, model, s, action, old, a, goal), expected)
    scaled = [loss(Config("ppo", hidden=(4,)), model, s, action, old, 5 * a + b, goal) for b in (0, 7)]
    torch.testing.assert_close(*scaled)  # ppo does not see the scale of its advantages


# Values that are known.


@pytest.mark.parametrize("objective", ["a2c", "ppo"])
def test_a_step_limit_is_no_end_but_the_end_of_the_world_is(tmp_path, objective):
    options = {"objective": objective, "hidden": (), "gamma": 0.8, "copies": 4, "rollout": 8, "most": 10.0, "epochs": 4}
    cut, _ = learn(tmp_path / "cut", "Clock-v1", 3000, lr=0.2, **options)
    ended, _ = learn(tmp_path / "ended", "Clock-v1(ends=True)", 1500, lr=0.1, **options)
    with torch.no_grad():
        assert float(cut.value(torch.ones(1, 1))) == pytest.approx(1 / (1 - 0.8), abs=0.05)
        assert float(ended.value(torch.ones(1, 1))) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("objective", ["a2c", "ppo"])
def test_it_learns_to_push_to_the_middle(tmp_path, objective):
    model, run = learn(
        tmp_path / "run", "Push-v0", 12_000, objective=objective, hidden=(16,), rollout=8, lr=0.015, gamma=0.9, epochs=4
    )
    # The best: a start at x costs (|x| - 1)^2 where |x| > 1, in the mean 1/6. To stand still: 8 * 4/3.
    assert run.metrics["return_mean"] > -1
    assert float(model.actor.log_sigma.detach()) < -0.3
    assert (np.diff(model.actor.greedy(np.linspace(-0.6, 0.6, 9, dtype=np.float32)[:, None])[:, 0]) < 0).all()


def test_scaled_rewards_have_the_deviation_of_their_discounted_sum():
    scale, r = Scale(0.8, copies=2), torch.randn(20_000, 2, dtype=torch.float64) * torch.tensor([3.0, 4.0])
    over = torch.zeros(20_000, 2)
    first, rest = scale(r[:15_000], over[:15_000]), scale(r[15_000:], over[15_000:])
    deviation = math.sqrt((3**2 + 4**2) / 2 / (1 - 0.8**2))  # that of sum_k gamma^k r_{t-k}, over both worlds
    for found, given in ((first, r[:15_000]), (rest, r[15_000:])):
        assert float((given / found).mean()) == pytest.approx(deviation, rel=0.02)
    short = Scale(0.8, copies=2)(r, torch.ones(20_000, 2))  # where every episode has one step there is no sum
    assert float((r / short).mean()) == pytest.approx(math.sqrt((3**2 + 4**2) / 2), rel=0.02)
    still = torch.full((5, 2), 0.0)
    assert (Scale(0.8, copies=2)(still, over[:5]) == 0).all()


def test_with_scaled_rewards_their_size_changes_nothing(tmp_path):
    """By a power of two, so that not one bit may differ."""
    models = {}
    for price in (1.0, 1024.0):
        for scaled in (True, False):
            env, directory = f"Push-v0(price={price})", tmp_path / f"{price}-{scaled}"
            models[price, scaled], _ = learn(directory, env, 400, rollout=8, lr=0.01, scale_rewards=scaled)
    weights = {key: nn.utils.parameters_to_vector(model.actor.parameters()) for key, model in models.items()}
    assert torch.equal(weights[1.0, True], weights[1024.0, True])
    assert not torch.allclose(weights[1.0, False], weights[1024.0, False], atol=1e-3)


# The page from the shell.


@pytest.mark.parametrize("objective", ["a2c", "ppo"])
def test_it_begins_to_balance(mpcli, objective):
    command = ("rl-run", "actor_critic", "--objective", objective, "--hidden", 32, "--lr", 0.005, "--epochs", 5)
    result = mpcli(*command, "--steps", 7680, "--rollout", 16, "--eval-episodes", 20, "--json", "--quiet")
    assert result.code == 0, result.err
    metrics = result.json["metrics"]
    assert metrics["return_mean"] > 100  # a policy not trained: about 9, chance: 22
    assert metrics["steps"] == 7680
    assert [Path(path).name for path in result.json["artifacts"]] == [
        "returns.csv",
        "returns.png",
        "policy.gif",
        "curves.png",
    ]
    rows = np.loadtxt(result.json["artifacts"][0], delimiter=",", skiprows=1)
    assert (rows[:, 1] == rows[:, 2]).all() and rows[-1, 0] <= 7680


def test_the_best_policy_of_the_trials_is_kept(tmp_path, monkeypatch):
    scores = iter([3.0, 9.0, 4.0])
    seen: list[np.ndarray] = []

    def evaluate(make, policy, episodes, seed, purpose=stepping.EVALUATION):
        seen.append(policy.__self__.mean[0].weight.detach().numpy().copy())
        return np.array([next(scores) if purpose == stepping.SELECTION else 0.0])

    monkeypatch.setattr(playing, "evaluate", evaluate)
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    actor_critic.rl_run(Config(hidden=(4,), copies=2, rollout=5), run, "CartPole-v1", 300, trial_every=100)
    kept = load_file(tmp_path / "run" / "model.safetensors")["actor.mean.0.weight"]
    assert len(seen) == 4 and (seen[1] != seen[2]).any()
    np.testing.assert_array_equal(kept, seen[1])
    np.testing.assert_array_equal(seen[3], seen[1])  # and the reported return is its own
