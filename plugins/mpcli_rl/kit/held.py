"""What an environment does, held against what its spaces and Gymnasium's interface say; its faults carry its name."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mpcli.errors import Failed, InputError

CHECKED = 3  # the first calls, which Gymnasium's own checker looks at


class Held(gym.Wrapper):
    """An environment whose observations are of their space, and whose rewards are numbers.

    Values of a float space may lie outside of its bounds, and may be of another precision: both are common, and mean
    what they say. A whole-number action space gets whole numbers.

    Raises:
        InputError: an observation is of another shape or kind than the space says or not finite, or what `reset` and
            `step` return is not what Gymnasium's interface says.
        Failed: the environment raises.
    """

    def __init__(self, env: gym.Env, name: str) -> None:
        super().__init__(env)
        self.name = name
        self._calls = 0
        self._fits = _judge(env.observation_space)
        action: Any = env.action_space
        self._whole = action.dtype if isinstance(action, spaces.Box) and action.dtype.kind in "iu" else None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        result: Any = self._ask("reset", lambda: self.env.reset(**options))
        if not isinstance(result, tuple) or len(result) != 2:
            raise InputError(f"--env {self.name}: its reset should return (observation, info), not {_short(result)}")
        if wrong := self._fits(result[0]):
            raise InputError(f"--env {self.name}: the observation of its reset {wrong}")
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._whole is not None:
            action = np.rint(action).astype(self._whole)
        if self._calls < CHECKED:
            result: Any = self._ask("step", lambda: self.env.step(action))
        else:
            try:
                result = self.env.step(action)
            except (Exception, SystemExit) as error:
                raise self._failed("step", error) from error
        if not isinstance(result, tuple) or len(result) != 5:
            wanted = "(observation, reward, terminated, truncated, info)"
            raise InputError(f"--env {self.name}: its step should return {wanted}, not {_short(result)}")
        observation, reward, terminated, truncated, info = result
        if wrong := self._fits(observation):
            raise InputError(f"--env {self.name}: the observation of its step {wrong}")
        # Tabular worlds take as long for a step as these lines would with a call more.
        if type(reward) is not float or not -math.inf < reward < math.inf:
            reward = self._number(reward)
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.env.render()

    def _ask(self, method: str, call: Callable[[], Any]) -> Any:
        """One of the first calls. What Gymnasium's checker has to say about it is the reason where it goes wrong."""
        self._calls += 1
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                return call()
            except (Exception, SystemExit) as error:
                words = [_plain(str(one.message)) for one in told]
                if isinstance(error, (AssertionError, ValueError, TypeError, gym.error.Error)) and words:
                    raise InputError(f"--env {self.name}: {words[-1]}") from error
                raise self._failed(method, error) from error

    def _failed(self, method: str, error: BaseException) -> Failed:
        lines = str(error).strip().splitlines() or ["no message"]
        return Failed(f"--env {self.name}: its {method} raised {type(error).__name__}: {lines[0]}")

    def _number(self, reward: Any) -> float:
        kept = type(reward) in (int, float)
        if not kept and (isinstance(reward, (str, bytes, complex)) or reward is None or np.ndim(reward)):
            raise InputError(f"--env {self.name}: the reward of its step should be a number, not {_short(reward)}")
        reward = float(reward)
        if not math.isfinite(reward):
            raise InputError(f"--env {self.name}: the reward of its step should be finite, not {reward}")
        return reward


def _judge(space: spaces.Space) -> Callable[[Any], str]:
    """What is wrong with an observation of a space, "" where nothing is."""
    if isinstance(space, spaces.Box):
        return _judge_box(space)
    if isinstance(space, spaces.Discrete):
        first, end = int(space.start), int(space.start + space.n)

        def number(value: Any) -> str:
            whole = type(value) is int or isinstance(value, np.integer) or (np.ndim(value) == 0 and value == int(value))
            if whole and first <= value < end:
                return ""
            return f"should be one of {first} to {end - 1}, as its space says, not {_short(value)}"

        return number
    return lambda value: "" if space.contains(value) else f"is not in its space, {space}: {_short(value)}"


def _judge_box(space: spaces.Box) -> Callable[[Any], str]:
    shape, dtype, real, total = space.shape, space.dtype, space.dtype.kind == "f", np.add.reduce

    def box(value: Any) -> str:
        array = value if type(value) is np.ndarray else np.asarray(value)
        if array.shape != shape:
            return f"is of shape {array.shape}, but its space says {shape}"
        if array.dtype != dtype and not np.can_cast(array.dtype, dtype, "same_kind"):
            return f"holds {array.dtype}, but its space says {dtype}"
        if real and not math.isfinite(total(array, None)) and not np.isfinite(array).all():
            return f"should be finite, not {_short(array)}"
        return ""

    return box


def _short(value: Any) -> str:
    words = " ".join(repr(value).split())
    return words if len(words) <= 60 else f"{words[:57]}..."


def _plain(text: str) -> str:
    """A warning of Gymnasium without its colour and its WARN, the first of its sentences."""
    for mark in ("\x1b[33m", "\x1b[31m", "\x1b[0m", "WARN: "):
        text = text.replace(mark, "")
    return text.split(". ")[0].strip().rstrip(".")
