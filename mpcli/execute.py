"""Carry out one request: settle its options, make the run, call the page, record what came of it."""

import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mpcli import heap, seeds
from mpcli import options as options_
from mpcli import run as runs
from mpcli.errors import Failed, InputError, Interrupted
from mpcli.registry import TRAINING, Page, get, pages, spoken
from mpcli.run import Run, Trained

ABOUT = ("run.json", "config.json", "command.txt", "env.json", "log.txt")  # what a run has before it did anything


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None means that it was not said."""

    page: Page
    verb: str
    function: Any
    signature: options_.Signature
    subject: Path | None  # the run directory that SUBJECT named
    given: dict[str, Any]
    out: Path | None = None
    seed: int | None = None
    device: str | None = None
    config: Path | None = None
    json: bool | None = None
    quiet: bool | None = None
    debug: bool | None = None
    resume: bool | None = None
    checkpoint: float | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Done:
    """A finished run: its directory, its main result (a file or the directory), its record, and of how many seeds."""

    directory: Path
    result: Path
    record: dict[str, Any]
    seeds: int


def execute(request: Request) -> Done:
    """Carry out a request.

    Raises:
        InputError, Failed, Interrupted: as the page or the request demands; the run's record says so too.
    """
    directory, trained = _sources(request)
    config = options_.read_config(request.config) if request.config else {}
    source = str(request.config)
    if directory:  # resuming: the run's own options, unless others are given
        config = runs.read_json(directory / "config.json") | config
        source = str(directory / "config.json")
    values = options_.settle(request.signature, request.given, config, source)
    seed = request.seed if request.seed is not None else int(config.get("seed", 0))
    device = request.device or config.get("device") or "auto"
    if seed < 0:
        raise InputError(f"--seed must be at least 0, not {seed}")
    training = request.verb in TRAINING
    count = request.seeds if request.seeds is not None else int(config.get("seeds", 1)) if training else 1
    if count < 1:
        raise InputError(f"--seeds must be at least 1, not {count}")
    file = request.out if request.out is not None and request.out.suffix and not directory else None
    if file and training:
        raise InputError(f"--out {file}: {spoken(request.verb)} makes a run directory; give a name without a suffix")
    if file and file.is_dir():
        raise InputError(f"--out {file}: is a directory; give the name of a file in it")

    from mpcli.run import seed_everything

    heap.keep_freed_blocks()  # before torch allocates anything
    checkpoint = 60.0 if request.checkpoint is None else request.checkpoint
    run = Run(
        Path(),
        seed=seed,
        device=device,
        out=file,
        quiet=bool(request.quiet),
        resume=directory is not None,
        checkpoint=checkpoint,
    )
    _ = run.device  # a device that is not there is refused before anything is written
    fresh = directory is None
    run.dir = directory or runs.new_directory(request.page.name, request.verb, seed, None if file else request.out)
    record = _record(request.page, request.verb, trained.dir if trained else None)
    used = {**values, "seed": seed, "device": device} | ({"seeds": count} if count > 1 else {})
    with _recorded(run, record, fresh, used):
        if count > 1:
            seeds.train(run, request.page.name, request.verb, range(seed, seed + count), checkpoint)
        else:
            seed_everything(seed)
            request.function(**request.signature.arguments(values, run, trained))
    result = run.artifacts[0] if run.artifacts and not training else run.dir
    return Done(run.dir, result, record, count)


def _sources(request: Request) -> tuple[Path | None, Trained | None]:
    """The run to resume, and the trained run to read."""
    page, verb = request.page, spoken(request.verb)
    if request.verb in TRAINING:
        if not request.resume:
            if request.subject:
                again = f"{page.name} --config {request.subject / 'config.json'}"
                raise InputError(f"{verb} {request.subject}: add --resume to continue it, or say {again} to repeat it")
            return None, None
        directory = request.subject or request.out or runs.newest(page.name, (request.verb,), finished=False)
        if directory is None:
            raise InputError(f"--resume: there is no run of {page.name} below {runs.runs_root()} to continue")
        if request.out and not (directory / "run.json").exists():
            return None, None  # `--out DIR --resume` begins the run where there is none: what a Makefile needs
        record = runs.read_record(directory)
        if record["page"] != page.name or record.get("verb") != request.verb:
            kind = f"{spoken(str(record.get('verb')))} {record['page']}"
            raise InputError(f"{directory}: is a run of {kind}, not of {verb} {page.name}; name one of those")
        return directory, None
    if not request.signature.trained:
        if request.subject:
            raise InputError(f"{verb} {page.name} reads no run; give the page name instead of {request.subject}")
        return None, None
    source = request.subject or runs.newest(page.name, TRAINING, finished=True)
    if source is None:
        makes = " or ".join(f"`mpcli {spoken(v)} {page.name}`" for v in TRAINING if v in page.verbs)
        raise InputError(f"{verb} {page.name}: there is no trained run below {runs.runs_root()}; {makes} makes one")
    record = runs.read_record(source)
    if record.get("verb") not in TRAINING:
        raise InputError(f"{source}: is a {record.get('verb')} run and holds no model; give a training run")
    return None, Trained(source, request.device or "auto")


def _record(page: Page, verb: str, parent: Path | None) -> dict[str, Any]:
    return {
        "format": runs.FORMAT,
        "page": page.name,
        "distribution": page.distribution,
        "version": page.version,
        "verb": verb,
        "status": "running",
        "started": runs.now(),
        "seconds": 0.0,
        "artifacts": [],
        "result": {},
        "parent": str(parent) if parent else None,
    }


@contextlib.contextmanager
def _recorded(run: Run, record: dict[str, Any], fresh: bool, used: dict[str, Any]) -> Iterator[None]:
    """Keep run.json true whatever happens."""
    began = time.monotonic()
    if not fresh:
        record["seconds"] = float(runs.read_record(run.dir).get("seconds", 0.0))
    before = float(record["seconds"])
    with runs.lock(run.dir) as commands:
        runs.write_json(run.dir / "config.json", used)
        commands.write((shlex.join(["mpcli", *sys.argv[1:]]) + "\n").encode())
        commands.flush()
        runs.write_json(run.dir / "env.json", environment(run))
        runs.write_json(run.dir / "run.json", record)
        status = "failed"
        try:
            yield
            status = "done"
        except InputError:
            status = "refused"
            raise
        except (KeyboardInterrupt, Interrupted):
            status = "interrupted"
            raise
        except Failed:
            raise
        except BaseException as error:
            with (run.dir / "log.txt").open("a", encoding="utf-8") as log:
                traceback.print_exception(error, file=log)
            raise
        finally:
            run._write_rows()
            record["status"] = status
            record["seconds"] = round(before + time.monotonic() - began, 3)
            record["result"] = run.metrics
            record["artifacts"] = [_relative(path, run.dir) for path in run.artifacts]
            wrote = set(os.listdir(run.dir)) - set(ABOUT) or run.artifacts
            if status == "refused" and fresh and not wrote:
                _remove(run.dir)  # nothing came of it: the request never got as far as a run
            else:
                runs.write_json(run.dir / "run.json", record)


def _remove(directory: Path) -> None:
    for name in ABOUT:
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: something of the user's is in it
        directory.rmdir()


def _relative(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)


def environment(run: Run) -> dict[str, Any]:
    """What a run depends on beside its options: versions, device, threads, commit."""
    from importlib.metadata import version

    import torch

    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in ("mpcli", "torch", "numpy")},
        "device": str(run.device),
        "threads": torch.get_num_threads(),
        "git": commit or None,
    }


def execute_all(request: Request, others: list[Path]) -> list[Done]:
    """Evaluate several runs with the same options; a run of another page gets those that its page knows."""
    from mpcli.cli import _subject

    if request.out:
        raise InputError("--out: several runs are evaluated, and each writes its own run; leave --out away")
    found = [execute(request)]
    for path in others:
        page, directory = _subject(str(path), request.verb)
        function = page.function(request.verb)
        signature = options_.read(function)
        given = {o.name: request.given.get(o.name) for o in signature.options}
        found.append(
            execute(replace(request, page=page, function=function, signature=signature, subject=directory, given=given))
        )
    return found


def report(found: list[Done], request: Request) -> None:
    """The result on standard output, the metrics for a reader on standard error."""
    if request.json:
        objects = [
            {
                "run": str(done.directory),
                "artifacts": [str(done.directory / name) for name in done.record["artifacts"]],
                "metrics": done.record["result"],
                "seconds": done.record["seconds"],
            }
            for done in found
        ]
        print(json.dumps(objects[0] if len(objects) == 1 else objects))
    else:
        for done in found:
            print(done.result)
    if not request.quiet and any(done.record["result"] for done in found):
        if found[0].seeds > 1:
            print(_table_of_seeds(found[0].record["result"]), file=sys.stderr)
            return
        rows = [(str(done.record["parent"] or done.directory), done.record["result"]) for done in found]
        print(metrics_table(rows), file=sys.stderr)


def metrics_table(rows: list[tuple[str, dict[str, float]]]) -> str:
    """Runs and their metrics as aligned text, one row a run."""
    names = list(dict.fromkeys(name for _, metrics in rows for name in metrics))
    cells = [["run", *names]]
    cells += [[label, *(f"{m[name]:.6g}" if name in m else "" for name in names)] for label, m in rows]
    return _aligned(cells)


def _table_of_seeds(metrics: dict[str, float]) -> str:
    """One row a metric: its median over the seeds, and the least and the greatest, which follow it."""
    values = [f"{value:.6g}" for value in metrics.values()]
    rows = [[name, *values[3 * i : 3 * i + 3]] for i, name in enumerate(list(metrics)[::3])]
    return _aligned([["metric", "median", "min", "max"], *rows])


def _aligned(cells: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def gradcheck(subjects: list[str], *, out: Path | None, seed: int, as_json: bool, quiet: bool) -> None:
    """Judge the cases of the named pages, or of every page.

    Raises:
        Failed: a case failed, or a named page is broken.
    """
    from mpcli import checks

    chosen = [get(name) for name in subjects] or [page for page in pages().values() if "gradcheck" in page.verbs]
    file = out if out is not None and out.suffix else None
    if file and file.suffix != ".json":
        raise InputError(f"--out {file}: the report can be written as .json")
    name = chosen[0].name if len(subjects) == 1 else "gradcheck"
    began = time.monotonic()
    outcomes: list[checks.Outcome] = []
    broken: list[str] = []
    run = Run(runs.new_directory(name, "gradcheck", seed, None if file else out), seed=seed, out=file, quiet=quiet)
    record = _record(chosen[0], "gradcheck", None) | {"page": name}
    with _recorded(run, record, True, {"subjects": subjects, "seed": seed}):
        for page in chosen:
            try:
                module = page.load() if page.function("gradcheck") else None
            except Failed as error:
                if subjects:
                    raise
                broken.append(str(error))
                continue
            outcomes += [checks.judge(case, page.name, seed) for case in checks.cases(module)]
        failed = [outcome for outcome in outcomes if not outcome.passed]
        run.result(cases=len(outcomes), failures=len(failed), seconds=round(time.monotonic() - began, 3))
        with run.file("report.json") as path:
            judged = [_finite(asdict(outcome)) for outcome in outcomes]
            path.write_text(json.dumps({"cases": judged, "broken": broken}, indent=1) + "\n")
    if not quiet:
        _table(outcomes)
        for line in broken:
            print(f"not checked: {line}", file=sys.stderr)
    if as_json:
        shown = {"run": str(run.dir), "artifacts": [str(run.artifacts[0])], "metrics": run.metrics}
        print(json.dumps(shown | {"seconds": record["seconds"], "cases": judged}))
    else:
        print(run.artifacts[0])
    if failed:
        first = failed[0]
        raise Failed(
            f"{len(failed)} of {len(outcomes)} cases failed, the first in {first.page}: {first.case}: {first.message}"
        )


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not a number becomes null."""
    return {name: None if isinstance(v, float) and v - v != 0 else v for name, v in values.items()}


def _table(outcomes: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "page", "case", "kind", "off by", "printed form off by"):
        table.add_column(heading, justify="right" if "off" in heading else "left")
    for o in outcomes:
        mark = Text("ok", "green") if o.passed else Text("FAILED", "bold red")
        misprint = "" if o.misprint is None else f"{o.misprint:.2g}"
        table.add_row(mark, Text(o.page), Text(o.case), o.kind, f"{o.difference:.1e}", misprint)
        if o.message:
            table.add_row("", "", Text(o.message, "red"), "", "", "")
    console.print(table)
    passed = sum(o.passed for o in outcomes)
    console.print(f"{passed} of {len(outcomes)} cases hold")
