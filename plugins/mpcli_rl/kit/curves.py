"""Curves and maps of reinforcement learning: what an agent earned, and what it makes of its world."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import matplotlib.patheffects as effects
import numpy as np
import torch
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.envs.toy_text.taxi import TaxiEnv
from jaxtyping import Float, Int, Shaped
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from numpy import ndarray as Array

from mpcli.kit import pictures
from mpcli.run import Run
from mpcli_rl.kit.gridworld import SIGNS, Gridworld

WINDOW = 0.05  # of all episodes are averaged into one point of the smooth curve
SIGNED = 30  # cells along a side up to which an action is drawn as a sign

Episode = tuple[int, float, int]  # steps taken when it ended, return, length


class Series:
    """Rows of numbers that grow while training and belong into its checkpoints."""

    def __init__(self, *columns: str) -> None:
        self.columns = columns
        self.rows: list[tuple[float, ...]] = []

    def add(self, *row: float) -> None:
        """Append a row, one number a column."""
        self.rows.append(tuple(float(value) for value in row))

    def column(self, name: str) -> list[float]:
        """The numbers of one column so far."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": torch.tensor(self.rows, dtype=torch.float64).reshape(-1, len(self.columns))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue saved rows.

        Raises:
            ValueError: they have another number of columns.
        """
        if state["rows"].shape[1] != len(self.columns):
            raise ValueError(f"it holds rows of {state['rows'].shape[1]} numbers, not {len(self.columns)}")
        self.rows = [tuple(row) for row in state["rows"].tolist()]


def smoothed(values: Float[Array, " N"], window: int) -> Float[Array, " N"]:
    """The mean of the last `window` values, of fewer at the start."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (total[last] - total[first]) / (last - first)


def returns(
    run: Run, finished: Sequence[Episode] | None, trials: Series | None = None, best: float | None = None
) -> None:
    """Write returns.csv, a row an episode of training, and returns.png.

    Args:
        finished: the episodes in the order in which they ended; None where a page learns without playing, and its
            trials are the rows of returns.csv.
        trials: what the greedy policy earned, by step (columns "step" and "return").
        best: what the best policy earns, drawn as a line.
    """
    if finished is not None:
        run.table("returns.csv", ("step", "return", "length"), finished)
    elif trials is not None:
        run.table("returns.csv", trials.columns, ((int(step), value) for step, value in trials.rows))
    figure = pictures.figure(run.heading)
    axes = figure.subplots()
    if finished:
        steps, values = np.array(finished, np.float64).T[:2]
        window = max(1, round(WINDOW * len(finished)))
        smooth = smoothed(values, window)
        axes.plot(steps, values, ".", color="0.75", markersize=3, label="episode")
        axes.plot(steps, smooth, label=f"mean of the last {window}")
        # One fall from a cliff must not flatten everything else.
        low, high = np.percentile(values, 2), max(values.max(), best if best is not None else -math.inf)
        axes.set_ylim(
            min(low, smooth[window:].min(initial=low)) - 0.05 * (high - low + 1), high + 0.05 * (high - low + 1)
        )
    if trials is not None and trials.rows:
        axes.plot(
            trials.column("step"), trials.column("return"), "o-", markersize=3, label="trials of the greedy policy"
        )
    if best is not None:
        axes.axhline(best, color="black", linestyle="--", linewidth=1, label=f"best possible: {best:.5g}")
    axes.set(xlabel="steps in the environment", ylabel="return of an episode")
    if finished is None:
        axes.set(xlabel="step", xscale="log")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=4, fontsize=pictures.NAME)
    run.figure("returns.png", figure)


@dataclass(frozen=True)
class Map:
    """Where the states of a tabular environment lie.

    Attributes:
        states: which state is in each cell of each panel.
        letters: what is written on the cell: start, goal, hole; "" for plain ground.
        titles: one a panel.
        moves: the sign of each action.
    """

    states: Int[Array, "panels rows columns"]
    letters: Shaped[Array, "panels rows columns"]
    titles: tuple[str, ...]
    moves: tuple[str, ...]


