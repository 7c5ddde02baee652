"""REINFORCE: its policies, its gradient against the exact one of an environment, variance, learning, resuming."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from mutants import arguments, larger, part, result

from mpcli.run import Run, Trained, seed_everything
from mpcli_rl import reinforce
from mpcli_rl.kit import stepping
from mpcli_rl.kit.policy import Policy, shapes, world
from mpcli_rl.reinforce import Agent, Config, loss, returns, variances, weights, whole

SMALL = {"rl_run": ["--hidden", "8", "--eval-episodes", "2"], "evaluate": ["--eval-episodes", "2"]}
MUTANTS = {
    "returns from the front": (reinforce, "returns", result(lambda g: g.flip(0))),
    "gamma^t left out": (
        reinforce,
        "weights",
        arguments(lambda cfg, *r: (replace(cfg, discount_late=False), *r)),
    ),
    "the other sign": (reinforce, "loss", result(lambda x: -x)),
    "the mean over steps": (reinforce, "loss", result(lambda x: x / 3)),
    "a density too large": (Policy, "forward", part(0, larger)),
    "an entropy too large": (Policy, "forward", part(1, larger)),
}

P = np.array([[[0.7, 0.2], [0.1, 0.6]], [[0.3, 0.3], [0.5, 0.2]]])  # [S, A, S]; what is missing ends the episode
R = np.array([[1.0, -0.5], [0.3, 2.0]])
GAMMA, LIMIT = 0.8, 4


class TwoStates(gym.Env):
    """The world of P and R, begun in state 0, seen as a one-hot vector."""

    observation_space = gym.spaces.Box(0, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._state = 0
        return np.eye(2, dtype=np.float32)[0], {}

    def step(self, action):
        reward, u = R[self._state, action], self.np_random.random()
        reached = int(np.searchsorted(np.cumsum(P[self._state, action]), u))
        if reached == 2:
            return np.zeros(2, np.float32), reward, True, False, {}
        self._state = reached
        return np.eye(2, dtype=np.float32)[reached], reward, False, False, {}


class Aim(gym.Env):
    """Say the number that is seen, a vector of two: what is lost is the squared distance. One step an episode."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Box(np.array([0, -2], np.float32), np.array([4, 2], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self._seen, {}

    def step(self, action):
        assert self.action_space.contains(action)
        aimed = np.array([2 + self._seen[0], self._seen[1]])
        return self._seen, -float(((action - aimed) ** 2).sum()), True, False, {}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    gym.register("TwoStates-v0", entry_point=TwoStates, max_episode_steps=LIMIT)
    gym.register("Aim-v0", entry_point=Aim)
    yield
    for name in ("TwoStates-v0", "Aim-v0"):
        del gym.registry[name]


def learn(directory: Path, env: str, steps: int, **options) -> tuple[Agent, Run]:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"env": env}))
    seed_everything(0)
    run = Run(directory, seed=0, device="cpu")
    reinforce.rl_run(Config(**options), run, env, steps, eval_episodes=50)
    return Trained(directory, "cpu").load(Agent, Config), run


# Policies.


@torch.no_grad()
def test_a_softmax_policy_draws_what_its_density_says():
    policy = Policy((8,), 3, 4, (), ())
    torch.nn.init.normal_(policy.mean[-1].weight, std=2)
    s = torch.randn(1, 3)
    log_pi, entropy = policy(s.expand(4, 3), torch.arange(4))
    probability = log_pi.exp()
    assert float(probability.sum()) == pytest.approx(1, abs=1e-6)
    assert float(entropy[0]) == pytest.approx(float(-(probability * log_pi).sum().detach()), abs=1e-6)
    np.random.seed(0)
    drawn = policy.draw(s.expand(20_000, 3).contiguous().numpy())
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 20_000, probability.numpy(), atol=0.015)
    assert policy.greedy(s.numpy())[0] == int(probability.argmax())


