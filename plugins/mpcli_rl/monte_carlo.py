"""Monte Carlo: values as means of the returns that followed, from whole episodes and without a model.

    G_t = R_{t+1} + gamma R_{t+2} + gamma^2 R_{t+3} + ... = R_{t+1} + gamma G_{t+1}     the return, computed backward
    Q(s, a) = the mean of the returns that followed (s, a)                              N(s, a) of them
    Q(s, a) <- Q(s, a) + (G - Q(s, a)) / N(s, a)

Over the first visit of a pair in each episode the mean is unbiased, and the returns in it are independent; over every
visit it is biased for few episodes and consistent. Nothing is bootstrapped: the values of other states do not enter, so
that nothing is assumed of the state, the variance of whole episodes is paid for, and nothing is learned before the end.

    control    none           evaluates the policy that acts uniformly at random
               epsilon_soft   acts at random with probability epsilon, else greedily: tends to the best such policy
               starts         begins in any state with any action (exploring starts), then greedily: to the best of all

With control the policy changes while the mean is taken, and old returns are those of worse policies; with `--alpha`
above 0, as by default, the mean forgets, Q <- Q + alpha (G - Q). Exploring starts need an environment whose state can
be set, as Gymnasium's tabular ones and Gridworld. A step limit cuts returns short.

Sutton and Barto, Reinforcement Learning: An Introduction, 2nd edition, 2018, chapter 5.
Singh and Sutton, Reinforcement learning with replacing eligibility traces, 1996.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, identity, uniform
from mpcli.errors import InputError
from mpcli.run import Run
from mpcli_rl.kit import mdp, stepping, tabular, worlds
from mpcli_rl.kit.tabular import evaluate, render  # noqa: F401 they are verbs
from mpcli_rl.markov import returns


@dataclass(frozen=True)
class Config:
    gamma: Annotated[float, "discount", Interval(ge=0, le=1)] = 0.99
    control: Annotated[Literal["none", "epsilon_soft", "starts"], "how the policy is improved"] = "starts"
    visits: Annotated[Literal["first", "every"], "which visits of a pair in an episode count"] = "first"
    alpha: Annotated[float, "constant step size; 0 for the mean of all returns", Interval(ge=0, le=1)] = 0.02
    epsilon_start: Annotated[float, "epsilon_soft: share of random actions at first", Interval(ge=0, le=1)] = 1.0
    epsilon: Annotated[float, "epsilon_soft: share of random actions at the end", Interval(ge=0, le=1)] = 0.1
    explore: Annotated[float, "share of the steps over which it changes", Interval(gt=0, le=1)] = 0.5


def counted(pairs: Sequence[tuple[int, int]], visits: str) -> list[int]:
    """The steps of an episode whose returns enter the mean of their pair."""
    if visits == "every":
        return list(range(len(pairs)))
    first: dict[tuple[int, int], int] = {}
    for step, pair in enumerate(pairs):
        first.setdefault(pair, step)
    return list(first.values())


class AnyStart(gym.Wrapper):
    """Episodes begin in a state drawn from all that have something to do in them."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        env.reset(seed=0)  # some worlds have a state only after that
        if not mdp.has_table(env) or not hasattr(env.unwrapped, "s"):
            raise InputError(
                f"--env {env.spec.id if env.spec else env}: its state cannot be set, so that episodes cannot begin "
                "anywhere; use --control epsilon_soft"
            )
        self.states = np.flatnonzero((mdp.transition_table(env).terminal < 1).any(1))

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        _, info = self.env.reset(**options)
        world: Any = self.unwrapped
        world.s = int(self.states[world.np_random.integers(len(self.states))])
        return world.s, info


