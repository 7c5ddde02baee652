"""Third-party packages are our equals, and the wheel is whole: both tried in an environment of their own."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
THIRD = ROOT / "tests" / "thirdparty"
# Building here, and not in an environment that an installer would fetch, keeps the test off the network.
BUILD = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]


# One process carries out many command lines: most of the time of one goes into importing torch.
SERVE = """
import contextlib, io, json, sys
from mpcli.cli import run
lines, answers = sys.stdin, sys.stdout
for line in lines:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Done:
    """What a command line gave."""

    stdout: str
    stderr: str


class Environment:
    """A scratch environment that sees this one's packages behind its own."""

    def __init__(self, folder: Path):
        venv.create(folder, with_pip=True)
        self.python = folder / "bin" / "python"
        self.site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        behind = sysconfig.get_path("purelib")
        (self.site / "behind.pth").write_text(f"import site; site.addsitedir({behind!r})\n")
        self.folder = folder
        self._server: subprocess.Popen | None = None

    def run(self, *command: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MPCLI_RUNS")}
        text = [str(part) for part in command]
        done = subprocess.run(text, cwd=cwd or self.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{text}\n{done.stdout}\n{done.stderr}"
        return done

    def install(self, *what: object) -> None:
        self.run(self.python, "-m", "pip", "install", *BUILD, *what)
        self.close()

    def close(self) -> None:
        """End the process that carries out command lines; the next one sees what was installed."""
        if self._server:
            self._server.communicate()
            self._server = None

    def mpcli(self, *arguments: object, code: int = 0) -> Done:
        if self._server is None:
            env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MPCLI_RUNS")}
            command, pipe = [str(self.python), "-c", SERVE], subprocess.PIPE
            self._server = subprocess.Popen(command, cwd=self.folder, env=env, stdin=pipe, stdout=pipe, text=True)
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps([str(part) for part in arguments]) + "\n")
        self._server.stdin.flush()
        found, out, err = json.loads(self._server.stdout.readline())
        assert found == code, f"{arguments}\n{out}\n{err}"
        return Done(out, err)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Iterator[Environment]:
    environment = Environment(tmp_path_factory.mktemp("environment"))
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def third(plain, tmp_path_factory) -> Environment:
    import shutil

    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(THIRD, folder, dirs_exist_ok=True)
    plain.install(folder / "good", folder / "broken")
    return plain


def test_a_third_party_page_is_used_as_a_built_in(third):
    listed = {entry["name"]: entry for entry in json.loads(third.mpcli("list", "--json").stdout)}
    assert listed["parzen"]["distribution"] == "mpcli-parzen"
    assert listed["parzen"]["version"] == "2.5"
    assert listed["parzen"]["broken"] is None
    assert "parzen" in third.run(third.python, "-m", "mpcli", "train", "--help").stdout
    run = third.mpcli("train", "parzen", "--steps", 5, "--out", "run").stdout.strip()
    picture = third.mpcli("sample", run, "--out", "samples.png").stdout.strip()
    assert (third.folder / picture).read_bytes().startswith(b"\x89PNG")
    third.mpcli("train", run, "--resume", "--steps", 8)
    third.mpcli("gradcheck", "parzen")
    third.mpcli("train", "parzen", "--data", "digits", "--steps", 2)
    assert "1962" in third.mpcli("info", "parzen").stdout


def test_a_third_party_dataset_serves_our_pages(third):
    third.mpcli("train", "vae", "--data", "stripes:5", "--steps", 2, "--hidden", 8)
    refused = third.mpcli("train", "vae", "--data", "stripes:wide", code=2)
    assert "stripes:wide" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_broken_distribution_changes_nothing_else(third):
    doctor = third.mpcli("doctor", code=1).stdout
    for name, why in (
        ("no_import", "a_package_that_nobody_has"),
        ("no_syntax", "SyntaxError"),
        ("vae", "taken by mpcli"),
        ("no_data", "a_package_that_nobody_has"),
    ):
        lines = [line for line in doctor.splitlines() if name in line and "mpcli-broken" in line]
        assert lines
        assert any(why in line for line in lines)
    for name, why in (("no_import", "a_package_that_nobody_has"), ("no_syntax", "SyntaxError")):
        failed = third.mpcli("train", name, code=1)
        assert why in failed.stderr
        assert "mpcli-broken" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert "a_package_that_nobody_has" in third.mpcli("train", "vae", "--data", "no_data", code=1).stderr
    third.mpcli("train", "vae", "--steps", 2, "--hidden", 8)


@pytest.fixture(scope="module")
def package(third) -> str:
    """A new plugin package, installed."""
    made = third.mpcli("new", "first_page").stdout.strip()
    third.install(third.folder / made)
    return made


def test_a_new_plugin_passes_its_tests(third, package):
    assert package == "mpcli-first-page"
    assert "exists already" in third.mpcli("new", "other", "--out", package, code=2).stderr
    third.run(third.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=third.folder / package)


@pytest.fixture(scope="module")
def wheel(plain, tmp_path_factory) -> tuple[Path, list[str]]:
    """The wheel that is built of what git knows, and the names of those files."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    for file in files:
        target = source / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / file).read_bytes())
    plain.run(plain.python, "-m", "pip", "wheel", *BUILD, "--wheel-dir", folder, source)
    (found,) = folder.glob("mpcli-*.whl")
    return found, files


def test_the_wheel_is_whole(wheel):
    built, files = wheel
    names = zipfile.ZipFile(built).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert all(top.startswith("mpcli") for top in tops), tops
    for file in files:
        for root in ("mpcli/", "plugins/", "data/"):
            if file.startswith(root):
                assert (file if root == "mpcli/" else file.removeprefix(root)) in names


@pytest.fixture(scope="module")
def whole(plain, wheel) -> Environment:
    """The environment with the wheel in it."""
    plain.install("--force-reinstall", wheel[0])
    return plain


def test_the_wheel_works_without_the_checkout(whole):
    where = whole.run(whole.python, "-c", "import mpcli, mpcli_latent, mpcli_data; print(mpcli_data.__path__[0])")
    assert where.stdout.startswith(str(whole.site))
    whole.run(whole.folder / "bin" / "mpcli", "train", "vae", "--steps", 2, "--hidden", 8)
