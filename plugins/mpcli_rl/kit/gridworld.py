"""Gridworld: a world given by a map in text, for `--env 'mpcli/Gridworld-v0(map="maze.txt")'`.

    #  wall     .  ground     S  start     G  goal, the episode ends     H  hole, the episode ends

States are the cells, row by row; actions are up, right, down, left, and on a map of one row left and right only. A
step into a wall or over the border stays where it is. With probability `slip` a step goes at a right angle to where it
was meant to, to either side alike. Every step earns `step_reward`, the one into a goal or a hole its reward besides.

So a row `H..S..G` with hole=0 is the random walk of Sutton and Barto's Example 6.2, and slip=2/3 the ice of Gymnasium's
FrozenLake. Episodes are cut after 1000 steps unless `max_episode_steps=N` is given as well. The default map is the maze
of their Example 8.1.

Sutton and Barto, Reinforcement Learning: An Introduction, 2nd edition, 2018.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Shaped, UInt8
from numpy import ndarray as Array
from scipy import sparse

from mpcli.errors import InputError
from mpcli_rl.kit import mdp, worlds

MAZE = (
    ".......#G",
    "..#....#.",
    "S.#....#.",
    "..#......",
    ".....#...",
    ".........",
)
MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # a turn to the right is the next one
SIGNS = ("↑", "→", "↓", "←")
COLOURS = {"#": (55, 58, 70), ".": (236, 234, 226), "S": (205, 214, 236), "G": (72, 160, 96), "H": (60, 110, 170)}
AGENT = (206, 56, 46)


def read(text: Any) -> Shaped[Array, "rows columns"]:
    """A map as characters [rows, columns], of type S1.

    Args:
        text: the name of a file; or the map itself, as text of several lines or as its rows.

    Raises:
        InputError: the file cannot be read, or the map is empty, ragged, or has other characters.
    """
    name, rows = "map", text.strip("\n").split("\n") if isinstance(text, str) else list(text)
    if isinstance(text, str) and "\n" not in text:
        name, path = text, Path(text)
        try:
            if path.stat().st_size > 2 * worlds.MOST_STATES:
                raise InputError(f"{name}: is too large for a map; {worlds.MOST_STATES} cells are the most")
            rows = path.read_bytes().decode("ascii").strip("\r\n").splitlines()
        except OSError as error:
            hint = '; a map of one row is written as map=["S..G"]' if set(text) <= set(COLOURS) else ""
            raise InputError(f"{name}: cannot be read ({error.strerror}); it must be a map in text{hint}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: is not text; a map is made of the characters {' '.join(COLOURS)}") from error
    if not all(isinstance(row, str) for row in rows) or not rows or not rows[0]:
        raise InputError(f"{name}: is no map; it needs rows of the characters {' '.join(COLOURS)}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise InputError(f"{name}: row {number} has {len(row)} cells, not {len(rows[0])} as the first")
        if other := set(row) - set(COLOURS):
            raise InputError(f"{name}: row {number} has {min(other)!r}; a map is made of {' '.join(COLOURS)}")
    cells = np.frombuffer("".join(rows).encode("ascii"), "S1").reshape(len(rows), -1)
    if not ((cells == b"S") | (cells == b".")).any():
        raise InputError(f"{name}: has no cell to start in; it needs an S or a .")
    return cells


@lru_cache(maxsize=4)
def _ways(kinds: bytes, columns: int) -> Array:
    """[4, S] int32: where a step in each direction ends. All worlds of a map share it: it is large."""
    walls = np.frombuffer(kinds, np.uint8) == ord("#")
    numbers = np.arange(len(kinds), dtype=np.int32).reshape(-1, columns)
    rows = len(numbers)
    ways = np.empty((4, len(kinds)), np.int32)
    for direction, (dy, dx) in enumerate(MOVES):
        down, right = np.clip(np.arange(rows) + dy, 0, rows - 1), np.clip(np.arange(columns) + dx, 0, columns - 1)
        there = numbers[down[:, None], right].ravel()
        ways[direction] = np.where(walls[there], numbers.ravel(), there)
    ways.flags.writeable = False
    return ways


class Gridworld(gym.Env):
    """The world of a map.

    Args:
        map: see `read`.
        slip: probability that a step goes at a right angle.
        step_reward: of every step.
        goal, hole: reward of the step into one, besides.

    Raises:
        InputError: the map or the probability is wrong.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012 (Gymnasium's own way)

    def __init__(
        self,
        map: Any = MAZE,
        slip: float = 0.0,
        step_reward: float = 0.0,
        goal: float = 1.0,
        hole: float = -1.0,
        render_mode: str | None = None,
    ) -> None:
        self.cells = read(map)
        if not 0 <= slip <= 1:
            raise InputError(f"slip is {slip}; a probability is in [0, 1]")
        self.slip, self.step_reward, self.render_mode = float(slip), float(step_reward), render_mode
        rows, columns = self.cells.shape
        if self.cells.size > worlds.MOST_STATES:
            raise InputError(f"the map has {self.cells.size} cells; {worlds.MOST_STATES} are the most")
        self._kinds = self.cells.tobytes()
        self._gain = {ord("G"): float(goal), ord("H"): float(hole)}
        self._next = _ways(self._kinds, columns)
        starts = np.flatnonzero(self.cells == b"S")
        self._starts = starts if len(starts) else np.flatnonzero(self.cells == b".")
        self.moves = (3, 1) if rows == 1 else (0, 1, 2, 3)  # which direction an action means
        self.observation_space = spaces.Discrete(self.cells.size)
        self.action_space = spaces.Discrete(len(self.moves))
        self.s = int(self._starts[0])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.s = int(self._starts[self.np_random.integers(len(self._starts))])
        return self.s, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        direction = self.moves[action]
        if self.slip and self.np_random.random() < self.slip:
            direction = (direction + (1 if self.np_random.random() < 0.5 else 3)) % 4
        self.s = int(self._next[direction, self.s])
        kind = self._kinds[self.s]
        return self.s, self.step_reward + self._gain.get(kind, 0.0), kind in self._gain, False, {}

    def transition_table(self) -> mdp.Table:
        """The model; walls, goals and holes are states from which nothing follows."""
        turns = ((0, 1 - self.slip), (1, self.slip / 2), (3, self.slip / 2))
        outcomes = [(turn, q) for turn, q in turns if q > 0]
        directions = np.array([[(move + turn) % 4 for turn, _ in outcomes] for move in self.moves])
        q = np.array([q for _, q in outcomes])
        gain = np.zeros(128)
        gain[list(self._gain)] = list(self._gain.values())
        kinds = np.frombuffer(self._kinds, np.uint8)
        over = (kinds == ord("G")) | (kinds == ord("H"))
        live = ~over & (kinds != ord("#"))
        following = np.moveaxis(self._next[directions], -1, 0)  # [S, A, outcomes]
        r = np.where(live[:, None], self.step_reward + gain[kinds][following] @ q, 0.0)
        going_on = live[:, None, None] & ~over[following]
        states, actions = r.shape
        rows = np.zeros(states * actions + 1, np.int32)
        np.cumsum(going_on.sum(2).ravel(), out=rows[1:])
        p = sparse.csr_array(
            (np.broadcast_to(q, following.shape)[going_on], following[going_on], rows), shape=(states * actions, states)
        )
        p.sum_duplicates()
        start = np.zeros(states)
        start[self._starts] = 1 / len(self._starts)
        return mdp.Table(p, r, start)

    def render(self) -> UInt8[Array, "H W 3"]:
        """The map as a picture, and the agent on it."""
        rows, columns = self.cells.shape
        size = max(1, min(48, 480 // max(rows, columns)))
        ground = np.zeros((rows, columns, 3), np.uint8)
        for kind, colour in COLOURS.items():
            ground[self.cells == kind.encode()] = colour
        picture = ground.repeat(size, 0).repeat(size, 1)
        if size >= 8:
            picture[size - 1 :: size] = picture[:, size - 1 :: size] = 190
        away = np.arange(size) - (size - 1) / 2
        disc = away[:, None] ** 2 + away**2 <= (0.36 * size) ** 2 if size >= 5 else np.ones((size, size), bool)
        row, column = divmod(self.s, columns)
        picture[row * size : (row + 1) * size, column * size : (column + 1) * size][disc] = AGENT
        return picture
