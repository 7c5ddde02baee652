"""`cifar10:DIR`: pictures of 32x32 RGB pixels in the python or the binary layout of CIFAR-10.

The python layout is a pickle a batch, read without executing it; the binary one is a label and 3072 bytes a picture.
Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpcli.errors import InputError
from mpcli.kit import pickles
from mpcli.kit.datasets.files import located, read_bytes, read_text
from mpcli.kit.datasets.split import Split
from mpcli.kit.datasets.types import Images, Pictures

PIXELS = 3 * 32 * 32


def cifar10(argument: str) -> Images:
    """All data_batch files; the last tenth is for validation, and test_batch for testing.

    Without a test_batch two tenths of a fixed permutation are for validation and testing.

    Raises:
        InputError: files are missing or damaged, or are not in either layout.
    """
    folder = located("cifar10", argument, folder=True)
    binary = sorted(folder.glob("data_batch_*.bin"))
    batches = binary or sorted(path for path in folder.glob("data_batch_*") if not path.suffix)
    if not batches:
        raise InputError(f"{folder}: has no data_batch_* file; right would be the python or binary files of CIFAR-10")
    read = _read_binary if binary else _read_python
    pixels, labels = (np.concatenate(parts) for parts in zip(*map(read, batches), strict=True))
    test = folder / f"test_batch{'.bin' if binary else ''}"
    tenth = len(pixels) // 10
    if tenth == 0:
        raise InputError(f"{folder}: {len(pixels)} pictures are too few to hold some out; right would be 10 or more")
    if test.exists():
        sizes = [len(pixels) - tenth, tenth]
        more_pixels, more_labels = read(test)
        sizes.append(len(more_pixels))
        pixels, labels = np.concatenate([pixels, more_pixels]), np.concatenate([labels, more_labels])
    else:
        # Who wrote one file alone may have written class by class.
        order = np.random.RandomState(0).permutation(len(pixels))
        pixels, labels = pixels[order], labels[order]
        sizes = [len(pixels) - 2 * tenth, tenth, tenth]
    classes = _classes(folder, binary=bool(binary)) or tuple(map(str, range(int(labels.max()) + 1)))
    if labels.max() >= len(classes):
        raise InputError(
            f"{folder}: has {len(classes)} classes and the label {labels.max()}; right would be a name each"
        )
    return Images(
        *map(Pictures, torch.from_numpy(pixels.reshape(-1, 3, 32, 32)).split(sizes)),
        labels=Split(*torch.from_numpy(labels).split(sizes)),
        classes=classes,
        name=folder.name or "cifar10",
    )


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data = read_bytes(path)
    if not data or len(data) % (1 + PIXELS):
        raise InputError(f"{path}: has {len(data)} bytes; right would be {1 + PIXELS} for every label and picture")
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0].astype(np.int64)


def _read_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = _dictionary(path)
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (PIXELS,):
        raise InputError(f"{path}: has no data of bytes [N, {PIXELS}]; right would be a batch of CIFAR-10")
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int and 0 <= label < 256 for label in labels)
    ):
        raise InputError(f"{path}: has no list of {len(pixels)} labels; right would be a number for every picture")
    return pixels, np.array(labels, np.int64)


def _classes(folder: Path, *, binary: bool) -> tuple[str, ...]:
    if binary:
        path = folder / "batches.meta.txt"
        return tuple(read_text(path).split()) if path.exists() else ()
    path = folder / "batches.meta"
    if not path.exists():
        return ()
    names = _dictionary(path).get("label_names")
    if not isinstance(names, list):
        raise InputError(f"{path}: has no label_names; right would be batches.meta of CIFAR-10's python version")
    return tuple(map(_text, names))


def _dictionary(path: Path) -> dict[str, Any]:
    value = pickles.load(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}; right would be a dictionary")
    return {_text(key): entry for key, entry in value.items()}


def _text(value: Any) -> str:
    # Python 3 wrote what Python 2 called a string as bytes.
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
