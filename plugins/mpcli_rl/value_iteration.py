"""Value iteration: the best that can be done in a known world, by applying Bellman's equation until it holds.

    v*(s) = max_a sum_{s', r} p(s', r | s, a) (r + gamma v*(s'))             Bellman's optimality equation, v* = T v*
    v_k = T v_{k-1}                                                          a sweep over all states
    |T v - T w| <= gamma |v - w|                                             in the maximum norm: T is a contraction
    |v_k - v*| <= gamma^k |v_0 - v*| <= gamma^k / (1 - gamma) |v_1 - v_0|    known after the first sweep
    |v_k - v*| <= gamma / (1 - gamma) |v_k - v_{k-1}|                        known after each

So the error falls by gamma a sweep at least, and in general is never 0; but the policy that is greedy for v_k is an
optimal one after finitely many sweeps. The near-sighted agent (gamma near 0) is done soon and weighs the next reward
only; the far-sighted one (gamma near 1) needs about 1 / (1 - gamma) times as many sweeps. The state must tell all that
matters of the past (Markov), the model p must be known, and memory and time grow with the number of states. Where the
world ends the episode nothing follows.

Up to 40 000 states the exact optimum is found by policy iteration with linear solves, and stands beside every sweep.
After sweeps 1, 2, 4, 8 and so on the greedy policy is played: it earns what it can long before the values stand still.

Bellman, Dynamic Programming, 1957. Puterman, Markov Decision Processes, 1994, section 6.3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy import ndarray as Array
from scipy import sparse
from torch import Tensor, nn

from mpcli.checks import Case
from mpcli.kit import pictures
from mpcli.old_checks import identity, inequality
from mpcli.run import Run, Trained
from mpcli_rl.kit import curves, mdp, tabular

BLOCK = 65_536  # pairs of a block of states: its numbers stay in the cache while they are used


@dataclass(frozen=True)
class Config:
    gamma: Annotated[float, "discount", Interval(ge=0, lt=1)] = 0.99
    tolerance: Annotated[float, "stop when the values are surely this near to the optimum", Ge(0)] = 1e-8


class Bellman:
    """T, laid out for speed: a block of states at a time, actions first, each outcome looked up by its number.

    A pair (s, a) with k outcomes takes 16 k + 8 bytes, 16 in all where it has one that is certain: memory linear in
    the transitions. Where a few pairs of a block have many more outcomes than others, it is kept as a sparse matrix.
    """

    def __init__(self, model: mdp.Table) -> None:
        self.states, actions = model.r.shape
        size = max(1, BLOCK // actions)
        self.blocks = []
        for first in range(0, self.states, size):
            r = np.ascontiguousarray(model.r[first : first + size].T)  # [A, n]
            p = model.p[first * actions : (first + r.shape[1]) * actions]
            self.blocks.append((r, *self._outcomes(p, r.shape)))

    def _outcomes(self, p: sparse.csr_array, shape: tuple[int, ...]) -> tuple[Array | sparse.csr_array, Array | None]:
        """The next states [K, A, n] and their probabilities; no outcome is state S, whose value is 0."""
        counts = np.diff(p.indptr)
        most = max(1, int(counts.max()))
        if most * len(counts) > 2 * p.nnz + len(counts):
            return sparse.hstack([p, sparse.csr_array((len(counts), 1))], "csr"), None
        column = np.arange(p.nnz) - np.repeat(p.indptr[:-1], counts)
        row = np.repeat(np.arange(len(counts)), counts)
        following, q = np.full((len(counts), most), self.states), np.zeros((len(counts), most))
        following[row, column], q[row, column] = p.indices, p.data
        actions, states = shape
        following, q = (np.ascontiguousarray(x.reshape(states, actions, most).T) for x in (following, q))
        return following, None if most == 1 and (p.data == 1).all() else q

    def __call__(self, v: Array, gamma: float) -> Array:  # [S] -> [S]
        new, discounted = np.empty(self.states), np.append(gamma * v, 0.0)
        first = 0
        for r, following, q in self.blocks:
            actions, n = r.shape
            if sparse.issparse(following):
                worth = (following @ discounted).reshape(n, actions).T + r
            elif q is None:
                worth = discounted[following[0]]
                worth += r
            else:
                worth = r + np.einsum("kan,kan->an", q, discounted[following])
            worth.max(0, out=new[first : first + n])
            first += n
        return new


class Values(nn.Module):
    """v [S]."""

    v: Tensor

    def __init__(self, states: int) -> None:
        super().__init__()
        self.register_buffer("v", torch.zeros(states, dtype=torch.float64))


def greedy(model: mdp.Table, v: Array, gamma: float) -> Array:  # [S]: argmax_a of r + gamma P v
    return model.backup(v, gamma).argmax(1)


def rl_run(
    cfg: Config,
    run: Run,
    env: Annotated[str, "Gymnasium environment that exposes its model"] = 'FrozenLake-v1(map_name="8x8")',
    steps: Annotated[int, "sweeps at most", Ge(1)] = 5_000,
    episodes: Annotated[int, "greedy episodes played after sweeps 1, 2, 4, 8, ... and the last", Ge(0)] = 20,
    eval_episodes: Annotated[int, "greedy episodes that the result is measured on", Ge(1)] = 100,
) -> None:
    model = mdp.transition_table(tabular.world(env))
    bellman, values = Bellman(model), Values(len(model.r))
    exact = best = None
    if len(model.r) <= mdp.EXACT:
        exact = mdp.solve(model, cfg.gamma)
        best = model.backup(exact, cfg.gamma)
    far = cfg.gamma / (1 - cfg.gamma)
    known = () if exact is None else ("error", "loss_of_greedy")
    history = curves.Series("sweep", "change", "bound", *known)

    trials = tabular.Trials(env, episodes, run.seed)
    for sweep in run.track(lambda step: step + 1, steps, values=values, history=history, trials=trials):
        v = values.v.numpy()
        new = bellman(v, cfg.gamma)
        change = float(np.abs(new - v).max())
        v[:] = new
        seen = {"change": change, "bound": far * change}
        if exact is not None and best is not None:
            seen["error"] = np.abs(v - exact).max()
            seen["loss_of_greedy"] = (exact - best[np.arange(len(exact)), greedy(model, v, cfg.gamma)]).max()
        history.add(sweep, *seen.values())
        done = sweep == steps or far * change <= cfg.tolerance
        run.log(**seen, **trials.play(sweep, partial(greedy, model, v, cfg.gamma), last=done))
        if done:
            break

    q = tabular.Q(*model.r.shape)
    q.q[:] = torch.from_numpy(model.backup(values.v.numpy(), cfg.gamma))
    q.visits[:] = torch.from_numpy((model.terminal < 1).astype(float))  # at an end there is nothing to choose
    tabular.save(run, q, cfg)
    run.result(steps=sweep, bound=history.column("bound")[-1])
    if exact is not None:
        wrong = [row for row, lost in enumerate(history.column("loss_of_greedy"), 1) if lost > 1e-9]
        run.result(error=history.column("error")[-1], sweeps_to_best_policy=max(wrong, default=0) + 1)
    picture(run, cfg.gamma, history)
    tabular.report(run, env, q, cfg.gamma, eval_episodes, trials=trials)


def picture(run: Run, gamma: float, history: curves.Series) -> None:
    """Write convergence.csv and convergence.png: the error of every sweep under its bounds."""
    run.table("convergence.csv", history.columns, history.rows)
    figure = pictures.figure(run.heading, height=520)
    axes = figure.subplots()
    sweeps = np.array(history.column("sweep"))
    if "error" in history.columns:
        axes.plot(sweeps, history.column("error"), linewidth=2, label="error $|v_k - v^*|$")
        axes.plot(
            sweeps, history.column("loss_of_greedy"), ":", color="crimson", label="one choice of the greedy policy"
        )
    axes.plot(sweeps, history.column("bound"), label=r"known at sweep k: $\gamma / (1 - \gamma)\,|v_k - v_{k-1}|$")
    first = history.column("change")[0] / (1 - gamma)
    label = r"known at sweep 1: $\gamma^k / (1 - \gamma)\,|v_1 - v_0|$, rate $\gamma$"
    axes.plot(sweeps, first * gamma**sweeps, "--", color="black", linewidth=1, label=label)
    axes.set(xlabel="sweep k", ylabel="worst state", yscale="log" if history.column("bound")[0] > 0 else "linear")
    figure.legend(loc="outside lower center", ncols=2, fontsize=pictures.NAME)
    run.figure("convergence.png", figure)


def evaluate(trained: Trained, run: Run, eval_episodes: Annotated[int, "greedy episodes", Ge(1)] = 100) -> None:
    tabular.evaluate(trained, run, eval_episodes)


def render(trained: Trained, run: Run) -> None:
    """One episode of the greedy policy."""
    tabular.render(trained, run)


def gradcheck() -> Iterator[Case]:
    gamma = 0.8

    def draw(g: torch.Generator) -> tuple[Tensor, ...]:  # p [S, A, S], rewards of (s, a, s'), two values [S]
        p = torch.rand(5, 3, 5, generator=g, dtype=torch.float64)
        r = torch.randn(5, 3, 5, generator=g, dtype=torch.float64)
        v, w = torch.randn(2, 5, generator=g, dtype=torch.float64)
        return p / p.sum(-1, keepdim=True), r, v, w

    def sweep(p: Tensor, r: Tensor, v: Tensor) -> Tensor:
        """T v by the page's own sweep."""
        rows = sparse.csr_array(p.reshape(15, 5).numpy())
        model = mdp.Table(rows, (p * r).sum(-1).numpy(), np.full(5, 0.2))
        return torch.from_numpy(Bellman(model)(v.numpy(), gamma))

    def after(k: int, p: Tensor, r: Tensor, v: Tensor) -> Tensor:
        for _ in range(k):
            v = sweep(p, r, v)
        return v

    def optimum(p: Tensor, r: Tensor) -> Tensor:
        """The best of all 3^5 policies, each valued by a linear solve."""
        policies = torch.cartesian_prod(*[torch.arange(3)] * 5)
        chosen, earned = p[torch.arange(5), policies], (p * r).sum(-1)[torch.arange(5), policies]
        return torch.linalg.solve(torch.eye(5, dtype=p.dtype) - gamma * chosen, earned).amax(0)

    def off(v: Tensor, w: Tensor) -> Tensor:
        return (v - w).abs().max()

    yield identity(
        "T v = max_a sum_{s', r} p(s', r | s, a) (r + gamma v(s'))",
        lambda p, r, v, w: sweep(p, r, v),
        lambda p, r, v, w: torch.einsum("sat,sat->sa", p, r + gamma * v).amax(1),
        draw,
        # As for a deterministic world: the reward and value of the likeliest next state stand for the mean.
        printed=lambda p, r, v, w: (r + gamma * v).gather(2, p.argmax(2, keepdim=True)).squeeze(2).amax(1),
    )
    yield identity(
        "v* is the fixed point of T", lambda p, r, v, w: after(200, p, r, v), lambda p, r, v, w: optimum(p, r), draw
    )
    yield inequality(
        "contraction: |T v - T w| <= gamma |v - w|",
        lambda p, r, v, w: off(sweep(p, r, v), sweep(p, r, w)),
        lambda p, r, v, w: gamma * off(v, w),
        draw,
    )
    yield inequality(
        "|v_k - v*| <= gamma^k / (1 - gamma) |v_1 - v_0|",
        lambda p, r, v, w: off(after(4, p, r, v), optimum(p, r)),
        lambda p, r, v, w: gamma**4 / (1 - gamma) * off(sweep(p, r, v), v),
        draw,
    )
    yield inequality(
        "|v_k - v*| <= gamma / (1 - gamma) |v_k - v_{k-1}|",
        lambda p, r, v, w: off(after(4, p, r, v), optimum(p, r)),
        lambda p, r, v, w: gamma / (1 - gamma) * off(after(4, p, r, v), after(3, p, r, v)),
        draw,
    )
