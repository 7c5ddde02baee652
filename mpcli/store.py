"""Run directories: which there are, how one is made and held, and how a file in it is written whole or not at all."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from mpcli.errors import InputError

FORMAT = 1  # of the run directory; a reader refuses a newer one
# What tells most about a run, best first, and the words that follow its value.
METRICS = {
    "bits_per_dim": "bits/dim",
    "nll": "nats",
    "elbo": "nats",
    "psnr": "dB",
    "accuracy": "accuracy",
    "perplexity": "perplexity",
    "bits_per_char": "bits/char",
    "fid": "FID",
    "iou": "IoU",
    "dice": "Dice",
    "map": "mAP",
    "chamfer": "Chamfer distance",
    "mpjpe": "mm per joint",
    "pve": "mm per vertex",
    "pck": "PCK",
    "return_mean": "mean return",
    "free_energy": "free energy",
}


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system while `path` is written becomes an InputError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        why = f"cannot be written ({error.strerror}); choose another --out or free some space"
        raise InputError(f"{path}: {why}") from error


def write(path: Path, data: bytes | memoryview) -> None:
    """Write under a temporary name, make it durable, then rename: a kill leaves the old file or the new one."""
    with naming(path):
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value whole or not at all."""
    write(path, (json.dumps(value, indent=1, default=_plain) + "\n").encode())


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
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); it should hold a JSON object") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: is damaged; it should hold a JSON object")
    return value


def read_record(directory: Path) -> dict[str, Any]:
    """run.json of a run directory.

    Raises:
        InputError: it is missing, damaged, or written by a newer version.
    """
    record = read_json(directory / "run.json")
    if not isinstance(record.get("format"), int) or not isinstance(record.get("page"), str):
        raise InputError(f"{directory / 'run.json'}: is damaged; it should name format and page")
    if record["format"] > FORMAT:
        raise InputError(
            f"{directory}: was written by a newer mpcli (run format {record['format']}, this one reads {FORMAT}); "
            "update mpcli"
        )
    return record


def runs_root() -> Path:
    """Where runs are kept: $MPCLI_RUNS, else ./runs."""
    return Path(os.environ.get("MPCLI_RUNS") or "runs")


def new_directory(page: str, verb: str, seed: int, out: Path | None) -> Path:
    """Make a run directory that no other process has.

    Args:
        out: the directory that the user asked for, or None for `PAGE/TIMESTAMP-VERB-sSEED` below the runs.

    Raises:
        InputError: it cannot be made, or holds something already.
    """
    if out is not None:
        with naming(out):
            out.mkdir(parents=True, exist_ok=True)
            try:
                (out / "run.json").touch(exist_ok=False)  # the claim: a second process fails here
            except FileExistsError:
                raise InputError(f"--out {out}: holds a run already; add --resume or choose another") from None
        if len(os.listdir(out)) > 1:
            (out / "run.json").unlink()
            raise InputError(f"--out {out}: is not empty and holds no run; choose a new directory")
        return out
    base = runs_root() / page
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    with naming(base):
        base.mkdir(parents=True, exist_ok=True)
        for count in range(1, 1000):
            directory = base / (f"{stamp}-{verb.replace('_', '-')}-s{seed}" + (f"-{count}" if count > 1 else ""))
            try:
                directory.mkdir()
                return directory
            except FileExistsError:
                continue
    raise InputError(f"{base}: a thousand runs began in one second")


def lock(directory: Path) -> IO[bytes]:
    """Hold the run against other processes until the returned file is closed (a kill closes it).

    Raises:
        InputError: another process is at work on it.
    """
    with naming(directory):
        file = (directory / "command.txt").open("ab")  # a file that is never renamed: a lock follows the file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{directory}: another process is at work on this run; wait for it or stop it") from None
    return file


def newest(page: str, verbs: tuple[str, ...], finished: bool) -> Path | None:
    """The newest run of a page by one of the verbs; `finished` asks for one that holds a model."""
    found: list[tuple[str, Path]] = []
    root = runs_root() / page
    for path in (*root.glob("*/run.json"), *root.glob("*/seed-*/run.json")):
        try:
            record = read_record(path.parent)
        except InputError:
            continue  # one damaged run must not hide the others
        if record.get("verb") in verbs and (not finished or (path.parent / "model.json").exists()):
            found.append((str(record.get("started", "")), path.parent))
    return max(found)[1] if found else None


def now() -> str:
    """The time in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat()


def main_metric(metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """Name and value of the metric that tells most about a run, or None where there is none that is known."""
    return next(((name, metrics[name]) for name in METRICS if name in metrics), None)


def in_words(name: str, value: float) -> str:
    """A metric with its unit: "85.2 nats"."""
    shown = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{shown} {METRICS.get(name, name)}"


def heading(page: str, options: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """The line that a picture carries, such as "vae on digits: 85.2 nats"; what is not known is left out."""
    data = str(options.get("data") or "")
    kind, colon, path = data.rpartition(":")
    source = kind + colon + Path(path).name if data else str(options.get("env") or "")
    line = " on ".join(part for part in (page, source) if part)
    metric = main_metric(metrics)
    return ": ".join(part for part in (line, in_words(*metric) if metric else "") if part)
