"""The commands about what was made and what can be read: runs and their keeping, datasets."""

import ast
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import typer

from mpcli import files, store
from mpcli.errors import InputError
from mpcli.registry import TRAINING, VERBS, find_source, get, pages, spoken
from mpcli.tables import show

AsJson = Annotated[bool, typer.Option("--json", help="print JSON objects, one a line")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="a run directory, or a page: its newest run")]
RunNames = Annotated[list[str], typer.Argument(metavar="RUN...", help="run directories, or pages: their newest runs")]
Yes = Annotated[bool, typer.Option("--yes", help="ask no question")]
UNITS = (("d", 86400), ("h", 3600), ("min", 60))


@dataclass(frozen=True)
class Kept:
    """A run as it is listed."""

    run: str
    page: str
    verb: str
    status: str
    steps: int | None
    metric: str
    started: str
    size: int

    @classmethod
    def of(cls, directory: Path, record: dict[str, Any]) -> "Kept":
        metric = store.main_metric(store.numbers(record))
        status = str(record.get("status"))
        return cls(
            str(directory),
            record["page"],
            spoken(str(record.get("verb"))),
            "killed" if status == "running" and not store.at_work(directory) else status,
            store.steps(directory),
            store.in_words(*metric) if metric else "",
            str(record.get("started", "")),
            sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file()),
        )

    @property
    def row(self) -> list[str]:
        steps = "" if self.steps is None else str(self.steps)
        return [self.run, self.page, self.verb, self.status, steps, self.metric, _age(self.started), _size(self.size)]


def runs(
    ctx: typer.Context,
    page: Annotated[str | None, typer.Option(metavar="PAGE", help="only runs of this page")] = None,
    as_json: AsJson = False,
) -> None:
    """Runs below $MPCLI_RUNS or ./runs, newest first; show, compare, path, rm and prune look after them."""
    if ctx.invoked_subcommand:
        return
    found = [Kept.of(*one) for one in store.all_runs(get(page).name if page else None)]
    if as_json:
        print("".join(json.dumps(asdict(one)) + "\n" for one in found), end="")
    elif found:
        show(("run", "page", "verb", "status", "steps", "metric", "age", "size"), [one.row for one in found])


def find(text: str, verbs: tuple[str, ...] = VERBS) -> Path:
    """The run that a directory or a page names; of a page the newest by one of the verbs, else the newest.

    Raises:
        InputError: there is none.
    """
    path = Path(text)
    if store.holds_run(path):
        store.read_record(path)
        return path
    if text.replace("-", "_") in pages() or not path.exists():
        page = get(text).name
        found = list(store.all_runs(page))
        if found:
            return next((run for run, record in found if record.get("verb") in verbs), found[0][0])
        raise InputError(f"{text}: there is no run of {page} below {store.runs_root()}")
    raise InputError(f"{text}: is no run directory (it has no run.json); `mpcli runs` lists those that there are")


def path(run: RunName) -> None:
    """Print the directory of a run: `cd $(mpcli runs path vae)`."""
    print(find(run))


def details(run: RunName, as_json: AsJson = False) -> None:
    """What a run was, with which options, and what came of it."""
    from mpcli.desk import info

    info(str(find(run)), as_json)


def compare(these: RunNames, as_json: AsJson = False) -> None:
    """The options in which runs differ, and the metrics of each."""
    found = [find(text) for text in these]
    records = [store.read_record(directory) for directory in found]
    used = [files.read_json(directory / "config.json") for directory in found]
    names = dict.fromkeys(name for options in used for name in options)
    rows = {name: [options.get(name) for options in used] for name in names}
    rows = {name: values for name, values in rows.items() if any(value != values[0] for value in values)}
    metrics = [store.numbers(record) for record in records]
    rows |= {name: [m.get(name) for m in metrics] for name in dict.fromkeys(name for m in metrics for name in m)}
    if as_json:
        for number, directory in enumerate(found):
            print(json.dumps({"run": str(directory)} | {name: values[number] for name, values in rows.items()}))
        return
    head = ["", *map(str, found)]
    table = [[name, *map(_cell, values)] for name, values in rows.items()]
    show(head, table) if sys.stdout.isatty() else show(head, [head, *table])


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run directory, or a page: its newest trained run")],
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="the page [default: RUN/report.html]")] = None,
) -> None:
    """Write one HTML page about a run: metrics, curves, pictures, command, options, the method; prints the file."""
    from mpcli import webpage

    directory = find(run, TRAINING)
    path = out or directory / "report.html"
    if path.suffix != ".html":
        raise InputError(f"--out {path}: the report can be written as .html")
    webpage.write(directory, path)
    print(path)


