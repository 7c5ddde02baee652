"""The groups and commands that Typer shows: verbs over pages, and their help.

A verb's group lists its pages by reading their source; only the page that is run is imported, and its function's
signature becomes the options.
"""

import inspect
import re
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from mpcli.errors import InputError
from mpcli.registry import TRAINING, VERBS, Page, get, pages, spoken

_TYPE = re.compile(r" <[^>]*>$")  # Typer's word behind an argument, whose own name says as much


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

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["SUBJECT [OPTIONS]"]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("-", "-h", "--help"):
            raise InputError(f"{args[0]}: the page or run comes first, as in mpcli {spoken(self.verb)} PAGE {args[0]}")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        from mpcli.subjects import named

        page, directory = named(args[0])
        helped = bool({"-h", "--help"} & set(args))
        return page.name, _command(self.verb, page, directory, ctx.obj, helped), args[1:]


def _command(verb: str, page: Page, directory: Path | None, command: tuple[str, ...], helped: bool) -> Any:
    """The Typer command of a page's verb.

    Args:
        directory: the run that SUBJECT named, if it named one.
        command: the whole command line, for the run's record.
        helped: whether only help is wanted, for which the page need not be imported.
    """
    from mpcli import options, signatures, subjects
    from mpcli.execute import Request

    signature = signatures.of(page, verb) if helped else Request(page, verb).signature

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
        further = typer.Argument(metavar="RUN", help="further runs", show_default=False)
        others = Annotated[list[str] | None, further]
        parameters.append(inspect.Parameter("others", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=others))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # A line of only \\b keeps the lines of a paragraph as they are, which equations need.
    text = "\n\n".join("\b\n" + part if part.startswith(" ") else part for part in page.docstring.split("\n\n"))
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(page.name, help=text, cls=PageCommand)(call)
    return typer.main.get_command(app)


class BookCommand(TyperCommand):
    """A command whose help lists its arguments, then its options under their headings."""

    others = "Options"  # the heading of options that have none of their own

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if row := parameter.get_help_record(ctx):
                argument = parameter.param_type_name == "argument"
                panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if argument else self.others)
                sections.setdefault(panel, []).append((_TYPE.sub("", row[0]) if argument else row[0], row[1]))
        _sections(formatter, sections)


class PageCommand(BookCommand):
    """A page under a verb: its own options are listed before those of every page."""

    others = "Options of every page"


def _sections(formatter: Any, sections: dict[str, list[tuple[str, str]]]) -> None:
    for heading, rows in sections.items():
        with formatter.section(heading):
            formatter.write_dl(rows)


class Shelf(TyperGroup):
    """A command with commands below it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, command.get_short_help_str(200)) for name, command in self.commands.items()]
        _sections(formatter, {"Commands": rows})


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
