"""The command line: `mpcli VERB SUBJECT [OPTIONS]`.

Each verb is a Typer group whose commands are the pages that have it. A group lists its pages by reading their source;
only the page that is run is imported, and its function's signature becomes the options.
"""

import errno
import inspect
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from mpcli.distributed import rank
from mpcli.errors import Failed, Finished, InputError, Interrupted
from mpcli.progress import tell
from mpcli.registry import TRAINING, VERBS, Page, get, pages, spoken
from mpcli.stop import terminable

FAULT = "a fault in the program, {} (--debug shows where): "
SUMMARY = {
    "train": "Fit a model; prints the run directory.",
    "sample": "Draw from a trained model; prints the file.",
    "render": "Make a picture or an animation; prints the file.",
    "marching_cubes": "Extract a mesh from an implicit function or a grid; prints the file.",
    "fit_smpl": "Fit a body model to keypoints, joints or a scan; prints the file.",
    "rl_run": "Let an agent act and learn in an environment; prints the run directory.",
    "evaluate": "Held-out metrics of trained runs; several runs make one table.",
    "gradcheck": "Check the mathematics of pages, or of the whole book, numerically.",
}


class VerbGroup(TyperGroup):
    """A verb: its commands are the pages that have it."""

    verb = ""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, page in pages().items() if self.verb in page.verbs]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # For listings only, hence nothing is imported; `resolve_command` builds the real one.
        return TyperCommand(cmd_name, help=pages()[cmd_name].title)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        chapters: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            page = pages()[name]
            chapters.setdefault(page.chapter[1].partition(":")[0], []).append((name, page.title))
        _sections(formatter, chapters)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("-", "--help"):
            raise InputError(f"{args[0]}: the page or run comes first, as in mpcli {spoken(self.verb)} PAGE {args[0]}")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        from mpcli.subjects import named

        page, directory = named(args[0])
        return page.name, _command(self.verb, page, directory, ctx.obj), args[1:]


def _command(verb: str, page: Page, directory: Path | None, command: tuple[str, ...]) -> Any:
    """The Typer command of a page's verb.

    Args:
        directory: the run that SUBJECT named, if it named one.
        command: the whole command line, for the run's record.
    """
    from mpcli import options, subjects
    from mpcli.execute import Request

    signature = Request(page, verb).signature

    def call(**given: Any) -> None:
        from mpcli.execute import execute
        from mpcli.report import report, report_evaluations

        others = given.pop("others", None) or ()
        request = Request(page, verb, directory, given, command)
        if verb != "evaluate":
            report(execute(request), request.common.json, request.common.quiet)
            return
        groups = [subjects.seeds(one) for one in (request, *(subjects.further(text, request) for text in others))]
        if request.common.out and sum(map(len, groups)) > 1:
            raise InputError("--out: several runs are evaluated, and their table is printed; leave --out away")
        report_evaluations([[execute(one) for one in group] for group in groups], request.common.json)

    parameters = options.parameters(signature, verb in TRAINING)
    if verb == "evaluate":
        further = typer.Argument(metavar="[RUN]...", help="further runs", show_default=False)
        others = Annotated[list[str] | None, further]
        parameters.append(inspect.Parameter("others", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=others))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # A line of only \\b keeps the lines of a paragraph as they are, which equations need.
    text = "\n\n".join("\b\n" + part if part.startswith(" ") else part for part in page.docstring.split("\n\n"))
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(page.name, help=text, cls=PageCommand)(call)
    return typer.main.get_command(app)


