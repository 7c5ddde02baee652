"""What the README shows is so."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


# What makes the commands of the README short enough to test; nothing else of them is changed.
SHORT = {
    "train nerf": "train nerf --steps 3 --width 8 --depth 2 --coarse 4 --fine 4 --batch 16 --judged 1",
    "--path orbit": "--path orbit --frames 2 --size 16",
    "render - --out docs/nerf.png": "render - --views 1 --size 16 --out docs/nerf.png",
    "--resolution 128": "--resolution 32",
    "fit-smpl smplify": "fit-smpl smplify --steps 3",
    "rl-run q_learning": "rl-run q_learning --steps 300 --eval-episodes 2",
    "rl-run dqn --seeds 5": "rl-run dqn --seeds 2 --steps 300 --eval-episodes 2",
    "train vae": "train vae --steps 3 --hidden 8 --importance 2",
    "mpcli gradcheck  ": "mpcli gradcheck vae ",
    " && python -m pip install -e ./mpcli-my-flow && mpcli train my_flow | mpcli sample -": "",  # see test_plugins.py
    "torchrun --nproc-per-node 4": f"{sys.executable} -m torch.distributed.run --nproc-per-node 2",
    "--batch 512": "--batch 64",
}
ELSEWHERE = ("mpcli VERB SUBJECT", "torchrun --nnodes 2")  # a form, and what needs a second machine


def commands() -> list[str]:
    """Every command of the README that is no installation, in order."""
    shown = [line for block in blocks("") for line in block.splitlines()]
    shown += [cell.replace("\\|", "|") for cell in re.findall(r"\| `(mpcli .*)` \|$", TEXT, re.MULTILINE)]
    return [line for line in shown if re.match("mpcli|torchrun", line) and not line.startswith(ELSEWHERE)]


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def test_the_first_two_commands_install_with_the_tested_versions():
    first, second = blocks("sh")[:2]
    assert "-c constraints.txt" in first
    assert "mpcli train" in first
    assert "-c constraints.txt" in second
    assert second.rstrip().endswith("tox")


def test_the_table_of_pages_is_what_the_command_prints(mpcli):
    assert (ROOT / "docs" / "pages.md").read_text() == mpcli("list", "--markdown").out


def test_every_agent_is_in_the_table_of_kinds():
    listed = (ROOT / "docs" / "pages.md").read_text()
    agents = re.findall(r"^\| (`\w+`) .*\| [^|]*rl-run", listed, re.MULTILINE)
    told = re.findall(r"^\| (`\w+`)", (ROOT / "docs" / "agents.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(set(agents) - {"`markov`"})  # which has nobody who acts


def test_every_picture_and_link_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


@pytest.mark.learning
def test_the_makefile_makes_its_targets(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("there is no make on this machine")
    (makefile,) = blocks("make")
    (tmp_path / "Makefile").write_text(makefile.replace("--resolution 128", "--resolution 32"))
    subprocess.run(["make", "torus.png"], cwd=tmp_path, env=ENV, check=True, capture_output=True)
    assert (tmp_path / "torus.png").read_bytes().startswith(b"\x89PNG")
    again = subprocess.run(["make", "torus.png"], cwd=tmp_path, env=ENV, check=True, capture_output=True, text=True)
    assert "up to date" in again.stdout
    subprocess.run(["make", "-n", "digits.png"], cwd=tmp_path, env=ENV, check=True, capture_output=True)


@pytest.mark.learning
def test_every_command_runs_from_an_empty_folder(tmp_path):
    lines = commands()
    assert len(lines) > 15
    (tmp_path / "docs").mkdir()  # where the pictures of the README are
    for long, short in SHORT.items():
        assert any(long in line for line in lines), f"no command holds {long!r} any more"
        lines = [line.replace(long, short) for line in lines]
    if shutil.which("jq") is None:
        lines = [line.replace("| jq .metrics.return_mean", "| cat") for line in lines]
    for line in lines:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, env=ENV, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.learning
def test_commands_compose_through_standard_output(tmp_path):
    lines = [
        "mpcli marching-cubes torus --resolution 32 --quiet | xargs mpcli render mesh --size 64 --out torus.png --data",
        "mpcli train vae --steps 3 --hidden 8 --importance 2 --quiet | mpcli sample - --out digits.png",
        "mpcli train vae --steps 3 --hidden 8 --importance 2 --quiet --json | mpcli sample - --out again.png",
    ]
    for line in lines:
        subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, env=ENV, check=True)
    assert {"torus.png", "digits.png", "again.png"} <= set(os.listdir(tmp_path))
