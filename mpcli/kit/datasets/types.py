"""What a dataset is: pictures, a table of numbers, a point cloud, or a scene seen by cameras.

A dataset that comes with its own split keeps it. Where it has none, the split is made by
`numpy.random.RandomState(0).permutation`, or every eighth view of a scene is held out, so that everybody has the same.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mpcli.kit.cameras import Cameras
from mpcli.kit.datasets.split import Paired, Split, moved


@dataclass(frozen=True)
class Pictures:
    """Pictures [N, C, H, W], kept as bytes k and given as k / (levels - 1) in [0, 1], as many as are asked for at once.

    `values` are the bytes, each below `levels`, in memory or on disk; they stay there, and what is asked for comes on
    `device`. Where bytes would be too coarse, `values` are float32 in [0, 1] and are given as they are.
    """

    values: Tensor
    levels: int = 256
    device: torch.device = field(default=torch.device("cpu"), kw_only=True)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> torch.Size:
        """That of `values`."""
        return self.values.shape

    def __getitem__(self, index: Any, /) -> Float[Tensor, "..."]:
        """What a tensor [N, C, H, W] of the pictures would give for this index."""
        some = self.values[index].to(self.device)
        return some if some.is_floating_point() else some.float().div_(self.levels - 1)

    def to(self, device: torch.device | str) -> "Pictures":
        """The same pictures, given on a device."""
        return replace(self, device=torch.device(device))


@dataclass(frozen=True)
class Images(Split[Pictures]):
    """Pictures of one size. Labels, where there are any, number the names in `classes`."""

    labels: Split[Tensor] | None = field(default=None, kw_only=True)
    classes: tuple[str, ...] = field(default=(), kw_only=True)
    name: str = field(default="images", kw_only=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one picture."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def levels(self) -> int:
        """How many evenly spaced values from 0 to 1 a pixel can have."""
        return self.train.levels

    @property
    def labelled(self) -> Split[Paired[Tensor, Tensor]]:
        """The pictures with their labels: batches (x [B, C, H, W], label [B]).

        Raises:
            ValueError: the pictures have no labels.
        """
        if self.labels is None:
            raise ValueError(f"{self.name} has no labels")
        return self.beside(self.labels)

    def describe(self, of: str = "images") -> str:
        """One line: how many pictures each part of the split has, and their shape."""
        return super().describe(f"{of} of {'x'.join(map(str, self.shape))}")


@dataclass(frozen=True)
class Table(Split[Tensor]):
    """Rows [N, D] of D numbers each.

    Targets [N], where there are any, are float32 numbers, or number the names in `classes`. `columns` names the
    columns, and `target` the targets; a table of points has no names.
    """

    targets: Split[Tensor] | None = field(default=None, kw_only=True)
    classes: tuple[str, ...] = field(default=(), kw_only=True)
    columns: tuple[str, ...] = field(default=(), kw_only=True)
    target: str = field(default="", kw_only=True)
    name: str = field(default="table", kw_only=True)

    def describe(self, of: str = "rows") -> str:
        """One line: how many rows each part of the split has, of how many columns, and what is to be told of them."""
        kind = f"one of {len(self.classes)} classes" if self.classes else "a number"
        aim = f", target {self.target} ({kind})" if self.target else ""
        return super().describe(f"{of} of {self.train.shape[1]}{aim}")


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

    def __getitem__(self, index: slice | Tensor, /) -> "Points":
        """Some of the points."""
        normals, colours = (None if of is None else of[index] for of in (self.normals, self.colours))
        return Points(self.xyz[index], normals, colours, self.name)

    def to(self, device: torch.device | str) -> "Points":
        """The same cloud on a device."""
        return moved(self, device)

    def describe(self) -> str:
        """One line: how many points, and what is known of them."""
        known = [what for what in ("normals", "colours") if getattr(self, what) is not None]
        return f"{self.name}: {len(self)} points" + (f" with {' and '.join(known)}" if known else "")


@dataclass(frozen=True)
class Scene:
    """Pictures of one static scene and the cameras that took them.

    `images` are RGB or RGBA (straight, not premultiplied), a view each; `split` says by their indices which views are
    for what, where none may be for validation; `bounds` the nearest and farthest distance along a ray at which there is
    something to see, in scene units; `names` the picture files.
    """

    images: Pictures
    cameras: Cameras
    split: Split[Tensor]
    bounds: tuple[float, float]
    names: tuple[str, ...]
    points: Points | None = None
    name: str = "scene"

    def to(self, device: torch.device | str) -> "Scene":
        """The same scene on a device; the split stays where it is."""
        return replace(moved(self, device), split=self.split)

    def describe(self) -> str:
        """One line: how many views each part of the split has, and their size in pixels."""
        height, width = self.images.shape[2:]
        cloud = f", {len(self.points)} points" if self.points is not None else ""
        return replace(self.split, name=self.name).describe(f"views of {width}x{height}{cloud}")


def every_eighth(views: int) -> Split[Tensor]:
    """The split of a scene that has none: views 0, 8, 16, ... are for testing."""
    index = torch.arange(views)
    return Split(index[index % 8 > 0], index[:0], index[::8])
