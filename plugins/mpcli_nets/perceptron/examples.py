"""Examples of two classes: of a table, of pictures, or four points of the plane."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets import Split
from mpcli_nets.kit.rows import classified, of_width, rows

POINTS = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
TRUTH = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "xor": [0, 1, 1, 0]}


@dataclass(frozen=True)
class TwoClasses(Split[Tensor]):
    """Rows [N, D] of two classes, with targets 0 and 1 [N] that number `classes`.

    `shape` is that of a picture, of which each row then is one; `standardised` says that columns have units of their
    own, and are to be standardised.
    """

    targets: Split[Tensor] = field(kw_only=True)
    classes: tuple[str, str] = field(kw_only=True)
    columns: tuple[str, ...] = field(kw_only=True)
    shape: tuple[int, int, int] | None = field(default=None, kw_only=True)
    standardised: bool = field(default=True, kw_only=True)

    def describe(self, of: str = "examples") -> str:
        """One line: how many examples each part has, of how many numbers, and the classes."""
        return super().describe(f"{of} of {self.train.shape[1]} numbers, {self.classes[0]} or {self.classes[1]}")


def two_classes(data: str, classes: str = "", columns: int | None = None) -> TwoClasses:
    """The examples of two classes that a dataset has.

    Args:
        data: dataset of rows or pictures with classes, or the name of four points.
        classes: two names with a comma between; the first two of the dataset where it is empty.
        columns: numbers an example that a trained model needs.

    Raises:
        InputError: there is no such dataset, it has no two classes, or not those that are named.
    """
    found = _points(data, classes) if data in TRUTH else _loaded(data, classes)
    of_width(data, found.train, columns)
    return found


def _points(name: str, classes: str) -> TwoClasses:
    if classes:
        raise InputError(f"--classes {classes}: {name} has the classes false and true alone; leave it out")
    x, t = torch.tensor(POINTS), torch.tensor(TRUTH[name])
    return TwoClasses(
        x, x, x, targets=Split(t, t, t), classes=("false", "true"), columns=("x1", "x2"), standardised=False, name=name
    )


def _loaded(data: str, classes: str) -> TwoClasses:
    given = classified(data, rows(data), most=2)
    names, labels = given.classes, given.targets.parts()
    pair = tuple(name.strip() for name in classes.split(",")) if classes else names[:2]
    if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(names):
        right = f"two of {', '.join(names[:20])}" if len(names) > 1 else "data of two classes"
        raise InputError(f"{data}: has no classes {','.join(pair)!r}; right would be {right}")
    numbers = [names.index(name) for name in pair]
    x, t = [], []
    for part, label in labels.items():
        chosen = (label == numbers[0]) | (label == numbers[1])
        x.append(given.parts()[part][chosen])
        t.append((label[chosen] == numbers[1]).long())
        if not chosen.any():
            raise InputError(
                f"{data}: its {part} part has none of {' and '.join(pair)}; right would be examples of them"
            )
    return TwoClasses(
        *x,
        targets=Split(*t),
        classes=(pair[0], pair[1]),
        columns=given.columns,
        shape=given.shape,
        standardised=given.shape is None,
        name=given.name,
    )
