"""SARSA: the values of the policy that is followed, learned from single steps without a model.

    Q(s, a) <- Q(s, a) + alpha (r + gamma Q(s', a') - Q(s, a))      after every s, a, r, s', a'
    a' is uniform with probability epsilon, else argmax Q(s', .)    and it is what the agent does next

Where the world ends the episode nothing follows, and the target is r alone. The target takes the action that follows
in earnest (on-policy), exploration included: beside a cliff, an agent that stumbles once in ten steps learns to keep
away from the edge, while Q-learning walks along it and falls off now and then. So with epsilon fixed, SARSA tends to
the best epsilon-greedy policy, worth value_start_soft_exact, and not to the best of all, worth value_start_exact; only
if epsilon falls to 0 slowly enough does it tend to the latter. value_start_soft is what it has learned that its own
policy is worth. With a constant alpha the values keep trembling.

Rummery and Niranjan, On-line Q-learning using connectionist systems, 1994.
Sutton and Barto, Reinforcement Learning: An Introduction, 2nd edition, 2018, section 6.4 and Example 6.6.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, identity
from mpcli.run import Run
from mpcli_rl import q_learning
from mpcli_rl.kit import mdp, small, stepping, tabular, worlds
from mpcli_rl.kit.tabular import evaluate, render  # noqa: F401 they are verbs


@dataclass(frozen=True)
class Config:
    gamma: Annotated[float, "discount", Interval(ge=0, le=1)] = 0.99
    alpha: Annotated[float, "step size at the first visit of a pair", Interval(gt=0, le=1)] = 1.0
    alpha_power: Annotated[float, "alpha falls as (visits of the pair)^-power", Interval(ge=0, le=1)] = 0.5
    epsilon_start: Annotated[float, "share of random actions at first", Interval(ge=0, le=1)] = 0.1
    epsilon: Annotated[float, "share of random actions at the end", Interval(ge=0, le=1)] = 0.1
    explore: Annotated[float, "share of the steps over which it changes", Interval(gt=0, le=1)] = 0.5
    initial: Annotated[float, "first value of every pair; above the optimum it drives the agent to try all"] = 0.0


def target(r: float, terminated: bool, gamma: float, following: float) -> float:
    """What Q(s, a) should be: `following` is Q(s', a') of the action that is taken next."""
    return r if terminated else r + gamma * following


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

    def choose(s: int, epsilon: float) -> int:
        return random.choice(actions) if random.random() < epsilon else max(actions, key=q[s].__getitem__)

    epsilons = tabular.schedule(cfg.epsilon_start, cfg.epsilon, cfg.explore * steps)
    intention = {"action": choose(agent.observation, cfg.epsilon_start)}
    for epsilon in run.track(epsilons, steps, table=table, agent=agent, intention=intention):
        s, a = agent.observation, intention["action"]
        reached, r, terminated = agent.step(a)
        following = choose(reached, epsilon)
        visits[s][a] += 1
        alpha = cfg.alpha * visits[s][a] ** -cfg.alpha_power
        q[s][a] += alpha * (target(r, terminated, cfg.gamma, q[reached][following]) - q[s][a])
        # Where an episode has ended, the agent is not in the state reached but in the first one of the next.
        intention["action"] = following if agent.observation == reached else choose(agent.observation, epsilon)
        run.log(**agent.latest, epsilon=epsilon)
        if episodes and len(agent.finished) >= episodes:
            break

    tabular.save(run, table, cfg)
    tabular.report(run, env, table, cfg.gamma, eval_episodes, agent.finished)
    run.result(steps=agent.steps)
    if mdp.has_table(agent.env) and len(q) <= mdp.EXACT and cfg.gamma < 1:
        model, learned = mdp.transition_table(agent.env), table.q.numpy()
        soft = (1 - cfg.epsilon) * learned.max(1) + cfg.epsilon * learned.mean(1)
        run.result(
            value_start_soft=soft @ model.start,
            value_start_soft_exact=mdp.solve(model.soft(cfg.epsilon), cfg.gamma) @ model.start,
        )


def gradcheck() -> Iterator[Case]:
    gamma, epsilon, world = 0.8, 0.3, ((5, 3, 5), (5, 3), (5, 3))  # logits of p, r, Q

    def policy(q: Tensor, share: float = epsilon) -> Tensor:  # [S, A]: the epsilon-greedy one
        return (1 - share) * torch.nn.functional.one_hot(q.argmax(1), 3).double() + share / 3

    def expected(p: Tensor, r: Tensor, q: Tensor, pi: Tensor) -> Tensor:
        """E[target | s, a] over the next state and the action there."""
        rows = q.tolist()
        targets = [[[[target(x, False, gamma, y) for y in row] for row in rows] for x in xs] for xs in r.tolist()]
        return torch.einsum("sat,tb,satb->sa", p, pi, torch.tensor(targets, dtype=p.dtype))

    def explored(logits: Tensor, r: Tensor, q: Tensor) -> Sides:
        p = logits.softmax(2)
        right = r + gamma * p @ ((1 - epsilon) * q.amax(1) + epsilon * q.mean(1))
        return expected(p, r, q, policy(q)), right, r + gamma * torch.einsum("sat,ta->sa", p, q)

    name = "E[r + gamma Q(s', a')] = r + gamma P ((1 - eps) max Q + eps mean Q)"
    printed = Printed("002 7.4", "r + gamma Q(S', A) - Q(S, A)", "r + gamma Q(S', A') - Q(S, A)")
    yield identity(name, explored, *world, printed=printed)

    def fixed(logits: Tensor, r: Tensor, q: Tensor) -> Sides:
        p, pi = logits.softmax(2), policy(q)
        worth = small.worth(p, r, pi, gamma)
        return expected(p, r, worth, pi), worth

    yield identity("Q_pi = r + gamma P v_pi is a fixed point of the update while pi stands still", fixed, *world)

    def greedy(logits: Tensor, r: Tensor, q: Tensor) -> Sides:
        p, rows = logits.softmax(2), q.tolist()
        off = [[[q_learning.target(x, False, gamma, row) for row in rows] for x in xs] for xs in r.tolist()]
        return expected(p, r, q, policy(q, 0)), (p * torch.tensor(off, dtype=p.dtype)).sum(2)

    yield identity("without exploration it expects what Q-learning expects", greedy, *world)

    def end(r: Tensor) -> Sides:
        return [target(x, True, gamma, 9.0) for x in r.tolist()], r, r + gamma * 9

    yield identity("nothing follows the end: target = r", end, (5,), mistake="a value after the end")
