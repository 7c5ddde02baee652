"""Markov process: what happens next depends on the present alone; with rewards, a Markov reward process.

    P(S_{t+1} | S_t, S_{t-1}, ...) = P(S_{t+1} | S_t)                 the Markov property: the past can be forgotten
    mu P = mu,  sum_s mu(s) = 1                                       stationary: the share of time spent in each state
    G_t = sum_k gamma^k R_{t+k+1},   v(s) = E[G_t | S_t = s]          the return, and the value of a state
    v = r + gamma P v,   so that   v = (I - gamma P)^-1 r             Bellman's equation: a linear system
    |r + gamma P v - v*| <= gamma |v - v*|                            or one sweep after another

A decision process adds actions: under a policy it is a process of this kind again (`--chain env:FrozenLake-v1`, where
actions are random). The end of an episode is the beginning of the next.

Whether a sequence is Markov can be tested. Of triples (S_{t-1}, S_t, S_{t+1}) with the same S_t, the first and the last
must be independent: chi^2 = sum (n - e)^2 / e over tables n whose margins give e. `--chain showers` fails, for there
rain lasts two days, and what is observed is rain, not its first or second day. With the day in the state it passes.

Kemeny and Snell, Finite Markov Chains, 1960. Anderson and Goodman, Statistical Inference about Markov Chains, The
Annals of Mathematical Statistics 28(1), 1957. doi:10.1214/aoms/1177707039
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy import ndarray as Array
from scipy.special import chdtrc
from torch import Tensor, nn

from mpcli.checks import Case, Printed, Sides, identity, inequality
from mpcli.kit import pictures
from mpcli.run import Run
from mpcli_rl.markov import chains
from mpcli_rl.markov.chains import Chain

ONWARD = 100  # transitions a step of the run
EXPECTED = 5.0  # least number that chi^2 asks to be expected in a cell
DOUBLINGS = 60  # of the number of transitions, until the long run
SWEEPS = 200  # of Bellman's equation, at most, that are drawn


@dataclass(frozen=True)
class Config:
    gamma: Annotated[float, "discount", Interval(ge=0, lt=1)] = 0.9


class Values(nn.Module):
    """v and mu [S]."""

    v: Tensor
    mu: Tensor

    def __init__(self, states: int) -> None:
        super().__init__()
        self.register_buffer("v", torch.zeros(states, dtype=torch.float64))
        self.register_buffer("mu", torch.zeros(states, dtype=torch.float64))


def values(p: Tensor, r: Tensor, gamma: float) -> Tensor:  # [S, S], [S] -> [S]
    return torch.linalg.solve(torch.eye(len(r), dtype=r.dtype) - gamma * p, r)


def sweep(p: Tensor, r: Tensor, v: Tensor, gamma: float) -> Tensor:  # [S, S], [S], [S] -> [S]
    return r + gamma * p @ v


def stationary(p: Tensor, start: Tensor) -> Tensor:
    """The share of time in each state [S] in the long run from `start`, where rows of p [S, S] sum to 1.

    That of the lazy chain (P + I) / 2 is the same, and has no period.
    """
    lazy = (p + torch.eye(len(p), dtype=p.dtype)) / 2
    for _ in range(DOUBLINGS):
        lazy = lazy @ lazy
        lazy = lazy / lazy.sum(1, keepdim=True)
    return start @ lazy


def again(p: Tensor, start: Tensor) -> Tensor:
    """P with the beginning of the next episode after the end of one: rows sum to 1."""
    return p + (1 - p.sum(1, keepdim=True)).clamp(min=0) * start


def returns(rewards: Sequence[float], gamma: float) -> list[float]:
    """G_t at every step of an episode, from its last reward backward."""
    following, g = [], 0.0
    for reward in reversed(rewards):
        g = reward + gamma * g
        following.append(g)
    return following[::-1]


def independence(counts: Array) -> tuple[float, int]:
    """chi^2 and degrees of freedom of counts [before, now, after]: is after independent of before, given now?

    The rarest rows and columns are left out until five are expected in every cell.
    """
    statistic, freedom = 0.0, 0
    for table in counts.swapaxes(0, 1).astype(float):
        n = table[table.sum(1) > 0][:, table.sum(0) > 0]
        while min(n.shape) > 1 and n.sum(1).min() * n.sum(0).min() < EXPECTED * n.sum():
            rare_row, rare_column = n.sum(1).argmin(), n.sum(0).argmin()
            by_row = n.sum(1).min() <= n.sum(0).min()
            n = np.delete(n, rare_row if by_row else rare_column, 0 if by_row else 1)
        if min(n.shape) > 1:
            e = np.outer(n.sum(1), n.sum(0)) / n.sum()
            statistic += float(((n - e) ** 2 / e).sum())
            freedom += (n.shape[0] - 1) * (n.shape[1] - 1)
    return statistic, freedom


def triples(observed: Array, ended: Array, kinds: int) -> Array:
    """Counts [before, now, after] of a sequence [T] of observations, within episodes; `ended` [T] after one."""
    whole = ~(ended[:-2] | ended[1:-1])
    counts = np.zeros((kinds, kinds, kinds), np.int64)
    np.add.at(counts, tuple(observed[i : len(observed) - 2 + i][whole] for i in range(3)), 1)
    return counts


def rl_run(
    cfg: Config,
    run: Run,
    chain: Annotated[str, "weather, showers, env:ID of an environment with a known model, or a table"] = "weather",
    steps: Annotated[int, "hundreds of transitions that are simulated", Ge(1)] = 300,
) -> None:
    model = chains.chain(chain)
    states = len(model.r)
    p, r, start = (torch.from_numpy(x) for x in (model.p, model.r, model.start))
    mu, v = stationary(again(p, start), start), values(p, r, cfg.gamma)
    table = Values(states)
    table.v.copy_(v)
    table.mu.copy_(mu)
    onward = np.concatenate([model.p, 1 - model.p.sum(1, keepdims=True)], 1).clip(0).cumsum(1)
    path: list[int] = [int(np.random.choice(states, p=model.start))]  # one state more than there are transitions
    ended: list[bool] = []
    for _ in run.track(lambda step: step, steps, table=table, path=path, ended=ended):
        for chance in np.random.random(ONWARD):
            row = onward[path[-1]]
            following = int(np.searchsorted(row, chance * row[-1], side="right"))
            ended.append(following >= states)
            path.append(int(np.random.choice(states, p=model.start)) if ended[-1] else following)
        run.log(train_return=model.r[path[-ONWARD - 1 : -1]].mean())
    run.save(table, cfg, states=states)
    report(run, cfg, model, mu, v, np.array(path[:-1]), np.array(ended))


def report(run: Run, cfg: Config, model: Chain, mu: Tensor, v: Tensor, path: Array, ended: Array) -> None:
    """Write states.csv and chain.png, and say whether what was observed is Markov."""
    states, lost = len(model.r), int(np.ceil(np.log(1e-3) / np.log(max(cfg.gamma, 1e-9))))
    share = np.bincount(path, minlength=states) / len(path)
    g = np.zeros(len(path))
    begins = np.flatnonzero(np.r_[True, ended[:-1]])
    for first, last in zip(begins, np.r_[begins[1:], len(path)], strict=True):
        g[first:last] = returns(model.r[path[first:last]].tolist(), cfg.gamma)
    kept = slice(0, max(1, len(path) - lost))  # of the last ones, the end of the return was not simulated
    often = np.bincount(path[kept], minlength=states)
    with np.errstate(invalid="ignore"):
        simulated = np.bincount(path[kept], g[kept], states) / often
    statistic, freedom = independence(triples(model.seen[path], ended, len(model.labels)))
    chance = float(chdtrc(freedom, statistic)) if freedom else 1.0
    words = "nothing to be told apart" if not freedom else "Markov" if chance > 0.001 else "not Markov"
    run.say(f"what is observed is {words}: chi^2 = {statistic:.1f} at {freedom} degrees of freedom, p = {chance:.3g}")
    columns = ("state", "reward", "stationary", "visited", "value", "simulated")
    run.table("states.csv", columns, zip(model.names, model.r, mu.tolist(), share, v.tolist(), simulated, strict=True))
    picture(run, cfg, model, mu.numpy(), share, v, simulated, f"{words}: p = {chance:.2g}")
    seen = often > 0
    run.result(value_start=float(torch.from_numpy(model.start) @ v), reward_mean=float(mu.numpy() @ model.r))
    run.result(stationary_error=float(np.abs(share - mu.numpy()).max()))
    run.result(value_error=float(np.abs(simulated - v.numpy())[seen].max()), chi_square=statistic, p_value=chance)


def picture(
    run: Run, cfg: Config, model: Chain, mu: Array, share: Array, v: Tensor, simulated: Array, verdict: str
) -> None:
    """Write chain.png: shares of time, values, and the error of Bellman's sweeps beside its bound."""
    figure = pictures.figure(f"{run.heading}\nwhat is observed is {verdict}", 1200, 400)
    time, worth, error = figure.subplots(1, 3)
    places = np.arange(len(mu))
    for axes, exact, found, what in (
        (time, mu, share, "share of time"),
        (worth, v.numpy(), simulated, f"value, gamma {cfg.gamma:g}"),
    ):
        axes.bar(places, exact, color="0.8", label="exact")
        axes.plot(places, found, "o", markersize=4, color="C0", label="simulated")
        axes.set(xlabel="state", title=what)
        if len(places) <= 12:
            axes.set_xticks(places, model.names, rotation=30)
        axes.legend(fontsize=pictures.NAME)
    p, r = torch.from_numpy(model.p), torch.from_numpy(model.r)
    guess, errors = torch.zeros_like(v), [float(v.abs().max())]
    while len(errors) <= SWEEPS and errors[-1] > 1e-12 * (1 + errors[0]):
        guess = sweep(p, r, guess, cfg.gamma)
        errors.append(float((guess - v).abs().max()))
    error.semilogy(errors, label="largest error")
    error.semilogy([errors[0] * cfg.gamma**k for k in range(len(errors))], "k--", linewidth=1, label="gamma^k")
    error.set(xlabel="sweeps", title="v <- r + gamma P v")
    error.legend(fontsize=pictures.NAME)
    run.figure("chain.png", figure)


