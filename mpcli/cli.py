"""The command line: `mpcli VERB SUBJECT [OPTIONS]`, as one Typer group, and the exit code of each way to end."""

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from mpcli.distributed import rank
from mpcli.errors import Failed, Finished, InputError, Interrupted
from mpcli.groups import BookCommand, Root, Shelf, VerbGroup
from mpcli.progress import tell
from mpcli.registry import VERBS, spoken
from mpcli.stop import terminable
from mpcli.threads import spin_briefly

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


EPILOG = """\b
Examples:
  mpcli list                                the pages of the book
  mpcli info vae                            what a page says
  mpcli train --help                        the pages that can be trained
  mpcli train vae --help                    the options of one
  mpcli train vae --steps 500               prints the run directory
  mpcli sample vae --out digits.png         a picture from the newest run of vae
  mpcli train planar | mpcli sample -       a run handed on through a pipe
  mpcli evaluate RUN RUN                    a table of two runs
  mpcli gradcheck                           every equation, checked

\b
Environment:
  MPCLI_RUNS       where runs are kept (./runs)
  NO_COLOR         no colours; TERM=dumb: neither colours nor bars
  OMP_NUM_THREADS  threads of a computation; GOMP_SPINCOUNT: how long they spin for work
"""


def build() -> TyperGroup:
    """The whole command line as one Typer group."""
    app = typer.Typer(
        cls=Root,
        rich_markup_mode=None,
        name="mpcli",
        help="A textbook of machine perception that runs: every method a page, every page a command.",
        epilog=EPILOG,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_root)
    for verb in VERBS:
        if verb == "gradcheck":
            app.command(verb, help=SUMMARY[verb], cls=BookCommand)(_gradcheck)
            continue
        group = type(verb.title(), (VerbGroup,), {"verb": verb})
        sub = typer.Typer(
            cls=group,
            help=SUMMARY[verb],
            no_args_is_help=True,
            rich_markup_mode=None,
        )
        app.add_typer(sub, name=spoken(verb))
    from mpcli import desk, shelf

    for name, function in desk.COMMANDS.items():
        app.command(name, cls=BookCommand)(function)
    shelves = typer.Typer(cls=Shelf, rich_markup_mode=None, invoke_without_command=True)
    shelves.callback(help=shelf.runs.__doc__)(shelf.runs)
    for name, function in shelf.COMMANDS.items():
        shelves.command(name, cls=BookCommand)(function)
    app.add_typer(shelves, name="runs")
    app.command("report", cls=BookCommand)(shelf.report)
    app.command("datasets", cls=BookCommand)(shelf.datasets)
    app.command("help", cls=BookCommand, context_settings={"ignore_unknown_options": True})(_help)
    return typer.main.get_group(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"mpcli {version('mpcli')}")
        raise typer.Exit


def _show_completion(wanted: bool) -> None:
    if wanted:
        from mpcli.completion import script

        print(script(), end="")
        raise typer.Exit


def _install_completion(wanted: bool) -> None:
    if wanted:
        from mpcli.completion import install

        print("\n".join(map(str, install())))
        tell("mpcli: a shell that is started from here on completes")
        raise typer.Exit


def _eager(flag: str, callback: Callable[[bool], None], text: str) -> Any:
    return typer.Option(flag, callback=callback, is_eager=True, help=text)


def _root(
    version: Annotated[bool, _eager("--version", _version, "Show the version and exit.")] = False,
    install: Annotated[
        bool, _eager("--install-completion", _install_completion, "Install completion for the shell in $SHELL.")
    ] = False,
    show: Annotated[
        bool, _eager("--show-completion", _show_completion, "Print the script that completes in that shell.")
    ] = False,
) -> None:
    """What stands before the verb."""


def _help(
    words: Annotated[list[str] | None, typer.Argument(metavar="VERB PAGE", help="a verb, and a page of it")] = None,
) -> None:
    """The help of a verb or of a page under it: `mpcli help train vae`."""
    asked = [*(words or ()), "--help"]
    build().main(asked, prog_name="mpcli", standalone_mode=False, obj=tuple(asked))


def _gradcheck(
    ctx: typer.Context,
    subjects: Annotated[list[str] | None, typer.Argument(metavar="PAGE", help="pages; none means all")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="run directory, or a .json file for the report")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="INT", help="seed of the draws")] = 0,
    errata: Annotated[bool, typer.Option("--errata", help="print what the course notes print wrongly")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object with every case")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no table")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    from mpcli.gradcheck import gradcheck

    gradcheck(subjects or [], out=out, seed=seed, errata=errata, as_json=as_json, quiet=quiet, command=ctx.obj)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 a wrong request, 130 interrupted."""
    spin_briefly()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line on `arguments`; the exit code."""
    debug = "--debug" in arguments
    _streams()
    try:
        if shell := os.environ.get("_MPCLI_COMPLETE"):
            from mpcli.completion import answer

            print(answer(shell, arguments, build()), end="")
            return 0
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
