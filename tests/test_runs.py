"""Runs on disk: what is written, what a kill leaves, and how a run goes on."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy import TRAINER

from mpcli.errors import InputError
from mpcli.run import Run, Trained
from mpcli.store import new_directory


@pytest.fixture
def toy(book):
    return book(toy=TRAINER)


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def test_a_run_holds_what_the_design_says(toy, mpcli):
    result = mpcli("train", "toy", "--width", 2, "--seed", 5)
    assert result.code == 0, result.err
    run = result.path
    assert run.parent == Path("runs/toy")
    assert run.name.endswith("-train-s5")
    about = record(run)
    assert about["page"] == "toy"
    assert (about["distribution"], about["version"], about["verb"], about["status"]) == (
        "toybook",
        "1.2",
        "train",
        "done",
    )
    assert about["result"]["loss"] > 0
    options = json.loads((run / "config.json").read_text())
    assert options["width"] == 2
    assert options["layers"] == [4, 4]
    assert options["seed"] == 5
    assert (run / "command.txt").read_text().startswith("mpcli")
    assert json.loads((run / "env.json").read_text())["packages"]["torch"] == torch.__version__.partition("+")[0] + (
        "+" + torch.__version__.partition("+")[2] if "+" in torch.__version__ else ""
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_the_same_command_writes_the_same_bytes(toy, mpcli):
    first, second = (mpcli("train", "toy", "--seed", 3).path for _ in range(2))
    assert first != second
    for name in ("model.safetensors", "model.json", "metrics.jsonl", "checkpoint.pt", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert weights(mpcli("train", "toy", "--seed", 4).path) != weights(first)


def start(toy: Path, cwd: Path, *arguments: object, sleep: float = 0.0) -> subprocess.Popen:
    command = [sys.executable, "-m", "mpcli", *map(str, arguments)]
    path = os.pathsep.join([str(toy), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "TOY_SLEEP": str(sleep)}
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def test_kill_9_and_resume_give_the_same_weights(toy, mpcli, tmp_path):
    whole = mpcli("train", "toy", "--steps", 30, "--out", "whole").path
    process = start(toy, tmp_path, "train", "toy", "--steps", 30, "--checkpoint", 0, "--out", "cut", sleep=0.1)
    wait_for(tmp_path / "cut/checkpoint.pt", process)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cut = tmp_path / "cut"
    assert record(cut)["status"] == "running"
    reached = torch.load(cut / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < reached < 30
    result = mpcli("train", cut, "--resume")
    assert result.code == 0, result.err
    assert f"after step {reached}" in result.err
    assert weights(cut) == weights(tmp_path / whole)
    assert (cut / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert record(cut)["status"] == "done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_checkpoint_and_exits_130(toy, mpcli, tmp_path, number):
    process = start(toy, tmp_path, "train", "toy", "--steps", 10000, "--checkpoint", 0, "--out", "cut", sleep=0.02)
    wait_for(tmp_path / "cut/checkpoint.pt", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out == ""
    assert "--resume" in err
    assert "Traceback" not in err
    assert (tmp_path / "cut/checkpoint.pt").exists()
    assert record(tmp_path / "cut")["status"] == "interrupted"


def test_divergence_stops_with_the_step_and_keeps_the_last_good_checkpoint(toy, mpcli):
    result = mpcli("train", "toy", "--nan-at", 7, "--checkpoint", 0, "--out", "run")
    assert result.code == 1
    assert "loss is nan at step 8" in result.err
    assert "checkpoint.pt" in result.err
    saved = torch.load("run/checkpoint.pt", weights_only=True)
    assert saved["step"] == 7
    assert all(torch.isfinite(value).all() for value in saved["state"]["model"].values())
    assert record(Path("run"))["status"] == "failed"


def test_resume_can_train_longer(toy, mpcli):
    short = mpcli("train", "toy", "--steps", 10, "--out", "short").path
    assert mpcli("train", short, "--resume", "--steps", 20).code == 0
    assert weights(short) == weights(mpcli("train", "toy", "--steps", 20, "--out", "long").path)


def test_resume_finds_the_newest_run_and_begins_one_where_out_names_none(toy, mpcli):
    assert mpcli("train", "toy", "--resume").code == 2
    run = mpcli("train", "toy", "--steps", 10).path
    assert mpcli("train", "toy", "--resume", "--steps", 12).path == run
    fresh = mpcli("train", "toy", "--out", "made", "--resume", "--steps", 2)
    assert (fresh.code, fresh.path) == (0, Path("made"))
    assert mpcli("train", "toy", "--out", "made", "--resume", "--steps", 4).code == 0
    assert torch.load("made/checkpoint.pt", weights_only=True)["step"] == 4


def test_a_run_is_never_written_over(toy, mpcli, tmp_path):
    run = mpcli("train", "toy", "--steps", 2, "--out", "mine").path
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    again = mpcli("train", "toy", "--steps", 2, "--out", "mine")
    assert again.code == 2
    assert "--resume" in again.err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.txt").write_text("mine")
    assert mpcli("train", "toy", "--out", "notes").code == 2
    assert os.listdir("notes") == ["thesis.txt"]


def test_two_runs_of_one_second_have_two_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [new_directory("toy", "train", 0, None) for _ in range(20)]
    assert len(set(made)) == 20


def test_two_processes_cannot_work_on_one_run(toy, mpcli, tmp_path):
    process = start(toy, tmp_path, "train", "toy", "--steps", 10000, "--checkpoint", 0, "--out", "run", sleep=0.05)
    wait_for(tmp_path / "run/checkpoint.pt", process)
    try:
        second = mpcli("train", "run", "--resume")
        assert second.code == 2
        assert "another process" in second.err
    finally:
        process.kill()
        process.communicate()


def test_a_damaged_checkpoint_is_refused(toy, mpcli):
    run = mpcli("train", "toy", "--steps", 4).path
    path = run / "checkpoint.pt"
    data = bytearray(path.read_bytes())
    start = data.find(b"PK\x03\x04", len(data) // 3)
    data[start + 100] ^= 0xFF
    path.write_bytes(data)
    result = mpcli("train", run, "--resume")
    assert result.code == 2
    assert "checkpoint.pt" in result.err
    assert "damaged" in result.err
    assert path.read_bytes() == data
    path.write_bytes(data[: len(data) // 2])
    assert mpcli("train", run, "--resume").code == 2


def test_damaged_weights_are_refused(toy, mpcli):
    run = mpcli("train", "toy", "--steps", 2).path
    data = bytearray(weights(run))
    data[-3] ^= 1
    (run / "model.safetensors").write_bytes(data)
    result = mpcli("sample", run)
    assert result.code == 2
    assert "checksum" in result.err


def test_a_checkpoint_cannot_run_code(toy, mpcli, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    run = mpcli("train", "toy", "--steps", 2).path
    torch.save({"format": 1, "step": 1, "state": Bomb(), "random": {}}, run / "checkpoint.pt")
    assert mpcli("train", run, "--resume").code == 2
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_keeps_the_last_checkpoint(toy, mpcli, tmp_path):
    run = mpcli("train", "toy", "--steps", 4, "--out", "run").path
    before = (run / "checkpoint.pt").read_bytes()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        result = mpcli("train", run, "--resume", "--steps", 8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.code == 2
    assert "checkpoint.pt: cannot be written" in result.err
    assert (run / "checkpoint.pt").read_bytes() == before
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_a_run_of_another_page_or_a_newer_version_is_refused(toy, book, mpcli):
    book(toy=TRAINER, tother=TRAINER)
    run = mpcli("train", "toy", "--steps", 2, "--out", "run").path
    other = mpcli("train", "tother", "--resume", "--out", run)
    assert other.code == 2
    assert "is a run of train toy" in other.err
    about = record(run) | {"format": 99}
    (run / "run.json").write_text(json.dumps(about))
    newer = mpcli("sample", run)
    assert newer.code == 2
    assert "newer" in newer.err
    (run / "run.json").write_text("{")
    assert mpcli("sample", run).code == 2


def test_out_that_cannot_be_written_is_refused(toy, mpcli, tmp_path):
    (tmp_path / "file").write_text("")
    result = mpcli("train", "toy", "--out", "file/run")
    assert result.code == 2
    assert "cannot be written" in result.err


def test_a_refused_request_leaves_no_run(toy, mpcli):
    assert mpcli("train", "toy", "--width", 0).code == 2
    assert mpcli("train", "toy", "--device", "cuda" if not torch.cuda.is_available() else "mps").code == 2
    assert not Path("runs").exists() or not list(Path("runs").rglob("run.json"))


def test_the_main_artifact_goes_where_out_says(toy, mpcli):
    run = mpcli("train", "toy", "--steps", 2).path
    inside = mpcli("sample", run)
    assert inside.path.name == "samples.png"
    assert inside.path.parent.parent == Path("runs/toy")
    assert (inside.path.parent / "weights.txt").exists()
    assert record(inside.path.parent)["parent"] == str(run)
    for suffix in ("png", "jpg", "gif", "mp4"):
        chosen = mpcli("sample", run, "--out", f"picture.{suffix}")
        assert (chosen.code, chosen.path) == (0, Path(f"picture.{suffix}"))
        assert Path(f"picture.{suffix}").stat().st_size > 0
    wrong = mpcli("sample", run, "--out", "picture.docx")
    assert wrong.code == 2
    assert ".png" in wrong.err
    assert not Path("picture.docx").exists()
    folder = mpcli("sample", run, "--out", "folder").path
    assert folder == Path("folder/samples.png")


def test_extras_and_configuration_come_back(tmp_path):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Config:
        sizes: tuple[int, ...] = (2, 3)

    class Model(torch.nn.Module):
        def __init__(self, cfg, shape):
            super().__init__()
            self.seen = (cfg.sizes, shape)
            self.a = torch.nn.Linear(2, 2)
            self.b = torch.nn.Linear(2, 2)
            self.b.weight = self.a.weight  # tied

    run = Run(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    model = Model(Config((5, 6)), (1, 8, 8))
    run.save(model, Config((5, 6)), shape=torch.Size((1, 8, 8)))
    loaded = Trained(tmp_path, "cpu").load(Model, Config)
    assert loaded.seen == ((5, 6), (1, 8, 8))
    assert torch.equal(loaded.b.weight, model.a.weight)
    assert not loaded.training
    os.remove(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        Trained(tmp_path, "cpu").load(Model, Config)


def test_logging_is_bounded(tmp_path):
    run = Run(tmp_path)
    for _ in run.track(lambda step: step, 5000):
        run.log(loss=1.0)
    assert 1000 <= len((tmp_path / "metrics.jsonl").read_text().splitlines()) <= 1001
    with pytest.raises(RuntimeError, match="one track loop"):
        next(run.track(lambda step: step, 5))
    shutil.rmtree(tmp_path)
