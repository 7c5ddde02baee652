"""Data judged at the door: no page trains for an hour on what was wrong from the start."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets.boxes import Boxes
from mpcli.kit.datasets.eyes import Gazes
from mpcli.kit.datasets.masks import Segmentation
from mpcli.kit.datasets.split import Paired, Split
from mpcli.kit.datasets.types import Images, Pictures, Points, Scene, Table


def admit(spec: str, data: Any) -> None:
    """Hold a dataset against what a page can rely on.

    Numbers are finite and float32, pictures bytes or in [0, 1], labels name a class each; every part of a split has an
    example (of a scene, those for training and for testing), all of one shape.

    Raises:
        InputError: it is otherwise.
    """
    for where, wrong, right in _faults("", data):
        raise InputError(f"{spec}: {where or 'it'} {wrong}; right would be {right}")


def _faults(where: str, value: Any) -> Iterator[tuple[str, str, str]]:
    """(where, what is wrong, what would be right), as they are found."""
    if isinstance(value, Tensor):
        yield from _numbers(where, value)
    elif isinstance(value, Pictures):
        yield from _pictures(where, value)
    elif type(value).__name__ == "Trimesh":
        if len(value.faces) == 0 or not np.isfinite(value.vertices).all():
            yield where, "has no face, or vertices that are not finite", "a mesh of triangles"
    elif is_dataclass(value):
        for of in fields(value):
            yield from _faults(f"{where} {of.name}".strip(), getattr(value, of.name))
        if isinstance(value, (Points, Scene, Split)):
            yield from _whole(where, value)
        if isinstance(value, Segmentation):
            yield from _masks(value)
        if isinstance(value, Boxes):
            yield from _boxes(value)
        if isinstance(value, Gazes):
            yield from _directions(value)
        if isinstance(value, Images):
            yield from _beside(value, "labels", value.labels, torch.int64, value.classes)
        if isinstance(value, Table):
            yield from _columns(value)
            kind = torch.int64 if value.classes else torch.float32
            yield from _beside(value, "targets", value.targets, kind, value.classes)


def _numbers(where: str, x: Tensor) -> Iterator[tuple[str, str, str]]:
    if x.is_floating_point() and x.dtype != torch.float32:
        yield where, f"is {str(x.dtype).removeprefix('torch.')}", "float32"
    if x.is_floating_point() and not x.isfinite().all():
        yield where, "has a number that is not finite", "finite numbers"


def _pictures(where: str, pictures: Pictures) -> Iterator[tuple[str, str, str]]:
    x, levels = pictures.values, pictures.levels
    if x.ndim != 4 or 0 in x.shape[1:]:
        yield where, f"has the shape {list(x.shape)}", "[pictures, channels, height, width]"
    elif not 2 <= levels <= 256:
        yield where, f"has {levels} levels", "2 to 256"
    elif x.dtype == torch.uint8:
        if levels < 256 and len(x) and x.max() >= levels:
            yield where, f"has a byte of {int(x.max())} with {levels} levels", f"0 to {levels - 1}"
    elif x.dtype != torch.float32:
        yield where, f"is {str(x.dtype).removeprefix('torch.')}", "uint8, or float32 in [0, 1]"
    # Written so that nan, which is not in [0, 1], is found too.
    elif len(x) and not (x.min() >= 0 and x.max() <= 1):
        yield where, f"has values from {float(x.min()):g} to {float(x.max()):g}", "pictures in [0, 1]"


def _whole(where: str, data: Points | Scene | Split[Any]) -> Iterator[tuple[str, str, str]]:
    if isinstance(data, Points):
        if len(data) == 0:
            yield where, "has no point", "at least one"
        if data.colours is not None and not (data.colours.min() >= 0 and data.colours.max() <= 1):
            yield f"{where} colours".strip(), "has values outside [0, 1]", "colours in [0, 1]"
        return
    if isinstance(data, Scene):
        views, near, far = len(data.images), *data.bounds
        index = torch.cat(list(data.split.parts().values()))
        if len(data.cameras) != views or (len(index) and not 0 <= int(index.min()) <= int(index.max()) < views):
            yield where, f"has {views} pictures for its cameras and its split", "a camera a picture, and their numbers"
        if not 0 <= near < far < float("inf"):
            yield f"{where} bounds".strip(), f"is {near:g} to {far:g}", "two distances, the nearer one first"
        return
    for part, examples in data.parts().items():
        # Views for validation are a luxury of scenes that come with them.
        if len(examples) == 0 and not (where == "split" and part == "validation"):
            yield f"{where} {part}".strip(), "is empty", "at least one example"
        if isinstance(examples, Paired) and len(examples.first) != len(examples.second):
            yield f"{where} {part}".strip(), f"pairs {len(examples.first)} with {len(examples.second)}", "one each"
        if isinstance(data, Images) and not isinstance(examples, Pictures):
            yield part, f"is of kind {type(examples).__name__}", "Pictures"
    if isinstance(data, (Images, Table)):
        shapes = {part: list(examples.shape[1:]) for part, examples in data.parts().items()}
        for part, shape in shapes.items():
            if shape != shapes["train"]:
                yield part, f"is of shape {shape} and train of {shapes['train']}", "one shape"


def _boxes(data: Boxes) -> Iterator[tuple[str, str, str]]:
    height, width = data.shape[1:]
    for name, part in data.parts().items():
        if not len(part.pictures) == len(part.boxes) == len(part.labels) or part.pictures.shape[1:] != data.shape:
            yield name, f"has boxes for {len(part)} of {len(part.pictures)} pictures", "one shape, and boxes for each"
        for boxes, labels in zip(part.boxes, part.labels, strict=True):
            right = torch.tensor([width, height, width, height], dtype=boxes.dtype)
            if boxes.shape != (len(labels), 4) or (boxes < 0).any() or (boxes > right).any():
                yield f"{name} boxes", f"has boxes {list(boxes.shape)}", "[left, top, right, bottom] inside the picture"
            elif (boxes[:, 2:] <= boxes[:, :2]).any():
                yield f"{name} boxes", "has an empty box", "left < right and top < bottom"
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(data.classes):
                yield f"{name} labels", f"goes to {int(labels.max())} with {len(data.classes)} classes", "`classes`"


def _directions(data: Gazes) -> Iterator[tuple[str, str, str]]:
    for name, part in data.parts().items():
        length = data.directions.parts()[name].norm(dim=-1)
        if length.shape != (len(part),) or not torch.allclose(length, torch.ones(len(part)), atol=1e-4):
            yield f"directions {name}", f"has the shape {list(length.shape)} or other lengths", "1, one an eye"


def _masks(data: Segmentation) -> Iterator[tuple[str, str, str]]:
    channels = {len(x) for part in data.parts().values() for x in part.pictures}
    if len(channels) > 1:
        yield "pictures", f"have {' and '.join(map(str, sorted(channels)))} channels", "one number of channels"
    for name, part in data.parts().items():
        instances = part.masks if part.instances is None else part.instances
        if not len(part.pictures) == len(part.masks) == len(instances):
            yield name, f"has {len(part.masks)} masks for {len(part)} pictures", "one each"
        for x, mask, numbers in zip(part.pictures, part.masks, instances, strict=True):
            if x.dtype != torch.uint8 or mask.dtype != torch.uint8 or x.ndim != 3:
                yield name, f"has a picture {list(x.shape)} of {x.dtype}", "bytes [C, H, W], and masks of bytes"
            if not x.shape[1:] == mask.shape == numbers.shape:
                yield name, f"has a mask {list(mask.shape)} for a picture {list(x.shape)}", "one size"
            if mask.numel() and mask.max() >= len(data.classes):
                yield f"{name} masks", f"have the value {int(mask.max())} with {len(data.classes)} classes", "`classes`"


def _columns(table: Table) -> Iterator[tuple[str, str, str]]:
    width = table.train.shape[1]
    if table.columns and len(table.columns) != width:
        yield "columns", f"names {len(table.columns)} of {width} columns", "a name each"


def _beside(
    data: Split[Any], where: str, values: Split[Tensor] | None, kind: torch.dtype, classes: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    """Faults of what stands beside the examples, one value each; whole numbers are those of classes."""
    for part, numbers in (values.parts() if values else {}).items():
        examples = len(data.parts()[part])
        if numbers.dtype != kind or numbers.shape != (examples,):
            right = f"{str(kind).removeprefix('torch.')} [{examples}], one an example"
            yield f"{where} {part}", f"is {list(numbers.shape)} of {numbers.dtype}", right
        elif kind == torch.int64 and (numbers.min() < 0 or numbers.max() >= len(classes)):
            found = f"{int(numbers.min())} to {int(numbers.max())}"
            yield f"{where} {part}", f"goes from {found} with {len(classes)} classes", "numbers of `classes`"
