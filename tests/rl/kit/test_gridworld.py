"""Gridworld: maps refused with a reason, its model against FrozenLake, stepping and shortest paths."""

import resource
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mpcli.errors import InputError
from mpcli_rl.kit import curves, gridworld, mdp, playing, worlds

TABULAR = ("discrete",), ("discrete",)


def make(render=False, **arguments):
    listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return worlds.make(f"mpcli/Gridworld-v0({listed})", *TABULAR, render=render)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"S..\n..\n", r"map.txt: row 2 has 2 cells, not 3 as the first"),
        (b"S..\n.X.\n", r"map.txt: row 2 has 'X'; a map is made of # \. S G H"),
        (b"", r"map.txt: is no map"),
        (b"\n\n", r"map.txt: is no map"),
        (b"###\nG#G\n", r"map.txt: has no cell to start in"),
        (b"\xff\xfe\x00", r"map.txt: is not text"),
    ],
)
def test_a_wrong_map_is_refused_in_one_sentence(tmp_path, monkeypatch, content, says):
    monkeypatch.chdir(tmp_path)
    Path("map.txt").write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        make(map="map.txt")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_or_no_probability_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt: cannot be read"):
        make(map="nowhere.txt")
    with pytest.raises(InputError, match=r'is written as map=\["S..G"\]'):
        make(map="S..G")
    with pytest.raises(InputError, match="cannot be read"):
        make(map=str(tmp_path))
    with pytest.raises(InputError, match=r"slip is 1.5; a probability is in \[0, 1\]"):
        make(slip=1.5)
    with pytest.raises(InputError, match="is no map"):
        make(map=[1, 2])


def test_a_file_text_of_lines_and_rows_are_the_same_map(tmp_path):
    (tmp_path / "map.txt").write_text("S.#\r\n..G\r\n")
    maps = [make(map=value).unwrapped.cells for value in (str(tmp_path / "map.txt"), "S.#\n..G", ["S.#", "..G"])]
    assert maps[0].tolist() == [[b"S", b".", b"#"], [b".", b".", b"G"]]
    assert (maps[0] == maps[1]).all() and (maps[0] == maps[2]).all()


@pytest.mark.parametrize("name", ["4x4", "8x8"])
def test_frozen_lake_is_one_of_its_maps(name):
    lake = worlds.make(f'FrozenLake-v1(map_name="{name}")', *TABULAR)
    rows = [b"".join(row).decode().replace("F", ".") for row in lake.unwrapped.desc.tolist()]
    ours, theirs = mdp.transition_table(make(map=rows, slip=2 / 3, hole=0.0)), mdp.transition_table(lake)
    states, turned = len(ours.r), [3, 2, 1, 0]  # left, down, right, up there; up, right, down, left here
    # A hole or the goal is left at once there, and has nothing to leave for here: both end in value 0.
    np.testing.assert_allclose(ours.r[:, turned], theirs.r, atol=1e-12)
    p = ours.p.toarray().reshape(states, 4, states)[:, turned]
    np.testing.assert_allclose(p, theirs.p.toarray().reshape(p.shape), atol=1e-12)
    np.testing.assert_array_equal(ours.start, theirs.start)
    assert mdp.solve(ours, 0.99) @ ours.start == pytest.approx({"4x4": 0.54203, "8x8": 0.41464}[name], abs=5e-6)


def test_the_model_agrees_with_stepping():
    env = make(map=["S.#.", "..H.", "G..."], slip=0.3, step_reward=-0.1, goal=2.0, hole=-3.0)
    table = mdp.transition_table(env)
    world = env.unwrapped
    world.reset(seed=0)
    for state, action in ((1, 1), (5, 1), (8 + 1, 3), (0, 0)):
        counts, earned, ended = np.zeros(12), [], []
        for _ in range(4000):
            world.s = state
            reached, reward, over, _, _ = world.step(action)
            counts[reached] += not over
            earned.append(reward)
            ended.append(over)
        row = table.p[[state * 4 + action]].toarray()[0]
        np.testing.assert_allclose(counts / 4000, row, atol=0.03)
        assert np.mean(earned) == pytest.approx(table.r[state, action], abs=0.1)
        assert np.mean(ended) == pytest.approx(table.terminal[state, action], abs=0.03)