def remove(these: RunNames, yes: Yes = False) -> None:
    """Remove runs for good."""
    _remove([find(text) for text in these], yes)


def prune(
    page: Annotated[str | None, typer.Option(metavar="PAGE", help="only runs of this page")] = None, yes: Yes = False
) -> None:
    """Remove runs of which nothing is left to use: failed, refused or killed, with no model and no checkpoint."""
    useless = []
    for directory, record in store.all_runs(get(page).name if page else None):
        status = Kept.of(directory, record).status
        usable = any(any(directory.glob(f"**/{name}")) for name in ("model.json", "checkpoint.pt"))
        if status not in ("done", "running") and not usable:
            useless.append(directory)
    _remove(useless, yes)


def _remove(directories: list[Path], yes: bool) -> None:
    for directory in directories:
        if store.at_work(directory):
            raise InputError(f"{directory}: a process is at work on this run; stop it first")
    if not directories:
        return
    if not yes:
        names = "\n".join(map(str, directories))
        if not sys.stdin.isatty():
            raise InputError(f"nothing is removed without --yes where nobody can be asked:\n{names}")
        typer.confirm(f"{names}\nremove for good?", abort=True, err=True)
    for directory in directories:
        with files.naming(directory):
            directory.unlink() if directory.is_symlink() else shutil.rmtree(directory)
        print(directory)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _age(started: str) -> str:
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds()
    except (ValueError, TypeError):
        return ""
    return next((f"{seconds / size:.0f} {unit}" for unit, size in UNITS if seconds >= size), f"{max(0, seconds):.0f} s")


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def datasets(as_json: AsJson = False) -> None:
    """What --data can name: its kind, what it reads, where it comes from, under which licence."""
    from importlib.metadata import entry_points

    found = [_dataset(entry) for entry in entry_points(group="mpcli.datasets")]
    if as_json:
        print("".join(json.dumps(one) + "\n" for one in found), end="")
    else:
        show(list(found[0]), [list(one.values()) for one in found])


def _dataset(entry: EntryPoint) -> dict[str, str]:
    """A dataset as its source describes it."""
    module, _, function = entry.value.partition(":")
    source = find_source(module)
    texts, kind = [], ""
    if source:
        tree = ast.parse(source.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                texts.append(ast.get_docstring(node) or "")
                kind = ast.unparse(node.returns).replace("trimesh.Trimesh", "mesh") if node.returns else ""
        texts.append(ast.get_docstring(tree) or "")
    form, reads = _described(entry.name, texts)
    brought = f"{entry.dist.name} {entry.dist.version}" if entry.dist else module
    return {
        "name": form,
        "kind": kind.replace(" | ", " or "),
        "reads": reads,
        "origin": "your files" if ":" in form else _said("Origin", texts) or next(_cited(texts), brought),
        "licence": _said("Licence", texts) or ("yours" if ":" in form else "not stated"),
    }


def _described(name: str, texts: list[str]) -> tuple[str, str]:
    """How the dataset is named on the command line, and the sentence about it."""
    for text in texts:
        if opening := re.match(rf"`({name}(?::\w+)?)`: ([^\n]*)", text):
            return opening.group(1), opening.group(2)
    return name, next((text.partition("\n")[0] for text in texts if text), "")


def _said(word: str, texts: list[str]) -> str:
    found = (re.search(rf"^{word}: ((?:.+\n?)+)", text, re.MULTILINE) for text in texts)
    return next((" ".join(match.group(1).split()) for match in found if match), "")


def _cited(texts: list[str]) -> Iterator[str]:
    """Paragraphs that cite a work with its year."""
    for text in texts:
        for part in text.split("\n\n"):
            if re.search(r", (?:\w+ )?(?:18|19|20)\d\d\b", part):
                yield " ".join(part.split())


COMMANDS: dict[str, Callable[..., None]] = {
    "show": details,
    "compare": compare,
    "path": path,
    "rm": remove,
    "prune": prune,
}
