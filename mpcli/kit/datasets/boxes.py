"""`boxes:FILE`: pictures with boxes around objects, annotated as COCO does for detection.

Pictures are scaled so that their longer side has 128 pixels (`boxes:FILE@256`: 256), and laid at the top left of a
black square; boxes go with them. FILE is JSON; the pictures lie beside it, in a folder images beside it, or where COCO
has them: annotations/instances_val2017.json and val2017/.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets.files import inside, located_with_size, planes, read_image, read_json, there
from mpcli.kit.datasets.split import Split, hold_out
from mpcli.kit.datasets.types import Pictures
from mpcli.notices import notice
from mpcli.run import watched

SIDE = 128


@dataclass(frozen=True)
class Boxed:
    """Pictures, of each its boxes [M, 4], float32 (left, top, right, bottom) in pixels, with classes [M], int64."""

    pictures: Pictures
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: slice | Tensor, /) -> "Boxed":
        """Some of the pictures."""
        numbers = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        some = replace(self.pictures, values=self.pictures.values[index])
        return Boxed(some, tuple(self.boxes[i] for i in numbers), tuple(self.labels[i] for i in numbers))

    def to(self, device: torch.device | str) -> "Boxed":
        """The same pictures on a device."""
        boxes, labels = (tuple(x.to(device) for x in of) for of in (self.boxes, self.labels))
        return Boxed(self.pictures.to(device), boxes, labels)


@dataclass(frozen=True)
class Boxes(Split[Boxed]):
    """Pictures of one size with boxes, each of one of `classes`."""

    classes: tuple[str, ...] = field(kw_only=True)
    name: str = field(default="boxes", kw_only=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one picture."""
        channels, height, width = self.train.pictures.shape[1:]
        return channels, height, width

    def describe(self, of: str = "pictures") -> str:
        """One line: how many pictures each part has, their shape, boxes and classes."""
        boxes = sum(len(x) for part in self.parts().values() for x in part.boxes)
        size = "x".join(map(str, self.shape))
        return super().describe(f"{of} of {size} with {boxes} boxes, of {len(self.classes)} classes")


def boxes(argument: str) -> Boxes:
    """RGB. A fixed permutation holds out a tenth of the pictures each for validation and testing.

    Raises:
        InputError: the file is none of COCO's for detection, pictures are missing or damaged, or too few.
    """
    path, size = located_with_size("boxes", argument, folder=False, least=8, most=2**12)
    side = size or SIDE
    tree = read_json(path)
    categories = {_whole(path, of, "id"): str(of.get("name", of["id"])) for of in _rows(path, tree, "categories")}
    numbers = {category: number for number, category in enumerate(sorted(categories))}
    files = {_whole(path, of, "id"): str(of.get("file_name", "")) for of in _rows(path, tree, "images")}
    found = _annotations(path, _rows(path, tree, "annotations"), set(files), numbers)
    if len(files) < 3 or not found:
        raise InputError(f"{path}: has {len(files)} pictures and {len(found)} with boxes; right would be 3 or more")
    tenth = max(1, len(files) // 10)
    split = {"train": list(files)}
    hold_out(split, {"validation": tenth, "test": tenth}, path)
    order = [image for of in ("train", "validation", "test") for image in split[of]]
    pixels = np.zeros((len(order), 3, side, side), np.uint8)
    coordinates, labels = [], []
    for row, image in enumerate(watched(order, "decoding pictures")):
        x, scale = _scaled(_located(path, files[image]), side)
        pixels[row, :, : x.shape[1], : x.shape[2]] = x
        mine = torch.tensor([box for box, _ in found[image]], dtype=torch.float32).reshape(-1, 4) * scale
        limit = torch.tensor([x.shape[2], x.shape[1]] * 2, dtype=torch.float32)
        mine = torch.minimum(mine.clamp(min=0), limit)
        # A pixel of the scaled picture is the least that can be seen.
        kept = ((mine[:, 2:] - mine[:, :2]) >= 1).all(1)
        coordinates.append(mine[kept])
        labels.append(torch.tensor([label for _, label in found[image]], dtype=torch.int64)[kept])
    lost = sum(map(len, found.values())) - sum(map(len, coordinates))
    if lost:
        notice(f"{path}: {lost} boxes are smaller than a pixel at {side} pixels and are left out")
    parts, begin = [], 0
    for of in ("train", "validation", "test"):
        some = slice(begin, begin := begin + len(split[of]))
        values = Pictures(torch.from_numpy(pixels[some]))
        parts.append(Boxed(values, tuple(coordinates[some]), tuple(labels[some])))
    classes = tuple(categories[category] for category in sorted(categories))
    return Boxes(*parts, classes=classes, name=path.stem)


def _rows(path: Path, tree: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = tree.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: has no list {name}; right would be COCO's images, annotations and categories")
    return rows


def _whole(path: Path, row: dict[str, Any], name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{path}: has an entry whose {name} is {value!r}; right would be a whole number")
    return value


def _annotations(
    path: Path, rows: list[dict[str, Any]], images: set[int], numbers: dict[int, int]
) -> dict[int, list[tuple[list[float], int]]]:
    """Of each picture its boxes (left, top, right, bottom) with the numbers of their classes; crowds are left out."""
    found: dict[int, list[tuple[list[float], int]]] = defaultdict(list)
    for row in rows:
        image, category = _whole(path, row, "image_id"), _whole(path, row, "category_id")
        box = row.get("bbox")
        if image not in images or category not in numbers:
            what = f"picture {image}" if image not in images else f"category {category}"
            raise InputError(f"{path}: an annotation names {what}, which is not listed; right would be one of its list")
        if not isinstance(box, list) or len(box) != 4 or not all(_number(x) for x in box):
            raise InputError(
                f"{path}: picture {image} has the bbox {str(box)[:60]}; right would be [x, y, width, height]"
            )
        if not row.get("iscrowd"):
            left, top, width, height = map(float, box)
            found[image].append(([left, top, left + width, top + height], numbers[category]))
    return found


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def _located(path: Path, name: str) -> Path:
    """The picture of that name: beside the file, in images, or in the folder that the end of the file's name tells."""
    beside = [path.parent, path.parent / "images", path.parent.parent / path.stem.rpartition("_")[2]]
    for folder in beside:
        if name and there(found := inside(folder, name, path)):
            return found
    raise InputError(f"{path}: there is no picture {name!r} beside it; right would be {beside[0]} or {beside[1]}")


def _scaled(path: Path, side: int) -> tuple[np.ndarray, float]:
    """Bytes [3, H, W] of a picture whose longer side has that many pixels, and what it was scaled by."""
    image = read_image(path, "RGB", upright=True)
    scale = side / max(image.size)
    width, height = (max(1, min(side, round(length * scale))) for length in image.size)
    return planes(image.resize((width, height), Image.Resampling.LANCZOS)), scale
