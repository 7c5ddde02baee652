"""What every page owes: one test over the whole book."""

import ast
import csv
import json
import re
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from mutants import module_of
from safetensors.torch import load_file

from mpcli import options, run
from mpcli.checks import Case, cases, judge
from mpcli.cli import run as run_command
from mpcli.registry import TRAINING, VERBS, Page, find_source, pages, spoken

DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
OURS = [name for name, page in pages().items() if page.distribution == "mpcli"]


def with_verb(*verbs: str) -> list[str]:
    return [name for name in OURS if set(verbs) & set(pages()[name].verbs)]


def small(verb: str, name: str) -> list[str]:
    """Settings, `SMALL` of the page's test, under which a verb takes a second; the shapes stay those of the page."""
    return getattr(module_of(name), "SMALL", {}).get(verb, [])


def training_verb(name: str) -> str:
    return next(verb for verb in TRAINING if verb in pages()[name].verbs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of four small steps of each page, made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "whole"
            train(name, made[name])
        return made[name]

    return make


def train(name: str, out: Path, *arguments: str) -> None:
    verb = training_verb(name)
    assert run_command([spoken(verb), name, *small(verb, name), "--steps", "4", "--out", str(out), *arguments]) == 0


def opens(path: Path) -> None:
    """Read a file with the library that its users have."""
    readers = {
        ".png": iio.imread,
        ".jpg": iio.imread,
        ".gif": iio.imread,
        ".mp4": lambda p: iio.imread(p, plugin="FFMPEG"),
        ".json": lambda p: json.loads(p.read_text()),
        ".csv": lambda p: list(csv.reader(p.read_text().splitlines())),
        ".npz": lambda p: {name: array.shape for name, array in np.load(p, allow_pickle=False).items()},
        ".safetensors": load_file,
        ".ply": trimesh.load,
        ".obj": trimesh.load,
        ".glb": trimesh.load,
        ".stl": trimesh.load,
    }
    assert path.suffix in readers, f"no reader for {path}"
    assert len(readers[path.suffix](path)) if path.suffix not in (".ply", ".obj", ".glb", ".stl") else True
    if path.suffix in (".ply", ".obj", ".glb", ".stl"):
        assert not trimesh.load(path).is_empty


@pytest.mark.parametrize("name", OURS)
def test_the_source_says_which_verbs_there_are(name):
    page = pages()[name]
    assert not page.broken
    module = page.load()
    assert page.verbs == tuple(verb for verb in VERBS if callable(getattr(module, verb, None)))
    assert page.docstring == module.__doc__.strip()


@pytest.mark.parametrize("name", OURS)
def test_a_page_has_a_title_a_source_and_a_place(name):
    page = pages()[name]
    assert re.match(r"[A-Z].*[^ ]\.$", page.title), page.title
    assert re.search(r"\b(18|19|20)\d\d\b", page.docstring), "the docstring cites no work with its year"
    assert page.chapter[0] < 1000
    assert "gradcheck" in page.verbs


@pytest.mark.parametrize("name", OURS)
def test_every_option_has_a_help_text_and_a_default_within_its_bounds(name):
    for verb in pages()[name].verbs:
        if verb == "gradcheck":
            continue
        signature = options.read(pages()[name].function(verb))
        for option in signature.options:
            assert option.help, f"{verb} {option.flag}"
            assert option.check(option.default, option.flag) == option.default
        if verb in TRAINING:
            assert "steps" in {option.name for option in signature.options}


@pytest.mark.parametrize("name", OURS)
def test_info_and_help_render(name, mpcli):
    assert pages()[name].title in mpcli("info", name).out
    for verb in pages()[name].verbs:
        if verb != "gradcheck":
            assert mpcli(spoken(verb), name, "--help").code == 0


@pytest.mark.parametrize("name", with_verb(*TRAINING))
def test_resume_is_exact(name, trained, tmp_path, monkeypatch):
    whole, cut = trained(name), tmp_path / "cut"

    class Killed(BaseException):
        pass

    save = run.Run._save_checkpoint

    def save_and_die(self, step, state):
        save(self, step, state)
        if step == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "_save_checkpoint", save_and_die)
        with pytest.raises(Killed):
            train(name, cut, "--checkpoint", "0")
    assert torch.load(cut / "checkpoint.pt", weights_only=True)["step"] == 2
    torch.manual_seed(999)
    assert run_command([spoken(training_verb(name)), str(cut), "--resume"]) == 0
    for file in ("model.safetensors", "metrics.jsonl"):
        assert (cut / file).read_bytes() == (whole / file).read_bytes(), file
    results = (json.loads((folder / "run.json").read_text())["result"] for folder in (cut, whole))
    assert next(results) == next(results)


