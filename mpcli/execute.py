"""Carry out one request: settle its options, make the run, call the page, record what came of it."""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from mpcli import curves, distributed, files, heap, options, record, seeds, signatures, store
from mpcli.checkpoint import seed_everything
from mpcli.device import device
from mpcli.errors import Finished, InputError
from mpcli.notices import told_by
from mpcli.options import Common, Signature
from mpcli.progress import telling
from mpcli.registry import TRAINING, Page, spoken
from mpcli.run import Run, Trained


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        page, verb: which function of the book.
        subject: the run directory that SUBJECT named, or None.
        given: the options that were given, as text.
        command: the whole command line, without the program's name.
    """

    page: Page
    verb: str
    subject: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    @cached_property
    def function(self) -> Any:
        return self.page.function(self.verb)

    @cached_property
    def signature(self) -> Signature:
        return signatures.imported(self.page, self.verb)

    @cached_property
    def common(self) -> Common:
        """The common options as the command line gives them; no file is read."""
        return options.common(self.given, {}, "")


@dataclass(frozen=True)
class Done:
    """A request that was carried out.

    Attributes:
        directory: the run that it made; an evaluation that makes none stands for the run that it judges.
        subject: the run that it read, or the page.
        result: the main result: a file, or the directory.
        record: what run.json holds, or would hold.
        seeds: how many.
    """

    directory: Path
    subject: str
    result: Path
    record: dict[str, Any]
    seeds: int = 1


def execute(request: Request) -> Done:
    """Carry out a request.

    Raises:
        InputError, Failed, Interrupted: as the page or the request demands; the run's record says so too.
    """
    if request.verb != "train":
        distributed.refuse(spoken(request.verb))
    heap.keep_freed_blocks()  # before torch allocates anything
    with distributed.group():
        directory, parent = distributed.told(_sources(request) if distributed.rank() == 0 else None)
        values, common = _settle(request, directory)
        where = device(common.device)  # one that is not there is refused before anything is written
        if common.seeds > 1:
            distributed.refuse("--seeds")
        if distributed.rank():
            _beside(request, values, common, where, directory)
        return _first(request, values, common, where, directory, parent)


@contextlib.contextmanager
def _at_work(run: Run) -> Iterator[None]:
    """The page works: what it or a library prints goes to standard error, for standard output is for results."""
    with telling(run.teller), told_by(run), contextlib.redirect_stdout(sys.stderr):
        yield


def _trained(page: Page, parent: Path | None, where: Any) -> Trained | None:
    if parent is None:
        return None
    trained = Trained(parent, where)
    for verb in TRAINING:
        if function := getattr(page.load(), verb, None):
            trained.options.check(options.read(function).options)
    return trained


def _first(
    request: Request,
    values: dict[str, Any],
    common: Common,
    where: Any,
    directory: Path | None,
    parent: Path | None,
) -> Done:
    """The work of the process that writes: of the only one, where there is no other."""
    page, training = request.page, request.verb in TRAINING
    trained = _trained(page, parent, where)
    file = _file(common.out, training) if directory is None else None
    subject = str(parent or page.name)
    if request.verb == "evaluate" and (file or common.out is None):
        return _evaluate(request, values, common, file, trained, where)
    run = Run(
        directory or store.new_directory(page.name, request.verb, common.seed, None if file else common.out),
        seed=common.seed,
        device=where,
        out=file,
        quiet=common.quiet,
        resume=directory,
        checkpoint=common.checkpoint,
        page=page.name,
        verb=request.verb,
        options=values,
    )
    about = record.new(page, request.verb, parent)
    used = {**values, "seed": common.seed, "device": common.device}
    used |= {"seeds": common.seeds} if common.seeds > 1 else {}
    with record.kept(run, about, used, request.command, directory is None):
        if common.seeds > 1:
            numbers = range(common.seed, common.seed + common.seeds)
            seeds.train(run, page.name, request.verb, numbers, common.checkpoint, common.quiet)
        else:
            seed_everything(common.seed)
            try:
                with _at_work(run):
                    request.function(**request.signature.arguments(values, run, trained))
            finally:
                if training and run.saved:
                    curves.draw(run)
    result = run.artifacts[0] if run.artifacts and not training else run.dir
    return Done(run.dir, subject, result, about, common.seeds)


def _evaluate(
    request: Request, values: dict[str, Any], common: Common, file: Path | None, trained: Trained | None, where: Any
) -> Done:
    """Judge without making a run: what the page writes is dropped, but for the file that `--out` names."""
    page, began, parent = request.page, time.monotonic(), trained.dir if trained else None
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            Path(folder),
            seed=common.seed,
            device=where,
            out=file,
            quiet=common.quiet,
            page=page.name,
            name=page.name,
            options=values,
        )
        seed_everything(common.seed)
        with _at_work(run):
            request.function(**request.signature.arguments(values, run, trained))
    kept = [str(file.absolute())] if file and file in run.artifacts else []
    about = record.new(page, request.verb, parent) | {
        "result": run.metrics,
        "artifacts": kept,
        "seconds": round(time.monotonic() - began, 3),
    }
    return Done(parent or Path(), str(parent or page.name), file or Path(), about)


def _beside(request: Request, values: dict[str, Any], common: Common, where: Any, directory: Path | None) -> NoReturn:
    """The work of a further process: it trains as the first does, and what it writes is for nobody."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            Path(folder), seed=common.seed, device=where, resume=directory, page=request.page.name, options=values
        )
        seed_everything(common.seed)
        request.function(**request.signature.arguments(values, run, None))
    raise Finished


