"""Runs that were made, and datasets that can be read, as the command line lists them."""

import json
import os
import re
from pathlib import Path

import pytest
from toy import TRAINER

from mpcli import store
from mpcli.registry import pages
from mpcli.tables import layout


@pytest.fixture
def two(book, mpcli):
    """A run of each of two widths, the newer one first."""
    book(toy=TRAINER)
    return [mpcli("train", "toy", "--steps", 5, "--width", width).path for width in (3, 4)][::-1]


def listed(mpcli, *words):
    return [json.loads(line) for line in mpcli("runs", *words, "--json").out.splitlines()]


def test_runs_are_listed_newest_first(two, mpcli):
    assert [Path(row["run"]) for row in listed(mpcli)] == two
    row = listed(mpcli, "--page", "toy")[0]
    assert (row["page"], row["verb"], row["status"], row["steps"]) == ("toy", "train", "done", 5)
    assert row["size"] == sum(path.stat().st_size for path in two[0].iterdir())
    assert listed(mpcli, "--page", "vae") == []
    cells = mpcli("runs").out.splitlines()[0].split("\t")
    assert cells[:5] == [str(two[0]), "toy", "train", "done", "5"]
    assert re.fullmatch(r"\d+ s", cells[6])
    assert mpcli("runs", "--page", "toi").code == 2


def test_a_run_that_says_running_and_is_not_was_killed(two, mpcli):
    path = two[0] / "run.json"
    path.write_text(path.read_text().replace('"done"', '"running"'))
    assert listed(mpcli)[0]["status"] == "killed"
    with store.lock(two[0]):
        assert listed(mpcli)[0]["status"] == "running"


def test_a_run_is_named_by_its_directory_or_its_page(two, mpcli):
    assert mpcli("runs", "path", "toy").path == two[0]
    assert mpcli("runs", "path", two[1]).path == two[1]
    assert mpcli("runs", "show", "toy").out == mpcli("info", two[0]).out
    assert mpcli("runs", "show", two[1], "--json").json["options"]["width"] == 3
    for words in (["vae"], ["toi"], ["."], ["runs/none"]):
        refused = mpcli("runs", "path", *words)
        assert refused.code == 2
        assert words[0] in refused.err


def test_comparing_shows_what_differs(two, mpcli):
    first, second = map(json.loads, mpcli("runs", "compare", *two, "--json").out.splitlines())
    assert set(first) == {"run", "width", "loss"}
    assert (first["width"], second["width"]) == (4, 3)
    assert "width\t4\t3" in mpcli("runs", "compare", *two).out


def test_removing_asks_first_and_spares_what_is_at_work(two, mpcli):
    assert mpcli("runs", "rm", "toy").code == 2  # nobody can be asked
    with store.lock(two[0]):
        assert mpcli("runs", "rm", two[0], "--yes").code == 2
    assert two[0].exists()
    assert mpcli("runs", "rm", two[0], "--yes").path == two[0]
    assert not two[0].exists()
    os.mkdir("mine")
    assert mpcli("runs", "rm", "mine", "--yes").code == 2
    assert Path("mine").exists()


def test_pruning_removes_runs_of_which_nothing_is_left_to_use(two, mpcli):
    assert mpcli("train", "toy", "--nan-at", 0).code == 1
    failed = listed(mpcli)[0]
    assert failed["status"] == "failed"
    assert mpcli("runs", "prune", "--yes").out == failed["run"] + "\n"
    assert [Path(row["run"]) for row in listed(mpcli)] == two
    assert mpcli("runs", "prune").code == 0


def test_datasets_say_what_they_read_and_whose_it_is(mpcli):
    rows = {row["name"]: row for row in map(json.loads, mpcli("datasets", "--json").out.splitlines())}
    assert rows["digits"]["licence"] == "CC BY 4.0"
    assert "1998" in rows["digits"]["origin"]
    assert rows["spot"]["kind"] == "mesh or Points"
    assert rows["colmap:DIR"]["origin"] == "your files"
    assert "COLMAP" in rows["colmap:DIR"]["reads"]
    assert all(all(row.values()) for row in rows.values()), rows
    assert "not stated" not in {row["licence"] for row in rows.values()}


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_no_word_of_a_table_is_broken(width):
    rows = [[name, page.title, " ".join(page.verbs)] for name, page in pages().items()]
    for row, lines in zip(rows, layout(rows, width), strict=True):
        assert sorted(" ".join(lines).split()) == sorted(" ".join(row).split())
        longest = max(map(len, " ".join(row).split()))
        assert max(map(len, lines)) <= max(width, longest + 4)
