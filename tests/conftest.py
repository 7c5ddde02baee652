"""Shared by every test: the command line in this process, real data where it is there, shapes enforced."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

# Before any test imports the kit: from here on its signatures' shapes are checked at every call.
ROOT = Path(__file__).resolve().parents[1]
KITS = ["mpcli.kit", *(f"{path.parent.name}.kit" for path in ROOT.glob("plugins/*/kit"))]
_hook = jaxtyping.install_import_hook(KITS, "shapes.checked")

pytest_plugins = ["cost"]


@dataclass(frozen=True)
class Result:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def path(self) -> Path:
        """The path on the last line of standard output."""
        return Path(self.out.strip().splitlines()[-1])


@pytest.fixture
def mpcli(tmp_path, monkeypatch, capsys) -> Callable[..., Result]:
    """Run a command line in this process, in an empty directory: `mpcli("train", "vae", "--steps", 2)`."""
    from mpcli.cli import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MPCLI_RUNS", raising=False)

    def command(*arguments: object) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files of the field's formats, kept beside a checkout; tests that want them are skipped elsewhere."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real data beside this checkout")
    return path


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def book(tmp_path_factory, monkeypatch) -> Iterator[Callable[..., Path]]:
    """Put toy distributions on the path: `book(toy=SOURCE)`; the folder, for a subprocess's PYTHONPATH."""
    from toy import distribution

    from mpcli import registry, signatures

    folder = tmp_path_factory.mktemp("site")

    def make(name: str = "toybook", **pages: str) -> Path:
        distribution(folder, name, **pages)
        monkeypatch.syspath_prepend(str(folder))
        registry.pages.cache_clear()
        signatures.source.cache_clear()
        return folder

    yield make
    for module in [module for module in sys.modules if module.startswith(("toybook", "zbook"))]:
        del sys.modules[module]
    monkeypatch.undo()
    registry.pages.cache_clear()
