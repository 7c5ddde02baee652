"""Completion: what a shell is answered, and that a real one asks and is answered."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy import TRAINER

from mpcli.completion import SCRIPTS


@pytest.fixture
def complete(book, mpcli, monkeypatch):
    """The words that may follow those given, of which the last is unfinished."""
    book(toy=TRAINER)

    def ask(*words, shell="zsh"):
        with monkeypatch.context() as patch:
            patch.setenv("_MPCLI_COMPLETE", shell)
            return mpcli(*words).out.splitlines()

    return ask


def test_words_are_completed_by_their_place(complete, mpcli):
    run = str(mpcli("train", "toy", "--steps", 2).path)
    assert complete("")[:2] == ["train", "sample"]
    assert complete("mar") == ["marching-cubes"]
    assert complete("--v") == ["--version"]
    assert complete("train", "to") == ["toy"]
    assert complete("marching-cubes", "to") == ["torus"]
    assert complete("help", "marching-cubes", "to") == ["torus"]
    assert complete("sample", "runs/") == [run]
    assert complete("marching-cubes", "runs/") == []
    assert complete("evaluate", run, "runs/") == [run]
    assert complete("train", "toy", "--la") == ["--layers"]
    assert complete("train", "toy", "--no") == ["--noisy", "--no-noisy"]
    assert complete("sample", run, "--")[:2] == ["--out", "--seed"]
    assert complete("sample", run, "-n") == ["-n"]
    assert complete("train", "toy", "--re") == ["--resume"]
    assert complete("sample", "toy", "--re") == []
    assert complete("train", "toy", "--kind", "") == ["a", "b"]
    assert complete("train", "vae", "--data", "mo") == ["moons"]
    assert complete("train", "vae", "--device", "c") == ["cpu", "cuda"]
    assert complete("train", "vae", "--config", "") == []  # the shell names files
    assert complete("runs", "pa") == ["path"]
    assert complete("runs", "path", "to") == ["toy"]
    assert complete("info", "tor") == ["torus"]
    assert complete("list", "--verb", "sa") == ["sample"]
    assert complete("gradcheck", "--e") == ["--errata"]
    assert complete("no-such-verb", "") == []


def test_bash_gives_the_line_up_to_the_cursor(complete):
    assert complete("mpcli train to", shell="bash") == ["toy"]
    assert complete("mpcli ", shell="bash")[:2] == ["train", "sample"]
    assert complete("mpcli train vae --data 'mo", shell="bash") == []  # within quotes


def test_bash_completes(tmp_path):
    code = SCRIPTS["bash"] + 'COMP_LINE="mpcli train torus --x"; COMP_LINE="mpcli marching-cubes to"; '
    code += 'COMP_POINT=${#COMP_LINE}; _mpcli; echo "${COMPREPLY[@]}"'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", code], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "torus\n"


@pytest.mark.parametrize(
    ("words", "found"), [("marching-cubes to", "torus"), ("train vae --data mo", "moons"), ("mar", "marching-cubes")]
)
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_complete(tmp_path, shell, words, found):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} on this machine")
    (tmp_path / "script").write_text(SCRIPTS[shell])
    zsh = "compdef() {}; compadd() { shift; print -l -- $@ }; _files() {}; source ./script; "
    code = {
        "zsh": zsh + f"words=(mpcli {words}); CURRENT=$#words; _mpcli",
        "fish": f"source ./script; complete -C 'mpcli {words}'",
    }[shell]
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run([program, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [found]
    assert done.stderr == ""


def test_completing_imports_no_torch(tmp_path):
    code = "import sys; from mpcli.cli import run; run({}); print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    words = ["train", "vae", "--d"]
    env = os.environ | {"_MPCLI_COMPLETE": "zsh"}
    done = subprocess.run(
        [sys.executable, "-c", code.format(words)], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["--decoder", "--dropout", "--data", "--device", "--debug", "[]"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_installing_writes_what_the_shell_reads(shell, mpcli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    first = mpcli("--install-completion").out.splitlines()
    assert Path(first[0]).read_text() == SCRIPTS[shell] == mpcli("--show-completion").out
    if shell != "fish":
        assert Path(first[1]).read_text() == f"source {first[0]}\n"
        assert mpcli("--install-completion").out.splitlines() == first[:1]  # the line is there already
        assert Path(first[1]).read_text().count("source") == 1


def test_an_unknown_shell_is_refused(mpcli, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    refused = mpcli("--install-completion")
    assert refused.code == 2
    assert "bash, zsh, fish" in refused.err