def gradcheck() -> Iterator[Case]:
    gamma, drawn = 0.8, ((5, 5), (5,))  # logits of P, rewards

    def settled(logits: Tensor, r: Tensor) -> Sides:
        p, v = 0.9 * logits.softmax(1), torch.zeros_like(r)
        for _ in range(200):
            v = sweep(p, r, v, gamma)
        return values(p, r, gamma), v

    yield identity("(I - gamma P)^-1 r is where v <- r + gamma P v settles", settled, *drawn)

    def summed(logits: Tensor, r: Tensor) -> Sides:
        p, power, v = logits.softmax(1), torch.eye(5, dtype=r.dtype), torch.zeros_like(r)
        for k in range(200):
            v = v + gamma**k * power @ r
            power = power @ p
        return values(p, r, gamma), v

    yield identity("v = sum_k gamma^k P^k r", summed, *drawn)

    def closer(logits: Tensor, r: Tensor, v: Tensor) -> Sides:
        p = logits.softmax(1)
        exact = values(p, r, gamma)
        return (sweep(p, r, v, gamma) - exact).abs().max(), gamma * (v - exact).abs().max()

    yield inequality("|r + gamma P v - v*| <= gamma |v - v*|", closer, *drawn, (5,))

    def balanced(logits: Tensor, start: Tensor) -> Sides:
        p = again(0.7 * logits.softmax(1), start.softmax(0))
        mu = stationary(p, start.softmax(0))
        return torch.cat([mu @ p, mu.sum()[None]]), torch.cat([mu, mu.new_ones(1)])

    yield identity("mu P = mu and sum mu = 1", balanced, *drawn)

    def discounted(r: Tensor) -> Sides:
        powers = gamma ** torch.arange(8, dtype=r.dtype)
        return returns(r[1:].tolist(), gamma)[0], powers[:7] @ r[1:], powers @ r

    printed = Printed("(254)", "G_t = sum_k gamma^k R_{t+k}", "G_t = sum_k gamma^k R_{t+k+1}")
    yield identity("G_t = sum_k gamma^k R_{t+k+1}", discounted, (8,), printed=printed)

    def product(before: Tensor, after: Tensor, more: Tensor) -> Sides:
        table = torch.outer(before.abs() + 1, after.abs() + 1)
        n = (100 * torch.stack([table, table + torch.diag(1 + more.abs())], 1)).numpy()
        expected = n[:, 1].sum(1, keepdims=True) * n[:, 1].sum(0) / n[:, 1].sum()
        found = independence(n)
        alone = ((n[:, 1] - expected) ** 2 / expected).sum()
        return torch.tensor([*independence(n[:, :1]), *found]).double(), torch.tensor([0, 4, alone, 8]).double()

    yield identity(
        "chi^2 = sum (n - e)^2 / e, which is 0 where before and after are independent", product, (3,), (3,), (3,)
    )