def layout(env: gym.Env) -> Map | None:
    """The map of an environment that has one (Gridworld, CliffWalking, FrozenLake, Taxi), else None."""
    world = env.unwrapped
    if isinstance(world, Gridworld):
        letters = np.where(world.cells == b".", b"", world.cells).astype("U1")
        moves = tuple(SIGNS[direction] for direction in world.moves)
        return Map(np.arange(letters.size).reshape(1, *letters.shape), letters[None], ("",), moves)
    if isinstance(world, CliffWalkingEnv):
        letters = np.where(world._cliff, "C", "")
        letters[-1, 0], letters[-1, -1] = "S", "G"
        return Map(np.arange(world.nS).reshape(1, *world.shape), letters[None], ("",), ("↑", "→", "↓", "←"))
    if isinstance(world, FrozenLakeEnv):
        letters = np.array([[cell.decode().replace("F", "") for cell in row] for row in world.desc.tolist()])
        return Map(np.arange(letters.size).reshape(1, *letters.shape), letters[None], ("",), ("←", "↓", "→", "↑"))
    if isinstance(world, TaxiEnv):
        names = "RGYB"
        goals = [(passenger, goal) for passenger in range(5) for goal in range(4) if passenger != goal]
        states = [[[world.encode(r, c, p, g) for c in range(5)] for r in range(5)] for p, g in goals]
        letters = np.full((len(goals), 5, 5), "")
        for name, (row, column) in zip(names, world.locs, strict=True):
            letters[:, row, column] = name
        titles = tuple(f"{'aboard' if p == 4 else 'at ' + names[p]}, to {names[g]}" for p, g in goals)
        return Map(np.array(states), letters, titles, ("↓", "↑", "→", "←", "P", "D"))
    return None


def policy_map(
    run: Run, chart: Map, q: Float[Array, "S A"], visits: Float[Array, "S A"], path: Sequence[int] = ()
) -> None:
    """Write values.png: the value max_a Q of every state as colour, its greedy action as a sign.

    A map too wide for signs becomes two panels, one of values and one of actions as colours.

    Args:
        visits: states never visited are left grey, for there Q says nothing.
        path: the states of a greedy episode, drawn as a line on a map of one panel.
    """
    known = visits.sum(1)[chart.states] > 0
    value = np.ma.masked_where(~known, q.max(1)[chart.states])
    count, rows, columns = chart.states.shape
    wide = max(rows, columns) > SIGNED
    across = min(count, 4) if not wide else 2 * count
    down = math.ceil(count / across)
    size = min(0.62 if count == 1 else 0.42, 5.5 / max(rows, columns) if wide else 1)
    width, height = max(4.0, across * columns * size + 1.6), down * (rows * size + 0.4) + 0.8  # inches
    figure = pictures.figure(run.heading, round(width * pictures.DPI), round(height * pictures.DPI))
    panels = figure.subplots(down, across, squeeze=False).ravel()
    low, high = (value.min(), value.max()) if value.count() else (0.0, 1.0)
    outline = [effects.withStroke(linewidth=2, foreground="black")]
    charts = panels[::2] if wide else panels
    for panel in panels:
        panel.set_facecolor("0.6")
        panel.set(xticks=[], yticks=[])
    for panel, states, letters, known_here, colours, title in zip(
        charts, chart.states, chart.letters, known, value, chart.titles, strict=True
    ):
        image = panel.imshow(colours, vmin=low, vmax=high, cmap="viridis")
        walls = np.ma.masked_where(letters != "#", np.zeros(letters.shape))
        panel.imshow(walls, cmap="gray", vmin=0, vmax=1)
        panel.set_title(title, fontsize=8)
        if len(path) and count == 1:
            # The shape of the map is that of its numbering wherever there is one panel.
            where = np.array(np.unravel_index(np.asarray(path), (rows, columns)))
            panel.plot(where[1], where[0], color="crimson", linewidth=1.5 if wide else 3, alpha=0.7)
        if wide:
            continue
        for (row, column), state in np.ndenumerate(states):
            if letters[row, column] not in ("", "#"):
                panel.text(column - 0.45, row - 0.42, letters[row, column], color="white", fontsize=7, va="top")
            if known_here[row, column]:
                sign = chart.moves[int(q[state].argmax())]
                panel.text(
                    column, row, sign, color="white", ha="center", va="center", fontsize=13, path_effects=outline
                )
    if wide:
        for panel, states, known_here in zip(panels[1::2], chart.states, known, strict=True):
            actions = np.ma.masked_where(~known_here, q.argmax(1)[states])
            colours = ListedColormap(colormaps["Set2"](range(len(chart.moves))))
            greedy = panel.imshow(actions, vmin=-0.5, vmax=len(chart.moves) - 0.5, cmap=colours)
            legend = figure.colorbar(greedy, ax=panel, ticks=range(len(chart.moves)), shrink=0.5)
            legend.ax.set_yticklabels(chart.moves)
    figure.colorbar(
        image, ax=charts.tolist(), label="value of the greedy action", shrink=0.9, location="left" if wide else "right"
    )
    run.figure("values.png", figure)
