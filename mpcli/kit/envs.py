"""Environments of Gymnasium: made by name, and stepped so that training can resume exactly.

Beside Gymnasium's own, a name can be `mpcli/Gridworld-v0`, a map of cells in text (`mpcli.kit.gridworld`).

An environment is deterministic given the seed of its last reset and the actions since. `Episodes` seeds every reset
with a function of (run seed, copy, number of the episode) and keeps the actions of the episode under way; that is its
whole state, and loading it replays them. This does not hold for environments that draw from anywhere but
`self.np_random`, carry something over from one episode to the next, or depend on time, other processes or hardware.
Replay notices where the observation comes out differently, warns, and begins a new episode: such a run goes on
correctly, but not bit for bit.

An episode can end in two ways. `terminated`: the world ended it, and nothing comes after. Truncated: a step limit cut
it, and the value of the state reached is still its value. Here a step reports the state reached (never the first one
of the next episode) and `terminated` alone, so that a learner that bootstraps unless terminated is right.

Towers et al., Gymnasium: A Standard Interface for Reinforcement Learning Environments, 2024. arXiv:2407.17032
"""

import ast
import difflib
import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray as Array
from torch import Tensor

from mpcli.errors import InputError

LIMIT = 1000  # steps of an episode where the environment was registered without a limit
MOST_STATES = 10**7  # a table larger than this is no table

TRAINING, EVALUATION, SELECTION, PICTURE = range(4)  # purposes of an episode: none shares a seed with another

gym.register("mpcli/Gridworld-v0", entry_point="mpcli.kit.gridworld:Gridworld")

Kind = Literal["discrete", "vector", "image"]
Policy = Callable[[Array], Array]  # observations [N, ...] -> actions [N]
Make = Callable[[], gym.Env]


def make(name: str, observations: tuple[Kind, ...], actions: tuple[Kind, ...], render: bool = False) -> gym.Env:
    """The environment `name`, with the step limit it was registered with, else one of `LIMIT`.

    Args:
        name: a Gymnasium id, arguments behind it if need be: `FrozenLake-v1(map_name="8x8", is_slippery=False)`;
            `max_episode_steps=N` is one of them. `package:Id-v0` imports the package first, as in Gymnasium.
        observations, actions: the kinds that the caller can work with. Discrete ones arrive as 0 ... n-1, whatever the
            environment counts from; a tuple of discrete parts is numbered in row-major order.
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
    arguments = {"disable_env_checker": True} | arguments | ({"render_mode": "rgb_array"} if render else {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old versions are announced there; what matters is raised
            env = gym.make(identifier, **arguments)
            if env.spec is not None and env.spec.max_episode_steps is None:
                env = gym.make(identifier, **arguments | {"max_episode_steps": LIMIT})
    except gym.error.UnregisteredEnv as error:
        close = _closest(identifier)
        hint = f"did you mean {' or '.join(close)}?" if close else f"Gymnasium has {', '.join(_some()[:12])}, ..."
        raise InputError(f"--env {name}: there is no such environment; {hint}") from error
    except InputError as error:
        raise InputError(f"--env {name}: {error}") from error
    except Exception as error:  # whatever the environment's own constructor raises
        what = str(error) if isinstance(error, gym.error.Error) else f"{type(error).__name__}: {error}"
        raise InputError(f"--env {name}: cannot be made ({what.strip().splitlines()[0]})") from error
    for what, space, kinds in (
        ("observations", env.observation_space, observations),
        ("actions", env.action_space, actions),
    ):
        if _kind(space) not in kinds:
            raise InputError(
                f"--env {name}: its {what} are {_described(space)}; this page needs {' or '.join(kinds)} {what}"
            )
    if not (_plain(env.observation_space) and _plain(env.action_space)):
        env = _Numbered(env)
    return env


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


def _kind(space: spaces.Space) -> Kind | None:
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return "discrete"
    if isinstance(space, spaces.Tuple) and all(_kind(part) == "discrete" for part in space):
        return "discrete"
    if isinstance(space, spaces.Box):
        return "vector" if len(space.shape) == 1 else "image" if len(space.shape) == 3 else None
    return None


def _described(space: spaces.Space) -> str:
    kind = _kind(space)
    shape = "x".join(map(str, space.shape or ()))
    if isinstance(space, spaces.Box):
        return f"a {kind or 'box'} of {shape or 1} numbers"
    return f"{kind or 'neither discrete nor numbers'}, {space}"


class _Numbered(gym.Wrapper):
    """Discrete observations and actions of any make, numbered from 0."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._states = _Numbering(env.observation_space) if _kind(env.observation_space) == "discrete" else None
        self._moves = _Numbering(env.action_space) if _kind(env.action_space) == "discrete" else None
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


