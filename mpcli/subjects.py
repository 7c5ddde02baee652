"""What SUBJECT names: a page, a run, or the runs of several seeds."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from mpcli import options
from mpcli.errors import InputError
from mpcli.execute import Request
from mpcli.registry import Page, get, pages
from mpcli.store import read_record, seed_runs


def named(text: str) -> tuple[Page, Path | None]:
    """The page that SUBJECT names, and the run directory where it names one: a directory that holds a run comes first.

    Raises:
        InputError: there is neither.
    """
    if text == "-":
        text = _from_standard_input()
    path = Path(text)
    if (path / "run.json").exists():
        return get(read_record(path)["page"]), path
    if text.replace("-", "_") in pages():
        return get(text), None
    if path.exists() or os.sep in text:
        what = "has no run.json" if path.is_dir() else "does not exist" if not path.exists() else "is a file"
        raise InputError(f"{text}: is no run directory ({what}); give a page name or what `mpcli train` printed")
    return get(text), None


def _from_standard_input() -> str:
    if sys.stdin.isatty():
        raise InputError("-: reads a run directory from standard input; pipe the output of `mpcli train` into it")
    lines = sys.stdin.read().strip().splitlines()
    if not lines:
        raise InputError("-: standard input held no run directory; did the command before it fail?")
    if lines[-1].startswith("{"):
        try:
            return str(json.loads(lines[-1])["run"])
        except (ValueError, KeyError):
            raise InputError("-: standard input held a JSON object without a run") from None
    return lines[-1]


def further(text: str, first: Request) -> Request:
    """The request for one more run, with those of the first one's options that its page knows."""
    page, directory = named(text)
    known = {option.name for option in (*Request(page, first.verb).signature.options, *options.COMMON)}
    given = {name: value for name, value in first.given.items() if name in known}
    return Request(page, first.verb, directory, given, first.command)


def seeds(request: Request) -> list[Request]:
    """The request itself, or one for each seed where it names a run of several."""
    found = seed_runs(request.subject) if request.subject else []
    return [replace(request, subject=directory) for directory in found] or [request]
