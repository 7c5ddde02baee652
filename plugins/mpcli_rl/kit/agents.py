"""What the pages of agents with networks share beside model and update: how well an agent plays, and its film."""

from collections.abc import Sequence
from functools import partial

import gymnasium as gym

from mpcli.errors import Failed, InputError
from mpcli.run import Run
from mpcli_rl.kit import curves, playing, stepping, worlds


def world(env: str, render: bool = False) -> gym.Env:
    """The environment `env`, with observations and actions that a network can deal with.

    Raises:
        InputError: as `worlds.make`.
    """
    return worlds.make(env, ("vector", "image"), ("discrete", "vector"), render)


def best_yet(run: Run, env: str, greedy: playing.Policy, episodes: int, trials: curves.Series, step: int) -> bool:
    """Play a trial and note it among `trials` (columns "step" and "return"): whether none before earned more."""
    earned = playing.evaluate(partial(world, env), greedy, episodes, run.seed, stepping.SELECTION).mean()
    best = earned >= max(trials.column("return"), default=earned)
    trials.add(step, earned)
    return bool(best)


def evaluate(run: Run, env: str, greedy: playing.Policy, episodes: int) -> None:
    """Metrics: return_mean and return_std of a policy, undiscounted, over episodes that training never saw."""
    earned = playing.evaluate(partial(world, env), greedy, episodes, run.seed)
    run.result(return_mean=earned.mean(), return_std=earned.std())


def film(run: Run, env: str, greedy: playing.Policy) -> None:
    """Write policy.gif, one episode.

    Raises:
        InputError: the environment cannot be drawn.
    """
    run.image("policy.gif", *playing.record(partial(world, env, render=True), greedy, run.seed))


def report(
    run: Run,
    env: str,
    greedy: playing.Policy,
    episodes: int,
    finished: Sequence[curves.Episode],
    trials: curves.Series | None = None,
) -> None:
    """The result of learning: what the greedy policy earns, what was earned on the way, and an episode to look at.

    Files: returns.csv and returns.png; policy.gif where the environment can be drawn.
    """
    evaluate(run, env, greedy, episodes)
    curves.returns(run, finished, trials)
    if "rgb_array" in world(env).metadata.get("render_modes", ()):
        try:
            film(run, env, greedy)
        except (InputError, Failed) as error:  # a trained agent is not lost for a picture of it
            run.say(f"policy.gif was not drawn: {error}")
