"""Examples as rows of numbers beside their targets: of a table, or of pictures laid flat."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import Images, Split, Table
from mpcli.kit.datasets.tables import WORDS


@dataclass(frozen=True)
class Rows(Split[Tensor]):
    """Rows [N, D], float32, with targets [N]: float32 numbers, or int64 that number `classes`.

    `columns` names the D columns, `target` the targets; `shape` is that of a picture, of which each row then is one.
    """

    targets: Split[Tensor] = field(kw_only=True)
    classes: tuple[str, ...] = field(kw_only=True)
    columns: tuple[str, ...] = field(kw_only=True)
    target: str = field(default="", kw_only=True)
    shape: tuple[int, int, int] | None = field(default=None, kw_only=True)

    @property
    def outputs(self) -> int:
        """Numbers that a network gives for an example: one a class, or one."""
        return len(self.classes) or 1

    def describe(self, of: str = "examples") -> str:
        """One line: how many examples each part has, of how many numbers, and what their target is."""
        kind = f"one of {len(self.classes)} classes" if self.classes else f"a number, {self.target}"
        return super().describe(f"{of} of {self.train.shape[1]} numbers, target {kind}")


def rows(data: str, width: int | None = None) -> Rows:
    """The examples of a dataset of rows or of pictures.

    Args:
        data: a table with targets, or pictures with classes.
        width: numbers an example that a trained model needs.

    Raises:
        InputError: there is no such dataset, it has no targets, or another width.
    """
    given = datasets.load(data, Table, Images)
    if isinstance(given, Images):
        if given.labels is None:
            raise InputError(f"{data}: has no classes; right would be pictures in folders of two classes or more")
        parts = [x[:].flatten(1) for x in given.parts().values()]
        names = tuple(f"pixel{i}" for i in range(parts[0].shape[1]))
        targets, target, shape = given.labels, "class", given.shape
    else:
        if given.targets is None:
            raise InputError(f"{data}: its rows have no target; right would be a table with one, such as diabetes")
        parts = list(given.parts().values())
        names = given.columns or tuple(f"x{i + 1}" for i in range(given.train.shape[1]))
        targets, target, shape = given.targets, given.target, None
    of_width(data, parts[0], width)
    return Rows(
        *parts, targets=targets, classes=given.classes, columns=names, target=target, shape=shape, name=given.name
    )


def of_width(data: str, x: Tensor, width: int | None) -> None:
    """Refuse examples [N, D] of another D than a trained model needs; None takes any."""
    if width not in (None, x.shape[1]):
        raise InputError(f"{data}: has {x.shape[1]} numbers an example, but the model was trained on {width}")


def classified(data: str, given: Rows, most: int = WORDS) -> Rows:
    """The same rows, where targets that are numbers, and at most `most` different ones, are classes.

    Raises:
        InputError: there are more, or only one.
    """
    if given.classes:
        return given
    parts = list(given.targets.parts().values())
    values = torch.cat(parts).unique()
    if not 2 <= len(values) <= most:
        found = f"{len(values)} different numbers" if len(values) > 1 else "one number"
        right = "two classes" if most == 2 else "classes"
        raise InputError(f"{data}: its target {given.target} is {found}; right would be {right}")
    names = tuple(f"{value:g}" for value in values.tolist())
    numbers = Split(*(torch.searchsorted(values, part) for part in parts))
    return replace(given, targets=numbers, classes=names)


class Standard(nn.Module):
    """(x - centre) / scale for each column, in float64; what was measured on training rows serves all others.

    As made it changes nothing.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("centre", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(width, dtype=torch.float64))

    def measure(self, x: Tensor) -> None:  # [N, D]
        """Take the mean and the deviation, root mean square, of each column; one that is constant is only shifted."""
        self.centre.copy_(x.double().mean(0))
        deviation = x.double().std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:  # [N, D] -> [N, D]
        return (x.double() - self.centre) / self.scale

    def inverse(self, z: Tensor) -> Tensor:  # [N, D] -> [N, D]
        return z.double() * self.scale + self.centre
