"""Worlds: environments of Gymnasium, made by name, whose states and actions are of a kind that a page can work with.

Beside Gymnasium's own, a name can be `mpcli/Gridworld-v0`, a map of cells in text (`mpcli_rl.kit.gridworld`).

Towers et al., Gymnasium: A Standard Interface for Reinforcement Learning Environments, 2024. arXiv:2407.17032
"""

import ast
import difflib
import math
import os
import re
import warnings
from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mpcli.errors import InputError
from mpcli_rl.kit.held import Held

LIMIT = 1000  # steps of an episode where the environment was registered without a limit
MOST_STATES = 10**7  # a table larger than this is no table

gym.register("mpcli/Gridworld-v0", entry_point="mpcli_rl.kit.gridworld:Gridworld")

Kind = Literal["discrete", "vector", "image"]
Make = Callable[[], gym.Env]


def make(name: str, observations: tuple[Kind, ...], actions: tuple[Kind, ...], render: bool = False) -> gym.Env:
    """The environment `name`, with the step limit it was registered with, else one of `LIMIT`.

    Args:
        name: a Gymnasium id, arguments behind it if need be: `FrozenLake-v1(map_name="8x8", is_slippery=False)`;
            `max_episode_steps=N` is one of them. `package:Id-v0` imports the package first, as in Gymnasium.
        observations, actions: the kinds that the caller can work with. Discrete ones arrive as 0 ... n-1, whatever the
            environment counts from; a tuple of discrete parts is numbered in row-major order. Images arrive as
            [H, W, C], those of an environment that gives [C, H, W] too.
        render: make it for `record`; a display is not needed.

    Raises:
        InputError: there is no such environment, its arguments are wrong, its packages are not installed, or its
            spaces are of another kind.
    """
    if render:  # must be set before the environment imports pygame
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    identifier, arguments = _parse(name)
    arguments |= {"render_mode": "rgb_array"} if render else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old versions are announced there; what matters is raised
            env = gym.make(identifier, **arguments)
            if env.spec is not None and env.spec.max_episode_steps is None:
                env = gym.make(identifier, **arguments | {"max_episode_steps": LIMIT})
    except gym.error.UnregisteredEnv as error:
        close = _closest(identifier)
        if isinstance(error, gym.error.NamespaceNotFound) and not close:
            raise InputError(f"--env {name}: there is no such environment; {error}") from error
        hint = f"did you mean {' or '.join(close)}?" if close else f"Gymnasium has {', '.join(_some()[:12])}, ..."
        raise InputError(f"--env {name}: there is no such environment; {hint}") from error
    except InputError as error:
        raise InputError(f"--env {name}: {error}") from error
    except Exception as error:  # whatever the environment's own constructor raises
        what = str(error) if isinstance(error, gym.error.Error) else f"{type(error).__name__}: {error}"
        raise InputError(f"--env {name}: cannot be made ({what.strip().splitlines()[0]})") from error
    env = Held(env, name)
    for what, space, kinds in (
        ("observations", env.observation_space, observations),
        ("actions", env.action_space, actions),
    ):
        if kind_of(space) not in kinds:
            raise InputError(
                f"--env {name}: its {what} are {described(space)}; this page needs {' or '.join(kinds)} {what}"
            )
    if not (_plain(env.observation_space) and _plain(env.action_space)):
        env = _Numbered(env)
    return _ChannelsLast(env) if _channels_first(env.observation_space) else env