def rl_run(
    cfg: Config,
    run: Run,
    env: Annotated[str, 'Gymnasium environment, such as FrozenLake-v1(map_name="8x8")'] = "FrozenLake-v1",
    steps: Annotated[int, "steps in the environment", Ge(1)] = 200_000,
    episodes: Annotated[int | None, "stop after this many episodes", Ge(1)] = None,
    eval_episodes: Annotated[int, "greedy episodes that the result is measured on", Ge(1)] = 100,
) -> None:
    world = tabular.world(env)
    agent = stepping.Episodes(AnyStart(world) if cfg.control == "starts" else world, run.seed)
    table = tabular.Q(*worlds.count_states(world))
    q, visits = table.rows()
    actions = range(len(q[0]))
    episode: list[list[Any]] = []  # s, a, r of the one under way

    fall = tabular.schedule(cfg.epsilon_start, cfg.epsilon, cfg.explore * steps)
    for epsilon in run.track(fall, steps, table=table, agent=agent, episode=episode):
        s = agent.observation
        exploring = {"none": 1.0, "epsilon_soft": epsilon, "starts": 0.0 if episode else 1.0}[cfg.control]
        at_random = random.random() < exploring
        a = random.choice(actions) if at_random else max(actions, key=q[s].__getitem__)
        played = len(agent.finished)
        _, r, _ = agent.step(a)
        episode.append([int(s), a, r])

        if len(agent.finished) > played:
            pairs = [(s, a) for s, a, _ in episode]
            g = returns([r for *_, r in episode], cfg.gamma)
            for step in counted(pairs, cfg.visits):
                s, a = pairs[step]
                visits[s][a] += 1
                q[s][a] += (cfg.alpha or 1 / visits[s][a]) * (g[step] - q[s][a])
            episode.clear()
        run.log(**agent.latest)
        if episodes and len(agent.finished) >= episodes:
            break

    tabular.save(run, table, cfg)
    tabular.report(run, env, table, cfg.gamma, eval_episodes, agent.finished)
    run.result(steps=agent.steps)
    if cfg.control == "none" and mdp.has_table(world) and len(q) <= mdp.EXACT:
        model = mdp.transition_table(world)
        limit = None if cfg.gamma < 1 else world.spec.max_episode_steps if world.spec else None
        v = mdp.policy_value(model, np.full(model.r.shape, 1 / len(actions)), cfg.gamma, limit)
        off = table.q.numpy() - model.backup(v, cfg.gamma)
        run.result(
            value_start=table.q.numpy().mean(1) @ model.start,  # of the policy that was followed
            value_start_random=v @ model.start,
            rms_error=np.sqrt(np.average(off**2, weights=table.visits.numpy())),
        )


def gradcheck() -> Iterator[Case]:
    def backward(r: Tensor, gamma: Tensor) -> Sides:
        step = torch.arange(len(r))
        power = torch.triu(gamma ** (step - step[:, None]))  # gamma^(k - t) from t on
        before = torch.cat([r.new_zeros(1), r[:-1]])
        return returns(r.tolist(), float(gamma)), power @ r, power @ before

    printed = Printed("(254)", "G_t = sum_k gamma^k R_{t+k}", "G_t = sum_k gamma^k R_{t+k+1}")
    name = "G_t = R_{t+1} + gamma G_{t+1} = sum_k gamma^k R_{t+k+1}"
    yield identity(name, backward, (9,), uniform(0.5, 1), printed=printed)

    # A world of one state: with probability p it goes on and earns r, else it ends with nothing: v = p (r + gamma v).
    lone = uniform(0.1, 0.7), uniform(0.5, 1.5)

    def episodes(p: Tensor, r: Tensor, visits: str) -> Iterator[tuple[float, list[float]]]:
        """The probability of every length of an episode, and the returns that count in it."""
        for length in range(100):
            g = returns([float(r)] * length + [0.0], 0.9)
            yield float(p**length * (1 - p)), [g[step] for step in counted([(0, 0)] * len(g), visits)]

    def one_episode(p: Tensor, r: Tensor) -> Sides:
        first, every = (sum(c * sum(g) / len(g) for c, g in episodes(p, r, visits)) for visits in ("first", "every"))
        return first, p * r / (1 - 0.9 * p), every

    name = "the first visit is unbiased: E[G] = v = p r / (1 - gamma p)"
    yield identity(name, one_episode, *lone, mistake="the mean over every visit of one episode")

    def many_episodes(p: Tensor, r: Tensor) -> Sides:
        total, visits = (
            sum(parts) for parts in zip(*((c * sum(g), c * len(g)) for c, g in episodes(p, r, "every")), strict=True)
        )
        return total / visits, p * r / (1 - 0.9 * p)

    yield identity("every visit, over many episodes: E[sum of G] / E[visits] = v", many_episodes, *lone)
