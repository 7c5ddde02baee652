"""Curves and maps: what is drawn is what was measured."""

import csv
from functools import partial

import imageio.v3 as iio
import numpy as np
import pytest

from mpcli.run import Run
from mpcli_rl.kit import curves, worlds

TABULAR = ("discrete",), ("discrete",)


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path, device="cpu")


def test_smoothing_is_the_mean_of_the_last_ones():
    np.testing.assert_allclose(curves.smoothed(np.array([4.0, 2.0, 0.0, 6.0]), 2), [4, 3, 1, 3])


def test_rows_are_kept_and_refused_where_they_do_not_fit():
    series, again = curves.Series("step", "return"), curves.Series("step", "return")
    series.add(1, 2.5)
    series.add(2, -1)
    again.load_state_dict(series.state_dict())
    assert again.rows == [(1.0, 2.5), (2.0, -1.0)] and again.column("return") == [2.5, -1.0]
    with pytest.raises(ValueError, match="2 numbers, not 1"):
        curves.Series("step").load_state_dict(series.state_dict())


def test_returns_are_written_row_by_row(run):
    finished = [(10, 1.5, 10), (25, -2.0, 15)]
    curves.returns(run, finished, best=2.0)
    rows = list(csv.reader((run.dir / "returns.csv").read_text().splitlines()))
    assert rows[1:] == [["10", "1.5", "10"], ["25", "-2.0", "15"]]
    assert iio.imread(run.dir / "returns.png").std() > 5
    curves.returns(run, [])  # nothing finished yet
    trials = curves.Series("step", "return")
    trials.add(4, 0.5)
    curves.returns(run, [], trials)  # a player's file has the same columns before its first episode has ended
    assert (run.dir / "returns.csv").read_text().splitlines() == ["step,return,length"]
    curves.returns(run, None, trials)
    assert (run.dir / "returns.csv").read_text().splitlines() == ["step,return", "4,0.5"]


@pytest.mark.parametrize(
    ("env", "panels", "moves"),
    [("CliffWalking-v1", 1, "↑→↓←"), ("FrozenLake-v1", 1, "←↓→↑"), ("Taxi-v4", 16, "↓↑→←PD"), ("Blackjack-v1", 0, "")],
)
def test_layouts(env, panels, moves):
    chart = curves.layout(worlds.make(env, *TABULAR))
    assert (chart is None) == (panels == 0)
    if chart is not None:
        assert len(chart.states) == len(chart.titles) == panels and "".join(chart.moves) == moves
        assert len(np.unique(chart.states)) == chart.states.size


@pytest.mark.parametrize("env", ["CliffWalking-v1", "FrozenLake-v1"])
def test_the_signs_of_the_moves_are_those_of_the_steps(env):
    """One step from the middle of the map in the direction of each sign."""
    away = {"↑": (-1, 0), "→": (0, 1), "↓": (1, 0), "←": (0, -1)}
    world = worlds.make(env if "Cliff" in env else f"{env}(is_slippery=False)", *TABULAR)
    chart = curves.layout(world)
    middle = 14
    row, column = np.argwhere(chart.states[0] == middle)[0]
    for action, sign in enumerate(chart.moves):
        world.reset(seed=0)
        world.unwrapped.s = middle
        reached = world.unwrapped.step(action)[0]
        there = np.clip([row + away[sign][0], column + away[sign][1]], 0, np.array(chart.states.shape[1:]) - 1)
        assert reached == chart.states[0][tuple(there)]


def test_a_map_too_wide_for_signs_has_two_panels(run):
    make = partial(worlds.make, 'mpcli/Gridworld-v0(map=["S' + "." * 38 + 'G", "' + "#" * 40 + '"])', *TABULAR)
    chart = curves.layout(make())
    q = np.random.default_rng(0).random((80, 4))
    visits = np.ones((80, 4))
    visits[40:] = 0
    curves.policy_map(run, chart, q, visits, path=range(40))
    wide = iio.imread(run.dir / "values.png")
    small = curves.layout(worlds.make("mpcli/Gridworld-v0", *TABULAR))
    curves.policy_map(run, small, q[:54], visits[:54], path=[18, 19, 28])
    one = iio.imread(run.dir / "values.png")
    crimson = (np.abs(one[..., :3].astype(int) - (220, 20, 60)).sum(-1) < 120).sum()
    assert wide.std() > 20 and crimson > 50