def _parse(name: str) -> tuple[str, dict[str, Any]]:
    """`Id-v0(key=value, ...)` as the id and its arguments, which are Python literals."""
    found = re.fullmatch(r"([^()\s]+)\s*\((.*)\)", name.strip(), re.DOTALL)
    if not found:
        return name.strip(), {}
    try:
        call = ast.parse(f"f({found.group(2)})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
            raise ValueError("every argument needs its name")
        return found.group(1), {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f'--env {name}: its arguments cannot be read ({error}); write them as in FrozenLake-v1(map_name="8x8")'
        ) from error


def _some() -> list[str]:
    return [n for n, spec in gym.registry.items() if spec.namespace is None and "/" not in n]


def _closest(name: str) -> list[str]:
    newest = {identifier.partition("-v")[0].lower(): identifier for identifier in gym.registry}
    close = difflib.get_close_matches(name.partition("-v")[0].lower(), newest, n=3)
    return [newest[stem] for stem in close]


def _plain(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) or (isinstance(space, spaces.Discrete) and bool(space.start == 0))


def kind_of(space: spaces.Space) -> Kind | None:
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return "discrete"
    if isinstance(space, spaces.Tuple) and all(kind_of(part) == "discrete" for part in space):
        return "discrete"
    if isinstance(space, spaces.Box):
        return "vector" if len(space.shape) == 1 else "image" if len(space.shape) == 3 else None
    return None


def described(space: spaces.Space) -> str:
    kind = kind_of(space)
    shape = "x".join(map(str, space.shape or ()))
    if isinstance(space, spaces.Box):
        return f"a {kind or 'box'} of {shape or 1} numbers"
    return f"{kind or 'neither discrete nor numbers'}, {space}"


class _Numbered(gym.Wrapper):
    """Discrete observations and actions of any make, numbered from 0."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._states = _Numbering(env.observation_space) if kind_of(env.observation_space) == "discrete" else None
        self._moves = _Numbering(env.action_space) if kind_of(env.action_space) == "discrete" else None
        if self._states:
            self.observation_space = spaces.Discrete(self._states.count)
        if self._moves:
            self.action_space = spaces.Discrete(self._moves.count)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        return (self._states.number(observation) if self._states else observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(self._moves.value(int(action)) if self._moves else action)
        return (self._states.number(observation) if self._states else observation), *rest


def _channels_first(space: spaces.Space) -> bool:
    """Whether images are [C, H, W]: there are fewer channels than rows or columns, as in stacked frames."""
    shape: tuple[int, ...] = space.shape or ()
    return len(shape) == 3 and shape[0] < min(shape[1:])


class _ChannelsLast(gym.ObservationWrapper):
    """Images [C, H, W] as [H, W, C]."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        low, high = (self.observation(bound) for bound in (space.low, space.high))
        self.observation_space = spaces.Box(low, high, dtype=space.dtype)

    def observation(self, observation: Any) -> Any:
        return np.moveaxis(observation, 0, -1)


class _Numbering:
    """A one-to-one map between the elements of a discrete space and 0 ... count-1, the last part running fastest."""

    def __init__(self, space: spaces.Space) -> None:
        self._space = space
        self._first, self._sizes = zip(*_parts(space), strict=True)
        self.count = math.prod(self._sizes)

    def number(self, value: Any) -> int:
        parts = np.ravel(value) if not isinstance(value, tuple) else np.concatenate([np.ravel(v) for v in value])
        index = 0
        for part, first, size in zip(parts.tolist(), self._first, self._sizes, strict=True):
            index = index * size + int(part) - first
        return index

    def value(self, index: int) -> Any:
        parts = []
        for first, size in zip(reversed(self._first), reversed(self._sizes), strict=True):
            index, digit = divmod(index, size)
            parts.append(digit + first)
        return _shaped(self._space, iter(reversed(parts)))


def _parts(space: spaces.Space) -> list[tuple[int, int]]:
    """(first value, how many) of every number in an element of a discrete space."""
    if isinstance(space, spaces.Discrete):
        return [(int(space.start), int(space.n))]
    if isinstance(space, spaces.MultiDiscrete):
        return list(zip(space.start.ravel().tolist(), space.nvec.ravel().tolist(), strict=True))
    if isinstance(space, spaces.MultiBinary):
        return [(0, 2)] * math.prod(space.shape)
    assert isinstance(space, spaces.Tuple)
    return [pair for part in space for pair in _parts(part)]


def _shaped(space: spaces.Space, numbers: Any) -> Any:
    if isinstance(space, spaces.Discrete):
        return next(numbers)
    if isinstance(space, spaces.Tuple):
        return tuple(_shaped(part, numbers) for part in space)
    assert space.shape is not None
    return np.array([next(numbers) for _ in range(math.prod(space.shape))], space.dtype).reshape(space.shape)


def count_states(env: gym.Env) -> tuple[int, int]:
    """How many states and actions a discrete environment has.

    Raises:
        InputError: more states than a table can have rows.
    """
    states, actions = int(env.observation_space.n), int(env.action_space.n)
    if states > MOST_STATES:
        raise InputError(f"--env {env.spec.id if env.spec else env}: has {states} states, too many for a table")
    return states, actions
