"""Tables for people and for programs: as wide as the terminal with no word broken, or tab-separated lines."""

import sys
import textwrap
from collections.abc import Mapping, Sequence

GAP = "  "


def show(headings: Sequence[str], rows: Sequence[Sequence[str]], indent: int = 0) -> None:
    """Print rows on standard output: laid out under headings on a terminal, one tab-separated line each elsewhere."""
    if sys.stdout.isatty():
        sections(headings, {"": rows}, indent)
        return
    for row in rows:
        print(" " * indent + "\t".join(row))


def sections(headings: Sequence[str], parts: Mapping[str, Sequence[Sequence[str]]], indent: int = 0) -> None:
    """Print parts of a table on a terminal, each under its title, with the same columns; the first one coloured."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    head = [[heading.upper() for heading in headings]] if headings else []
    laid = layout([*head, *(row for rows in parts.values() for row in rows)], console.width - indent)

    def line(text: str, style: str, end: int | None = None) -> None:
        styled = Text(" " * indent + text)
        styled.stylize(style, indent, None if end is None else indent + end)
        console.print(styled, soft_wrap=True)

    for text in laid.pop(0) if head else ():
        line(text, "bold")
    for title, rows in parts.items():
        if title:
            console.print()
            line(title, "bold")
        for row in rows:
            for number, text in enumerate(laid.pop(0)):
                line(text, "cyan", 0 if number else len(row[0]))


def layout(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The lines of each row, in columns that fit the width; where they cannot, a cell a line.

    No word is broken: a column is at least as wide as its longest word, and what is left goes to those that want more.
    """
    columns = list(zip(*rows, strict=True))
    least = [max(len(word) for cell in column for word in (cell.split() or [""])) for column in columns]
    whole = [max(map(len, column)) for column in columns]
    free = width - len(GAP) * (len(columns) - 1) - sum(least)
    if free < 0:
        return [_stacked(row, width) for row in rows]
    wanted = sum(whole) - sum(least)
    share = min(1.0, free / wanted) if wanted else 0.0
    widths = [low + int((high - low) * share) for low, high in zip(least, whole, strict=True)]
    found = []
    for row in rows:
        cells = [_wrapped(cell, size) for cell, size in zip(row, widths, strict=True)]
        depth = max(map(len, cells))
        lines = zip(*(cell + [""] * (depth - len(cell)) for cell in cells), strict=True)
        found.append([GAP.join(map(str.ljust, line, widths)).rstrip() for line in lines])
    return found


def _stacked(row: Sequence[str], width: int) -> list[str]:
    lines = _wrapped(row[0], width)
    return lines + ["    " + line for cell in row[1:] if cell for line in _wrapped(cell, max(1, width - 4))]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]