def _settle(request: Request, directory: Path | None) -> tuple[dict[str, Any], Common]:
    """The page's options and the common ones, from the command line, a file, and the run that is resumed."""
    file = request.common.config
    config, source = (options.read_config(file), str(file)) if file else ({}, "")
    own = request.signature.options
    options.refuse_unknown(own, config, source)
    if request.verb not in TRAINING:  # other verbs have no --seeds: a configuration's is not meant for them
        config = {name: value for name, value in config.items() if name != "seeds"}
    if not directory:
        return options.settle(own, request.given, config, source), options.common(request.given, config, source)
    return _settle_again(request, config, directory)


def _settle_again(request: Request, config: dict[str, Any], directory: Path) -> tuple[dict[str, Any], Common]:
    """The options of a run that is resumed: its own, but for how many steps and where.

    Raises:
        InputError: another option is to change.
    """
    path = directory / "config.json"
    was, own = files.read_json(path), request.signature.options
    options.refuse_unknown(own, was, str(path))
    before, before_common = options.settle(own, {}, was, str(path)), options.common({}, was, str(path))
    after = options.settle(own, request.given, was | config, str(path))
    common = options.common(request.given, was | config, str(path))
    pairs = [(option.flag, before[option.name], after[option.name]) for option in own if option.name != "steps"]
    pairs += [("--seed", before_common.seed, common.seed), ("--seeds", before_common.seeds, common.seeds)]
    for flag, old, new in pairs:
        if old != new:
            anew = f"mpcli {spoken(request.verb)} {request.page.name} --config {path} {flag} {options.as_text(new)}"
            raise InputError(
                f"{flag} {options.as_text(new)}: {directory} was trained with {options.as_text(old)}, and --resume "
                f"changes --steps only; for a new run say {anew}"
            )
    return after, common


def _file(out: Path | None, training: bool) -> Path | None:
    """The file that `--out` asks the main result to be written to."""
    if out is None or not out.suffix:
        return None
    if training:
        raise InputError(f"--out {out}: training makes a run directory; give a name without a suffix")
    if out.is_dir():
        raise InputError(f"--out {out}: is a directory; give the name of a file in it")
    return out


def _sources(request: Request) -> tuple[Path | None, Path | None]:
    """The run to resume, and the trained run to read."""
    if request.verb in TRAINING:
        return _to_resume(request), None
    return None, _to_read(request)


def _to_resume(request: Request) -> Path | None:
    page, verb, common = request.page, spoken(request.verb), request.common
    if not common.resume:
        if request.subject:
            again = f"{page.name} --config {request.subject / 'config.json'}"
            raise InputError(f"{verb} {request.subject}: add --resume to continue it, or say {again} to repeat it")
        return None
    if request.subject and common.out and common.out != request.subject:
        raise InputError(f"--out {common.out}: --resume goes on in {request.subject}; leave --out away")
    directory = request.subject or common.out or store.newest(page.name, (request.verb,), finished=False)
    if directory is None:
        raise InputError(f"--resume: there is no run of {page.name} below {store.runs_root()} to continue")
    if common.out and not store.holds_run(directory):
        return None  # `--out DIR --resume` begins the run where there is none: what a Makefile needs
    about = store.read_record(directory)
    if about["page"] != page.name or about.get("verb") != request.verb:
        kind = f"{spoken(str(about.get('verb')))} {about['page']}"
        raise InputError(f"{directory}: is a run of {kind}, not of {verb} {page.name}; name one of those")
    return directory


def _to_read(request: Request) -> Path | None:
    page, verb = request.page, spoken(request.verb)
    if not request.signature.trained:
        if request.subject:
            raise InputError(f"{verb} {page.name} reads no run; give the page name instead of {request.subject}")
        return None
    source = request.subject or store.newest(page.name, TRAINING, finished=True)
    if source is None:
        makes = " or ".join(f"`mpcli {spoken(v)} {page.name}`" for v in TRAINING if v in page.verbs)
        raise InputError(f"{verb} {page.name}: there is no trained run below {store.runs_root()}; {makes} makes one")
    about = store.read_record(source)
    if about.get("verb") not in TRAINING:
        raise InputError(f"{source}: is a {about.get('verb')} run and holds no model; give a training run")
    return source
