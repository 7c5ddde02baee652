"""What source says of a signature is what the imported page says, and nothing is imported to know it."""

import dataclasses
import subprocess
import sys

import pytest

from mpcli import options, signatures
from mpcli.registry import pages

VERBS = [(name, verb) for name, page in pages().items() for verb in page.verbs if verb != "gradcheck"]


def told(signature):
    """A signature without its dataclasses, which source makes anew."""
    fields = {name: [field.name for field in dataclasses.fields(kind)] for name, kind in signature.configs.items()}
    return signature.options, signature.run, signature.trained, fields


@pytest.mark.parametrize(("name", "verb"), VERBS)
def test_the_source_says_what_the_imported_page_says(name, verb):
    page = pages()[name]
    assert told(signatures.read(page.module, verb)) == told(options.read(page.function(verb)))


CODE = "import sys; from mpcli.cli import run; run({}); print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"


@pytest.mark.parametrize(
    "words", [["train", "vae", "-h"], ["evaluate", "sarsa", "--help"], ["info", "torus"], ["info", "nerf", "--json"]]
)
def test_help_and_info_import_no_torch_and_no_numpy(words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(words)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


KIT = """from dataclasses import dataclass
from typing import Annotated
from annotated_types import Ge

SIZES = (4, 2 * 4)
Count = Annotated[int, "how many", Ge(1)]


@dataclass(frozen=True)
class Base:
    depth: Count = 3
    sizes: tuple[int, ...] = (1, 2)


def shared(run: "Run", n: Count = 5) -> None: ...
"""
PAGE = """\"\"\"Page.\"\"\"
import toybook_kit as kit
from toybook_kit import SIZES, Count
from dataclasses import dataclass
from mpcli.run import Run


@dataclass(frozen=True)
class Config(kit.Base):
    sizes: tuple[int, ...] = SIZES
    lr: float = 1 / 8


def train(cfg: Config, run: Run, seen: "Count" = 1, *, steps: int = 2**3) -> None: ...
"""


@pytest.fixture
def kit(book):
    def make(source):
        folder = book(toy=source)
        (folder / "toybook_kit.py").write_text(KIT)
        return pages()["toy"]

    return make


def test_names_are_followed_into_what_a_page_imports(kit):
    page = kit(PAGE)
    found = signatures.read(page.module, "train")
    assert [(o.flag, o.default, o.help) for o in found.options] == [
        ("--depth", 3, "how many"),
        ("--sizes", (4, 8), ""),
        ("--lr", 0.125, ""),
        ("--seen", 1, "how many"),
        ("--steps", 8, ""),
    ]
    assert told(found) == told(options.read(page.function("train")))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('seen: "Count" = 1', "seen: int = int(open.__name__ == 'open')"),  # a call of what is no type
        ('seen: "Count" = 1', "seen: int = max(1, 2)"),
        ("from toybook_kit import", "if True:\n    from toybook_kit import Count\nfrom toybook_kit import"),
        ("def train", "import functools\n\n\n@functools.cache\ndef train"),
    ],
)
def test_what_source_cannot_say_is_asked_of_the_imported_page(kit, old, new):
    page = kit(PAGE.replace(old, new))
    assert told(signatures.of(page, "train")) == told(options.read(page.function("train")))


def test_a_page_that_does_not_import_shows_its_help_all_the_same(kit, mpcli):
    kit(PAGE + "\nimport no_such_module\n")
    assert "--lr" in mpcli("train", "toy", "--help").out
    assert mpcli("train", "toy").code == 1
