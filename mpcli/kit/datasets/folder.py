"""`images:DIR`: PNG and JPEG pictures of one size in a folder, or in one subfolder for each class.

Subfolders train, validation (or val) and test, laid out so themselves, are taken as the split. `images:DIR@64` cuts
the middle square out of every picture and scales it to 64x64 pixels, so that sizes may differ.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets.files import located_with_size, one_size, open_image, read_image, upright_size
from mpcli.kit.datasets.types import Images

SUFFIXES = (".png", ".jpg", ".jpeg")
SPLIT = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def images(argument: str) -> Images:
    """Grey where all pictures are grey, RGB otherwise, transparent ones on white.

    Where the folder has no split, a fixed permutation holds out a tenth each for validation and testing.

    Raises:
        InputError: there are no pictures, one is damaged, or their sizes differ.
    """
    folder, size = located_with_size("images", argument)
    parts = {SPLIT[path.name]: _collect(path) for path in _folders(folder) if path.name in SPLIT}
    if "train" not in parts:
        parts = {"train": _collect(folder)}
    if not parts["train"]:
        raise InputError(
            f"{folder}: has no PNG or JPEG picture; right would be pictures, or a subfolder for each class"
        )
    parts = {"train": [], "validation": [], "test": []} | parts
    _hold_out(parts)
    classes = sorted({path.parent.name for path, labelled in parts["train"] if labelled})
    paths = [path for part in parts.values() for path, _ in part]
    mode = _mode_of_all(paths, size)
    stacks = {part: _stack([path for path, _ in found], mode, size) for part, found in parts.items()}
    labels: dict[str, Tensor] = {}
    if classes:
        for part, found in parts.items():
            for path, labelled in found:
                if not labelled or path.parent.name not in classes:
                    raise InputError(f"{path}: is in none of the classes of train; right would be {', '.join(classes)}")
            labels[part] = torch.tensor([classes.index(path.parent.name) for path, _ in found], dtype=torch.int64)
    return Images(
        stacks["train"],
        stacks["validation"],
        stacks["test"],
        labels.get("train"),
        labels.get("validation"),
        labels.get("test"),
        classes=tuple(classes),
        name=folder.name or "images",
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _collect(folder: Path) -> list[tuple[Path, bool]]:
    """The pictures of a folder, each with whether its subfolder is its class."""
    plain = [(path, False) for path in _pictures(folder)]
    classes = [(path, True) for inner in _folders(folder) for path in _pictures(inner)]
    if plain and classes:
        raise InputError(
            f"{folder}: has pictures both beside and in subfolders ({plain[0][0].name}, "
            f"{classes[0][0].relative_to(folder)}); right would be one of the two"
        )
    return plain or classes


def _hold_out(parts: dict[str, list[tuple[Path, bool]]]) -> None:
    """Fill the parts that the folder does not have with a tenth of the training pictures each."""
    train = parts["train"]
    missing = [part for part in ("validation", "test") if not parts[part]]
    tenth = max(1, len(train) // 10)
    if len(train) <= tenth * len(missing):
        parent = train[0][0].parent
        raise InputError(f"{parent}: {len(train)} pictures are too few to hold some out; right would be 3 or more")
    order = np.random.RandomState(0).permutation(len(train)) if missing else np.arange(len(train))
    kept = len(train) - tenth * len(missing)
    parts["train"] = [train[i] for i in order[:kept]]
    for part, begin in zip(missing, range(kept, len(train), tenth), strict=True):
        parts[part] = [train[i] for i in order[begin : begin + tenth]]


def _mode_of_all(paths: list[Path], size: int | None) -> str:
    """One look at every header: the sizes must agree before any memory is asked for."""
    grey, sizes = True, {}
    for path in paths:
        with open_image(path) as image:
            grey = grey and image.mode in ("1", "L")
            sizes[path] = upright_size(image, path)
    if size is None:
        one_size(sizes, ", or images:DIR@64 to cut and scale all to 64x64")
    return "L" if grey else "RGB"


def _stack(paths: list[Path], mode: str, size: int | None) -> Tensor:
    arrays = [_square(read_image(path, mode, upright=True), size) for path in paths]
    stack = torch.from_numpy(np.stack(arrays))
    stack = stack[:, None] if mode == "L" else stack.permute(0, 3, 1, 2)
    return stack.float().div_(255)


def _square(image: Image.Image, size: int | None) -> np.ndarray:
    return np.asarray(image if size is None else ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))
