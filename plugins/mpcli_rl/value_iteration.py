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

With `--sweeps in_place` a sweep takes the states one after another, each from the newest values of the others. Such a
sweep contracts as well, so that every bound above holds, and news travels far in one where it comes from states before.

Up to 40 000 states the exact optimum is found by policy iteration with linear solves, and stands beside every sweep.
After sweeps 1, 2, 4, 8 and so on the greedy policy is played: it earns what it can long before the values stand still.

Bellman, Dynamic Programming, 1957. Puterman, Markov Decision Processes, 1994, section 6.3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy import ndarray as Array
from scipy import sparse
from torch import Tensor, nn

from mpcli.checks import Case, Printed, Sides, identity, inequality
from mpcli.kit import pictures
from mpcli.run import Run
from mpcli_rl.kit import curves, mdp, small, tabular
from mpcli_rl.kit.tabular import evaluate, render  # noqa: F401 they are verbs

BLOCK = 65_536  # pairs of a block of states: its numbers stay in the cache while they are used


@dataclass(frozen=True)
class Config:
    gamma: Annotated[float, "discount", Interval(ge=0, lt=1)] = 0.99
    sweeps: Annotated[
        Literal["synchronous", "in_place"], "all states from the old values, or one after another from the newest"
    ] = "synchronous"
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


class InPlace:
    """A sweep over the states in their order, in which each uses the new values of those before it."""

    def __init__(self, model: mdp.Table) -> None:
        self.r, rows = model.r, model.p
        states, actions = model.r.shape
        pointers = rows.indptr[::actions]
        self.pairs = []  # of each state the probabilities [A, n] of the n states that may follow, and their numbers [n]
        for s in range(states):
            following = np.unique(rows.indices[pointers[s] : pointers[s + 1]])
            self.pairs.append((rows[s * actions : (s + 1) * actions][:, following].toarray(), following))

    def __call__(self, v: Array, gamma: float) -> Array:  # [S] -> [S]
        new = v.copy()
        for s, (p, following) in enumerate(self.pairs):
            new[s] = (self.r[s] + gamma * (p @ new[following])).max()
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
    bellman = Bellman(model) if cfg.sweeps == "synchronous" else InPlace(model)
    values = Values(len(model.r))
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
    figure = pictures.figure(
        f"{run.heading}: values within {history.column('bound')[-1]:.2g} of the optimum", height=520
    )
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


def gradcheck() -> Iterator[Case]:
    gamma, world = 0.8, ((5, 3, 5, 2), (5, 3, 5, 2))  # logits of p(s', r | s, a), and two rewards for each s, a, s'

    def joint(logits: Tensor) -> Tensor:
        return logits.flatten(2).softmax(2).reshape(logits.shape)

    def solved(p: Tensor, r: Tensor) -> tuple[mdp.Table, Tensor]:
        on, earned = p.sum(3), (p * r).sum((2, 3))
        return small.table(on, earned), small.optimum(on, earned, gamma)

    def swept(model: mdp.Table, v: Tensor, sweeps: int) -> Tensor:
        bellman, new = Bellman(model), v.numpy()
        for _ in range(sweeps):
            new = bellman(new, gamma)
        return torch.from_numpy(new)

    def off(v: Tensor, w: Tensor) -> Tensor:
        return (v - w).abs().max()

    def sweep(logits: Tensor, r: Tensor, v: Tensor) -> Sides:
        p = joint(logits)
        terms = p * (r + gamma * v[:, None])  # [S, A, S', R]
        return swept(solved(p, r)[0], v, 1), terms.sum((2, 3)).amax(1), terms[..., 0].sum(2).amax(1)

    form = "(r + gamma v(s'))"
    printed = Printed("(261)", f"max_a sum_s' p(s', r | s, a) {form}", f"max_a sum_s',r p(s', r | s, a) {form}")
    yield identity("T v = max_a sum_s',r p(s', r | s, a) (r + gamma v(s'))", sweep, *world, (5,), printed=printed)

    def fixed(logits: Tensor, r: Tensor, v: Tensor) -> Sides:
        p, certain = joint(logits), v
        model, best = solved(p, r)
        likeliest = p.flatten(2).argmax(2, keepdim=True)
        for _ in range(200):
            certain = (r + gamma * certain[:, None]).flatten(2).gather(2, likeliest).squeeze(2).amax(1)
        return swept(model, v, 200), best, certain

    printed = Printed("002 7.1", "V(s) = max_a (r(s, a) + gamma V(s'))", "its mean over s', unless p is certain")
    yield identity("v* is the fixed point of T", fixed, *world, (5,), printed=printed)

    def acted(logits: Tensor, r: Tensor) -> Sides:
        model, best = solved(joint(logits), r)
        return mdp.policy_value(model, greedy(model, best.numpy(), gamma), gamma), best

    yield identity("the policy that is greedy for v* is worth v*", acted, *world)

    def newest(logits: Tensor, r: Tensor, v: Tensor) -> Sides:
        p, new = joint(logits), v.clone()
        model, best = solved(p, r)
        for s in range(5):
            new[s] = (p[s] * (r[s] + gamma * new[:, None])).sum((1, 2)).amax()
        far = v.numpy()
        for _ in range(150):
            far = InPlace(model)(far, gamma)
        found = torch.from_numpy(InPlace(model)(v.numpy(), gamma))
        return torch.stack([found, torch.from_numpy(far)]), torch.stack([new, best])

    yield identity("in place: each state from the newest values, to the same v*", newest, *world, (5,))

    def contraction(logits: Tensor, r: Tensor, v: Tensor, w: Tensor) -> Sides:
        model, _ = solved(joint(logits), r)
        return off(swept(model, v, 1), swept(model, w, 1)), gamma * off(v, w)

    yield inequality("contraction: |T v - T w| <= gamma |v - w|", contraction, *world, (5,), (5,))

    def bounds(logits: Tensor, r: Tensor, v: Tensor) -> Sides:
        model, best = solved(joint(logits), r)
        first, before, now = (swept(model, v, k) for k in (1, 3, 4))
        known = gamma**4 / (1 - gamma) * off(first, v), gamma / (1 - gamma) * off(now, before)
        return off(now, best).expand(2), torch.stack(known)

    name = "|v_k - v*| <= gamma^k / (1 - gamma) |v_1 - v_0|, and <= gamma / (1 - gamma) |v_k - v_{k-1}|"
    yield inequality(name, bounds, *world, (5,))
