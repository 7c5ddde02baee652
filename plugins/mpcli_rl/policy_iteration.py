"""Policy iteration: find out what a policy is worth, act better, and again, in a known world.

    v_pi = r_pi + gamma P_pi v_pi                                   evaluation: a linear system, solved exactly
    v <- r_pi + gamma P_pi v, m times                               or truncated: m sweeps, of all states from the old
                                                                    values, or in place: one state after another
    pi'(s) = argmax_a sum_{s', r} p(s', r | s, a) (r + gamma v(s')) improvement; pi(s) is kept where it is as good
    v_pi' >= v_pi in every state, with equality only if pi is optimal

There are finitely many policies and none comes back, so with exact evaluation it ends, mostly after a few iterations,
with the optimal policy and its exact value. Truncated evaluation lies between: with m = 1 it is value iteration, and
for all m it has the same optimum. Then |v - v*| <= |T v - v| / (1 - gamma) says when to stop.

What is counted is backups: one sum over the outcomes of one pair (s, a). An improvement takes one for every pair, a
sweep of evaluation one for every state, a sweep of value iteration one for every pair. A linear solve is no backup; how
many there were is counted beside. Value iteration runs to the same bound for comparison. After iterations 1, 2, 4, 8
and so on the policy is played.

Howard, Dynamic Programming and Markov Processes, 1960.
Puterman and Shin, Modified policy iteration algorithms for discounted Markov decision problems, 1978.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy import ndarray as Array
from scipy import sparse
from scipy.sparse.linalg import spsolve_triangular
from torch import Tensor, nn

from mpcli.checks import Case, Draw, Sides, identity, inequality
from mpcli.kit import pictures
from mpcli.run import Run
from mpcli_rl.kit import curves, mdp, small, tabular
from mpcli_rl.kit.tabular import evaluate, render  # noqa: F401 they are verbs
from mpcli_rl.value_iteration import Bellman

MOST = 20_000  # sweeps of value iteration for comparison


@dataclass(frozen=True)
class Config:
    gamma: Annotated[float, "discount", Interval(ge=0, lt=1)] = 0.99
    evaluation: Annotated[
        Literal["exact", "truncated", "in_place"], "a linear solve, some sweeps, or sweeps from the newest values"
    ] = "exact"
    sweeps: Annotated[int, "m of an evaluation by sweeps", Ge(1)] = 10
    tolerance: Annotated[float, "of sweeps: stop when the values are surely this near to the optimum", Ge(0)] = 1e-8


class Policy(nn.Module):
    """pi [S], and v [S], what it was found to be worth."""

    pi: Tensor
    v: Tensor

    def __init__(self, states: int) -> None:
        super().__init__()
        self.register_buffer("pi", torch.zeros(states, dtype=torch.int64))
        self.register_buffer("v", torch.zeros(states, dtype=torch.float64))


def value(cfg: Config, model: mdp.Table, pi: Array, v: Array) -> Array:
    """What pi [S] is worth [S]; sweeps begin at v [S]."""
    if cfg.evaluation == "exact":
        return mdp.policy_value(model, pi, cfg.gamma)
    p, r = model.under(pi)
    for _ in range(cfg.sweeps):
        v = r + cfg.gamma * (p @ v) if cfg.evaluation == "truncated" else swept_in_place(p, r, v, cfg.gamma)
    return v


def swept_in_place(p: sparse.csr_array, r: Array, v: Array, gamma: float) -> Array:
    """One sweep over the states in order: those before have new values already, which a triangular solve finds."""
    before = sparse.tril(p, -1, format="csr")
    known = (sparse.eye_array(len(r), format="csr") - gamma * before).tocsr()
    return spsolve_triangular(known, r + gamma * ((p - before) @ v), lower=True, unit_diagonal=True)


def improved(model: mdp.Table, pi: Array, v: Array, gamma: float) -> tuple[Array, float]:
    """The policy that is greedy for v, and |T v - v|."""
    q = model.backup(v, gamma)
    # Rounding must not make two equal actions take turns for ever.
    better = q.max(1) > q[np.arange(len(pi)), pi] + 1e-10 * (1 + np.abs(v))
    return np.where(better, q.argmax(1), pi), float(np.abs(q.max(1) - v).max())


def rl_run(
    cfg: Config,
    run: Run,
    env: Annotated[str, "Gymnasium environment that exposes its model"] = 'FrozenLake-v1(map_name="8x8")',
    steps: Annotated[int, "iterations at most", Ge(1)] = 1_000,
    episodes: Annotated[int, "greedy episodes played after iterations 1, 2, 4, 8, ... and the last", Ge(0)] = 20,
    eval_episodes: Annotated[int, "greedy episodes that the result is measured on", Ge(1)] = 100,
) -> None:
    model = mdp.transition_table(tabular.world(env))
    states, actions = model.r.shape
    policy, history = Policy(states), curves.Series("iteration", "backups", "bound", "changed")
    cost = states * actions + (states * cfg.sweeps if cfg.evaluation != "exact" else 0)

    if cfg.evaluation != "exact":  # the first policy is greedy for v = 0, as in value iteration
        policy.pi[:] = torch.from_numpy(model.r.argmax(1))
    trials = tabular.Trials(env, episodes, run.seed)
    for iteration in run.track(lambda step: step + 1, steps, policy=policy, history=history, trials=trials):
        pi = policy.pi.numpy()
        v = value(cfg, model, pi, policy.v.numpy())
        new, change = improved(model, pi, v, cfg.gamma)
        changed, bound = int((new != pi).sum()), change / (1 - cfg.gamma)
        policy.v[:], policy.pi[:] = torch.from_numpy(v), torch.from_numpy(new)
        history.add(iteration, iteration * cost, bound, changed)
        settled = bound <= cfg.tolerance if cfg.evaluation != "exact" else not changed
        trial = trials.play(iteration, policy.pi.numpy, last=settled or iteration == steps)
        run.log(bound=bound, changed=changed, backups=iteration * cost, **trial)
        if settled:
            break

    q = tabular.Q(states, actions)
    q.q[:] = torch.from_numpy(model.backup(policy.v.numpy(), cfg.gamma))
    q.visits[:] = torch.from_numpy((model.terminal < 1).astype(float))  # at an end there is nothing to choose
    tabular.save(run, q, cfg)
    compared = sweeps_of_value_iteration(model, cfg.gamma, max(history.column("bound")[-1], cfg.tolerance))
    run.result(
        steps=iteration,
        backups=iteration * cost,
        solves=iteration if cfg.evaluation == "exact" else 0,
        backups_of_value_iteration=len(compared) * states * actions,
        bound=history.column("bound")[-1],
    )
    picture(run, cfg, history, np.arange(1, len(compared) + 1) * states * actions, compared)
    tabular.report(run, env, q, cfg.gamma, eval_episodes, trials=trials)


def sweeps_of_value_iteration(model: mdp.Table, gamma: float, bound: float) -> list[float]:
    """The bounds after each sweep of value iteration from 0, until one is as small as asked."""
    bellman, v, bounds = Bellman(model), np.zeros(len(model.r)), [np.inf]
    while bounds[-1] > bound and len(bounds) <= MOST:
        new = bellman(v, gamma)
        bounds.append(gamma / (1 - gamma) * np.abs(new - v).max())
        v = new
    return bounds[1:]


def picture(run: Run, cfg: Config, history: curves.Series, backups: Array, bounds: list[float]) -> None:
    """Write convergence.csv and convergence.png: how near the optimum is known to be, after so many backups."""
    run.table("convergence.csv", history.columns, history.rows)
    figure = pictures.figure(f"{run.heading}: values within {history.column('bound')[-1]:.2g} of the optimum")
    axes = figure.subplots()
    how = "a linear solve an iteration" if cfg.evaluation == "exact" else f"{cfg.sweeps} sweeps an iteration"
    if cfg.evaluation == "in_place":
        how = f"{how}, in place"
    axes.plot(backups, np.maximum(bounds, 1e-16), label="value iteration")
    mine = np.maximum(history.column("bound"), 1e-16)
    axes.plot(history.column("backups"), mine, "o-", markersize=3, label=f"policy iteration, {how}")
    axes.set(xlabel="backups", ylabel="bound of the error", yscale="log")
    figure.legend(loc="outside lower center", ncols=2, fontsize=pictures.NAME)
    run.figure("convergence.png", figure)


def gradcheck() -> Iterator[Case]:
    gamma = 0.8

    def policy(g: torch.Generator) -> Tensor:
        return torch.randint(3, (5,), generator=g)

    world: tuple[Draw, ...] = ((5, 3, 5), (5, 3), policy)  # logits of p, r, an action for each state

    def evaluated(model: mdp.Table, pi: Tensor | Array, v: Tensor | None = None) -> Array:
        """Exactly, or in three sweeps from v."""
        cfg = Config(gamma) if v is None else Config(gamma, "truncated", 3)
        return value(cfg, model, np.asarray(pi), np.zeros(5) if v is None else v.numpy())

    def better(model: mdp.Table, pi: Tensor | Array) -> Array:
        return improved(model, np.asarray(pi), evaluated(model, pi), gamma)[0]

    def exact(logits: Tensor, r: Tensor, pi: Tensor) -> Sides:
        p, rows, v = logits.softmax(2), torch.arange(5), torch.zeros(5, dtype=r.dtype)
        for _ in range(150):
            v = r[rows, pi] + gamma * p[rows, pi] @ v
        return evaluated(small.table(p, r), pi), v

    yield identity("v_pi = (I - gamma P_pi)^-1 r_pi, the limit of sweeps", exact, *world)

    def truncated(logits: Tensor, r: Tensor, pi: Tensor, v: Tensor) -> Sides:
        p, rows, swept = logits.softmax(2), torch.arange(5), v
        for _ in range(3):
            swept = r[rows, pi] + gamma * p[rows, pi] @ swept
        return evaluated(small.table(p, r), pi, v), swept

    yield identity("truncated evaluation: m sweeps", truncated, *world, (5,))

    def in_place(logits: Tensor, r: Tensor, pi: Tensor, v: Tensor) -> Sides:
        p, swept = logits.softmax(2), v.clone()
        for s in [*range(5)] * 2:
            swept[s] = r[s, pi[s]] + gamma * p[s, pi[s]] @ swept
        return value(Config(gamma, "in_place", 2), small.table(p, r), pi.numpy(), v.numpy()), swept

    yield identity("in place: each state from the newest values", in_place, *world, (5,))

    def iterated(logits: Tensor, r: Tensor, pi: Tensor) -> Sides:
        p, found = logits.softmax(2), pi.numpy()
        for _ in range(10):
            found = better(small.table(p, r), found)
        return evaluated(small.table(p, r), found), small.optimum(p, r, gamma)

    yield identity("it ends in the best of all policies", iterated, *world)

    def improvement(logits: Tensor, r: Tensor, pi: Tensor) -> Sides:
        model = small.table(logits.softmax(2), r)
        return evaluated(model, pi), evaluated(model, better(model, pi))

    yield inequality("improvement: v_pi <= v_pi' in every state", improvement, *world)

    def bound(logits: Tensor, r: Tensor, pi: Tensor, v: Tensor) -> Sides:
        p = logits.softmax(2)
        _, change = improved(small.table(p, r), pi.numpy(), v.numpy(), gamma)
        return (v - small.optimum(p, r, gamma)).abs().max(), change / (1 - gamma)

    yield inequality("|v - v*| <= |T v - v| / (1 - gamma)", bound, *world, (5,))
