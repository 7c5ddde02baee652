"""Episodes of worlds, stepped so that training can resume exactly.

An environment is deterministic given the seed of its last reset and the actions since. `Episodes` seeds every reset
with a function of (run seed, copy, number of the episode) and keeps the actions of the episode under way; that is its
whole state, and loading it replays them. This does not hold for environments that draw from anywhere but
`self.np_random`, carry something over from one episode to the next, or depend on time, other processes or hardware.
Replay notices where the observation comes out differently, warns, and begins a new episode: such a run goes on
correctly, but not bit for bit.

An episode can end in two ways. `terminated`: the world ended it, and nothing comes after. Truncated: a step limit cut
it, and the value of the state reached is still its value. Here a step reports the state reached (never the first one
of the next episode) and `terminated` alone, so that a learner that bootstraps unless terminated is right.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray as Array

from mpcli_rl.kit.worlds import Make, kind_of

TRAINING, EVALUATION, SELECTION, PICTURE = range(4)  # purposes of an episode: none shares a seed with another


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

    @property
    def latest(self) -> dict[str, float]:
        """What to log: train_return, of the episode that ended last; nothing before one has."""
        return {"train_return": self.finished[-1][1]} if self.finished else {}

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
        self._shape, self._dtype = (count, *(space.shape or ())), stored(space)
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
    def latest(self) -> dict[str, float]:
        """What to log: train_return, of the episode that ended last, the mean of those that ended together.

        Nothing before any has: a return of 0 can be the best there is.
        """
        ended = [copy.finished[-1][:2] for copy in self._copies if copy.finished]
        last = max((step for step, _ in ended), default=0)
        together = [value for step, value in ended if step == last]
        return {"train_return": sum(together) / len(together)} if together else {}

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


def stored(space: spaces.Space) -> Any:
    """Vectors and real observations as float32; numbers of states, and the bytes of images, as they are."""
    return np.float32 if kind_of(space) == "vector" or np.issubdtype(space.dtype, np.floating) else space.dtype
