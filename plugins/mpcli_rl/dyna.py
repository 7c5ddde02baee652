"""Dyna-Q: learn a model of the world from what happens, and practise in it between the steps.

    Q(s, a) <- Q(s, a) + alpha (r + gamma max_a' Q(s', a') - Q(s, a))     after every real step, as in Q-learning
    model(s, a) <- what followed this time as well                        remember
    n times: s, a drawn from what was seen, r, s' from model(s, a),       plan: the same update, on imagined steps
             Q(s, a) <- Q(s, a) + alpha (r + gamma max_a' Q(s', a') - Q(s, a))

Real steps are dear and imagined ones cheap. Q-learning carries the news of a reward back by one state in each episode;
planning carries it everywhere before the next step, so that the same return is reached after fewer real steps. With
n = 0 this is Q-learning. The model of a pair is all that ever followed it: an outcome is drawn as often as it was seen,
which for many visits is the true probability (model_error is how far off it is). What was never seen is not in the
model, and a model of a world that has changed misleads. That what follows depends on s and a alone and not on how s was
reached, the Markov property, is tested on all that happened: markov_p is the probability of seeing as much dependence
on the state before by chance.

Sutton, Integrated architectures for learning, planning, and reacting based on approximating dynamic programming, 1990.
Sutton and Barto, Reinforcement Learning: An Introduction, 2nd edition, 2018, section 8.2.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval
from scipy.stats import chi2
from torch import Tensor

from mpcli.checks import Case, Draw, Sides, identity
from mpcli.run import Run
from mpcli_rl.kit import mdp, small, stepping, tabular, worlds
from mpcli_rl.kit.tabular import evaluate, render  # noqa: F401 they are verbs
from mpcli_rl.q_learning import target

ENOUGH = 30  # times a state came before a pair, for the test of the Markov property


@dataclass(frozen=True)
class Config:
    planning: Annotated[int, "imagined steps after each real one, n", Ge(0)] = 10
    gamma: Annotated[float, "discount", Interval(ge=0, le=1)] = 0.95
    alpha: Annotated[float, "step size at the first visit of a pair", Interval(gt=0, le=1)] = 0.5
    alpha_power: Annotated[float, "alpha falls as (visits of the pair)^-power", Interval(ge=0, le=1)] = 0.0
    epsilon_start: Annotated[float, "share of random actions at first", Interval(ge=0, le=1)] = 0.1
    epsilon: Annotated[float, "share of random actions at the end", Interval(ge=0, le=1)] = 0.1
    explore: Annotated[float, "share of the steps over which it changes", Interval(gt=0, le=1)] = 0.2
    initial: Annotated[float, "first value of every pair; above the optimum it drives the agent to try all"] = 0.0


Step = tuple[int, int, float, int, bool]  # s, a, r, s', whether the world ended the episode


class Model:
    """What followed each pair, every time."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.pairs: list[tuple[int, int]] = []
        self.outcomes: dict[tuple[int, int], list[Step]] = {}

    def remember(self, step: Step) -> None:
        pair = step[:2]
        if pair not in self.outcomes:
            self.pairs.append(pair)
            self.outcomes[pair] = []
        self.outcomes[pair].append(step)
        self.steps.append(step)

    def imagine(self, which: float, outcome: float) -> Step:
        """By two chances in [0, 1): a pair that was seen, each alike, and an outcome as often as it was seen."""
        seen = self.outcomes[self.pairs[int(which * len(self.pairs))]]
        return seen[int(outcome * len(seen))]

    def state_dict(self) -> dict[str, Any]:
        return {"steps": torch.tensor(self.steps, dtype=torch.float64).reshape(-1, 5)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        for s, a, r, reached, terminated in state["steps"].tolist():
            self.remember((int(s), int(a), r, int(reached), bool(terminated)))


def rl_run(
    cfg: Config,
    run: Run,
    env: Annotated[str, "Gymnasium environment, such as Taxi-v4"] = "mpcli/Gridworld-v0(step_reward=-1, goal=0)",
    steps: Annotated[int, "real steps in the environment", Ge(1)] = 20_000,
    episodes: Annotated[int | None, "stop after this many episodes", Ge(1)] = None,
    eval_episodes: Annotated[int, "greedy episodes that the result is measured on", Ge(1)] = 100,
) -> None:
    agent = stepping.Episodes(tabular.world(env), run.seed)
    table, model = tabular.Q(*worlds.count_states(agent.env), cfg.initial), Model()
    q, visits = table.rows()
    actions = range(len(q[0]))

    def learn(s: int, a: int, r: float, reached: int, terminated: bool) -> None:
        visits[s][a] += 1
        alpha = cfg.alpha * visits[s][a] ** -cfg.alpha_power
        q[s][a] += alpha * (target(r, terminated, cfg.gamma, q[reached]) - q[s][a])

    epsilons = tabular.schedule(cfg.epsilon_start, cfg.epsilon, cfg.explore * steps)
    for epsilon in run.track(epsilons, steps, table=table, agent=agent, model=model):
        s = int(agent.observation)
        a = random.choice(actions) if random.random() < epsilon else max(actions, key=q[s].__getitem__)
        reached, r, terminated = agent.step(a)
        learn(s, a, r, reached, terminated)
        model.remember((s, a, r, int(reached), terminated))
        for _ in range(cfg.planning):
            learn(*model.imagine(random.random(), random.random()))
        run.log(**agent.latest, epsilon=epsilon)
        if episodes and len(agent.finished) >= episodes:
            break

    tabular.save(run, table, cfg)
    tabular.report(run, env, table, cfg.gamma, eval_episodes, agent.finished)
    run.result(steps=agent.steps, backups=int(table.visits.sum()), markov_p=markov(model.steps))
    if mdp.has_table(agent.env):
        run.result(model_error=wrong(model, mdp.transition_table(agent.env)))


def wrong(model: Model, truth: mdp.Table) -> float:
    """How far the learned probabilities are from the true ones: total variation, in the mean over the pairs seen."""
    states, actions = truth.r.shape
    rows = np.array([(s * actions + a, states if over else reached) for s, a, _, reached, over in model.steps])
    keys, counts = np.unique(rows, axis=0, return_counts=True)
    seen = np.bincount(rows[:, 0], minlength=states * actions)
    learned = counts / seen[keys[:, 0]]
    going_on = keys[:, 1] < states
    true = np.where(
        going_on, truth.p[keys[:, 0], np.minimum(keys[:, 1], states - 1)], truth.terminal.ravel()[keys[:, 0]]
    )
    # Half the absolute differences; those of outcomes never seen are what is missing to 1 in the true ones that were.
    total = np.bincount(keys[:, 0], np.abs(learned - true), states * actions)
    total += 1 - np.bincount(keys[:, 0], true, states * actions)
    return float(total[seen > 0].mean() / 2)


def markov(steps: list[Step]) -> float:
    """The p-value of Pearson's test that the outcome of a pair does not depend on the state before it.

    Anderson and Goodman, Statistical inference about Markov chains, 1957; where a state came before a pair too rarely
    for the approximation, that part is left out. A world without chance gives 1.
    """
    seen: dict[tuple[int, int], dict[int, list[int]]] = {}
    for (before, *_, reached, over), (s, a, _, following, ended) in itertools.pairwise(steps):
        if reached == s and not over:
            seen.setdefault((s, a), {}).setdefault(before, []).append(-1 if ended else following)
    statistic, freedom = 0.0, 0
    for contexts in seen.values():
        outcomes = sorted({outcome for context in contexts.values() for outcome in context})
        table = np.array([[c.count(outcome) for outcome in outcomes] for c in contexts.values() if len(c) >= ENOUGH])
        if len(table) > 1:
            table = table[:, table.any(0)]
            expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
            statistic += float(((table - expected) ** 2 / expected).sum())
            freedom += (table.shape[0] - 1) * (table.shape[1] - 1)
    return float(chi2.sf(statistic, freedom)) if freedom else 1.0


def gradcheck() -> Iterator[Case]:
    gamma = 0.8

    def whole(below: int) -> Draw:
        return lambda g: torch.randint(below, (12,), generator=g)

    seen: tuple[Draw, ...] = (whole(4), whole(2), (12,), whole(4), whole(2))  # s, a, r, s', end of twelve steps

    def remembered(*steps: Tensor) -> Model:
        model = Model()
        for s, a, r, reached, over in zip(*(part.tolist() for part in steps), strict=True):
            model.remember((s, a, r, reached, bool(over)))
        return model

    def imagined(model: Model) -> Iterator[tuple[float, Step]]:
        """All that it can imagine, and with which probability."""
        for i, pair in enumerate(model.pairs):
            ways, n = len(model.pairs), len(model.outcomes[pair])
            yield from ((1 / ways / n, model.imagine((i + 0.5) / ways, (j + 0.5) / n)) for j in range(n))

    def counts(s: Tensor, a: Tensor, r: Tensor, reached: Tensor, over: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the pairs seen: which, [K, 5] how often each state, the end last, followed, [K] the mean reward."""
        rows = torch.nn.functional.one_hot(2 * s + a, 8).double()  # [T, S A]
        pairs = rows.sum(0).nonzero().squeeze(1)
        n = rows.T @ torch.nn.functional.one_hot(torch.where(over == 1, 4, reached), 5).double()
        return pairs, n[pairs], (rows.T @ r)[pairs] / n[pairs].sum(1)

    def planned(*drawn: Tensor) -> Sides:
        *steps, q = drawn
        rows, model = q.tolist(), remembered(*steps)
        found = sum(chance * target(r, over, gamma, rows[t]) for chance, (_, _, r, t, over) in imagined(model))
        _, n, r = counts(*steps)
        latest = [target(r, over, gamma, rows[t]) for _, _, r, t, over in (model.outcomes[x][-1] for x in model.pairs)]
        backup = r + gamma * (n / n.sum(1, keepdim=True))[:, :4] @ q.amax(1)
        return found, backup.mean(), sum(latest) / len(latest)

    name = "an imagined step expects the backup of the model that is most likely"
    yield identity(name, planned, *seen, (4, 2), mistake="the latest outcome alone remembered")

    def off(*drawn: Tensor) -> Sides:
        *steps, logits = drawn
        pairs, n, _ = counts(*steps)
        p = logits.softmax(2)
        truth = small.table(p[..., :4], torch.zeros(4, 2, dtype=p.dtype))
        distance = (n / n.sum(1, keepdim=True) - p.flatten(0, 1)[pairs]).abs().sum(1) / 2
        return wrong(remembered(*steps), truth), distance.mean()

    yield identity("model_error is the total variation, in the mean over the pairs seen", off, *seen, (4, 2, 5))