@pytest.mark.parametrize("name", with_verb("sample", "render", "marching_cubes", "fit_smpl", "evaluate"))
def test_every_verb_writes_files_that_open_and_does_so_again(name, mpcli, trained):
    page = pages()[name]
    subject: str | Path = trained(name) if set(TRAINING) & set(page.verbs) else name
    for verb in page.verbs:
        if verb in (*TRAINING, "gradcheck"):
            continue
        reads_run = options.read(page.function(verb)).trained
        seen = []
        for _ in range(2):
            result = mpcli(spoken(verb), subject if reads_run else name, *small(verb, name), "--json", "--quiet")
            assert result.code == 0, result.err
            artifacts = [Path(path) for path in result.json["artifacts"]]
            assert artifacts or result.json["metrics"]
            for path in artifacts:
                opens(path)
            seen.append([path.read_bytes() for path in artifacts])
        assert seen[0] == seen[1], f"{verb}: the same command wrote other bytes"


@pytest.mark.parametrize("name", OURS)
def test_data_that_is_not_there_is_refused(name, mpcli):
    for verb in pages()[name].verbs:
        if verb == "gradcheck":
            continue
        signature = options.read(pages()[name].function(verb))
        if signature.trained or "data" not in {option.name for option in signature.options}:
            continue
        result = mpcli(spoken(verb), name, "--data", "nowhere/at-all.ply", "--quiet")
        assert result.code == 2, result.err
        assert "nowhere/at-all.ply" in result.err
        assert "Traceback" not in result.err


@pytest.mark.parametrize("name", with_verb("gradcheck"))
def test_its_equations_hold(name, mpcli):
    result = mpcli("gradcheck", name, "--json", "--quiet")
    assert result.code == 0, result.err
    assert result.json["metrics"]["cases"] >= 2


# Checks that stand behind the code ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_gradcheck_notices_faults_in_the_page(name, monkeypatch):
    faults = getattr(module_of(name), "MUTANTS", {})
    assert len(faults) >= 3, f"the test of {name} names fewer than three faults (MUTANTS)"
    module = pages()[name].load()
    for what, (owner, attribute, twin) in faults.items():
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, twin(getattr(owner, attribute)))
            noticed = any(not judge(case, name).passed for case in cases(module))
        assert noticed, f"{what}: gradcheck {name} does not notice"


def reached(page: Page) -> set[str]:
    """Names of the functions of ours that a page's verbs lead to, as its source says."""
    trees: dict[str, ast.Module] = {}

    def tree(module: str) -> ast.Module:
        if module not in trees:
            path = find_source(module)
            trees[module] = ast.parse(path.read_text()) if path else ast.Module([], [])
        return trees[module]

    def named(node: ast.AST) -> set[str]:
        found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        return found | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}

    waiting = [(page.module, verb) for verb in page.verbs if verb != "gradcheck"]
    seen: set[tuple[str, str]] = set()
    names: set[str] = set()
    while waiting:
        module, name = waiting.pop()
        if (module, name) in seen or not module.startswith(("mpcli_", "mpcli.kit")):
            continue
        seen.add((module, name))
        for node in tree(module).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mpcli"):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        waiting.append((node.module, alias.name))
                        whole = f"{node.module}.{alias.name}"
                        if find_source(whole):  # a module: all of it
                            waiting += [(whole, n.name) for n in tree(whole).body if isinstance(n, DEFINITIONS)]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if name in {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}:
                    waiting += [(module, other) for other in named(node)]
            elif isinstance(node, DEFINITIONS) and node.name == name:
                names |= {f"{module}:{n.name}" for n in ast.walk(node) if isinstance(n, DEFINITIONS)}
                waiting += [(module, other) for other in named(node)]
    return names


def called(case: Case) -> set[str]:
    """Names of the functions of ours that a case calls."""
    found: set[str] = set()

    def trace(frame, event, argument):
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("mpcli"):
            found.add(f"{module}:{frame.f_code.co_name}")

    before = sys.getprofile()
    sys.setprofile(trace)
    try:
        case.sides(*case.arguments(torch.Generator().manual_seed(0)))
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize("name", [name for name in OURS if set(pages()[name].verbs) - {"gradcheck"}])
def test_every_case_calls_what_the_verbs_call(name):
    page = pages()[name]
    ours = reached(page)
    for case in cases(page.load()):
        assert called(case) & ours, f"{case.name}: calls nothing that a verb of {name} calls"