@torch.no_grad()
def test_a_gaussian_policy_draws_what_its_density_says_and_is_cut_at_the_bounds():
    policy = Policy((), 1, 2, (0.0, -3.0), (4.0, 3.0))
    policy.log_sigma.copy_(torch.tensor([0.5, -1.0]))
    policy.mean[-1].bias.copy_(torch.tensor([0.4, -2.0]))
    s = np.zeros((20_000, 1), np.float32)
    np.random.seed(0)
    drawn = policy.draw(s)
    np.testing.assert_allclose(drawn.mean(0), [0.4, -2.0], atol=0.05)
    np.testing.assert_allclose(drawn.std(0), np.exp([0.5, -1.0]), rtol=0.03)
    mine = torch.distributions.Normal(torch.tensor([0.4, -2.0]), torch.tensor([0.5, -1.0]).exp())
    log_pi, entropy = policy(torch.from_numpy(s[:9]), torch.from_numpy(drawn[:9]))
    torch.testing.assert_close(log_pi, mine.log_prob(torch.from_numpy(drawn[:9])).sum(1))
    torch.testing.assert_close(entropy, mine.entropy().sum().expand(9))
    np.testing.assert_allclose(policy.greedy(s[:1]), [[2 + 0.4 * 2, -3.0]], rtol=1e-6)
    assert policy.taken(drawn).min(0).tolist() == [0, -3] and policy.taken(drawn).max() == 4


# The gradient.


def test_returns_are_summed_backwards():
    r = torch.tensor([1.0, 2.0, 3.0])
    assert returns(r, 0.5).tolist() == [1 + 0.5 * (2 + 0.5 * 3), 2 + 0.5 * 3, 3]
    b = torch.tensor([1.0, 10.0, 100.0])
    assert weights(Config(gamma=0.5), r, b).tolist() == [2.75 - 1, 3.5 - 10, 3 - 100]
    assert weights(Config(gamma=0.5, discount_late=True), r, b).tolist() == [1.75, -6.5 / 2, -97 / 4]
    assert weights(Config(gamma=0.5, to_go=False), r, b).tolist() == [1.75] * 3


def played(agent: Agent, count: int) -> list[reinforce.Episode]:
    worlds, steps = stepping.Copies(lambda: world("TwoStates-v0"), 1, seed=0), []
    while worlds.ended < count:
        s = worlds.observation
        a = agent.policy.draw(s)
        _, r, _ = worlds.step(agent.policy.taken(a))
        steps.append([s, a, r, worlds.over])
    return whole(steps, torch.device("cpu"))


def tabular() -> Agent:
    agent = Agent(Config(hidden=()), **shapes(world("TwoStates-v0")))
    with torch.no_grad():
        agent.policy.mean[-1].weight.copy_(torch.tensor([[0.6, -0.3], [-0.2, 0.5]]))
        agent.value[-1].weight.copy_(torch.tensor([[1.5, 2.0]]))
        agent.mean_return.fill_(1.5)
    return agent


@pytest.fixture(scope="module")
def many():
    torch.manual_seed(0)
    np.random.seed(0)
    agent = tabular()
    return agent, played(agent, 2000)


@pytest.mark.parametrize("to_go", [True, False])
@pytest.mark.parametrize("baseline", reinforce.BASELINES)
def test_the_gradient_of_many_episodes_is_the_exact_one(many, baseline, to_go):
    agent, episodes = many
    cfg = Config(gamma=GAMMA, baseline=baseline, to_go=to_go, discount_late=to_go)
    weight = agent.policy.mean[-1].weight  # [A, S]
    v, p, r = torch.zeros(2), torch.tensor(P, dtype=torch.float32), torch.tensor(R, dtype=torch.float32)
    for _ in range(LIMIT):
        v = (weight.T.softmax(1) * (r + GAMMA * p @ v)).sum(1)
    (exact,) = torch.autograd.grad(v[0], weight)

    parts = [torch.autograd.grad(loss(cfg, agent, [one]), weight)[0] for one in episodes[:500]]
    one_by_one = -torch.stack(parts)
    (together,) = torch.autograd.grad(-loss(cfg, agent, episodes[:500]), weight)
    torch.testing.assert_close(together, one_by_one.mean(0), atol=1e-4, rtol=1e-3)
    (estimate,) = torch.autograd.grad(-loss(cfg, agent, episodes), weight)
    error = one_by_one.std(0) / len(episodes) ** 0.5
    assert ((estimate - exact).abs() < 4 * error).all()
    assert float(exact.abs().max()) > 10 * float(error.max())  # so that nothing, or the opposite, would not pass


