"""`table:FILE`: rows of numbers with a target from a CSV file, whose first line names the columns.

The target is the last column, or the one named in `table:FILE@COLUMN`. A target of words gives classes, one of numbers
stays numbers. Any other column of words becomes a column of 0 and 1 for each word.
"""

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mpcli.errors import InputError
from mpcli.kit.datasets.files import located, read_text, there
from mpcli.kit.datasets.split import Split
from mpcli.kit.datasets.types import Table
from mpcli.notices import notice

WORDS = 100  # different words that a column may hold
FEWEST = 6  # rows, of which one is for validation and one for testing

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")


def table(argument: str) -> Table:
    """The rows of a CSV file with a header; commas, semicolons or tabs stand between the columns.

    Raises:
        InputError: the file is not so, a cell is empty, or a column is neither of numbers nor of a few words.
    """
    path, target = argument, ""
    if "@" in argument and not there(Path(argument).expanduser()):
        path, _, target = argument.rpartition("@")
    file = located("table", path, folder=False)
    header, rows = _read(file)
    if target and target not in header:
        raise InputError(f"{file}: has no column {target!r}; right would be one of {', '.join(header)}")
    aim = header.index(target) if target else len(header) - 1
    cells: list[list[str]] = [list(column) for column in zip(*rows, strict=True)]
    names, columns = [], []
    for index, name in enumerate(header):
        if index == aim:
            continue
        numbers = _numbers(file, name, cells[index])
        if isinstance(numbers, np.ndarray):
            names.append(name)
            columns.append(numbers)
            continue
        notice(f"{file}: the words of column {name} become {len(numbers)} columns of 0 and 1")
        for word in numbers:
            names.append(f"{name}={word}")
            columns.append(np.array([cell == word for cell in cells[index]], np.float32))
    targets = _numbers(file, header[aim], cells[aim])
    classes: tuple[str, ...] = ()
    if not isinstance(targets, np.ndarray):
        classes = tuple(targets)
        targets = np.array([classes.index(cell) for cell in cells[aim]])
    return with_targets(file.name, np.stack(columns, 1), targets, names, header[aim], classes)


def _read(file: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows, all of one length."""
    lines = read_text(file).splitlines()
    first = next((line for line in lines if line.strip()), "")
    delimiter = max("\t;,", key=first.count)
    try:
        parsed = [
            (number, [cell.strip() for cell in row])
            for number, row in enumerate(csv.reader(lines, delimiter=delimiter, strict=True), 1)
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise InputError(f"{file}: {error}; right would be a CSV file with a header") from error
    if not parsed or len(parsed[0][1]) < 2:
        raise InputError(f"{file}: has no header of two columns or more; right would be a CSV file with a header")
    header = parsed[0][1]
    if all(_is_number(name) for name in header):
        raise InputError(f"{file}: line 1 holds numbers; right would be a header that names the columns")
    doubled = next((name for name in header if not name or header.count(name) > 1), None)
    if doubled is not None:
        what = f"names two columns {doubled!r}" if doubled else "leaves a column without a name"
        raise InputError(f"{file}: line 1 {what}; right would be a name of its own for each")
    for number, row in parsed[1:]:
        if len(row) != len(header):
            raise InputError(
                f"{file}: line {number} has {len(row)} cells and the header {len(header)}; right would be as many"
            )
        empty = next((name for name, cell in zip(header, row, strict=True) if cell.lower() in _MISSING), None)
        if empty is not None:
            raise InputError(f"{file}: line {number} has nothing in column {empty}; right would be a number or a word")
    rows = [row for _, row in parsed[1:]]
    if len(rows) < FEWEST:
        raise InputError(f"{file}: has {len(rows)} rows; right would be {FEWEST} or more")
    return header, rows


def _numbers(file: Path, name: str, cells: Sequence[str]) -> np.ndarray | list[str]:
    """A column as float32 [rows], or the different words that it holds, sorted."""
    are = [_is_number(cell) for cell in cells]
    if all(are):
        numbers = np.array([float(cell) for cell in cells])
        # Written so that nan is found too.
        large = next((cell for cell, x in zip(cells, numbers, strict=True) if not abs(x) < 3e38), None)
        if large is not None:
            raise InputError(f"{file}: column {name} holds {large}; right would be finite numbers of float32")
        return numbers.astype(np.float32)
    comma = next((cell for cell in cells if _COMMA.fullmatch(cell)), None)
    if comma is not None:
        raise InputError(f"{file}: column {name} holds {comma}; right would be {comma.replace(',', '.')}")
    if 2 * sum(are) >= len(are):
        word = next(cell for cell, number in zip(cells, are, strict=True) if not number)
        raise InputError(f"{file}: column {name} holds {word!r} among numbers; right would be numbers alone")
    words = sorted(set(cells))
    if len(words) > WORDS:
        raise InputError(
            f"{file}: column {name} holds {len(words)} different words; right would be numbers or at most {WORDS} "
            "words; leave the column out"
        )
    return words


def _is_number(cell: str) -> bool:
    try:
        return not math.isnan(float(cell)) and "_" not in cell
    except ValueError:
        return False


def with_targets(
    name: str, rows: np.ndarray, targets: np.ndarray, columns: Sequence[str], target: str, classes: tuple[str, ...]
) -> Table:
    """A table of rows [N, D] and their targets [N], of which a sixth each is for validation and for testing.

    The permutation is fixed. Targets number the `classes`, where there are any.
    """
    order = np.random.RandomState(0).permutation(len(rows))
    held = max(1, round(len(rows) / 6))
    sizes = [len(rows) - 2 * held, held, held]
    x = torch.from_numpy(rows[order].astype(np.float32))
    y = torch.from_numpy(targets[order]).long() if classes else torch.from_numpy(targets[order].astype(np.float32))
    return Table(
        *x.split(sizes),
        targets=Split(*y.split(sizes)),
        classes=classes,
        columns=tuple(columns),
        target=target,
        name=name,
    )
