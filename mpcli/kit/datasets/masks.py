"""`segmentation:DIR`: pictures in DIR/images, the class of each pixel in DIR/masks, its object in DIR/instances.

A mask has the name of its picture, with `_mask` behind it or not. Each value that masks have is a class, the lowest
first: 0 and 1, 0 and 255, a palette's numbers, colours. In instances 0 is no object and any other number is one; where
there are instances, masks may be missing. Subfolders train, validation (or val) and test, laid out so themselves, are
taken as the split. Pictures may have any sizes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets.files import PICTURES, is_grey, located, open_image, planes, read_image
from mpcli.kit.datasets.folder import SPLIT, folders_in, pictures_in
from mpcli.kit.datasets.split import Split, hold_out
from mpcli.notices import notice
from mpcli.run import watched

MOST = 64  # classes


@dataclass(frozen=True)
class Masked:
    """Pictures of any sizes beside their masks.

    Of each picture the bytes [C, H, W], the class of every pixel, bytes [H, W], and where it is known the number of its
    object, int32 [H, W], 0 where there is none.
    """

    pictures: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    instances: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: slice | Tensor, /) -> "Masked":
        """Some of the pictures."""
        numbers = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        return self._each(lambda all_of: tuple(all_of[i] for i in numbers))

    def to(self, device: torch.device | str) -> "Masked":
        """The same pictures on a device."""
        return self._each(lambda all_of: tuple(x.to(device) for x in all_of))

    def _each(self, change: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]) -> "Masked":
        instances = None if self.instances is None else change(self.instances)
        return Masked(change(self.pictures), change(self.masks), instances)


@dataclass(frozen=True)
class Segmentation(Split[Masked]):
    """Pictures whose every pixel has one of `classes`, of which the first is what lies behind the others."""

    classes: tuple[str, ...] = field(kw_only=True)
    name: str = field(default="segmentation", kw_only=True)

    @property
    def channels(self) -> int:
        """Of every picture."""
        return len(self.train.pictures[0])

    def describe(self, of: str = "pictures") -> str:
        """One line: how many pictures each part has, their sizes and classes."""
        sizes = sorted({x.shape[1:] for part in self.parts().values() for x in part.pictures})
        first, last = ("x".join(map(str, size)) for size in (sizes[0], sizes[-1]))
        span = first if first == last else f"{first} to {last}"
        objects = ", their objects told apart" if self.test.instances is not None else ""
        return super().describe(f"{of} of {span}, of {len(self.classes)} classes{objects}")


@dataclass(frozen=True)
class _Files:
    """Those of one picture."""

    picture: Path
    mask: Path | None
    instances: Path | None


def segmentation(argument: str) -> Segmentation:
    """Grey where all pictures are grey, RGB otherwise.

    Where the folder has no split, a fixed permutation holds out a quarter for testing and a twentieth for validation.

    Raises:
        InputError: pictures or masks are missing or damaged, their sizes differ, or masks have more values than classes
            can be.
    """
    folder = located("segmentation", argument, folder=True)
    parts = {SPLIT[path.name]: _collect(path) for path in folders_in(folder) if path.name in SPLIT}
    if "train" not in parts:
        parts = {"train": _collect(folder)}
    n = len(parts["train"])
    hold_out(parts, {"test": max(1, n // 4), "validation": max(1, n // 20)}, folder)
    files = [found for part in ("train", "validation", "test") for found in parts[part]]
    grey = True
    for found in files:
        with open_image(found.picture) as image:
            grey = grey and is_grey(image)
    pictures: list[Tensor] = []
    codes: list[np.ndarray] = []
    instances: list[np.ndarray] = []
    for found in watched(files, "decoding pictures"):
        x = planes(read_image(found.picture, "L" if grey else "RGB", upright=True))
        pictures.append(torch.tensor(x))
        for path, into in ((found.mask, codes), (found.instances, instances)):
            if path is not None:
                into.append(_values(path, x.shape[1:], found.picture))
    if codes:
        masks, classes = _classes([found.mask for found in files if found.mask], codes)
    else:
        masks, classes = [torch.from_numpy((x > 0).astype(np.uint8)) for x in instances], ("background", "object")
    objects = [numbered(numbers) for numbers in instances]
    split, begin = [], 0
    for part in ("train", "validation", "test"):
        some = slice(begin, begin := begin + len(parts[part]))
        split.append(Masked(tuple(pictures[some]), tuple(masks[some]), tuple(objects[some]) if objects else None))
    return Segmentation(*split, classes=classes, name=folder.name or "segmentation")


def _collect(folder: Path) -> list[_Files]:
    """The pictures of a folder, each with its mask, its instances or both."""
    images, masks, instances = (folder / name for name in ("images", "masks", "instances"))
    if not images.is_dir() or not (masks.is_dir() or instances.is_dir()):
        missing = "images" if not images.is_dir() else "masks"
        right = f"{folder / 'images'} and {folder / 'masks'}"
        raise InputError(f"{folder}: has no folder {missing}; right would be {right}")
    pictures = pictures_in(images)
    if not pictures:
        raise InputError(f"{images}: has no picture; right would be {PICTURES} files")
    beside = [_by_stem(of) if of.is_dir() else None for of in (masks, instances)]
    found = []
    for path in pictures:
        both = []
        for where, of in zip((masks, instances), beside, strict=True):
            if of is not None and path.stem not in of:
                raise InputError(f"{path}: has no mask; right would be {where / path.stem}.png")
            both.append(None if of is None else of[path.stem])
        found.append(_Files(path, *both))
    unused = max(len(of or ()) for of in beside) - len(pictures)
    if unused > 0:
        notice(f"{folder}: {unused} masks have no picture and are left out")
    return found


def _by_stem(folder: Path) -> dict[str, Path]:
    return {path.stem.removesuffix("_mask").removesuffix("_masks"): path for path in pictures_in(folder)}


def _values(path: Path, size: tuple[int, int], picture: Path) -> np.ndarray:
    """A number for each pixel, int64 [H, W]: grey value, place in the palette, or colour.

    Raises:
        InputError: it is damaged, or of another size than its picture.
    """
    with open_image(path) as image:
        if (image.height, image.width) != size:
            raise InputError(
                f"{path}: is {image.width}x{image.height} and {picture.name} is {size[1]}x{size[0]}; "
                "right would be a mask of the same size"
            )
        if is_grey(image) or image.mode == "P":
            try:
                return np.asarray(image).astype(np.int64)
            except Exception as error:
                raise InputError(f"{path}: is damaged; right would be a whole picture") from error
    red, green, blue = planes(read_image(path, "RGB")).astype(np.int64)
    if (red == green).all() and (red == blue).all():
        return red
    return red << 16 | green << 8 | blue


def numbered(values: np.ndarray) -> Tensor:
    """int32 [H, W]: 0 where 0 was, and every other value as 1, 2, ..."""
    found, numbers = np.unique(values, return_inverse=True)
    return torch.from_numpy(numbers.reshape(values.shape).astype(np.int32) + int(found[0] > 0))


def _classes(paths: list[Path], codes: list[np.ndarray]) -> tuple[list[Tensor], tuple[str, ...]]:
    """Bytes [H, W] that number the values of all masks, the lowest first, and their names.

    Raises:
        InputError: a mask has more values than classes can be, or all have one.
    """
    values: set[int] = set()
    for path, found in zip(paths, codes, strict=True):
        mine = np.unique(found)
        values |= set(mine.tolist())
        if len(mine) > MOST or len(values) > MOST:
            raise InputError(
                f"{path}: has {len(mine)} different values, as JPEG makes them; right would be one a class, such as 0 "
                "and 255, in a PNG file"
            )
    if len(values) < 2:
        one = values.pop()
        raise InputError(f"{paths[0].parent}: all masks are {one} everywhere; right would be two classes or more")
    if values == {0, 1, 255} and not any({1, 255} <= set(np.unique(found).tolist()) for found in codes):
        codes, values = [np.minimum(found, 1) for found in codes], {0, 1}
    order = np.array(sorted(values))
    ordered = [torch.from_numpy(np.searchsorted(order, found).astype(np.uint8)) for found in codes]
    if len(order) == 2:
        return ordered, ("background", "object")
    return ordered, tuple(f"#{value:06x}" if value > 2**16 else str(value) for value in order.tolist())
