"""Play a policy: what it earns, where it goes, how that looks."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray as Array
from torch import Tensor

from mpcli.errors import InputError
from mpcli.run import watched
from mpcli_rl.kit.stepping import EVALUATION, PICTURE, episode_seed, stored
from mpcli_rl.kit.worlds import Make

Policy = Callable[[Array], Array]  # observations [N, ...] -> actions [N]


def _seen(env: gym.Env, *observations: Any) -> Shaped[Array, "N ..."]:
    """Observations as a policy sees them while it learns, too."""
    return np.stack(observations).astype(stored(env.observation_space), copy=False)


def evaluate(
    make: Make, policy: Policy, episodes: int, seed: int, purpose: int = EVALUATION
) -> Float[Array, " episodes"]:
    """Undiscounted returns [episodes] of a policy, float64; episodes that training never saw.

    The episodes run side by side, so that the policy is asked for many actions at once.

    Args:
        policy: observations [N, *shape] -> actions [N], or [N, A].
        purpose: the same purpose, seed and number give the same episodes.
    """
    worlds = [make() for _ in range(min(episodes, 32))]
    returns = np.zeros(episodes)
    waiting = watched(range(episodes), "episodes")
    playing: dict[int, int] = {}  # which world plays which episode
    states: dict[int, Any] = {}

    def begin(world: int) -> None:
        episode = next(waiting, None)
        if episode is None:
            playing.pop(world, None)
            return
        playing[world] = episode
        states[world], _ = worlds[world].reset(seed=episode_seed(seed, purpose, 0, episode))

    for world in range(len(worlds)):
        begin(world)
    while playing:
        busy = sorted(playing)
        actions = policy(_seen(worlds[0], *(states[world] for world in busy)))
        for world, action in zip(busy, actions.tolist() if actions.ndim == 1 else actions, strict=True):
            states[world], reward, terminated, truncated, _ = worlds[world].step(action)
            returns[playing[world]] += reward
            if terminated or truncated:
                begin(world)
    for env in worlds:
        env.close()
    return returns


def walk(make: Make, policy: Policy, seed: int) -> list[Any]:
    """The observations of one episode, first and last included."""
    env = make()
    path, over = [env.reset(seed=episode_seed(seed, PICTURE, 0, 0))[0]], False
    while not over:
        action = policy(_seen(env, path[-1]))[0]
        state, _, terminated, truncated, _ = env.step(action.item() if action.ndim == 0 else action)
        path.append(state)
        over = terminated or truncated
    env.close()
    return path


def record(
    make: Make, policy: Policy, seed: int, most: int = 300, width: int = 360
) -> tuple[Float[Tensor, "T 3 H W"], float]:
    """One episode of a policy as pictures, on a machine without a display too.

    Args:
        make: gives the environment made with `render=True`.
        most: about how many pictures there may be; an episode of more steps is shown at every k-th.
        width: wider pictures are shrunk by a whole factor to about this many pixels.

    Returns:
        Frames [T, 3, H, W] in [0, 1], and how many a second show the environment's own pace.

    Raises:
        InputError: the environment cannot be drawn.
    """
    env = make()
    state, _ = env.reset(seed=episode_seed(seed, PICTURE, 0, 0))
    every, pictures, over, step = 1, [_picture(env, width)], False, 0
    while not over:
        action = policy(_seen(env, state))[0]
        state, _, terminated, truncated, _ = env.step(action.item() if action.ndim == 0 else action)
        over, step = terminated or truncated, step + 1
        if step % every == 0 or over:
            pictures.append(_picture(env, width))
        if len(pictures) > most:
            pictures, every = pictures[::2], 2 * every
    pace = float(env.metadata.get("render_fps") or 30)
    env.close()
    return torch.from_numpy(np.stack(pictures)).movedim(-1, -3).float() / 255, max(pace / every, 1.0)


def _picture(env: gym.Env, width: int) -> Array:
    try:
        picture: Any = env.render()
    except Exception as error:  # drawing libraries raise all kinds
        raise InputError(f"--env {env.spec.id if env.spec else env}: cannot be drawn ({error})") from error
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.dtype != np.uint8:
        raise InputError(f"--env {env.spec.id if env.spec else env}: draws no pictures (render mode rgb_array)")
    factor = max(1, round(picture.shape[1] / width))
    height, wide = (size // factor for size in picture.shape[:2])
    cut = picture[: height * factor, : wide * factor, :3]
    # Ten times as fast as the mean over two axes of a reshaped array, and there are hundreds of pictures.
    total = sum(cut[i::factor, j::factor].astype(np.uint32) for i in range(factor) for j in range(factor))
    return ((total + factor**2 // 2) // factor**2).astype(np.uint8)
