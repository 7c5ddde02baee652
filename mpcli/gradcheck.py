"""The verb gradcheck: judge the cases of pages, and report."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpcli import checks, distributed, record, store
from mpcli.errors import Failed, InputError
from mpcli.progress import Teller
from mpcli.registry import Page, get, pages
from mpcli.report import aligned
from mpcli.run import Run


def gradcheck(
    subjects: list[str],
    *,
    out: Path | None,
    seed: int,
    errata: bool,
    as_json: bool,
    quiet: bool,
    command: Sequence[str],
) -> None:
    """Judge the cases of the named pages, or of every page.

    `errata` asks for the formulas that the course notes print wrongly, with how far off each is.

    Raises:
        Failed: a case failed, or a named page is broken.
    """
    distributed.refuse("gradcheck")
    chosen = [get(name) for name in subjects] or [page for page in pages().values() if "gradcheck" in page.verbs]
    file = out if out is not None and out.suffix else None
    if file and file.suffix != ".json":
        raise InputError(f"--out {file}: the report can be written as .json")
    name = chosen[0].name if len(subjects) == 1 else "gradcheck"
    began = time.monotonic()
    run = Run(store.new_directory(name, "gradcheck", seed, None if file else out), seed=seed, out=file, quiet=quiet)
    about = record.new(chosen[0], "gradcheck", None) | {"page": name}
    with record.kept(run, about, {"subjects": subjects, "seed": seed}, command):
        judged_cases, broken = _judge(chosen, seed, bool(subjects), run.teller)
        outcomes = [outcome for _, outcome in judged_cases]
        failed = [outcome for outcome in outcomes if not outcome.passed]
        run.result(cases=len(outcomes), failures=len(failed), seconds=round(time.monotonic() - began, 3))
        judged = [_entry(case, outcome) for case, outcome in judged_cases]
        with run.file("report.json") as path:
            path.write_text(json.dumps({"cases": judged, "broken": broken}, indent=1) + "\n")
    if not quiet:
        _table(outcomes)
        for line in broken:
            print(f"not checked: {line}", file=sys.stderr)
    if as_json:
        shown = {"run": str(run.dir), "artifacts": [str(run.artifacts[0])], "metrics": run.metrics}
        print(json.dumps(shown | {"seconds": about["seconds"], "cases": judged}))
    elif errata:
        print(_errata(judged_cases))
    else:
        print(run.artifacts[0])
    if failed:
        first = failed[0]
        raise Failed(
            f"{len(failed)} of {len(outcomes)} cases failed, the first in {first.page}: {first.case}: {first.message}"
        )


def _judge(
    chosen: Sequence[Page], seed: int, strict: bool, teller: Teller
) -> tuple[list[tuple[checks.Case, checks.Outcome]], list[str]]:
    """Every case and its outcome, and why pages could not be checked; a `strict` caller gets that as Failed."""
    found: list[tuple[checks.Case, checks.Outcome]] = []
    broken: list[str] = []
    for page in chosen:
        try:
            module = page.load() if page.function("gradcheck") else None
        except Failed as error:
            if strict:
                raise
            broken.append(str(error))
            continue
        began = time.monotonic()
        judged = [(case, checks.judge(case, page.name, seed)) for case in checks.cases(module)]
        found += judged
        if len(chosen) > 1:
            hold = sum(outcome.passed for _, outcome in judged)
            teller.line(f"{page.name}: {hold} of {len(judged)} cases hold, {time.monotonic() - began:.1f} s")
    return found, broken


def _entry(case: checks.Case, outcome: checks.Outcome) -> dict[str, Any]:
    """A case for report.json, with the texts of the wrong formulas that it measures."""
    said = {"printed": asdict(case.printed) if case.printed else None, "mistaken_as": case.mistake or None}
    return _finite(asdict(outcome)) | said


def _errata(found: list[tuple[checks.Case, checks.Outcome]]) -> str:
    """The formulas that the course notes print wrongly, one a row."""
    rows = [["page", "notes", "printed", "right", "off by"]]
    rows += [
        [outcome.page, case.printed.where, case.printed.formula, case.printed.right, f"{outcome.misprint:.2g}"]
        for case, outcome in found
        if case.printed and outcome.misprint is not None
    ]
    return aligned(rows)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not a number becomes null."""
    return {name: None if isinstance(v, float) and v - v != 0 else v for name, v in values.items()}


def _table(outcomes: list[checks.Outcome]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "page", "case", "kind", "off by", "misprint off by", "mistake off by"):
        table.add_column(heading, justify="right" if "off" in heading else "left")
    for o in outcomes:
        mark = Text("ok", "green") if o.passed else Text("FAILED", "bold red")
        wrong = ("" if size is None else f"{size:.2g}" for size in (o.misprint, o.mistake))
        table.add_row(mark, Text(o.page), Text(o.case), o.kind, f"{o.difference:.1e}", *wrong)
        if o.message:
            table.add_row("", "", Text(o.message, "red"), "", "", "", "")
    console.print(table)
    passed = sum(o.passed for o in outcomes)
    console.print(f"{passed} of {len(outcomes)} cases hold")
