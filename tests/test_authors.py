"""What the author of a page is told that makes no command line: by a run, by the doctor, and in the list."""

import json
import tomllib
from pathlib import Path

import pytest
from toy import TRAINER

from mpcli import options, registry

PAGE = """\"\"\"Faulty.\"\"\"
from dataclasses import dataclass
from typing import Annotated, Literal
from annotated_types import Ge
from mpcli.run import Run


@dataclass(frozen=True)
class Config:
    width: int = 3


def train(cfg: Config, run: Run, {}) -> None: ...
"""


@pytest.fixture
def book(book, monkeypatch):
    """As ever, but that the book is that of the test alone: the doctor imports every page that there is."""

    def make(**pages):
        folder = book(**pages)
        found = {name: page for name, page in registry.pages().items() if page.distribution == "toybook"}
        monkeypatch.setattr("mpcli.desk.pages", lambda: found)
        return folder

    return make


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("x", ["parameter x has no type", "x: int = 1"]),
        ("x: int", ["parameter x has no default"]),
        ("x: complex = 1j", ["parameter x has the type complex", "int, float, str"]),
        ("x: int | str = 1", ["parameter x is a union"]),
        ("x: dict[str, int] = None", ["parameter x", "dict[str, int]"]),
        ('x: int = "many"', ["default of parameter x", "integer", "many"]),
        ("x: int = None", ["default of parameter x", "None"]),
        ("x: Annotated[int, Ge(1)] = 0", ["default of parameter x", "at least 1"]),
        ('x: Literal["a", "b"] = "c"', ["default of parameter x", "a, b"]),
        ("width: int = 4", ["parameter width is there twice"]),
        ("seed: int = 4", ["parameter seed", "every verb has"]),
        ("help: bool = False", ["parameter help", "every verb has"]),
        ("*rest: int", ["parameter *rest", "name of its own"]),
        ('x: "Nothing" = 1', ["Nothing"]),
    ],
)
def test_a_parameter_that_makes_no_option_is_named(book, mpcli, parameter, words):
    folder = book(toy=TRAINER, faulty=PAGE.format(parameter))
    told = mpcli("train", "faulty")
    assert told.code == 1
    assert "a fault in the program" not in told.err
    (line,) = told.err.splitlines()
    where = f"{folder / 'toybook_faulty.py'}, line 13: train: "
    for word in ("page faulty of toybook 1.2", where, *words):
        assert word in line, line
    assert mpcli("train", "faulty", "--help").code == 1
    checked = json.loads(mpcli("doctor", "--json").out)["problems"]
    assert [problem for problem in checked if where in problem] == [line.removeprefix("mpcli: ")]
    if "Nothing" not in parameter:  # what only an import can tell, no list tells
        entries = {entry["name"]: entry["broken"] for entry in mpcli("list", "--json").json}
        assert (entries["faulty"] or "").startswith(where) or "*" in parameter
        assert entries["toy"] is None


def test_a_verb_that_is_no_function_is_named(book, mpcli):
    book(toy='"""Toy."""\ntrain = 3\n\n\ndef sample() -> None: ...\n')
    told = mpcli("train", "toy")
    assert told.code == 1
    assert "toybook 1.2" in told.err
    assert "is 3; a verb is a function" in told.err


@pytest.mark.parametrize("line", ["train = 3", "train: int = 3", "train = int('3')"])
def test_the_list_and_the_doctor_name_a_verb_that_is_no_function(book, mpcli, line):
    book(toy=f'"""Toy."""\n{line}\n\n\ndef sample() -> None: ...\n', ztoy=TRAINER)
    (problem,) = (text for text in json.loads(mpcli("doctor", "--json").out)["problems"] if "page" in text)
    for words in ("page toy", "toybook 1.2", "train in toybook_toy is 3; a verb is a function"):
        assert words in problem
    entries = {entry["name"]: entry["broken"] for entry in mpcli("list", "--json").json}
    assert entries["ztoy"] is None
    if "int(" not in line:  # what only an import can tell, no list tells
        assert entries["toy"] == "train in toybook_toy is 3; a verb is a function"


def test_a_verb_made_by_a_call_is_no_fault(book, mpcli):
    book(toy=TRAINER + "\n\ntrain = (lambda verb: verb)(train)\n")
    assert json.loads(mpcli("doctor", "--json").out)["problems"] == []


def test_a_page_that_exits_ends_nothing_but_itself(book, mpcli):
    book(toy="import sys\nsys.exit(3)\n\n\ndef train() -> None: ...\n", ztoy=TRAINER)
    told = mpcli("train", "toy")
    assert told.code == 1
    assert "SystemExit: 3" in told.err
    checked = mpcli("doctor")
    assert checked.code == 1
    assert "SystemExit" in checked.out
    assert "datasets:" in checked.out


def test_a_page_in_another_encoding_has_a_source(book, mpcli):
    folder = book(toy=TRAINER)
    text = "# -*- coding: latin-1 -*-\n" + TRAINER.replace("Toy: a line", "Toy: a lin\xe9")
    (folder / "toybook_toy.py").write_bytes(text.encode("latin-1"))
    assert "lin\xe9" in mpcli("list", "toybook").out
    (folder / "toybook_toy.py").write_text("\ufeff" + TRAINER, encoding="utf-8")
    assert mpcli("train", "toy", "--steps", 2).code == 0


def test_what_a_page_prints_is_no_result(book, mpcli):
    source = 'print("hello from the import")\n' + TRAINER.replace(
        "    model = run.place(", '    print("hello from the work")\n    model = run.place('
    )
    book(toy=source)
    result = mpcli("train", "toy", "--steps", 2, "--json")
    assert result.json["subject"] == "toy"
    assert "hello from the import" in result.err
    assert "hello from the work" in result.err


def test_every_common_option_is_reserved():
    assert {field for field in options.Common.__dataclass_fields__} < options.RESERVED


def test_a_new_package_says_what_comes_next(mpcli):
    made = mpcli("new", "my_flow")
    assert made.out == "mpcli-my-flow\n"
    assert "cd mpcli-my-flow\n" in made.err
    assert "mpcli train my_flow" in made.err
    project = tomllib.loads((made.path / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert project["dependencies"][0].startswith("mpcli>=")
    for name in ("README.md", "LICENSE", ".gitignore"):
        text = Path(made.path, name).read_text()
        assert "{" not in text.replace("${", ""), name
