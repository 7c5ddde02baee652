"""What the pages of tabular reinforcement learning share beside their updates: the table, its schedule, its report."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import gymnasium as gym
import torch
from annotated_types import Ge
from jaxtyping import Int
from numpy import ndarray as Array
from torch import Tensor, nn

from mpcli.run import Run, Trained
from mpcli_rl.kit import curves, mdp, playing, stepping, worlds


class Q(nn.Module):
    """The values of all pairs of a state and an action, Q [S, A], and how often each was visited."""

    q: Tensor
    visits: Tensor

    def __init__(self, states: int, actions: int, initial: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("q", torch.full((states, actions), initial, dtype=torch.float64))
        self.register_buffer("visits", torch.zeros((states, actions), dtype=torch.float64))

    def greedy(self, s: Int[Array, " N"]) -> Int[Array, " N"]:
        """The best action [N] in each of the states [N]; the first of equals."""
        return self.q.numpy(force=True)[s].argmax(1)

    def rows(self) -> tuple[list[Any], list[Any]]:
        """The rows of q and of visits, to be read and written in place number by number.

        They are memoryviews: reading one number is ten times faster than through an array or a tensor.
        """
        q, visits = ([memoryview(row) for row in part.numpy()] for part in (self.q, self.visits))
        return q, visits


def world(env: str, render: bool = False) -> gym.Env:
    """The environment `env`, whose states and actions must be discrete.

    Raises:
        InputError: as `worlds.make`.
    """
    return worlds.make(env, ("discrete",), ("discrete",), render)


def schedule(start: float, end: float, over: float) -> Callable[[int], float]:
    """A function of the step that goes from `start` to `end` in a straight line over so many steps, and stays."""
    return lambda step: start + (end - start) * min(1, step / over)


def save(run: Run, table: Q, cfg: Any) -> None:
    """Keep the table, so that `load` can read it."""
    states, actions = table.q.shape
    run.save(table, cfg, states=states, actions=actions)


def load(trained: Trained) -> Q:
    """The table that a run kept."""
    return trained.load(lambda cfg, **shape: Q(**shape), dict)


class Trials(curves.Series):
    """What the greedy policy of a planner earns while it plans: played after steps 1, 2, 4, 8, ... and the last."""

    def __init__(self, env: str, episodes: int, seed: int) -> None:
        super().__init__("step", "return")
        self._make, self._episodes, self._seed = partial(world, env), episodes, seed

    def play(self, step: int, greedy: Callable[[], Array], last: bool = False) -> dict[str, float]:
        """Play if the step is a power of two or the last.

        Args:
            greedy: gives the greedy actions [S]; asked only when they are needed.

        Returns:
            What to log: trial_return, the mean of the latest trial.
        """
        if self._episodes and (last or step & (step - 1) == 0):
            actions = greedy()
            earned = playing.evaluate(self._make, lambda s: actions[s], self._episodes, self._seed, stepping.SELECTION)
            self.add(step, earned.mean())
        return {"trial_return": self.rows[-1][1]} if self.rows else {}


def report(
    run: Run,
    env: str,
    table: Q,
    gamma: float,
    eval_episodes: int,
    finished: Sequence[curves.Episode] | None = None,
    trials: Trials | None = None,
) -> None:
    """The result of learning: what the greedy policy earns, and the learned values beside the exact ones.

    Metrics: return_mean and return_std of the greedy policy (undiscounted, within the step limit) and value_start,
    max_a Q in the mean over first states. Where the environment exposes a model of at most `mdp.EXACT` states, also
    value_start_exact (the best, discounted, without a step limit), value_start_greedy (what the greedy policy is worth)
    and return_exact (the best mean return within the step limit). With a discount of 1 all are within the limit.

    Files: returns.csv and returns.png of the `finished` episodes of training or of a planner's trials; values.png where
    there is a map.
    """
    make, q = partial(world, env), table.q.numpy(force=True)
    returns = playing.evaluate(make, table.greedy, eval_episodes, run.seed)
    run.result(return_mean=returns.mean(), return_std=returns.std())
    place, best = make(), None
    if mdp.has_table(place):
        model = mdp.transition_table(place)
        run.result(value_start=q.max(1) @ model.start)
        if len(q) <= mdp.EXACT:
            assert place.spec is not None
            limit = place.spec.max_episode_steps
            horizon = None if gamma < 1 else limit
            best = float(mdp.solve(model, 1.0, limit) @ model.start)
            run.result(
                value_start_exact=mdp.solve(model, gamma, horizon) @ model.start,
                value_start_greedy=mdp.policy_value(model, q.argmax(1), gamma, horizon) @ model.start,
                return_exact=best,
            )
    else:
        starts = [
            place.reset(seed=stepping.episode_seed(run.seed, stepping.EVALUATION, 0, i))[0]
            for i in range(eval_episodes)
        ]
        run.result(value_start=q.max(1)[starts].mean())
    curves.returns(run, finished, trials, best)
    chart = curves.layout(place)
    if chart:
        path = playing.walk(make, table.greedy, run.seed)
        curves.policy_map(run, chart, q, table.visits.numpy(force=True), path if len(set(path)) == len(path) else ())


def evaluate(trained: Trained, run: Run, eval_episodes: Annotated[int, "greedy episodes", Ge(1)] = 100) -> None:
    """Play the greedy policy of a finished run."""
    table = load(trained)
    returns = playing.evaluate(partial(world, trained.options["env"]), table.greedy, eval_episodes, run.seed)
    run.result(return_mean=returns.mean(), return_std=returns.std())


def render(trained: Trained, run: Run) -> None:
    """One episode of the greedy policy."""
    make = partial(world, trained.options["env"], render=True)
    run.image("policy.gif", *playing.record(make, load(trained).greedy, run.seed))
