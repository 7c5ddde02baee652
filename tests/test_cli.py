"""The command line: what goes where, what each mistake is told, and what start-up may cost."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from toy import TRAINER

from mpcli import threads
from mpcli.cli import main

BROKEN = '"""Broken: it imports what is not there."""\nimport no_such_module\n\n\ndef train(run): ...\n'
UNTYPED = '"""Untyped."""\nfrom mpcli.run import Run\n\n\ndef train(run: Run, x) -> None: ...\n'


@pytest.fixture
def toy(book):
    return book(toy=TRAINER)


def one_sentence(result, code=2):
    assert result.code == code, result.err
    lines = result.err.strip().splitlines()
    assert lines[-1].startswith("mpcli: ")
    assert "Traceback" not in result.err
    assert result.out == ""
    return lines[-1]


def test_standard_output_is_the_result_only(toy, mpcli):
    trained = mpcli("train", "toy")
    assert trained.out == f"{trained.path}\n"
    assert (trained.path / "model.safetensors").exists()
    assert "step 20/20" in trained.err  # plain lines, for this is no terminal
    assert "\x1b" not in trained.err
    assert mpcli("train", "toy", "--quiet").err == ""


def test_json_is_one_object(toy, mpcli):
    result = mpcli("train", "toy", "--json").json
    assert set(result) == {"run", "subject", "artifacts", "metrics", "seconds"}
    assert result["subject"] == "toy"
    assert result["metrics"]["loss"] > 0
    sampled = mpcli("sample", result["run"], "--json").json
    assert all(Path(path).exists() for path in sampled["artifacts"])
    assert len(sampled["artifacts"]) == 2


def test_a_subject_is_a_page_a_run_or_standard_input(toy, mpcli, monkeypatch):
    run = mpcli("train", "toy").path
    later = mpcli("train", "toy").path
    assert f'"parent": "{later}"' in (mpcli("sample", "toy").path.parent / "run.json").read_text()
    assert f'"parent": "{run}"' in (mpcli("sample", run).path.parent / "run.json").read_text()
    for text in (f"{run}\n", json.dumps({"run": str(run)})):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert f'"parent": "{run}"' in (mpcli("sample", "-").path.parent / "run.json").read_text()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "standard input" in one_sentence(mpcli("sample", "-"))


def test_a_hyphen_is_accepted_for_an_underscore(book, mpcli):
    book(two_words=TRAINER)
    assert mpcli("train", "two-words", "--steps", 2).code == 0
    assert mpcli("train", "two_words", "--steps", 2).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "toi"], ["toi", "toy"]),
        (["trian", "toy"], ["trian", "train"]),
        (["toy", "train"], ["toy", "verb"]),
        (["render", "toy"], ["render", "train, sample, evaluate"]),
        (["train", "toy", "--width", "0"], ["--width", "at least 1", "0"]),
        (["train", "toy", "--lr", "-1"], ["--lr", "greater than 0"]),
        (["train", "toy", "--lr", "inf"], ["--lr must be finite, not inf"]),
        (["train", "toy", "--checkpoint", "nan"], ["--checkpoint must be finite, not nan"]),
        (["train", "toy", "--width", "many"], ["--width", "many"]),
        (["train", "toy", "--layers", "4,x"], ["--layers", "64,64"]),
        (["train", "toy", "--kind", "c"], ["--kind", "c"]),
        (["train", "toy", "--wdith", "3"], ["--wdith"]),
        (["train", "toy", "--seed", "-1"], ["--seed", "0"]),
        (["train", "toy", "--out", "x.png"], ["--out", "directory"]),
        (["train", "toy", "--config", "none.json"], ["none.json", "cannot be read"]),
        (["train", "--steps", "3", "toy"], ["page", "first"]),
        (["sample", "toy"], ["no trained run", "mpcli train toy"]),
        (["sample", "nothing/here"], ["nothing/here", "does not exist"]),
        (["evaluate", "."], [".", "run.json"]),
        (["info", "toi"], ["toi", "toy"]),
        (["new", "Not A Name"], ["Not A Name"]),
        (["new", "toy"], ["toy", "toybook"]),
    ],
)
def test_a_wrong_request_is_told_in_one_sentence(toy, mpcli, arguments, words):
    sentence = one_sentence(mpcli(*arguments))
    for word in words:
        assert word in sentence


def test_debug_shows_the_traceback(toy, mpcli):
    assert "Traceback" in mpcli("train", "toy", "--width", 0, "--debug").err


def test_options_come_from_a_file_and_the_command_line_wins(toy, mpcli, tmp_path):
    (tmp_path / "a.toml").write_text('width = 2\nlayers = [7]\nkind = "b"\nseed = 9\n')
    run = mpcli("train", "toy", "--config", "a.toml", "--width", 5).path
    options = json.loads((run / "config.json").read_text())
    assert (options["width"], options["layers"], options["kind"], options["seed"]) == (5, [7], "b", 9)
    again = mpcli("train", "toy", "--config", run / "config.json").path
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    for text, words in [
        ('{"widht": 1}', ["widht", "width"]),
        ('{"width": "wide"}', ["width", "integer"]),
        ('{"width": 1.5}', ["width", "integer"]),
        ('{"width": true}', ["width", "integer"]),
        ('{"noisy": 1}', ["noisy", "true or false"]),
        ("[1]", ["table"]),
        ("{", ["JSON"]),
    ]:
        (tmp_path / "b.json").write_text(text)
        sentence = one_sentence(mpcli("train", "toy", "--config", "b.json"))
        assert all(word in sentence for word in ["b.json", *words])


def test_evaluate_compares_runs_in_one_table(toy, mpcli):
    first, second = (mpcli("train", "toy", "--seed", seed).path for seed in (1, 2))
    alone = mpcli("evaluate", first, "--json").json
    assert alone["subject"] == alone["run"] == str(first)
    doubled = [json.loads(line) for line in mpcli("evaluate", first, second, "--scale", 2, "--json").out.splitlines()]
    assert [row["subject"] for row in doubled] == [str(first), str(second), "toy (mean)"]
    assert doubled[2]["metrics"]["loss"] == pytest.approx(sum(row["metrics"]["loss"] for row in doubled[:2]) / 2)
    assert doubled[0]["metrics"]["loss"] == pytest.approx(2 * alone["metrics"]["loss"])
    table = [line.split() for line in mpcli("evaluate", first, second, "--quiet").out.splitlines()]
    assert table[0] == ["run", "loss"]
    assert [row[0] for row in table[1:]] == [str(first), str(second), "toy"]
    assert float(table[1][1]) == pytest.approx(alone["metrics"]["loss"], rel=1e-5)


def test_evaluating_makes_a_directory_only_where_out_names_one(toy, mpcli):
    run = mpcli("train", "toy").path
    before = sorted(Path().rglob("*"))
    assert mpcli("evaluate", run).code == 0
    assert sorted(Path().rglob("*")) == before
    row = mpcli("evaluate", run, "--out", "kept", "--json").json
    assert (row["run"], row["subject"]) == ("kept", str(run))
    assert json.loads(Path("kept/run.json").read_text())["result"] == row["metrics"]


def test_a_directory_that_holds_a_run_wins_over_a_page(toy, mpcli):
    mpcli("train", "toy", "--seed", 1, "--out", "toy")
    mpcli("train", "toy", "--seed", 2)
    assert mpcli("evaluate", "toy", "--json").json["subject"] == "toy"
    assert Path(mpcli("sample", "toy", "--json").json["subject"]) == Path("toy")
    assert "--resume" in one_sentence(mpcli("train", "toy"))


def test_a_broken_page_changes_nothing_else(toy, book, mpcli):
    book("zbook", broken=BROKEN, syntax='"""Syntax."""\ndef train(:\n', untyped=UNTYPED, toy=TRAINER)
    assert mpcli("train", "toy", "--steps", 2).code == 0
    sentence = one_sentence(mpcli("train", "broken"), code=1)
    assert "no_such_module" in sentence
    assert "zbook" in sentence
    assert "zbook" in one_sentence(mpcli("train", "syntax"), code=1)
    listing = mpcli("list").out
    assert "syntax\tbroken: SyntaxError" in listing
    assert "the name toy is taken by toybook" in listing
    assert "broken" in mpcli("train", "--help").out
    checked = mpcli("doctor")
    assert checked.code == 1
    for name in ("broken", "syntax", "toy (zbook)"):
        assert any(name in line and "zbook" in line for line in checked.out.splitlines()), name
    assert "no type" in mpcli("train", "untyped").err


def test_list_and_info_say_what_there_is(toy, mpcli):
    listed = {entry["name"]: entry for entry in mpcli("list", "--json").json}
    assert listed["toy"]["verbs"] == ["train", "sample", "evaluate"]
    assert listed["toy"]["distribution"] == "toybook"
    assert list(listed)[-1] == "toy"  # behind the book
    text = mpcli("info", "toy").out
    assert "Somebody, 1999." in text
    assert "--layers" in text
    assert "[4,4]" in text
    run = mpcli("train", "toy").path
    assert "status: done" in mpcli("info", run).out
    assert mpcli("info", run, "--json").json["options"]["width"] == 3


def test_a_part_of_the_book_is_listed_by_chapter_and_verb(toy, mpcli):
    def names(*words):
        return [line.split("\t")[0] for line in mpcli("list", *words).out.splitlines()]

    assert names("surfaces") == names("7") == ["sphere", "plane", "torus", "volume", "mesh", "igr"]
    assert names("surfaces", "--verb", "marching-cubes") == ["sphere", "plane", "torus", "volume", "igr"]
    assert names("toybook") == ["toy"]
    assert "Implicit surfaces" in one_sentence(mpcli("list", "planets"))
    assert "marching-cubes" in one_sentence(mpcli("list", "--verb", "march"))


def on_a_terminal(*words, columns, command=("-m", "mpcli"), **extra):
    """What a command writes to a terminal so wide."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "COLUMNS", "LINES")}
    command = [sys.executable, *command, *words]
    process = subprocess.Popen(command, env=env | {"TERM": "xterm"} | extra, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    chunks = []
    while True:
        try:
            chunks.append(os.read(ours, 65536))
        except OSError:
            break
    os.close(ours)
    assert process.wait() == 0
    return b"".join(chunks).decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "words", [("list",), ("datasets",), ("info", "torus"), ("--help",), ("train", "vae", "--help")]
)
def test_what_is_shown_fits_the_terminal(words):
    """But for lines of prose and mathematics, which a page breaks itself, at 120 characters at most."""
    for columns in (90, 130):
        text = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(*words, columns=columns))
        rows = [line for line in text.splitlines() if re.match(r"\s+--|\w+(:\w+)?  ", line)]
        assert rows
        assert max(map(len, rows)) <= columns
        if words[0] == "train":
            assert max(map(len, rows)) > 70


