"""Decoded pictures on disk: those that memory should not hold are decoded once, and mapped from then on.

They lie in `$MPCLI_CACHE`, or in `mpcli` of the user's cache folder, and may be deleted at any time.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mpcli.errors import InputError


def folder() -> Path:
    """Where decoded pictures are kept."""
    if chosen := os.environ.get("MPCLI_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mpcli"


def free_memory() -> int:
    """The bytes that this machine could give without swapping; where it does not say, 4 GiB."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 2**32


def stored(key: str, shape: tuple[int, ...], rows: Iterable[np.ndarray]) -> np.ndarray:
    """The bytes of `rows`, each of shape[1:], as an array on disk; they are asked for only if they are not there yet.

    Args:
        key: what the rows depend on; with the shape it finds them again.

    Raises:
        InputError: the cache cannot be written.
    """
    name = hashlib.sha256(f"{key}\n{shape}".encode()).hexdigest()
    path = folder() / "pictures" / name
    head = name.encode()
    if not _is_whole(path, head, int(np.prod(shape))):
        try:
            _write(path, head, rows)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); right would be a folder with "
                f"{int(np.prod(shape)) >> 20} MiB of space in MPCLI_CACHE"
            ) from error
    # Copied on write: nothing that is done to the array reaches the file.
    return np.memmap(path, np.uint8, "c", len(head), shape)


def _is_whole(path: Path, head: bytes, count: int) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head and os.fstat(file.fileno()).st_size == len(head) + count
    except OSError:
        return False


def _write(path: Path, head: bytes, rows: Iterable[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(head)
            for row in rows:
                file.write(np.ascontiguousarray(row).data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
