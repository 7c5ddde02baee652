"""Files of a run directory: written whole or not at all, never through a link, read without trust."""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mpcli.errors import InputError

_TEMPORARY = re.compile(r"\..+\.(\d+)(\.\w+)?")  # what `write` and the artifacts of a run begin as, by process


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system while `path` is written becomes an InputError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: is a link, which a run does not write through; remove it") from error
        why = f"cannot be written ({error.strerror}); choose another --out or free some space"
        raise InputError(f"{path}: {why}") from error


def write(path: Path, data: bytes | memoryview) -> None:
    """Write under a temporary name, make it durable, then rename: a kill leaves the old file or the new one."""
    with _durable(path, data) as partial:
        os.replace(partial, path)


def create(path: Path, data: bytes) -> bool:
    """Write a file that is not there yet, whole at once; False where it is there."""
    with _durable(path, data) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _durable(path: Path, data: bytes | memoryview) -> Iterator[Path]:
    """A temporary file with the data, to be given its name."""
    with naming(path):
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield partial
        finally:
            partial.unlink(missing_ok=True)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the name is as durable as the data
        finally:
            os.close(directory)


def append(path: Path) -> IO[bytes]:
    """Open a file to write behind its end; a link is refused."""
    with naming(path):
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "ab")


def append_text(path: Path, text: str) -> None:
    """Write text behind the end of a file; a link is refused."""
    with naming(path), append(path) as file:
        file.write(text.encode(errors="surrogateescape"))


def rewrite(path: Path, value: Any) -> None:
    """Write a JSON value over the old one; on a full disk into the very blocks that the file has."""
    try:
        write_json(path, value)
    except InputError:
        with naming(path), path.open("r+b") as file:
            file.write(_json(value))
            file.truncate()


def sweep(directory: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote; the run must be locked."""
    folders = [folder for folder in directory.iterdir() if folder.is_dir() and not (folder / "run.json").exists()]
    for path in (path for folder in (directory, *folders) for path in folder.iterdir()):
        found = _TEMPORARY.fullmatch(path.name)
        if found and path.is_file() and not _alive(int(found.group(1))):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def is_temporary(name: str) -> bool:
    """Whether a file of that name is what a killed process left."""
    return bool(_TEMPORARY.fullmatch(name))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value whole or not at all."""
    write(path, _json(value))


def create_json(path: Path, value: Any) -> bool:
    """Write a JSON value to a file that is not there yet, whole at once; False where it is there."""
    return create(path, _json(value))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, default=_plain) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is no JSON value")


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were in Python."""
    if isinstance(value, list):
        return tuple(map(tuples, value))
    return {name: tuples(item) for name, item in value.items()} if isinstance(value, dict) else value


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of a run directory.

    Raises:
        InputError: it cannot be read or is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it belongs to every run directory") from error
    except RecursionError:
        raise InputError(f"{path}: is damaged (nested too deeply); it should hold a JSON object") from None
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); it should hold a JSON object") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: is damaged; it should hold a JSON object")
    return value