class PageCommand(TyperCommand):
    """A page under a verb: its own options are listed before those of every page."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row:
                panel = getattr(parameter, "rich_help_panel", None) or "Options of every page"
                sections.setdefault(panel, []).append(row)
        _sections(formatter, sections)


def _sections(formatter: Any, sections: dict[str, list[tuple[str, str]]]) -> None:
    for heading, rows in sections.items():
        with formatter.section(heading):
            formatter.write_dl(rows)


class Root(TyperGroup):
    """The whole command line."""

    def get_params(self, ctx: Any) -> Any:
        found = super().get_params(ctx)
        for parameter in found:
            if parameter.name == "help":  # without a default Typer imports pydantic, 0.1 s, to make sense of None
                parameter.default = False
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, command.get_short_help_str(200)) for name, command in self.commands.items()]
        verbs = {spoken(verb) for verb in VERBS}
        ordered = sorted(
            rows, key=lambda row: [spoken(verb) for verb in VERBS].index(row[0]) if row[0] in verbs else 99
        )
        _sections(formatter, {"Verbs": ordered[: len(verbs)], "The book": ordered[len(verbs) :]})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0].replace("_", "-")
        if name not in self.commands and not name.startswith("-"):
            import difflib

            close = difflib.get_close_matches(name, self.commands, n=2)
            if name.replace("-", "_") in pages():
                verbs = " or ".join(map(spoken, get(name).verbs)) or "nothing yet"
                raise InputError(f"{name} is a page, not a verb: the verb comes first ({verbs})")
            hint = f"did you mean {' or '.join(close)}?" if close else "`mpcli --help` shows every verb"
            raise InputError(f"there is no verb {name}: {hint}")
        return super().resolve_command(ctx, [name, *args[1:]])


def build() -> TyperGroup:
    """The whole command line as one Typer group."""
    app = typer.Typer(
        cls=Root,
        rich_markup_mode=None,
        name="mpcli",
        help="A textbook of machine perception that runs: every method a page, every page a command.",
        epilog="Pages of a verb: mpcli VERB --help. Options: mpcli VERB PAGE --help. Text: mpcli info PAGE.",
    )
    for verb in VERBS:
        if verb == "gradcheck":
            app.command(verb, help=SUMMARY[verb])(_gradcheck)
            continue
        group = type(verb.title(), (VerbGroup,), {"verb": verb})
        sub = typer.Typer(
            cls=group,
            help=SUMMARY[verb],
            subcommand_metavar="SUBJECT [OPTIONS]",
            options_metavar="",
            no_args_is_help=True,
            rich_markup_mode=None,
        )
        app.add_typer(sub, name=spoken(verb))
    from mpcli import desk

    for name, function in (("list", desk.contents), ("info", desk.info), ("doctor", desk.doctor), ("new", desk.new)):
        app.command(name)(function)
    return typer.main.get_group(app)


def _gradcheck(
    ctx: typer.Context,
    subjects: Annotated[list[str] | None, typer.Argument(metavar="[PAGE]...", help="pages; none means all")] = None,
    out: Annotated[Path | None, typer.Option(help="run directory, or a .json file for the report")] = None,
    seed: Annotated[int, typer.Option(help="seed of the draws")] = 0,
    errata: Annotated[bool, typer.Option("--errata", help="print what the course notes print wrongly")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object with every case")] = False,
    quiet: Annotated[bool, typer.Option(help="no table")] = False,
    debug: Annotated[bool, typer.Option(help="show the traceback of an error")] = False,
) -> None:
    from mpcli.gradcheck import gradcheck

    gradcheck(subjects or [], out=out, seed=seed, errata=errata, as_json=as_json, quiet=quiet, command=ctx.obj)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 a wrong request, 130 interrupted."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line on `arguments`; the exit code."""
    debug = "--debug" in arguments
    _streams()
    try:
        with terminable():
            code = build().main(arguments or ["--help"], prog_name="mpcli", standalone_mode=False, obj=tuple(arguments))
        sys.stdout.flush()
        if code == 130:  # Typer turns a KeyboardInterrupt into this code
            tell("mpcli: interrupted")
        return code if isinstance(code, int) else 0
    except Finished:
        return 0
    except InputError as error:
        return _complain(error, 2, debug)
    except Failed as error:
        return _complain(error, 1, debug)
    except Interrupted as error:
        return _complain(error, 130, debug)
    except typer.TyperException as error:
        if message := error.format_message().rstrip("."):
            tell(f"mpcli: {message}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away; point stdout elsewhere so that Python's exit does not complain too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename:
            return _complain(error, 1, debug, FAULT.format(type(error).__name__))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _complain(Failed(f"standard output cannot be written ({error.strerror})"), 1, debug)
    except Exception as error:
        return _complain(error, 1, debug, FAULT.format(type(error).__name__))


def _streams() -> None:
    """Standard streams that were closed swallow what is written; the names of files pass through as they are."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lasts
        elif name == "stdout" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")


def _complain(error: BaseException, code: int, debug: bool, before: str = "") -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    number = rank()
    tell(f"mpcli: {f'process {number}: ' if number else ''}{before}{error}")
    return code
