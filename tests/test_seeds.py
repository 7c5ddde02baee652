"""One command at several seeds: runs side by side, the same as each by itself, and what they have in common."""

import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_runs import record, start, wait_for, weights
from toy import TRAINER, distribution

from mpcli import curves, seeds
from mpcli.run import Run


@pytest.fixture
def toy(book, monkeypatch):
    folder = book(toy=TRAINER)
    monkeypatch.setenv("PYTHONPATH", str(folder))  # for the processes that the command starts
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Path, dict, str]:
    """The run of two seeds, its --json and what it said, started where a file lies that has the name of a module."""
    site, here = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("here")
    distribution(site, "toybook", toy=TRAINER)
    (here / "random.py").write_text("raise RuntimeError('imported')\n")
    command = [sys.executable, "-P", "-m", "mpcli", "train", "toy", "--seeds", "2", "--seed", "5", "--width", "2"]
    env = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [*command, "--out", "many", "--json"], cwd=here, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return here / "many", json.loads(done.stdout), done.stderr


def test_each_seed_is_the_run_that_it_would_be_alone(toy, mpcli, many):
    run, shown, said = many
    losses = []
    for seed in (5, 6):
        alone = mpcli("train", "toy", "--seed", seed, "--width", 2, "--out", f"alone{seed}")
        assert weights(run / f"seed-{seed}") == weights(alone.path)
        assert record(run / f"seed-{seed}")["status"] == "done"
        losses.append(record(run / f"seed-{seed}")["result"]["loss"])
    metrics, lines = shown["metrics"], [line.split() for line in said.splitlines()]
    assert metrics["loss"] == statistics.median(losses)
    assert (metrics["loss_min"], metrics["loss_max"]) == (min(losses), max(losses))
    assert ["metric", "median", "min", "max"] in lines
    assert ["loss", *(f"{metrics[name]:.6g}" for name in ("loss", "loss_min", "loss_max"))] in lines
    about = record(run)
    assert about["status"] == "done"
    assert (about["page"], about["verb"]) == ("toy", "train")
    assert json.loads((run / "config.json").read_text())["seeds"] == 2


def test_the_band_holds_every_seed(many):
    run = many[0]
    seen = [
        [json.loads(line)["loss"] for line in (run / f"seed-{seed}/metrics.jsonl").read_text().splitlines()]
        for seed in (5, 6)
    ]
    rows = list(csv.DictReader((run / "curves.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 21))
    for row, *losses in zip(rows, *seen, strict=True):
        assert float(row["loss_median"]) == pytest.approx(statistics.median(losses))
        assert float(row["loss_min"]) == pytest.approx(min(losses))
        assert float(row["loss_max"]) == pytest.approx(max(losses))
    table = list(csv.DictReader((run / "seeds.csv").read_text().splitlines()))
    assert [row["seed"] for row in table] == ["5", "6"]
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_a_metric_that_begins_late_leaves_its_first_cells_empty(tmp_path):
    early = curves.Curve([1, 2], [[4.0, 3.0], [6.0, 5.0]])
    seeds._write_curves(Run(tmp_path), {"return": early, "loss": curves.Curve([2], [[0.5], [0.25]])})
    head, first, second = csv.reader((tmp_path / "curves.csv").read_text().splitlines())
    assert head == ["step", *(f"{name}_{what}" for name in ("return", "loss") for what in ("median", "min", "max"))]
    assert first == ["1", "5.0", "4.0", "6.0", "", "", ""]
    assert second == ["2", "4.0", "3.0", "5.0", "0.375", "0.25", "0.5"]


def test_seeds_tell_where_they_are_and_import_nothing_from_the_folder_of_the_user(many):
    for seed in (5, 6):
        assert f"seed {seed}: under way" in many[2]
        assert f"seed {seed}: step 20/20" in many[2]


def test_trained_seeds_are_runs_to_go_on_with(toy, mpcli, many, tmp_path):
    run = tmp_path / "runs" / "toy" / "many"
    shutil.copytree(many[0], run)
    refused = mpcli("sample", run)
    assert refused.code == 2
    assert f"{run}/seed-5" in refused.err
    assert mpcli("sample", run / "seed-6").code == 0
    assert mpcli("sample", "toy").code == 0  # the newest run that holds a model is one of them
    rows = [json.loads(line) for line in mpcli("evaluate", run, "--json").out.splitlines()]
    assert [row["subject"] for row in rows] == [f"{run}/seed-5", f"{run}/seed-6", f"{run} (median)"]
    assert rows[2]["metrics"]["loss"] == statistics.median(row["metrics"]["loss"] for row in rows[:2])
    assert mpcli("evaluate", run, "--out", "table").code == 2


def test_seeds_end_with_their_parent(toy, tmp_path):
    process = start(
        toy, tmp_path, "train", "toy", "--seeds", 2, "--steps", 100000, "--checkpoint", 0, "--out", "run", sleep=0.02
    )
    for seed in (0, 1):
        wait_for(tmp_path / f"run/seed-{seed}/checkpoint.pt", process)
    process.kill()
    process.communicate()
    for seed in (0, 1):
        for _ in range(1200):
            if record(tmp_path / f"run/seed-{seed}")["status"] == "interrupted":
                break
            time.sleep(0.05)
        assert record(tmp_path / f"run/seed-{seed}")["status"] == "interrupted"


def test_what_a_seed_refuses_or_fails_at_is_told(toy, mpcli):
    refused = mpcli("train", "toy", "--seeds", 2, "--width", 0)
    assert refused.code == 2
    assert "--width" in refused.err
    failed = mpcli("train", "toy", "--seeds", 2, "--nan-at", 3, "--out", "many")
    assert failed.code == 1
    assert "seed 0" in failed.err
    assert "loss is nan at step 4" in failed.err
    assert record(Path("many"))["status"] == "failed"
    assert mpcli("train", "toy", "--seeds", 0).code == 2
    assert mpcli("sample", "toy", "--seeds", 2).code == 2


@pytest.mark.learning
def test_an_interrupt_stops_all_and_resume_ends_in_the_same_weights(toy, mpcli, tmp_path):
    whole = mpcli("train", "toy", "--seeds", 2, "--steps", 200, "--out", "whole")
    assert whole.code == 0, whole.err
    process = start(
        toy, tmp_path, "train", "toy", "--seeds", 2, "--steps", 200, "--checkpoint", 0, "--out", "cut", sleep=0.05
    )
    wait_for(tmp_path / "cut/seed-0/checkpoint.pt", process)
    wait_for(tmp_path / "cut/seed-1/checkpoint.pt", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert {record(tmp_path / f"cut/seed-{seed}")["status"] for seed in (0, 1)} == {"interrupted"}
    result = mpcli("train", "cut", "--resume")
    assert result.code == 0, result.err
    for seed in (0, 1):
        assert weights(tmp_path / f"cut/seed-{seed}") == weights(tmp_path / f"whole/seed-{seed}")
    assert not [name for name in os.listdir("cut") if name.startswith(".")]