def episode_seed(seed: int, purpose: int, copy: int, episode: int) -> int:
    """The seed of one episode's reset: a function of the run's seed, what the episode is for, and its number."""
    return int(np.random.SeedSequence(seed, spawn_key=(purpose, copy, episode)).generate_state(1)[0])


class Episodes:
    """One environment without end: when an episode is over the next has begun already.

    Attributes:
        observation: the state to act in.
        steps: steps taken in all.
        episode: number of the episode under way, from 0.
        finished: (steps taken when it ended, undiscounted return, length) of every episode that is over.
    """

    def __init__(self, env: gym.Env, seed: int, copy: int = 0) -> None:
        self.env = env
        self.steps = 0
        self.finished: list[tuple[int, float, int]] = []
        self._key = (seed, TRAINING, copy)
        self._begin(0)

    def _begin(self, episode: int) -> None:
        self.episode = episode
        self._actions: list[Any] = []
        self._return = 0.0
        self.observation, _ = self.env.reset(seed=episode_seed(*self._key, episode))

    def step(self, action: Any) -> tuple[Any, float, bool]:
        """Act once.

        Returns:
            The state reached (the last of its episode where that ended), the reward, and whether the world ended the
            episode; False also where a step limit cut it, so that its value is still bootstrapped.
        """
        reached, reward, terminated, truncated, _ = self.env.step(action)
        reward = float(reward)
        self.steps += 1
        self._actions.append(action)
        self._return += reward
        if terminated or truncated:
            self.finished.append((self.steps, self._return, len(self._actions)))
            self._begin(self.episode + 1)
        else:
            self.observation = reached
        return reached, reward, bool(terminated)

    def state_dict(self) -> dict[str, Any]:
        """What brings a new environment to the same point; see the module's docstring for when that is exact."""
        return {
            "episode": self.episode,
            "steps": self.steps,
            "actions": torch.as_tensor(np.array(self._actions)),
            "observation": torch.as_tensor(np.array(self.observation)),
            "finished": torch.tensor(self.finished, dtype=torch.float64).reshape(-1, 3),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin the saved episode again and take its actions.

        Raises:
            ValueError: the state is of an environment with other observations.
        """
        if state["observation"].shape != np.shape(self.observation):
            raise ValueError(f"it holds observations of shape {tuple(state['observation'].shape)}")
        self._begin(int(state["episode"]))
        actions = state["actions"].numpy()
        over = False
        for action in actions.tolist() if actions.ndim == 1 else list(actions):
            if over:
                break
            self.observation, reward, terminated, truncated, _ = self.env.step(action)
            self._actions.append(action)
            self._return += float(reward)
            over = bool(terminated or truncated)
        self.finished = [(int(step), value, int(length)) for step, value, length in state["finished"].tolist()]
        self.steps = int(state["steps"])
        if over or not np.array_equal(np.array(self.observation), state["observation"].numpy(), equal_nan=True):
            name = self.env.spec.id if self.env.spec else self.env
            warnings.warn(
                f"{name} is not determined by its seed: a new episode is begun, and the run goes on, but not as it "
                "would have without the interruption",
                stacklevel=2,
            )
            self._begin(self.episode + 1)


class Copies:
    """Several `Episodes` of one kind, stepped together.

    A plain loop, cheaper than Gymnasium's SyncVectorEnv, which puts the last state of an episode among its infos and
    cannot seed the episodes after the first.

    Attributes:
        observation: [N, *shape], the states to act in; a new array every step. Vectors and real ones are float32.
        over: [N] bool, whose episode ended with the last step, by the world or by a step limit.
        action_space: of one copy.
    """

    def __init__(self, make: Make, count: int, seed: int) -> None:
        self._copies = [Episodes(make(), seed, copy) for copy in range(count)]
        space = self._copies[0].env.observation_space
        self.action_space = self._copies[0].env.action_space
        self._shape, self._dtype = (count, *(space.shape or ())), _stored(space)
        self.over = np.zeros(count, bool)
        self.observation = self._stack([copy.observation for copy in self._copies])

    def __len__(self) -> int:
        return len(self._copies)

    def _stack(self, rows: Sequence[Any]) -> Array:
        stacked = np.empty(self._shape, self._dtype)
        for index, row in enumerate(rows):
            stacked[index] = row
        return stacked

    def step(
        self, actions: Shaped[Array, "N ..."]
    ) -> tuple[Shaped[Array, "N ..."], Float[Array, " N"], Bool[Array, " N"]]:
        """Act once in every copy.

        Args:
            actions: [N] or [N, A].

        Returns:
            The states reached [N, *shape], rewards [N] float32, terminated [N] bool; as `Episodes.step` gives them.
        """
        chosen = actions.tolist() if actions.ndim == 1 else actions
        playing = [copy.episode for copy in self._copies]
        steps = [copy.step(action) for copy, action in zip(self._copies, chosen, strict=True)]
        reached, rewards, terminated = zip(*steps, strict=True)
        stacked = self.observation = self._stack(reached)
        self.over = np.array([copy.episode > before for copy, before in zip(self._copies, playing, strict=True)])
        if self.over.any():
            self.observation = self._stack([copy.observation for copy in self._copies])
        return stacked, np.array(rewards, np.float32), np.array(terminated)

    @property
    def ended(self) -> int:
        """How many episodes are over."""
        return sum(len(copy.finished) for copy in self._copies)

    @property
    def steps(self) -> int:
        """Steps taken by all copies together."""
        return sum(copy.steps for copy in self._copies)

    @property
    def episodes(self) -> Int[Array, " N"]:
        """How many episodes each copy has behind it."""
        return np.array([copy.episode for copy in self._copies])

    @property
    def latest(self) -> float:
        """The return of the episode that ended last, the mean of those that ended together; 0 before any has."""
        ended = [copy.finished[-1][:2] for copy in self._copies if copy.finished]
        last = max((step for step, _ in ended), default=0)
        together = [value for step, value in ended if step == last]
        return sum(together) / max(1, len(together))

    @property
    def finished(self) -> list[tuple[int, float, int]]:
        """(steps of all copies together when it ended, return, length) of every finished episode, in order."""
        count = len(self._copies)
        return sorted((step * count, value, length) for c in self._copies for step, value, length in c.finished)

    def state_dict(self) -> dict[str, Any]:
        return {str(index): copy.state_dict() for index, copy in enumerate(self._copies)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state) != len(self._copies):
            raise ValueError(f"it holds {len(state)} copies of the environment, not {len(self._copies)}")
        for index, copy in enumerate(self._copies):
            copy.load_state_dict(state[str(index)])
        self.observation = self._stack([copy.observation for copy in self._copies])


def _stored(space: spaces.Space) -> Any:
    """Vectors and real observations as float32; numbers of states, and the bytes of images, as they are."""
    return np.float32 if _kind(space) == "vector" or np.issubdtype(space.dtype, np.floating) else space.dtype


def _seen(env: gym.Env, *observations: Any) -> Shaped[Array, "N ..."]:
    """Observations as a policy sees them while it learns, too."""
    return np.stack(observations).astype(_stored(env.observation_space), copy=False)


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
    waiting = iter(range(episodes))
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
