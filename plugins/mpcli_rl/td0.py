"""TD(0): a policy's values learned from single steps, each a guess from the next guess, beside Monte Carlo.

    d_t = R_{t+1} + gamma v(S_{t+1}) - v(S_t)                  the TD error; v is 0 where the world ends the episode
    v(S_t) <- v(S_t) + alpha d_t                               TD(0), after every step
    v(S_t) <- v(S_t) + alpha (G_t - v(S_t))                    Monte Carlo, after the episode, for every visit
    G_t - v(S_t) = d_t + gamma d_{t+1} + gamma^2 d_{t+2} + ... while v stands still

The return G_t is an unbiased sample of v_pi(S_t) that carries the chance of a whole episode. R_{t+1} + gamma v(S_{t+1})
carries the chance of one step, but is biased as long as v is wrong: TD(0) learns while the episode runs, varies less,
and forgets the first values, `--initial`, more slowly. With steps that fall it tends to v_pi; with a constant alpha
both keep trembling about it.

The policy is the uniformly random one, or with `--policy RUN` the greedy one of the table that another run learned.
`--copies` tables of each kind learn side by side from the same episodes of as many worlds, so that bias (of their mean)
and standard deviation (among them) can be seen, beside the exact values. The default is the random walk of Sutton and
Barto's Example 6.2, five states between an end worth 0 and one worth 1.

Sutton, Learning to predict by the methods of temporal differences, Machine Learning 3, 1988. doi:10.1007/BF00115009
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy import ndarray as Array
from torch import Tensor, nn

from mpcli.checks import Case, Sides, identity, inequality
from mpcli.errors import InputError
from mpcli.kit import pictures
from mpcli.run import Run, Trained
from mpcli_rl.kit import curves, mdp, playing, stepping, tabular, worlds
from mpcli_rl.markov import returns


@dataclass(frozen=True)
class Config:
    gamma: Annotated[float, "discount", Interval(ge=0, le=1)] = 1.0
    alpha: Annotated[float, "step size of TD(0)", Interval(gt=0, le=1)] = 0.1
    alpha_mc: Annotated[float, "step size of Monte Carlo", Interval(gt=0, le=1)] = 0.03
    initial: Annotated[float, "first value of every state"] = 0.5
    copies: Annotated[int, "tables of each kind, and worlds", Ge(2)] = 100


class Values(nn.Module):
    """The tables [N, S] of TD(0) and of Monte Carlo."""

    td: Tensor
    mc: Tensor

    def __init__(self, cfg: Config, states: int) -> None:
        super().__init__()
        for name in ("td", "mc"):
            self.register_buffer(name, torch.full((cfg.copies, states), cfg.initial, dtype=torch.float64))


def td_error(r: Any, value: Any, following: Any, gamma: float) -> Any:
    """d: how much better the step went than was thought; `following` is the value of the state reached."""
    return r + gamma * following - value


def rl_run(
    cfg: Config,
    run: Run,
    env: Annotated[str, "Gymnasium environment that exposes its model"] = 'mpcli/Gridworld-v0(map=["H..S..G"], hole=0)',
    steps: Annotated[int, "steps in each copy of the environment, at most", Ge(1)] = 5_000,
    episodes: Annotated[int, "of each copy", Ge(1)] = 100,
    eval_episodes: Annotated[int, "episodes that the return of the policy is measured on", Ge(1)] = 100,
    policy: Annotated[Path | None, "run of a table, such as of q_learning, whose greedy policy is followed"] = None,
) -> None:
    make = partial(tabular.world, env)
    world = make()
    followed = greedy(policy, *worlds.count_states(world)) if policy else None
    model, exact = solved(world, cfg.gamma, followed)
    live = model.reachable(followed)

    def acts(s: Array, random: Any) -> Array:
        return random(model.r.shape[1], size=len(s)) if followed is None else followed[s]

    copies = stepping.Copies(make, cfg.copies, run.seed)
    values = Values(cfg, len(exact))
    underway: list[Any] = [[] for _ in range(cfg.copies)]  # the states and rewards of the episode that each is in
    td, mc, each = values.td.numpy(), values.mc.numpy(), np.arange(cfg.copies)
    errors = curves.Series("episode", "td", "mc")

    def off(table: Array) -> float:
        return float(np.sqrt(((table - exact)[live] ** 2).mean()))

    state: dict[str, Any] = {"values": values, "worlds": copies, "underway": underway, "errors": errors}
    for _ in run.track(lambda step: step, steps, **state):
        s, before = copies.observation, copies.episodes
        reached, r, terminated = copies.step(acts(s, np.random.randint))
        on = np.flatnonzero(before < episodes)  # the others have had theirs, and wait
        now, following = td[on, s[on]], np.where(terminated, 0.0, td[each, reached])[on]
        td[on, s[on]] += cfg.alpha * td_error(r[on], now, following, cfg.gamma)
        for copy in on.tolist():
            underway[copy].append([int(s[copy]), float(r[copy])])
        for copy in on[copies.episodes[on] > before[on]].tolist():
            visited, rewards = zip(*underway[copy], strict=True)
            for place, g in zip(visited, returns(rewards, cfg.gamma), strict=True):
                mc[copy, place] += cfg.alpha_mc * (g - mc[copy, place])
            underway[copy].clear()
            errors.add(int(before[copy]) + 1, off(td[copy]), off(mc[copy]))
        run.log(**copies.latest, td=off(td.mean(0)), mc=off(mc.mean(0)))
        if copies.episodes.min() >= episodes:
            break

    run.save(values, cfg, states=len(exact))
    generator = np.random.default_rng(run.seed)
    earned = playing.evaluate(make, lambda s: acts(s, generator.integers), eval_episodes, run.seed)
    run.result(return_mean=earned.mean(), return_std=earned.std(), steps=copies.steps)
    run.result(value_start=td.mean(0) @ model.start, value_start_exact=exact @ model.start)
    for name, table in (("td", td[:, live]), ("mc", mc[:, live])):
        run.result(
            **{
                f"{name}_rms": np.sqrt(((table - exact[live]) ** 2).mean(1)).mean(),
                f"{name}_bias": np.sqrt(((table.mean(0) - exact[live]) ** 2).mean()),
                f"{name}_std": np.sqrt(table.var(0).mean()),
            }
        )
    picture(run, cfg, np.array(errors.rows).reshape(-1, 3), td[:, live], mc[:, live], exact[live])
    curves.returns(run, copies.finished)


def greedy(run: Path, states: int, actions: int) -> Array:
    """The greedy actions [S] of the table that another run learned.

    Raises:
        InputError: it learned no table, or one of another world.
    """
    table = tabular.load(Trained(run))
    if table.q.shape != (states, actions):
        found, right = (" x ".join(map(str, shape)) for shape in (table.q.shape, (states, actions)))
        raise InputError(f"--policy {run}: has a table of {found}; right would be {right}, states by actions of --env")
    return table.greedy(np.arange(states))


def solved(env: Any, gamma: float, followed: Array | None = None) -> tuple[mdp.Table, Array]:
    """The model, and what a policy [S], or the uniformly random one, is worth in it [S]."""
    model = mdp.transition_table(env)
    policy = np.full(model.r.shape, 1 / model.r.shape[1]) if followed is None else followed
    return model, mdp.policy_value(model, policy, gamma, env.spec.max_episode_steps if gamma == 1 else None)


def picture(run: Run, cfg: Config, errors: Array, td: Array, mc: Array, exact: Array) -> None:
    """Write errors.csv and errors.png: the mean error of a table by episode, and bias and deviation by state."""
    numbers = np.unique(errors[:, 0])
    means = np.array([errors[errors[:, 0] == number].mean(0) for number in numbers]).reshape(-1, 3)
    run.table("errors.csv", ("episode", "td_rms", "mc_rms"), ((int(number), *rest) for number, *rest in means.tolist()))
    figure = pictures.figure(run.heading, 1080)
    left, right = figure.subplots(1, 2)
    places = np.arange(1, len(exact) + 1)
    right.plot(places, exact, "k--", linewidth=1, label="exact")
    kinds = ((td, f"TD(0), alpha {cfg.alpha:g}", "C0", -0.08), (mc, f"Monte Carlo, alpha {cfg.alpha_mc:g}", "C1", 0.08))
    for column, (table, label, colour, shift) in enumerate(kinds, 1):
        left.plot(means[:, 0], means[:, column], color=colour, label=label)
        right.errorbar(
            places + shift, table.mean(0), table.std(0), fmt="o", markersize=3, capsize=2, color=colour, label=label
        )
    left.set(xlabel="episodes", ylabel=f"RMS error, mean of {len(td)} tables")
    left.set_ylim(bottom=0)
    right.set(xlabel="state", ylabel="value: mean and deviation of the tables")
    left.set_title("how far off a table is", fontsize=pictures.HEADING)
    right.set_title("what the tables hold in the end", fontsize=pictures.HEADING)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=pictures.NAME)
    run.figure("errors.png", figure)


def gradcheck() -> Iterator[Case]:
    gamma, chain = 0.8, ((5, 5), (5, 5))  # logits of P_pi, rewards of (s, s')

    def world(logits: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """P_pi, which ends an episode once in ten steps with reward 0, and v_pi."""
        p = 0.9 * logits.softmax(1)
        return p, torch.linalg.solve(torch.eye(5, dtype=p.dtype) - gamma * p, (p * r).sum(1))

    def mean(p: Tensor, r: Tensor, v: Tensor, power: int) -> Tensor:
        """E[d^power | s]."""
        on = p * td_error(r, v[:, None], v, gamma) ** power
        return on.sum(1) + 0.1 * td_error(torch.zeros(5), v, 0.0, gamma) ** power

    def settled(logits: Tensor, r: Tensor, v: Tensor) -> Sides:
        p, exact = world(logits, r)
        for _ in range(150):
            v = v + 0.5 * mean(p, r, v, 1)
        return v, exact

    yield identity("E[d] = 0 at v_pi: it settles there", settled, *chain, (5,))

    def summed(r: Tensor, v: Tensor) -> Sides:
        d = td_error(r, v, torch.cat([v[1:], v.new_zeros(1)]), gamma)
        return returns(d.tolist(), gamma), torch.tensor(returns(r.tolist(), gamma), dtype=v.dtype) - v

    yield identity("G_t - v(S_t) = sum_k gamma^k d_{t+k}", summed, (8,), (8,))

    def spread(logits: Tensor, r: Tensor) -> Sides:
        p, v = world(logits, r)
        known = (p * (r**2 + 2 * gamma * r * v)).sum(1)  # E[G^2] = sum_s' p (r^2 + 2 gamma r v(s') + gamma^2 E[G'^2])
        square = torch.linalg.solve(torch.eye(5, dtype=p.dtype) - gamma**2 * p, known)
        return mean(p, r, v, 2), square - v**2

    name = "one step varies less than the rest of the episode: Var[R + gamma v_pi(S')] = E[d^2] <= Var[G]"
    yield inequality(name, spread, *chain)
