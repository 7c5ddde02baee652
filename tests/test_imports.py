"""Who may import whom: core nothing of ours, kit core's types, a page what stands before it in the book."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["mpcli.plugins"]
ORDER = list(ENTRIES.values())  # as written: reading order
CHAPTERS = list(dict.fromkeys(entry.partition(".")[0] for entry in ORDER))
TYPES = ("mpcli.errors", "mpcli.checks", "mpcli.run", "mpcli.notices")
FILES = [path for folder in ("mpcli", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path, top_only: bool = False) -> set[str]:
    """Modules that a file imports, anywhere in it or at module scope only."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "plugins" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def ours(modules: set[str]) -> set[str]:
    return {module for module in modules if module == "mpcli" or module.startswith(("mpcli.", "mpcli_"))}


def within(module: str, *packages: str) -> bool:
    """Whether a module is one of the packages or lies in it; a name that only begins alike does not."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def allowed(name: str) -> tuple[str, ...]:
    """What a file of ours may import of ours."""
    chapter = name.partition(".")[0]
    if within(name, "mpcli.kit"):
        return ("mpcli.kit", "mpcli_data", *TYPES)
    if name in CHAPTERS:
        return ()
    if within(name, f"{chapter}.kit"):  # below the pages of its chapter
        earlier = [page for page in ORDER if CHAPTERS.index(page.partition(".")[0]) < CHAPTERS.index(chapter)]
        return ("mpcli.kit", "mpcli_data", f"{chapter}.kit", *TYPES, *earlier)
    if chapter in CHAPTERS:
        page = next((page for page in ORDER if within(name, page)), None)
        assert page, f"{name} belongs to no page and to no kit"
        return ("mpcli.kit", "mpcli_data", f"{chapter}.kit", *TYPES, *ORDER[: ORDER.index(page) + 1])
    return tuple({name_of(path) for path in FILES if path.parent == ROOT / "mpcli"} - {"mpcli"})


def packages_of(modules: set[str]) -> set[str]:
    """What `from a.b import c` names is a.b.c, a module or something in one: the names less those they pass through."""
    return {module for module in modules if not any(other.startswith(module + ".") for other in modules)}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    name = name_of(path)
    for module in packages_of(ours(imported(path))):
        assert within(module, *allowed(name)), f"{name} uses {module}, which does not stand below it"


def test_the_law_of_imports_tells_names_apart_that_begin_alike():
    assert not within("mpcli_rl.td0_lambda", "mpcli_rl.td0")
    assert within("mpcli_rl.td0.equations", "mpcli_rl.td0")
    page = ORDER[len(ORDER) // 2]
    assert ORDER[-1] not in allowed(page) and ORDER[0] in allowed(page) and page in allowed(page)


@pytest.mark.parametrize("path", [p for p in FILES if p.parent == ROOT / "mpcli"], ids=name_of)
def test_the_core_imports_torch_only_where_it_is_needed(path):
    heavy = {"torch", "numpy", "trimesh", "matplotlib", "imageio", "safetensors", "scipy", "skimage", "gymnasium"}
    if path.stem == "pictures":  # imported by Run.image alone
        heavy -= {"numpy", "imageio"}
    assert {module.partition(".")[0] for module in imported(path, top_only=True)} & heavy == set()


@pytest.mark.parametrize("entry", ORDER)
def test_a_page_knows_nothing_of_the_command_line(entry):
    path = ROOT / "plugins" / (entry.replace(".", "/") + ".py")
    files = [path] if path.exists() else list(path.with_suffix("").rglob("*.py"))
    assert files
    for file in files:
        assert {module.partition(".")[0] for module in imported(file)} & {"typer", "rich", "click"} == set()


def test_a_chapter_lists_its_pages_in_reading_order():
    chapters: dict[str, list[str]] = {}
    for name, entry in ENTRIES.items():
        chapters.setdefault(entry.rpartition(".")[0], []).append(name)
    numbers = []
    for package, names in chapters.items():
        docstring = ast.get_docstring(ast.parse((ROOT / "plugins" / package / "__init__.py").read_text()))
        assert docstring.startswith("Chapter ")
        numbers.append(int(docstring.split()[1].rstrip(".")))
        assert re.findall(r"^(\w+): ", docstring, re.MULTILINE) == names, package
    assert numbers == sorted(numbers)


def test_the_table_of_contents_is_listed_in_reading_order(mpcli):
    listed = [entry["name"] for entry in mpcli("list", "--json").json if entry["distribution"] == "mpcli"]
    assert listed == list(ENTRIES)
