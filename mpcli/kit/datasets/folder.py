"""`images:DIR`: pictures of one size in a folder, or in one subfolder for each class, which may lie in others.

Subfolders train, validation (or val) and test, laid out so themselves, are taken as the split. `images:DIR@64` cuts
the middle square out of every picture and scales it to 64x64 pixels, so that sizes may differ.

Pictures that would fill more than a quarter of the free memory are decoded once into a file of `cache.folder()` and
stay there: batches are read from it, and it is made again when a picture has another size or time than it had.
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets import cache
from mpcli.kit.datasets.files import (
    PICTURES,
    is_grey,
    located_with_size,
    one_size,
    open_image,
    planes,
    read_image,
    upright_size,
)
from mpcli.kit.datasets.split import Split, hold_out
from mpcli.kit.datasets.types import Images, Pictures
from mpcli.notices import notice
from mpcli.run import watched

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
OTHERS = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".tga", ".psd", ".svg", ".exr", ".dng")
DEEPEST = 3  # folders between that of the dataset and that of a class
SPLIT = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def images(argument: str) -> Images:
    """Grey where all pictures are grey, RGB otherwise, transparent ones on white.

    Where the folder has no split, a fixed permutation holds out a tenth each for validation and testing.

    Raises:
        InputError: there are no pictures, one is damaged, or their sizes differ.
    """
    folder, size = located_with_size("images", argument)
    parts = {SPLIT[path.name]: _collect(path) for path in folders_in(folder) if path.name in SPLIT}
    if "train" not in parts:
        parts = {"train": _collect(folder)}
    if not parts["train"]:
        raise InputError(
            f"{folder}: has no picture; right would be {PICTURES} files, or a subfolder of them for each class"
        )
    _tell_others(folder)
    parts = {"train": [], "validation": [], "test": []} | parts
    tenth = max(1, len(parts["train"]) // 10)
    hold_out(parts, {"validation": tenth, "test": tenth}, parts["train"][0][0].parent)
    classes = sorted({label for _, label in parts["train"] if label})
    paths = [path for part in parts.values() for path, _ in part]
    shape = _shape_of_all(paths, size)
    sizes = [len(found) for found in parts.values()]
    labels = Split(*_numbered(parts, classes).split(sizes)) if classes else None
    return Images(
        *map(Pictures, torch.from_numpy(_pixels(paths, *shape, size)).split(sizes)),
        labels=labels,
        classes=tuple(classes),
        name=folder.name or "images",
    )


def _numbered(parts: dict[str, list[tuple[Path, str]]], classes: list[str]) -> Tensor:
    """The number of its class for each picture of all parts."""
    found = [entry for part in parts.values() for entry in part]
    for path, label in found:
        if label not in classes:
            raise InputError(f"{path}: is in none of the classes of train; right would be {', '.join(classes)}")
    return torch.tensor([classes.index(label) for _, label in found], dtype=torch.int64)


def folders_in(folder: Path) -> list[Path]:
    """Those that are not hidden."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def pictures_in(folder: Path) -> list[Path]:
    """Files with the suffix of a picture that are not hidden."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _tell_others(folder: Path) -> None:
    """Say how many pictures are of a format that is not read: with them, whole classes may be missing."""
    others = [path for path in folder.rglob("*") if path.suffix.lower() in OTHERS and not path.name.startswith(".")]
    if others:
        kinds = ", ".join(sorted({path.suffix.lower() for path in others}))
        notice(f"{folder}: {len(others)} pictures ({kinds}) are left out; right would be {PICTURES}")


def _collect(folder: Path) -> list[tuple[Path, str]]:
    """The pictures of a folder, each with its class: the subfolder that it lies in, or ""."""
    plain = [(path, "") for path in pictures_in(folder)]
    classes = [(path, inner.name) for inner in folders_in(folder) for path in pictures_in(inner)]
    if plain and classes:
        raise InputError(
            f"{folder}: has pictures both beside and in subfolders ({plain[0][0].name}, "
            f"{classes[0][0].relative_to(folder)}); right would be one of the two"
        )
    # Looked for deeper only where there is nothing: a folder of pictures may hold others of no concern.
    return plain or classes or [found for sub in folders_in(folder) for found in _of_class(sub, sub.name, DEEPEST)]


def _of_class(folder: Path, name: str, depth: int) -> list[tuple[Path, str]]:
    """The pictures of a class, or where it has none itself, of the classes in it, such as Greek/character01."""
    found = [(path, name) for path in pictures_in(folder)]
    if found or not depth:
        return found
    return [inner for sub in folders_in(folder) for inner in _of_class(sub, f"{name}/{sub.name}", depth - 1)]


def _shape_of_all(paths: list[Path], size: int | None) -> tuple[str, int, int]:
    """Mode, height and width, by one look at every header: the sizes must agree before any memory is asked for."""
    grey, sizes = True, {}
    for path in paths:
        with open_image(path) as image:
            grey = grey and is_grey(image)
            sizes[path] = upright_size(image, path)
    width, height = (size, size) if size else one_size(sizes, ", or images:DIR@64 to cut and scale all to 64x64")
    return "L" if grey else "RGB", height, width


def _pixels(paths: list[Path], mode: str, height: int, width: int, size: int | None) -> np.ndarray:
    """The bytes [N, C, H, W] of all pictures, on disk where they would fill more than a quarter of the free memory."""
    shape = (len(paths), len(mode), height, width)
    decoded = (
        planes(_fitted(read_image(path, mode, upright=True), size)) for path in watched(paths, "decoding pictures")
    )
    if math.prod(shape) > cache.free_memory() // 4:
        return cache.stored(f"{mode} {size} {[_state(path) for path in paths]}", shape, decoded)
    stack = np.empty(shape, np.uint8)
    for i, picture in enumerate(decoded):
        stack[i] = picture
    return stack


def _state(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.absolute()), stat.st_size, stat.st_mtime_ns


def _fitted(image: Image.Image, size: int | None) -> Image.Image:
    return image if size is None else ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
