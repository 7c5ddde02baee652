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


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_first_two_commands_install_with_the_tested_versions():
    first, second = blocks("sh")[:2]
    assert "-c constraints.txt" in first
    assert "mpcli train" in first
    assert "-c constraints.txt" in second
    assert second.rstrip().endswith("tox")


def test_the_table_of_pages_is_what_the_command_prints(mpcli):
    assert (ROOT / "docs" / "pages.md").read_text() == mpcli("list", "--markdown").out


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
def test_commands_compose_through_standard_output(tmp_path):
    lines = [
        "mpcli marching-cubes torus --resolution 32 --quiet | xargs mpcli render mesh --size 64 --out torus.png --data",
        "mpcli train vae --steps 3 --hidden 8 --importance 2 --quiet | mpcli sample - --out digits.png",
        "mpcli train vae --steps 3 --hidden 8 --importance 2 --quiet --json | mpcli sample - --out again.png",
    ]
    for line in lines:
        subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, env=ENV, check=True)
    assert {"torus.png", "digits.png", "again.png"} <= set(os.listdir(tmp_path))