def test_tables_are_coloured_where_there_is_colour():
    assert "\x1b[36mtorus\x1b[0m" in on_a_terminal("list", "surfaces", columns=100)
    assert "\x1b[3" not in on_a_terminal("list", "surfaces", columns=100, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("list", "surfaces", columns=100, TERM="dumb")


def test_help_of_a_page_shows_its_options_with_defaults(toy, mpcli):
    text = mpcli("train", "toy", "--help").out
    for words in ("--width", "--layers", "4,4", "--no-noisy", "--resume", "--config", "a line fitted"):
        assert words in text
    assert "--resume" not in mpcli("sample", "toy", "--help").out


def test_help_is_asked_for_in_three_ways(toy, mpcli):
    for words in ((), ("train",), ("train", "toy"), ("gradcheck",), ("new",)):
        long, short, verb = (mpcli(*command) for command in ((*words, "--help"), (*words, "-h"), ("help", *words)))
        assert long.code == 0
        assert long.out == short.out == verb.out
        assert "-h, --help" in long.out
        assert not re.search(r"<\w+>", long.out)  # one style of a value, INT
        assert "{" not in long.out
    assert "did you mean train" in one_sentence(mpcli("help", "trian"))


def test_the_version_is_that_of_the_distribution(mpcli):
    assert mpcli("--version").out == f"mpcli {version('mpcli')}\n"


def test_a_closed_pipe_is_no_traceback(toy, tmp_path):
    env = os.environ | {"PYTHONPATH": str(toy)}
    command = f"{sys.executable} -m mpcli list --json | head -c 1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


LOADED = "import sys; from mpcli.cli import run; run({}); print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["list"], ["render"]])
def test_help_and_listings_import_no_torch_and_no_numpy(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(arguments)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_reads_no_plugin(tmp_path):
    code = "import mpcli.registry as r; from mpcli.cli import run; run(['--help']); print(r.pages.cache_info().misses)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"


LOOP = """
import time
from mpcli.progress import Progress, Teller
with Progress(0, 20, Teller("toy", "run", quiet=False)) as shown:
    for step in range(20):
        time.sleep(0.02)
        shown.show({"loss": 0.5})
        shown.advance(step + 1)
"""


def test_a_terminal_gets_a_bar_and_then_one_line():
    rich = on_a_terminal(columns=100, command=("-c", LOOP))
    assert "\x1b[3" in rich
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", rich).rstrip().splitlines()[-1].rsplit("\r", 1)[-1]
    assert re.fullmatch(r"toy 20/20  loss 0.5  [\d.]+ steps/s  elapsed 0:0\d", last)
    assert "remaining 0:0" in rich
    plain = on_a_terminal(columns=100, command=("-c", LOOP), TERM="dumb")
    assert "\x1b" not in plain
    assert len(plain.splitlines()) == 10
    assert "\x1b[3" not in on_a_terminal(columns=100, command=("-c", LOOP), NO_COLOR="1")


SHARED = '''"""Shared: its verbs are written elsewhere.

def evaluate( is prose here, and so is
from nowhere import rl_run
"""
from os import path  # a comment, (sample
from zbook_verbs import draw as sample, train
from zbook_verbs import (
    trace as render,  # (as a comment)
    evaluate,
)
from zbook_verbs import width, \\
    gradcheck
if True:
    from zbook_verbs import marching_cubes
'''
VERB_SOURCE = '''"""Verbs."""
from mpcli.run import Run

width = 3


def train(run: Run, steps: int = 3) -> None:
    for _ in run.track(lambda step: step, steps):
        run.log(loss=1.0)


trace = draw = evaluate = gradcheck = marching_cubes = train
'''


def test_imported_verbs_are_verbs_of_the_page(book, mpcli):
    folder = book("zbook", shared=SHARED)
    (folder / "zbook_verbs.py").write_text(VERB_SOURCE)
    verbs = next(entry["verbs"] for entry in mpcli("list", "--json").json if entry["name"] == "shared")
    assert verbs == ["train", "sample", "render", "evaluate", "gradcheck"]
    assert "shared" in mpcli("render", "--help").out
    assert mpcli("train", "shared").code == 0


def test_the_record_holds_the_command_that_was_run(toy, mpcli):
    run = mpcli("train", "toy", "--steps", 2, "--kind", "b").path
    assert (run / "command.txt").read_text() == "mpcli train toy --steps 2 --kind b\n"
    assert mpcli("train", run, "--resume", "--steps", 4).code == 0
    assert (run / "command.txt").read_text().splitlines()[1] == f"mpcli train {run} --resume --steps 4"


def test_further_runs_are_evaluated_with_the_options_that_their_page_knows(toy, book, mpcli):
    book(toy=TRAINER, tother=TRAINER.replace(", scale: float = 1.0", "").replace("scale * ", ""))
    runs = [mpcli("train", page, "--seed", 1).path for page in ("toy", "tother")]
    first, second = map(json.loads, mpcli("evaluate", *runs, "--scale", 2, "--json").out.splitlines())
    assert first["metrics"]["loss"] == pytest.approx(2 * second["metrics"]["loss"])
    assert "--out" in one_sentence(mpcli("evaluate", *runs, "--out", "table"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"device": "gpu"}', ["device", "auto, cpu, cuda, mps"]),
        ('{"seed": "x"}', ["seed", "integer"]),
        ('{"seed": null}', ["seed", "integer"]),
        ('{"seeds": [1]}', ["seeds", "integer"]),
        ('{"seed": 1e30}', ["seed", "less than"]),
    ],
)
def test_common_options_of_a_file_are_judged_like_those_of_a_page(toy, mpcli, tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    sentence = one_sentence(mpcli("train", "toy", "--config", "a.json"))
    assert all(word in sentence for word in ["a.json", *words])


@pytest.mark.parametrize(
    ("redirected", "says"),
    [(">&-", ""), ("2>&-", ""), (">/dev/full", "standard output cannot be written (No space left on device)")],
)
def test_work_is_not_lost_for_a_stream(redirected, says, tmp_path):
    command = f"{shlex.quote(sys.executable)} -m mpcli gradcheck linear_flow --out run {redirected}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if says else 0) and says in done.stderr and "fault" not in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_names_of_runs_need_not_be_text(locale, tmp_path):
    name = b"r\xff\xc3\xbc"
    command = [sys.executable, "-m", "mpcli", "gradcheck", "linear_flow", "--quiet", "--out", os.fsdecode(name)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | locale, capture_output=True, check=False)
    assert done.returncode == 0 and name in done.stdout, done.stderr
    assert name in (tmp_path / os.fsdecode(name) / "command.txt").read_bytes()


@pytest.mark.parametrize("chosen", [None, *threads.CHOSEN])
def test_waiting_threads_spin_briefly_unless_the_user_says_otherwise(monkeypatch, chosen):
    for name in threads.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv(chosen, "3")
    before = dict(os.environ)
    monkeypatch.setattr("mpcli.cli.run", lambda arguments: 0)
    monkeypatch.setattr(os, "environ", before.copy())
    with pytest.raises(SystemExit):
        main([])
    assert os.environ == before | ({} if chosen else {"GOMP_SPINCOUNT": threads.SPIN})
