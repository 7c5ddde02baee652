"""What a dataset is: pictures, a table of numbers, a point cloud, or a scene seen by cameras.

A dataset that comes with its own split keeps it. Where it has none, the split is made by
`numpy.random.RandomState(0).permutation`, or every eighth view of a scene is held out, so that everybody has the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mpcli.kit.cameras import Cameras

Self = TypeVar("Self", "Images", "Table", "Points", "Scene")


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
            state = np.random.SeedSequence((seed % 2**64, epoch)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0]) >> 1)
            known[epoch] = torch.randperm(n, generator=generator)
        return known[epoch]

    def batch(step: int) -> Tensor:
        position, end, pieces = step * size, (step + 1) * size, []
        while position < end:
            epoch, offset = divmod(position, n)
            pieces.append(permutation(epoch)[offset : offset + end - position])
            position += len(pieces[-1])
        return torch.cat(pieces)

    return batch


def _moved(item: Self, device: torch.device | str) -> Self:
    moved: dict[str, Any] = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, (Tensor, Cameras, Points)):
            moved[field.name] = value.to(device)
    return replace(item, **moved)


@dataclass(frozen=True)
class Images:
    """Pictures of one size with values in [0, 1], of which each takes one of `levels` evenly spaced ones.

    Labels, where there are any, number the names in `classes`.
    """

    train: Float[Tensor, "train channels height width"]
    validation: Float[Tensor, "validation channels height width"]
    test: Float[Tensor, "test channels height width"]
    train_labels: Int64[Tensor, " train"] | None = None
    validation_labels: Int64[Tensor, " validation"] | None = None
    test_labels: Int64[Tensor, " test"] | None = None
    levels: int = 256
    classes: tuple[str, ...] = ()
    name: str = "images"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one picture."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> "Images":
        """The same pictures on a device."""
        return _moved(self, device)

    def batches(self, size: int, seed: int) -> Callable[[int], Float[Tensor, "size channels height width"]]:
        """Training batches as a pure function of the step: shuffled epochs, see `shuffled`."""
        index = shuffled(len(self.train), size, seed)
        return lambda step: self.train[index(step).to(self.train.device)]

    def labelled_batches(
        self, size: int, seed: int
    ) -> Callable[[int], tuple[Float[Tensor, "size channels height width"], Int64[Tensor, " size"]]]:
        """The batches of `batches(size, seed)`, each with its labels.

        Raises:
            ValueError: the pictures have no labels.
        """
        labels = self.train_labels
        if labels is None:
            raise ValueError(f"{self.name} has no labels")
        index = shuffled(len(self.train), size, seed)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            chosen = index(step).to(self.train.device)
            return self.train[chosen], labels[chosen]

        return batch

    def describe(self) -> str:
        """One line: how many pictures each part of the split has, and their shape."""
        return f"{self.name}: {_counts(self)} images of {'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class Table:
    """Rows of D numbers each."""

    train: Float[Tensor, "train columns"]
    validation: Float[Tensor, "validation columns"]
    test: Float[Tensor, "test columns"]
    name: str = "table"

    def to(self, device: torch.device | str) -> "Table":
        """The same rows on a device."""
        return _moved(self, device)

    def batches(self, size: int, seed: int) -> Callable[[int], Float[Tensor, "size columns"]]:
        """Training batches as a pure function of the step: shuffled epochs, see `shuffled`."""
        index = shuffled(len(self.train), size, seed)
        return lambda step: self.train[index(step).to(self.train.device)]

    def describe(self) -> str:
        """One line: how many rows each part of the split has, and of how many columns."""
        return f"{self.name}: {_counts(self)} rows of {self.train.shape[1]}"


def _counts(data: Images | Table) -> str:
    return f"{len(data.train)} train, {len(data.validation)} validation, {len(data.test)} test"


@dataclass(frozen=True)
class Points:
    """A point cloud in its own unit of length, with unit normals and colours in [0, 1] where it has them.

    A normal that is not known is zero.
    """

    xyz: Float[Tensor, "points 3"]
    normals: Float[Tensor, "points 3"] | None = None
    colours: Float[Tensor, "points 3"] | None = None
    name: str = "points"

    def __len__(self) -> int:
        return len(self.xyz)

    def to(self, device: torch.device | str) -> "Points":
        """The same cloud on a device."""
        return _moved(self, device)

    def describe(self) -> str:
        """One line: how many points, and what is known of them."""
        known = [what for what in ("normals", "colours") if getattr(self, what) is not None]
        return f"{self.name}: {len(self)} points" + (f" with {' and '.join(known)}" if known else "")


@dataclass(frozen=True)
class Scene:
    """Pictures of one static scene and the cameras that took them.

    `images` holds RGB or RGBA (straight, not premultiplied) in [0, 1]; `split` the indices of the "train",
    "validation" and "test" views, where "validation" may be empty; `bounds` the nearest and farthest distance along
    a ray at which there is something to see, in scene units; `names` the picture files.
    """

    images: Float[Tensor, "views channels height width"]
    cameras: Cameras
    split: dict[str, Tensor]
    bounds: tuple[float, float]
    names: tuple[str, ...]
    points: Points | None = None
    name: str = "scene"

    def to(self, device: torch.device | str) -> "Scene":
        """The same scene on a device; the split stays where it is."""
        return _moved(self, device)

    def describe(self) -> str:
        """One line: how many views each part of the split has, and their size in pixels."""
        counts = ", ".join(f"{len(self.split[part])} {part}" for part in ("train", "validation", "test"))
        height, width = self.images.shape[2:]
        cloud = f", {len(self.points)} points" if self.points is not None else ""
        return f"{self.name}: {counts} views of {width}x{height}{cloud}"


def every_eighth(views: int) -> dict[str, Tensor]:
    """The split of a scene that has none: views 0, 8, 16, ... are for testing."""
    index = torch.arange(views)
    return {"train": index[index % 8 > 0], "validation": index[:0], "test": index[::8]}
