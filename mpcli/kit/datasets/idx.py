"""`mnist:DIR`: pictures and labels in the IDX format of MNIST and of those that follow it, gzipped or not.

The files are known by their names: train or t10k (EMNIST: test), images or labels, idx3-ubyte or idx1-ubyte. Each may
lie in a folder of its own, as in Kaggle's copy. EMNIST keeps its pictures column by column; they are turned upright.

A big-endian header (0, 0, type, number of dimensions, then each dimension as 4 bytes) and the values behind it.
LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition, 1998.
Cohen, Afshar, Tapson and van Schaik, EMNIST: an extension of MNIST to handwritten letters, 2017. arXiv:1702.05373
"""

import gzip
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets.files import MAX_RATIO, located
from mpcli.kit.datasets.split import Split
from mpcli.kit.datasets.types import Images, Pictures
from mpcli.kit.limits import afford

UNSIGNED_BYTES = 8


def mnist(argument: str) -> Images:
    """The train and t10k (or test) files of a folder; the last twelfth of train (5000 of MNIST) is for validation.

    Raises:
        InputError: a file is missing, ambiguous or damaged, or pictures and labels do not match.
    """
    folder = located("mnist", argument, folder=True)
    images, labels = _part(folder, "train")
    test, test_labels = _part(folder, "t10k|test")
    if images.shape[1:] != test.shape[1:]:
        raise InputError(
            f"{folder}: the pictures of train are {_size(images)} and those of t10k {_size(test)}; "
            "right would be one size"
        )
    held_out = len(images) // 12
    if held_out == 0 or len(test) == 0:
        raise InputError(f"{folder}: {len(images)} training pictures are too few to hold some out; right would be 12")
    top = int(max(labels.max(), test_labels.max()))
    return Images(
        *map(Pictures, (images[:-held_out], images[-held_out:], test)),
        labels=Split(labels[:-held_out], labels[-held_out:], test_labels),
        classes=tuple(map(str, range(top + 1))),
        name=folder.name or "mnist",
    )


def _size(images: Tensor) -> str:
    return f"{images.shape[3]}x{images.shape[2]}"


def _part(folder: Path, prefix: str) -> tuple[Tensor, Tensor]:
    paths = [_the_one(folder, prefix, what) for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
    if paths[0].name.startswith("emnist"):
        images = np.ascontiguousarray(images.swapaxes(1, 2))
    if len(images) != len(labels):
        raise InputError(f"{paths[1]}: has {len(labels)} labels for {len(images)} pictures; right would be one each")
    return torch.from_numpy(images[:, None]), torch.from_numpy(labels).long()


def _the_one(folder: Path, prefix: str, what: str) -> Path:
    pattern = rf"(emnist-\w+-)?({prefix}).*{what.replace('-', '[-.]', 1)}(\.gz)?"
    # Kaggle has each file in a folder of its name, and some of them beside it once more.
    files = [path for path in (*folder.iterdir(), *folder.glob("*/*")) if re.fullmatch(pattern, path.name)]
    files = [path for path in files if path.is_file()]
    files = [path for path in files if path.parent == folder] or files
    # A file and its gzipped self are one: the plain one is quicker to read.
    found = {path.name.removesuffix(".gz"): path for path in sorted(files, key=lambda path: path.suffix != ".gz")}
    if len(found) != 1:
        name = f"{prefix.replace('|', '* or ')}*{what}"
        problem = f"has {' and '.join(sorted(found))}" if found else f"has no file {name}, gzipped or not"
        raise InputError(f"{folder}: {problem}; right would be one such file")
    return next(iter(found.values()))


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The unsigned bytes of an IDX file, in their shape; those of a file that is not gzipped stay on disk.

    Raises:
        InputError: the file is no IDX file of bytes with that many dimensions, or is not as long as it says.
    """
    magic = bytes([0, 0, UNSIGNED_BYTES, dimensions])
    head = 4 + 4 * dimensions
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            longest = os.fstat(file.fileno()).st_size * (MAX_RATIO if packed else 1)
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            header = stream.read(head)
            if header[:4] != magic:
                raise InputError(f"{path}: begins with {header[:4].hex()}; right would be {magic.hex()}, IDX of bytes")
            shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist()) if len(header) == head else ()
            count = math.prod(shape) if shape else -1
            if not packed and longest == head + count and count > 0:
                # Copied on write: nothing that is done to the array reaches the file.
                return np.memmap(path, np.uint8, "c", head, shape)
            afford(path, count if count <= longest else 0, "its array")
            # One byte more shows that nothing follows.
            body = bytearray(count + 1 if 0 <= count <= longest else 0)
            found = stream.readinto(body) if body else 0
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: its gzip data is damaged or cut short ({error}); right would be a whole file"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); right would be a readable file") from error
    if found != count:
        promised = " x ".join(map(str, shape)) or "more"
        has = "more" if found > count > -1 else "fewer"
        raise InputError(f"{path}: promises {promised} values and has {has}; right would be a whole IDX file")
    return np.frombuffer(body, np.uint8, count).reshape(shape)
