"""Bandit: one state, some arms, and the choice between the arm that looks best and one to learn about.

    arm a pays R ~ N(q*(a), 1), and q*(a) ~ N(0, 1) for each task          the ten-armed testbed
    Q(a) <- Q(a) + (R - Q(a)) / N(a)                                       the mean of what arm a has paid
    a is uniform with probability epsilon, else argmax Q                   epsilon-greedy

The greedy agent (epsilon 0) settles on the first arm that pays well enough and in most tasks never finds the best. A
little exploration finds it in the end and pays its share for ever: with a constant epsilon the best arm is pulled with
probability 1 - epsilon + epsilon / k at most. With `--power` above 0, epsilon falls as t^-power: less exploration
later. The best arm of ten pays 1.54 in the mean.

Sutton and Barto, Reinforcement Learning: An Introduction, 2nd edition, 2018, sections 2.2 to 2.4 and Figure 2.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy import ndarray as Array
from torch import Tensor, nn

from mpcli.checks import Case, Printed, Sides, identity, inequality
from mpcli.errors import InputError
from mpcli.kit import pictures
from mpcli.run import Run
from mpcli_rl.kit import curves

LAST = 0.1  # of the steps are what the result is a mean of


@dataclass(frozen=True)
class Config:
    epsilons: Annotated[tuple[float, ...], "shares of random pulls, one an agent", Interval(ge=0, le=1)] = (
        0,
        0.01,
        0.1,
    )
    power: Annotated[float, "epsilon falls as t^-power", Interval(ge=0, le=1)] = 0.0
    initial: Annotated[float, "first value of every arm; high ones drive the agent to try all"] = 0.0
    arms: Annotated[int, "arms of a bandit, k", Ge(2)] = 10
    tasks: Annotated[int, "bandits that each agent plays, side by side", Ge(1)] = 2_000


class Means(nn.Module):
    """Q and N [agents, tasks, k]."""

    q: Tensor
    n: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        shape = len(cfg.epsilons), cfg.tasks, cfg.arms
        self.register_buffer("q", torch.full(shape, float(cfg.initial), dtype=torch.float64))
        self.register_buffer("n", torch.zeros(shape, dtype=torch.float64))


def choose(q: Array, epsilon: Array, chance: Array, other: Array) -> Array:
    """An arm [...] for values [..., k]: `other` where `chance` is below epsilon, else the greedy one."""
    return np.where(chance < epsilon, other, q.argmax(-1))


def improved(q: Array, n: Array, reward: Array) -> Array:
    """The mean of n rewards from that of the n - 1 before and the latest."""
    return q + (reward - q) / n


def rl_run(
    cfg: Config,
    run: Run,
    steps: Annotated[int, "pulls of each agent in each task", Ge(1)] = 1_000,
) -> None:
    if len(set(cfg.epsilons)) < len(cfg.epsilons):
        raise InputError("--epsilons: names a share twice; each agent needs its own")
    true = np.random.default_rng(run.seed).normal(size=(cfg.tasks, cfg.arms))  # q* [tasks, k]
    best, means = true.argmax(1), Means(cfg)
    q, n = means.q.numpy(), means.n.numpy()
    agents, tasks = np.arange(len(cfg.epsilons))[:, None], np.arange(cfg.tasks)[None]
    names = [f"{epsilon:g}" for epsilon in cfg.epsilons]
    history = curves.Series("step", *(f"reward_{name}" for name in names), *(f"best_{name}" for name in names))

    def schedule(step: int) -> Array:
        return np.array(cfg.epsilons)[:, None] * (step + 1.0) ** -cfg.power

    for step, epsilon in run.track(lambda step: (step, schedule(step)), steps, means=means, history=history):
        chance, other = np.random.random(q.shape[:2]), np.random.randint(cfg.arms, size=q.shape[:2])
        a = choose(q, epsilon, chance, other)
        reward = true[tasks, a] + np.random.normal(size=a.shape)
        n[agents, tasks, a] += 1
        q[agents, tasks, a] = improved(q[agents, tasks, a], n[agents, tasks, a], reward)
        history.add(step + 1, *reward.mean(1).tolist(), *(a == best).mean(1).tolist())
        run.log(
            train_return=reward[-1].mean(), **{f"reward_{k}": r for k, r in zip(names, reward.mean(1), strict=True)}
        )

    run.save(means, cfg)
    last = max(1, round(LAST * steps))
    for name in history.columns[1:]:
        run.result(**{name: float(np.mean(history.column(name)[-last:]))})
    earned = true[np.arange(cfg.tasks), q[-1].argmax(1)]  # the last agent, were it to stop exploring
    run.result(return_mean=earned.mean(), return_std=earned.std(), return_exact=true.max(1).mean())
    run.result(value_start=q[-1].max(1).mean(), steps=steps)
    picture(run, cfg, history)


def picture(run: Run, cfg: Config, history: curves.Series) -> None:
    """Write rewards.csv and rewards.png: mean reward, and share of tasks in which the best arm was pulled, by step."""
    run.table("rewards.csv", history.columns, ((int(step), *rest) for step, *rest in history.rows))
    figure = pictures.figure(run.heading, 1080)
    steps = history.column("step")
    for axes, what, label in zip(
        figure.subplots(1, 2), ("reward", "best"), ("mean reward", "share of tasks on the best arm"), strict=True
    ):
        for epsilon in cfg.epsilons:
            values = history.column(f"{what}_{epsilon:g}")
            axes.plot(steps, values, linewidth=1, label=f"epsilon {epsilon:g}" if epsilon else "greedy")
        axes.set(xlabel="pull", ylabel=label)
        axes.set_ylim(bottom=0)
    legend = axes.get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=len(cfg.epsilons), fontsize=pictures.NAME)
    run.figure("rewards.png", figure)


def gradcheck() -> Iterator[Case]:
    def thousandths(g: torch.Generator) -> Tensor:
        return torch.randint(50, 450, (), generator=g).double() / 1000

    def pays(q: Tensor, pay: Tensor, epsilon: Tensor) -> Tensor:
        """E[R] of what is chosen, over a fine grid of chances and all arms."""
        chance = (np.arange(1000)[:, None] + 0.5) / 1000
        return pay[torch.from_numpy(choose(q.numpy(), epsilon.numpy(), chance, np.arange(len(q))))].mean()

    def earned(q: Tensor, pay: Tensor, epsilon: Tensor) -> Sides:
        greedy, random = pay[q.argmax()], pay.mean()
        right, printed = (1 - epsilon) * greedy + epsilon * random, epsilon * greedy + (1 - epsilon) * random
        return pays(q, pay, epsilon), right, printed

    yield identity(
        "epsilon-greedy earns (1 - epsilon) of the arm that looks best, epsilon of the mean arm",
        earned,
        *((6,), (6,), thousandths),
        printed=Printed("000 12.4", "greedy with probability epsilon", "random with probability epsilon"),
    )

    def running(rewards: Tensor, first: Tensor) -> Sides:
        q = first.numpy()
        for n, reward in enumerate(rewards.numpy(), 1):
            q = improved(q, np.array(n), reward)
        return q, rewards.mean()

    yield identity("Q <- Q + (R - Q) / N is the mean of all rewards, whatever Q began with", running, (17,), ())

    def exploring(pay: Tensor, epsilon: Tensor) -> Sides:
        return pays(pay, pay, epsilon), pay.max()

    name = "even knowing the arms, exploring costs: (1 - epsilon) max + epsilon mean <= max"
    yield inequality(name, exploring, (6,), thousandths)
