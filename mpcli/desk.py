"""The commands about the book itself: list, info, doctor, new."""

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mpcli.errors import Failed, InputError
from mpcli.progress import tell
from mpcli.registry import VERBS, Page, get, pages, spoken
from mpcli.tables import sections, show

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object")]


def contents(
    chapter: Annotated[str | None, typer.Argument(metavar="CHAPTER", help="number, or a word of its title")] = None,
    verb: Annotated[str | None, typer.Option(metavar="VERB", help="only pages that have this verb")] = None,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print a table, with what each page reaches")] = False,
) -> None:
    """The table of contents: every page, its verbs and what it is."""
    chosen = _chosen(chapter, verb)
    if as_json:
        print(json.dumps([_entry(page) for page in chosen.values()]))
    elif markdown:
        print(_markdown(chosen))
    elif sys.stdout.isatty():
        headings = ("page", "what it is", "verbs")
        parts: dict[str, list[tuple[str, str, str]]] = {}
        for name, page in chosen.items():
            number, title = page.chapter
            heading = title if number >= 1000 else f"{number}. {title}"
            parts.setdefault(heading, []).append((name, page.title, _verbs(page, " ")))
        sections(headings, parts)
    else:
        for name, page in chosen.items():
            print(f"{name}\t{_verbs(page, ',')}\t{page.title}")


def _fault(page: Page) -> str:
    """Why a page cannot be used; of our own, whose signatures are tested, only what every listing looks at."""
    from mpcli import signatures

    return page.broken if page.distribution == "mpcli" else signatures.fault(page)


def _verbs(page: Page, between: str) -> str:
    fault = _fault(page)
    return f"broken: {fault}" if fault else between.join(map(spoken, page.verbs))


def _chosen(chapter: str | None, verb: str | None) -> dict[str, Page]:
    """The pages of a chapter that have a verb.

    Raises:
        InputError: there is no such chapter or verb.
    """
    chosen = pages()
    if verb is not None and verb.replace("-", "_") not in VERBS:
        raise InputError(f"--verb {verb}: is no verb; the verbs are {', '.join(map(spoken, VERBS))}")
    if verb is not None:
        chosen = {name: page for name, page in chosen.items() if verb.replace("-", "_") in page.verbs}
    if chapter is None:
        return chosen
    titles = dict.fromkeys(page.chapter for page in pages().values())
    asked = [(n, t) for n, t in titles if chapter == str(n) or chapter.lower() in t.partition(":")[0].lower()]
    if not asked:
        there = ", ".join(f"{t.partition(':')[0]}" for _, t in titles)
        raise InputError(f"{chapter}: is no chapter; the chapters are {there}")
    return {name: page for name, page in chosen.items() if page.chapter in asked}


def _markdown(chosen: dict[str, Page]) -> str:
    """A table a chapter: pages, what they are, their verbs, and what they reach with no option given."""
    from importlib.resources import files

    measured = json.loads(files("mpcli_data").joinpath("defaults.json").read_text(encoding="utf-8"))
    lines, chapter = ["# Pages"], ""
    for name, page in chosen.items():
        if page.chapter[1] != chapter:
            chapter = page.chapter[1]
            lines += ["", f"## {chapter.rstrip('.')}", "", "| page | what it is | verbs | what its defaults reach |"]
            lines += ["|---|---|---|---|"]
        reached = "; ".join(filter(None, (_reached(page, found) for found in measured.get(name, {}).values())))
        lines.append(f"| `{name}` | {page.title} | {', '.join(map(spoken, page.verbs))} | {reached} |")
    return "\n".join(lines)


def _reached(page: Page, measured: dict[str, Any]) -> str:
    """What one command of a page reached, and on what."""
    from mpcli.store import in_words, main_metric

    words = measured["command"].split()
    own = [o.default for o in _options(page, words[1].replace("-", "_")) if o.name in ("data", "env") and o.default]
    data = words[4:] or own
    metric = main_metric(measured["metrics"])
    return f"{in_words(*metric)}{f' on {data[-1]}' if data else ''}" if metric else ""


def _entry(page: Page) -> dict[str, Any]:
    return {
        "name": page.name,
        "title": page.title,
        "verbs": [spoken(verb) for verb in page.verbs],
        "chapter": page.chapter[1],
        "distribution": page.distribution,
        "version": page.version,
        "broken": _fault(page) or None,
    }


