"""What is told of work that takes long, and that it is told once."""

import time

import pytest
from toy import TRAINER

from mpcli import progress
from mpcli.progress import Progress, Teller, telling, watched


@pytest.fixture
def clock(monkeypatch):
    """A clock that work moves: `clock(3)` lets three seconds pass."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    return passes


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_line_says_where_how_fast_and_how_long(clock, capsys):
    with Progress(0, 100, Teller("toy", "toy-run", quiet=False)) as shown:
        for step in range(50):
            clock(60)
            shown.show({"loss": 0.25})
            shown.advance(step + 1)
    assert lines(capsys)[-1] == "toy-run: step 50/100  loss 0.25  0.0167 steps/s  elapsed 50:00  remaining 50:00"


def test_long_work_is_shown_after_two_seconds(clock, capsys):
    with telling(Teller("toy", "toy-run", quiet=False)):
        for _ in watched(range(10), "frames"):
            clock(0.1)
        assert lines(capsys) == []
        for _ in watched(range(10), "frames"):
            clock(1)
    shown = lines(capsys)
    assert shown[0] == "toy-run: frames 2/10  1 /s  elapsed 0:02  remaining 0:08"
    assert shown[-1] == "toy-run: frames 10/10  1 /s  elapsed 0:10"


def test_work_within_work_is_shown_once_and_quiet_work_never(clock, capsys):
    with telling(Teller("toy", "toy-run", quiet=False)):
        for _ in watched(range(2), "outer"):
            for _ in watched(range(3), "inner"):
                clock(3)
    assert {line.split()[1] for line in lines(capsys)} == {"outer"}
    for _ in watched(range(3), "frames"):  # of a library's caller, who asked for no display
        clock(3)
    with telling(Teller("toy", "toy-run", quiet=True)):
        for _ in watched(range(3), "frames"):
            clock(3)
    assert lines(capsys) == []
    assert progress._shown is None


def test_the_items_come_as_they_are():
    with telling(Teller("toy", "toy-run", quiet=False)):
        assert list(watched("abc", "letters")) == ["a", "b", "c"]


def test_off_a_terminal_each_line_begins_with_the_run(book, mpcli):
    book(toy=TRAINER)
    result = mpcli("train", "toy", "--steps", 3)
    told = result.err.splitlines()
    assert told[0] == f"{result.path.name}: the run directory is {result.path}"
    steps = [line for line in told if "step " in line]
    assert len(steps) == 3
    assert all(line.startswith(f"{result.path.name}: step ") for line in steps)


def test_gradcheck_tells_a_line_a_page(mpcli):
    told = mpcli("gradcheck", "torus", "plane").err.splitlines()
    assert [line.split(": ")[1] for line in told[:2]] == ["torus", "plane"]
    assert all("cases hold" in line for line in told[:2])