def test_one_row_is_a_random_walk():
    env = make(map=["H..S..G"], hole=0.0)
    assert env.action_space.n == 2 and env.reset(seed=0)[0] == 3
    table = mdp.transition_table(env)
    value = mdp.policy_value(table, np.full((7, 2), 0.5), 1.0)
    np.testing.assert_allclose(value[1:-1], np.arange(1, 6) / 6)  # Sutton and Barto, Example 6.2
    assert [env.step(0)[0] for _ in range(2)] == [2, 1] and env.step(0)[:3] == (0, 0.0, True)


def test_several_starts_are_drawn_alike():
    env = make(map=["S.S", "#.G"])
    np.testing.assert_array_equal(mdp.transition_table(env).start, [0.5, 0, 0.5, 0, 0, 0])
    seen = [env.reset(seed=seed)[0] for seed in range(60)]
    assert set(seen) == {0, 2} and 15 < seen.count(0) < 45
    anywhere = make(map=["..", "#G"])
    assert {anywhere.reset(seed=seed)[0] for seed in range(40)} == {0, 1}


def test_the_default_is_the_maze_of_14_steps():
    table = mdp.transition_table(make())
    assert mdp.solve(table, 0.95) @ table.start == pytest.approx(0.95**13)


def test_a_million_cells_take_memory_linear_in_transitions():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = ["." * 1000] * 999 + ["." * 999 + "G"]
    table = mdp.transition_table(make(map=rows))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert table.r.shape == (10**6, 4)
    kept = sum(array.nbytes for array in (table.p.data, table.p.indices, table.p.indptr, table.r, table.start))
    assert kept < 120 * 10**6 and grown < 1200 * 10**6  # a dictionary of tuples takes ten times as much


def test_it_is_drawn_without_a_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    frames, fps = playing.record(partial(make, True, map=["S.#G", "...."]), lambda s: np.ones(len(s), int), 0, most=5)
    assert frames.shape[1:] == (3, 96, 192) and fps >= 1
    env = make(True, map=["S.#G", "...."])
    env.reset(seed=0)
    first = env.render()
    assert tuple(first[24, 24]) == gridworld.AGENT and tuple(first[24, 48 + 24]) == gridworld.COLOURS["."]
    assert tuple(first[24, 96 + 24]) == gridworld.COLOURS["#"] and tuple(first[24, 144 + 24]) == gridworld.COLOURS["G"]
    env.step(1)
    assert tuple(env.render()[24, 48 + 24]) == gridworld.AGENT


def test_it_has_a_layout():
    chart = curves.layout(make(map=["S.#", "..G"]))
    np.testing.assert_array_equal(chart.states, [[[0, 1, 2], [3, 4, 5]]])
    assert chart.letters[0, 0].tolist() == ["S", "", "#"] and chart.moves == ("↑", "→", "↓", "←")
    assert curves.layout(make(map=["S.G"])).moves == ("←", "→")


def test_the_way_through_a_maze_is_the_shortest():
    rng = np.random.default_rng(3)
    cells = np.where(rng.random((30, 40)) < 0.25, "#", ".")
    cells[0, 0], cells[-1, -1] = "S", "G"
    env = make(map=["".join(row) for row in cells])
    value = mdp.solve(mdp.transition_table(env), 0.99).reshape(30, 40)
    steps, front = np.full((30, 40), -1), [(29, 39)]
    steps[29, 39] = 0
    for row, column in front:  # breadth first
        for dy, dx in gridworld.MOVES:
            y, x = row + dy, column + dx
            if 0 <= y < 30 and 0 <= x < 40 and cells[y, x] != "#" and steps[y, x] < 0:
                steps[y, x] = steps[row, column] + 1
                front.append((y, x))
    reached = steps > 0
    assert reached.sum() > 700
    np.testing.assert_allclose(value[reached], 0.99 ** (steps[reached] - 1), rtol=1e-9)
    assert (value[~reached] == 0).all()
