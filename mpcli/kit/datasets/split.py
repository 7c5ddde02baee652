"""The one kind of split: training, validation and test examples, and batches as a pure function of (seed, step)."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.randomness import generator

Batch = TypeVar("Batch", covariant=True)
Beside = TypeVar("Beside")
T = TypeVar("T")


def shuffled(n: int, size: int, seed: int) -> Callable[[int], Int64[Tensor, " size"]]:
    """Batches of indices into `n` items, as a pure function of the step.

    Shuffled epochs stand one behind the other and are cut into pieces of `size`: every item comes once in every n
    draws, every batch is full, and one may reach over the end of an epoch into the next.
    """
    if n < 1 or size < 1:
        raise ValueError(f"cannot draw batches of {size} from {n} items")
    known: dict[int, Tensor] = {}

    def permutation(epoch: int) -> Tensor:
        if epoch not in known:
            while len(known) > 1:
                known.pop(next(iter(known)))
            known[epoch] = torch.randperm(n, generator=generator(seed, epoch))
        return known[epoch]

    def batch(step: int) -> Tensor:
        position, end, pieces = step * size, (step + 1) * size, []
        while position < end:
            epoch, offset = divmod(position, n)
            pieces.append(permutation(epoch)[offset : offset + end - position])
            position += len(pieces[-1])
        return torch.cat(pieces)

    return batch


def hold_out(parts: dict[str, list[T]], sizes: dict[str, int], source: object) -> None:
    """Fill the parts that are not there from the training examples, by a fixed permutation, in the order of `sizes`.

    Raises:
        InputError: no picture would be left to learn from.
    """
    train = parts["train"]
    missing = [part for part in sizes if not parts.get(part)]
    kept = len(train) - sum(sizes[part] for part in missing)
    if kept < 1:
        raise InputError(f"{source}: {len(train)} pictures are too few to hold some out; right would be 3 or more")
    order = np.random.RandomState(0).permutation(len(train)) if missing else np.arange(len(train))
    parts["train"] = [train[i] for i in order[:kept]]
    for part in missing:
        parts[part] = [train[i] for i in order[kept : kept + sizes[part]]]
        kept += sizes[part]


def moved(item: Any, device: torch.device | str) -> Any:
    """The same dataclass with every field on a device that can be moved to one."""
    return replace(item, **{f.name: v.to(device) for f in fields(item) if hasattr(v := getattr(item, f.name), "to")})


@runtime_checkable
class Part(Protocol[Batch]):
    """Examples of one kind, such as a tensor [N, ...]: how many there are, and some of them, as a batch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor, /) -> Batch: ...


P = TypeVar("P", bound=Part[Any], covariant=True)
Same = TypeVar("Same", bound="Split[Any]")


@dataclass(frozen=True)
class Paired(Generic[Batch, Beside]):
    """Two parts side by side, example by example; some of them are a pair of batches."""

    first: Part[Batch]
    second: Part[Beside]

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: slice | Tensor, /) -> tuple[Batch, Beside]:
        return self.first[index], self.second[index]

    def to(self, device: torch.device | str) -> "Paired[Batch, Beside]":
        """The same pairs on a device."""
        return moved(self, device)


@dataclass(frozen=True)
class Split(Generic[P]):
    """Examples to learn from, to choose by, and to judge by, in parts of equal kind.

    What a part holds is its own affair: pictures, rows, points, windows of a text or of a recording, or pairs of these.
    """

    train: P
    validation: P
    test: P
    name: str = field(default="data", kw_only=True)

    def parts(self) -> dict[str, P]:
        """The parts by their names."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def batches(self: "Split[Part[Batch]]", size: int, seed: int) -> Callable[[int], Batch]:
        """Training batches as a pure function of the step: shuffled epochs, see `shuffled`."""
        index = shuffled(len(self.train), size, seed)
        return lambda step: self.train[index(step)]

    def beside(self: "Split[Part[Batch]]", other: "Split[Part[Beside]]") -> "Split[Paired[Batch, Beside]]":
        """Each example with its own of another split (a label, a mask, a caption): a batch is a pair of batches."""
        mine, theirs = self.parts(), other.parts()
        return Split(*(Paired(mine[part], theirs[part]) for part in mine), name=self.name)

    def to(self: Same, device: torch.device | str) -> Same:
        """The same examples on a device."""
        return moved(self, device)

    def describe(self, of: str = "examples") -> str:
        """One line: how many examples each part has."""
        counts = ", ".join(f"{len(examples)} {part}" for part, examples in self.parts().items())
        return f"{self.name}: {counts} {of}"