def test_a_baseline_takes_variance_away(many):
    agent, episodes = many
    found = dict(zip(reinforce.BASELINES, variances(Config(gamma=GAMMA), agent, episodes[:400]), strict=True))
    assert max(found["learned"], found["mean"]) < 0.7 * found["none"]
    weight = list(agent.policy.parameters())
    by_hand = [
        torch.cat([part.ravel() for part in torch.autograd.grad(loss(Config(gamma=GAMMA), agent, [one]), weight)])
        for one in episodes[:400]
    ]
    assert found["learned"] == pytest.approx(float(torch.stack(by_hand).var(0).sum()), rel=1e-4)


def test_the_baselines_do_not_know_the_episodes_that_they_judge(many):
    """The step of the policy is that of baselines fitted before; they are fitted after it."""
    _, episodes = many
    agent, cfg = tabular(), Config(gamma=GAMMA)
    weight, value = agent.policy.mean[-1].weight, agent.value[-1].weight
    (expected,) = torch.autograd.grad(loss(cfg, agent, episodes[:50]), weight)
    before, fitted = weight.detach().clone(), value.detach().clone()
    reinforce.learn(cfg, agent, torch.optim.SGD(agent.parameters(), 0.01), episodes[:50])
    torch.testing.assert_close(weight.detach(), before - 0.01 * expected)
    assert not torch.equal(value.detach(), fitted)
    mean = torch.cat([returns(r, GAMMA) for _, _, r in episodes[:50]]).mean()
    assert float(agent.mean_return) == pytest.approx(float((1.5 + mean) / 2))


# Learning.


def test_it_learns_to_choose(tmp_path):
    agent, run = learn(tmp_path / "run", "TwoStates-v0", 2000, hidden=(), gamma=1.0, lr=0.1)
    best = np.zeros(2)
    for _ in range(LIMIT):
        best = (R + P @ best).max(1)
    assert run.metrics["return_mean"] > best[0] - 0.4  # the 50 episodes have a standard error of about 0.2
    assert agent.policy.greedy(np.eye(2, dtype=np.float32)).tolist() == [0, 1]


def test_it_learns_to_aim(tmp_path):
    agent, run = learn(tmp_path / "run", "Aim-v0", 3000, hidden=(), batch=10, lr=0.05)
    assert run.metrics["return_mean"] > -0.1  # the middle of the range, always: -2/3
    assert float(agent.policy.log_sigma.detach().max()) < -0.5  # it has become sure
    s = np.array([[0.5, -0.5]], np.float32)
    np.testing.assert_allclose(agent.policy.greedy(s), [[2.5, -0.5]], atol=0.35)


# The page from the shell.


def test_it_begins_to_balance_and_tells_its_variance(mpcli):
    command = ("rl-run", "reinforce", "--steps", 8000, "--hidden", 32, "--lr", 0.02, "--eval-episodes", 20)
    result = mpcli(*command, "--json")
    assert result.code == 0, result.err
    metrics = result.json["metrics"]
    assert metrics["return_mean"] > 100 and metrics["steps"] == 8000  # chance: 22
    names = [Path(path).name for path in result.json["artifacts"]]
    assert names == ["returns.csv", "returns.png", "policy.gif", "variance.csv", "variance.png", "curves.png"]
    rows = list(csv.DictReader(Path(result.json["artifacts"][3]).read_text().splitlines()))
    assert "variance of the gradient" in result.err and len(rows) >= 4
    assert sum(float(row["learned"]) for row in rows) < sum(float(row["none"]) for row in rows)
