"""Runs are never lost and never lie: kills, refusals, full disks, links, clocks and signals."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_runs import record, start, wait_for, weights
from toy import TRAINER

from mpcli import files
from mpcli import trained as trained_module
from mpcli.errors import InputError
from mpcli.run import Run, Trained


@pytest.fixture
def toy(book):
    return book(toy=TRAINER)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lr", "0.5"], ["--lr 0.5", "0.1"]),
        (["--steps", "30", "--kind", "b"], ["--kind b", "with a"]),
        (["--layers", "4"], ["--layers 4", "4,4"]),
        (["--seed", "9"], ["--seed 9", "with 0"]),
        (["--seeds", "2"], ["--seeds 2"]),
        (["--config", "other.json"], ["--width 7", "with 3"]),
        (["--out", "elsewhere"], ["--out elsewhere", "leave"]),
    ],
)
def test_a_resume_that_would_change_more_than_steps_leaves_every_byte(toy, mpcli, tmp_path, arguments, words):
    run = mpcli("train", "toy", "--steps", 4, "--out", "run").path
    (tmp_path / "other.json").write_text('{"width": 7}')
    before = contents(run)
    refused = mpcli("train", "run", "--resume", *arguments)
    assert refused.code == 2
    for word in words:
        assert word in refused.err
    if "--out" not in arguments:
        assert "--config run/config.json" in refused.err
    assert contents(run) == before
    assert mpcli("train", "run", "--resume", "--lr", 0.1, "--steps", 6).code == 0  # the same value is no change


def test_a_resume_that_cannot_restore_leaves_every_byte(toy, mpcli):
    run = mpcli("train", "toy", "--steps", 4, "--out", "run").path
    (run / "checkpoint.pt").write_bytes(b"PK damaged")
    before = contents(run)
    assert mpcli("train", "run", "--resume", "--steps", 8).code == 2
    assert contents(run) == before
    assert mpcli("sample", "run").code == 0


def test_a_schedule_ends_where_the_longer_training_does(tmp_path, capsys):
    def train(folder: Path, steps: int, resume: bool) -> list[float]:
        folder.mkdir(exist_ok=True)
        weight = torch.nn.Linear(1, 1)
        sgd = torch.optim.SGD(weight.parameters(), 1.0)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
        linear = torch.optim.lr_scheduler.LinearLR(torch.optim.SGD(weight.parameters(), 1.0), 0.5, total_iters=3)
        rates = []
        run = Run(folder, resume=folder if resume else None, quiet=False)
        for _ in run.track(lambda step: step, steps, weight=weight, sgd=sgd, cosine=cosine, linear=linear):
            rates.append(cosine.get_last_lr()[0])
            sgd.step()
            linear.optimizer.step()
            cosine.step()
            linear.step()
        return [*rates, cosine.get_last_lr()[0]]

    whole = train(tmp_path / "whole", 20, resume=False)
    short = train(tmp_path / "cut", 10, resume=False)
    assert short[-1] == pytest.approx(0, abs=1e-9)
    longer = train(tmp_path / "cut", 20, resume=True)
    assert longer == pytest.approx(whole[10:], abs=1e-9)
    said = capsys.readouterr().err
    assert "cosine ends at step 20 instead of 10, so it goes on from a rate of 0.5" in said
    assert "linear" not in said


@pytest.mark.parametrize("left", [["command.txt"], ["command.txt", "config.json"], ["run.json"], [".run.json.1"]])
def test_a_kill_before_the_record_leaves_a_directory_to_begin_in(toy, mpcli, left):
    whole = mpcli("train", "toy", "--steps", 4, "--out", "whole").path
    cut = Path("cut")
    cut.mkdir()
    for name in {"command.txt", *left} if left != ["run.json"] else left:
        (cut / name).write_text("")
    result = mpcli("train", "toy", "--steps", 4, "--out", "cut", "--resume")
    assert result.code == 0, result.err
    assert weights(cut) == weights(whole)
    assert record(cut)["status"] == "done"


def test_a_folder_of_the_user_is_no_run_that_was_killed(toy, mpcli, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text("{}")
    assert mpcli("train", "toy", "--out", "mine").code == 2
    assert contents(tmp_path / "mine") == {"config.json": b"{}"}


def test_a_record_is_made_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    assert files.create_json(path, {"a": 1})
    assert not files.create_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["run.json"]


def test_what_a_kill_left_half_written_is_swept(toy, mpcli):
    run = mpcli("train", "toy", "--steps", 4).path
    (run / "figures").mkdir()
    dead = dead_process()
    for name in (f".checkpoint.pt.{dead}", f"figures/.a.{dead}.png", f".checkpoint.pt.{os.getppid()}", ".mine"):
        (run / name).write_text("half")
    assert mpcli("train", run, "--resume", "--steps", 6).code == 0
    hidden = {path.name for path in run.rglob(".*")}
    assert hidden == {f".checkpoint.pt.{os.getppid()}", ".mine"}


AFTER = TRAINER.replace("    run.result(loss=loss)\n", "    run.result(loss=loss)\n    after(run)\n")


def test_sigterm_after_the_loop_is_told_and_recorded(book, mpcli, tmp_path):
    wait = "\n\ndef after(run):\n    (run.dir / 'waits').touch()\n    time.sleep(60)\n"
    folder = book(toy=AFTER + wait)
    process = start(folder, tmp_path, "train", "toy", "--out", "run")
    wait_for(tmp_path / "run/waits", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "mpcli train run --resume" in err.splitlines()[-1]
    assert record(tmp_path / "run")["status"] == "interrupted"


@pytest.mark.parametrize(
    ("failure", "words"), [("InputError('no such data')", "no such data"), ("OSError('window')", "window")]
)
def test_what_fails_after_training_does_not_lose_it(book, mpcli, failure, words):
    book(toy=AFTER + f"\n\ndef after(run):\n    from mpcli.errors import InputError\n    raise {failure}\n")
    result = mpcli("train", "toy", "--out", "run")
    assert result.code == 1
    assert words in result.err and "run is trained" in result.err
    about = record(Path("run"))
    assert about["status"] == "done" and about["result"]["loss"] > 0
    assert about["artifacts"] == ["curves.png"]
    assert mpcli("sample", "toy").code == 2 and mpcli("sample", "run").code == 0


def test_a_disk_that_fills_while_logging_is_told(toy, mpcli):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32_000, limits[1]))
    try:
        result = mpcli("train", "toy", "--steps", 1000, "--checkpoint", 0, "--out", "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.code == 2
    assert "run/metrics.jsonl: cannot be written" in result.err
    assert record(Path("run"))["status"] == "failed"
    assert mpcli("train", "run", "--resume").code == 0
    rows = [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, 1001))


def test_a_record_is_rewritten_on_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    files.write_json(path, {"status": "running", "more": "x" * 100})

    def full(*_):
        raise files.InputError("full")

    monkeypatch.setattr(files, "write", full)
    files.rewrite(path, {"status": "failed"})
    assert json.loads(path.read_text()) == {"status": "failed"}


@pytest.mark.parametrize("name", ["log.txt", "metrics.jsonl", "command.txt", "config.json", "samples"])
def test_a_link_in_a_run_is_not_written_through(toy, mpcli, tmp_path, name):
    run = mpcli("train", "toy", "--steps", 4, "--out", "run").path
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text((run / name).read_text() if (run / name).exists() else "")
    before = contents(outside)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside if name == "samples" else outside / "precious")
    if name == "samples":
        with pytest.raises(files.InputError, match="is a link"):
            Run(run).image("samples/a.png", torch.rand(1, 4, 4))
    else:
        result = mpcli("train", "run", "--resume", "--steps", 8)
        assert result.code == 0 or "is a link" in result.err
    assert contents(outside) == before


def test_the_newest_run_does_not_follow_the_clock(toy, mpcli):
    old = mpcli("train", "toy", "--steps", 2).path
    about = record(old)
    (old / "run.json").write_text(json.dumps(about | {"started": "2999-01-01T00:00:00+00:00"}))
    new = mpcli("train", "toy", "--steps", 2).path
    sampled = mpcli("sample", "toy").path.parent
    assert record(sampled)["parent"] == str(new)


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_training_goes_on_when_nobody_reads_what_it_says(toy, tmp_path, redirect):
    env = os.environ | {"PYTHONPATH": str(toy)}
    command = f"{sys.executable} -m mpcli train toy --out run {redirect}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "run\n")
    assert Trained(tmp_path / "run").extras == {"inputs": 3}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("run.json", {"seconds": "x"}),
        ("run.json", {"seconds": None}),
        ("config.json", {"width": "wide"}),
        ("config.json", {"wdith": 3}),
    ],
)
def test_a_record_with_values_of_another_kind_is_refused(toy, mpcli, file, change):
    run = mpcli("train", "toy", "--steps", 2, "--out", "run").path
    (run / file).write_text(json.dumps(json.loads((run / file).read_text()) | change))
    refused = mpcli("train", "run", "--resume")
    assert refused.code == 2
    assert file in refused.err


@pytest.mark.parametrize("change", [{"width": "wide"}, {"kind": 7}, {"layers": 3}, {"lr": -1.0}])
@pytest.mark.parametrize("verb", ["sample", "evaluate"])
def test_options_of_another_kind_are_refused_by_what_reads_the_run(toy, mpcli, verb, change):
    path = mpcli("train", "toy", "--steps", 2, "--out", "run").path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused = mpcli(verb, "run")
    assert refused.code == 2
    assert "config.json" in refused.err and next(iter(change)) in refused.err


@pytest.mark.parametrize("line", ["{}", "[1]", "7", '{"step": "x"}', "{", "[" * 100_000])
def test_a_log_with_values_of_another_kind_is_refused(toy, mpcli, line):
    run = mpcli("train", "toy", "--steps", 2, "--out", "run").path
    (run / "metrics.jsonl").write_text(line + "\n")
    before = contents(run)
    refused = mpcli("train", "run", "--resume", "--steps", 4)
    assert refused.code == 2
    assert "metrics.jsonl: is damaged" in refused.err
    assert contents(run) == before


def test_sizes_in_a_model_json_are_refused_before_they_are_paid_for(toy, mpcli):
    run = mpcli("train", "toy", "--steps", 2).path
    path, about = run / "model.json", json.loads((run / "model.json").read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for change in ({"config": about["config"] | {"width": 10**9}}, {"extras": {"inputs": 10**10}}):
        path.write_text(json.dumps(about | change))
        refused = mpcli("sample", run)
        assert refused.code == 2
        assert "more than the weights can fill" in refused.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000  # KiB


@pytest.mark.parametrize("change", [{"sha256": None}, {"config": None}, {"extras": 3}, {"config": {"width": "wide"}}])
def test_a_model_json_that_is_damaged_is_refused(toy, mpcli, change):
    run = mpcli("train", "toy", "--steps", 2).path
    path = run / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused = mpcli("sample", run)
    assert refused.code == 2 and ("model" in refused.err and run.name in refused.err), refused.err


def test_a_model_of_more_layers_than_the_weights_is_not_built_to_the_end():
    built = []
    with pytest.raises(ValueError, match="many more than the 3 tensors"), trained_module._at_most(10**9, 3):
        for _ in range(10**9):
            built.append(torch.nn.Linear(2, 2))
    assert len(built) < 1000


def test_a_configuration_without_what_a_page_asks_for_is_refused(toy, mpcli):
    run = mpcli("train", "toy", "--steps", 2).path
    with pytest.raises(InputError, match=r"config\.json: is damaged; it should hold data"):
        Trained(run).options["data"]


def test_input_that_breaks_within_training_names_the_checkpoint(book, mpcli, tmp_path):
    breaks = (
        "        if step == int(os.environ.get('TOY_BREAK', '-1')):\n            raise InputError('a.png: went away')\n"
    )
    anchor = "        adam.zero_grad()\n"
    book(
        toy=TRAINER.replace("import os\n", "import os\nfrom mpcli.errors import InputError\n").replace(
            anchor, breaks + anchor
        )
    )
    mpcli("train", "toy", "--steps", 4, "--out", "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_BREAK", "3")
        broken = mpcli("train", "toy", "--steps", 4, "--out", "cut", "--checkpoint", "0.000001")
        alone = mpcli("train", "toy", "--steps", 4, "--out", "early")
    assert broken.code == alone.code == 2
    assert "a.png: went away; the last checkpoint is cut/checkpoint.pt" in broken.err
    assert "continue with: mpcli train cut --resume" in broken.err
    assert "checkpoint" not in alone.err  # there is none yet
    assert mpcli("train", "cut", "--resume").code == 0
    assert weights(Path("cut")) == weights(Path("whole"))


@pytest.mark.parametrize(
    ("words", "redirect"),
    [
        (b"--out runs/\xff\xfe --device gpu9", ""),
        (b"--out runs/\xff\xfe --width 0", ""),
        (b"--config \xff.json", ""),
        (b"--width 0", ">&-"),
        (b"--width 0", "2>&-"),
        (b"--resume", ">&- 2>&-"),
    ],
)
def test_a_refused_start_leaves_no_record(toy, tmp_path, words, redirect):
    env = os.environ | {"PYTHONPATH": str(toy), "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = f"{sys.executable} -m mpcli train toy ".encode() + words + f" {redirect}".encode()
    done = subprocess.run([b"sh", b"-c", command], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert not list(tmp_path.rglob("run.json"))


def test_json_that_is_nested_too_deeply_is_refused(toy, mpcli, tmp_path):
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    (tmp_path / "deep.json").write_text(deep)
    assert "deep.json" in (refused := mpcli("train", "toy", "--config", "deep.json")).err and refused.code == 2
    run = mpcli("train", "toy", "--steps", 2).path
    bad = run.parent / "bad"
    bad.mkdir()
    (bad / "run.json").write_text(deep)
    assert mpcli("info", bad).code == 2
    assert mpcli("sample", "toy").code == 0