def info(
    subject: Annotated[str, typer.Argument(metavar="PAGE|RUN", help="a page, or a run directory")],
    as_json: AsJson = False,
) -> None:
    """What a page says, with its verbs and options; or what a run was and what came of it."""
    from mpcli.files import read_json
    from mpcli.store import read_record

    path = Path(subject)
    if (path / "run.json").exists():
        record = read_record(path) | {"options": read_json(path / "config.json")}
        print(json.dumps(record) if as_json else _lines(record))
        return
    page = get(subject)
    if as_json:
        entry = _entry(page) | {"docstring": page.docstring, "options": {}}
        for verb in page.verbs:
            if verb != "gradcheck":
                entry["options"][spoken(verb)] = {o.flag: o.default for o in _options(page, verb)}
        print(json.dumps(entry, default=str))
        return
    print(page.docstring)
    print(f"\n{page.chapter[1]}  ({page.module}, {page.distribution} {page.version})")
    for verb in page.verbs:
        print(f"\nmpcli {spoken(verb)} {page.name}")
        rows = [] if verb == "gradcheck" else [_row(option) for option in _options(page, verb)]
        if rows:
            show((), rows, indent=4)


def _row(option: Any) -> list[str]:
    from mpcli.options import as_text

    shown = "" if option.default in (None, "", ()) else f"[{as_text(option.default)}]"
    return [f"{option.flag} {option.metavar or ''}".strip(), " ".join(filter(None, (option.help, shown)))]


def _options(page: Page, verb: str) -> Any:
    from mpcli import signatures

    return signatures.of(page, verb).options


def _lines(values: dict[str, Any], indent: str = "") -> str:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", _lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return "\n".join(line for line in lines if line)


def doctor(as_json: AsJson = False) -> None:
    """Whether everything is in place: versions, devices, tools, the runs directory, every plugin."""
    import importlib.metadata as metadata
    import platform
    import shutil

    import torch

    from mpcli import signatures
    from mpcli.store import runs_root

    facts: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    facts |= {name: metadata.version(name) for name in ("mpcli", "torch", "numpy", "gymnasium", "trimesh")}
    facts["threads"] = torch.get_num_threads()
    facts["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    facts["mps"] = "yes" if torch.backends.mps.is_available() else "none"
    facts["ffmpeg"] = _ffmpeg()
    facts["runs"] = str(runs_root().absolute())
    problems = []
    root = runs_root()
    while not root.exists():
        root = root.absolute().parent
    if not os.access(root, os.W_OK):
        problems.append(f"runs: {root} is not writable; set MPCLI_RUNS to a directory that is")
    elif shutil.disk_usage(root).free < 2**30:
        problems.append(f"runs: less than 1 GiB is free on {root}")
    if facts["ffmpeg"] == "none":
        problems.append("ffmpeg: imageio-ffmpeg has no program for this platform; MP4 cannot be written")
    for name, page in pages().items():
        try:
            if page.broken:
                raise Failed(f"page {name} of {page.distribution} {page.version}: {page.broken}")
            for verb in VERBS:
                if hasattr(page.load(), verb):
                    page.function(verb)  # one that is assigned, not defined, may be no function
            for verb in page.verbs:
                page.function(verb) if verb == "gradcheck" else signatures.imported(page, verb)
        except Failed as error:
            problems.append(str(error))
    datasets = metadata.entry_points(group="mpcli.datasets")
    for entry in datasets:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                entry.load()
        except (Exception, SystemExit) as error:  # whatever a third party's module raises
            source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            problems.append(f"dataset {entry.name} of {source} does not import: {type(error).__name__}: {error}")
    facts |= {"pages": len(pages()), "datasets": len(datasets)}
    if as_json:
        print(json.dumps(facts | {"problems": problems}))
    else:
        print(_lines(facts))
        print("\n".join(f"problem: {problem}" for problem in problems) or "no problems")
    if problems:
        raise Failed(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} found")


def _ffmpeg() -> str:
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_version())
    except RuntimeError:
        return "none"


def new(
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="name of the page, such as my_flow")],
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="directory to make [default: ./mpcli-PLUGIN]")
    ] = None,
) -> None:
    """Start a plugin package: one page, its pyproject.toml and a test, ready to install and run."""
    from mpcli import scaffold

    name = plugin.replace("-", "_")
    if not name.isidentifier() or not name.islower():
        raise InputError(f"{plugin}: is no name of a page; use lower-case letters, digits and underscores")
    if name in pages():
        raise InputError(f"{plugin}: {pages()[name].distribution} has a page of that name; choose another")
    directory = out or Path(f"mpcli-{name.replace('_', '-')}")
    if directory.exists():
        raise InputError(f"{directory}: exists already; choose another --out")
    print(scaffold.write(directory, name))
    tell(scaffold.NEXT.format(directory=shlex.quote(str(directory)), name=name))


COMMANDS: dict[str, Callable[..., None]] = {"list": contents, "info": info, "doctor": doctor, "new": new}
