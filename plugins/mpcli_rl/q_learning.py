"""Q-learning: the values of all actions, learned from single steps without a model.

    Q*(s, a) = E[R + gamma max_a' Q*(S', a')]                          the best that can follow a in s
    Q(s, a) <- Q(s, a) + alpha (r + gamma max_a' Q(s', a') - Q(s, a))  after every step s, a, r, s'
    a is uniform with probability epsilon, else argmax_a Q(s, a)       while learning

Where the world ends the episode nothing follows, and the target is r alone. The target takes the best next action,
whatever the agent is going to do (off-policy): the values are those of the best policy even while the agent explores.
They converge to Q* if every pair is visited for ever and its step sizes sum to infinity but their squares do not; with
a constant alpha they keep trembling where the world is random. A pair never visited keeps its first value, which says
nothing.

Where the environment exposes its model, the exact optimum is computed from it and stands beside what was learned:
value_start against value_start_exact (discounted, without a step limit) and value_start_greedy (what the learned
policy is worth, exactly), return_mean against return_exact (undiscounted, with the step limit).

Watkins and Dayan, Q-learning, Machine Learning 8, 1992. doi:10.1007/BF00992698
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from mpcli.checks import Case, Sides, identity, inequality
from mpcli.run import Run
from mpcli_rl.kit import small, stepping, tabular, worlds
from mpcli_rl.kit.tabular import evaluate, render  # noqa: F401 they are verbs


@dataclass(frozen=True)
class Config:
    gamma: Annotated[float, "discount", Interval(ge=0, le=1)] = 0.99
    alpha: Annotated[float, "step size at the first visit of a pair", Interval(gt=0, le=1)] = 0.5
    alpha_power: Annotated[float, "alpha falls as (visits of the pair)^-power", Interval(ge=0, le=1)] = 0.0
    epsilon_start: Annotated[float, "share of random actions at first", Interval(ge=0, le=1)] = 1.0
    epsilon: Annotated[float, "share of random actions at the end", Interval(ge=0, le=1)] = 0.1
    explore: Annotated[float, "share of the steps over which it changes", Interval(gt=0, le=1)] = 0.5
    initial: Annotated[float, "first value of every pair; above the optimum it drives the agent to try all"] = 0.0


def target(r: float, terminated: bool, gamma: float, following: "memoryview | list[float]") -> float:
    """What Q(s, a) should be, seen from s': `following` is Q(s', .)."""
    return r if terminated else r + gamma * max(following)


def rl_run(
    cfg: Config,
    run: Run,
    env: Annotated[str, 'Gymnasium environment, such as FrozenLake-v1(map_name="8x8")'] = "CliffWalking-v1",
    steps: Annotated[int, "steps in the environment", Ge(1)] = 100_000,
    episodes: Annotated[int | None, "stop after this many episodes", Ge(1)] = None,
    eval_episodes: Annotated[int, "greedy episodes that the result is measured on", Ge(1)] = 100,
) -> None:
    agent = stepping.Episodes(tabular.world(env), run.seed)
    table = tabular.Q(*worlds.count_states(agent.env), cfg.initial)
    q, visits = table.rows()
    actions = range(len(q[0]))

    epsilons = tabular.schedule(cfg.epsilon_start, cfg.epsilon, cfg.explore * steps)
    for epsilon in run.track(epsilons, steps, table=table, agent=agent):
        s = agent.observation
        a = random.choice(actions) if random.random() < epsilon else max(actions, key=q[s].__getitem__)
        reached, r, terminated = agent.step(a)
        visits[s][a] += 1
        alpha = cfg.alpha * visits[s][a] ** -cfg.alpha_power
        q[s][a] += alpha * (target(r, terminated, cfg.gamma, q[reached]) - q[s][a])
        run.log(**agent.latest, epsilon=epsilon)
        if episodes and len(agent.finished) >= episodes:
            break

    tabular.save(run, table, cfg)
    tabular.report(run, env, table, cfg.gamma, eval_episodes, agent.finished)
    run.result(steps=agent.steps)


def gradcheck() -> Iterator[Case]:
    gamma, world = 0.8, ((5, 3, 5), (5, 3))  # logits of p, r

    def expected(p: Tensor, r: Tensor, q: Tensor) -> Tensor:
        """E[target | s, a] over the next state: Bellman's operator."""
        rows = q.tolist()
        targets = [[[target(x, False, gamma, row) for row in rows] for x in xs] for xs in r.tolist()]
        return (p * torch.tensor(targets, dtype=p.dtype)).sum(2)

    def fixed(logits: Tensor, r: Tensor) -> Sides:
        p = logits.softmax(2)
        best = r + gamma * p @ small.optimum(p, r, gamma)
        return expected(p, r, best), best

    yield identity("Q* = E[R + gamma max Q*(S', .)]: the exact optimum is a fixed point of the update", fixed, *world)

    def contraction(logits: Tensor, r: Tensor, one: Tensor, other: Tensor) -> Sides:
        p = logits.softmax(2)
        return (expected(p, r, one) - expected(p, r, other)).abs().max(), gamma * (one - other).abs().max()

    name = "and the only one, for it is a contraction: max|T Q1 - T Q2| <= gamma max|Q1 - Q2|"
    yield inequality(name, contraction, *world, (5, 3), (5, 3))

    def end(r: Tensor, following: Tensor) -> Sides:
        return [target(x, True, gamma, following.tolist()) for x in r.tolist()], r, r + gamma * following.max()

    name = "nothing follows the end: target = r, whatever the table says of the state reached"
    yield identity(name, end, (5,), (3,), mistake="a value after the end")
