"""Run directories: which there are, how one is made and held, and what its record says of it."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from mpcli import files
from mpcli.errors import InputError

FORMAT = 1  # of the run directory; a reader refuses a newer one
ABOUT = ("run.json", "config.json", "command.txt", "env.json", "log.txt")  # what a run has before it did anything
TAKEN = "holds a run already; add --resume or choose another"
# What tells most about a run, best first, and the words that follow its value.
METRICS = {
    "bits_per_dim": "bits/dim",
    "nll": "nats",
    "elbo": "nats",
    "psnr": "dB",
    "accuracy": "accuracy",
    "mse": "mean squared error",
    "perplexity": "perplexity",
    "bits_per_char": "bits/char",
    "fid": "FID",
    "iou": "IoU",
    "dice": "Dice",
    "map": "mAP",
    "angle": "degrees",
    "chamfer": "Chamfer distance",
    "mpjpe": "mm per joint",
    "pve": "mm per vertex",
    "pck": "PCK",
    "return_mean": "mean return",
    "free_energy": "free energy",
}


def read_record(directory: Path) -> dict[str, Any]:
    """run.json of a run directory.

    Raises:
        InputError: it is missing, damaged, or written by a newer version.
    """
    record = files.read_json(directory / "run.json")
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
        with files.naming(out):
            out.mkdir(parents=True, exist_ok=True)
            there = set(os.listdir(out))
        if holds_run(out):
            raise InputError(f"--out {out}: {TAKEN}")
        # A command that was killed before its run began leaves some of these, command.txt first.
        begun = "command.txt" in there and all(name in ABOUT or files.is_temporary(name) for name in there)
        if there - {"run.json"} and not begun:
            raise InputError(f"--out {out}: is not empty and holds no run; choose a new directory")
        return out
    base = runs_root() / page
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    with files.naming(base):
        base.mkdir(parents=True, exist_ok=True)
        for count in range(1, 1000):
            directory = base / (f"{stamp}-{verb.replace('_', '-')}-s{seed}" + (f"-{count}" if count > 1 else ""))
            try:
                directory.mkdir()
                return directory
            except FileExistsError:
                continue
    raise InputError(f"{base}: a thousand runs began in one second")


def holds_run(directory: Path) -> bool:
    """Whether a run has begun in a directory; an empty run.json is what a kill left before it did."""
    path = directory / "run.json"
    return path.is_file() and path.stat().st_size > 0


def lock(directory: Path) -> IO[bytes]:
    """Hold the run against other processes until the returned file is closed (a kill closes it).

    Raises:
        InputError: another process is at work on it.
    """
    file = files.append(directory / "command.txt")  # a file that is never renamed: a lock follows the file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{directory}: another process is at work on this run; wait for it or stop it") from None
    return file


def newest(page: str, verbs: tuple[str, ...], finished: bool) -> Path | None:
    """The newest run of a page by one of the verbs; `finished` asks for one that holds a model."""
    found = [
        (_order(record), directory)
        for directory, record in _records(page)
        if record.get("verb") in verbs and (not finished or (directory / "model.json").exists())
    ]
    return max(found)[1] if found else None


def all_runs(page: str | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every run below the root, of one page or of all, newest first; runs of the seeds of another are part of it."""
    found = [one for one in _records(page or "*") if one[0].parent.parent == runs_root()]

    def order(one: tuple[Path, dict[str, Any]]) -> tuple[int, str]:
        return _order(one[1] if page else {"started": one[1].get("started")})  # pages count their runs apart

    return iter(sorted(found, key=order, reverse=True))


def at_work(directory: Path) -> bool:
    """Whether a process holds the run."""
    try:
        with (directory / "command.txt").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a record, but for what a damaged one holds that is no number."""
    result = record.get("result")
    return {k: v for k, v in result.items() if isinstance(v, (int, float))} if isinstance(result, dict) else {}


def steps(directory: Path) -> int | None:
    """How many steps a run has logged; None where it logs none."""
    try:
        with (directory / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
            return int(json.loads(file.read().splitlines()[-1])["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def rows(lines: Iterable[str], path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl.

    Raises:
        InputError: a line is no JSON object with a step.
    """
    found = []
    try:
        for line in lines:
            found.append(json.loads(line))
            if not isinstance(step := found[-1]["step"], int):
                raise TypeError(f"the step is {step!r}")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: is damaged ({error}); each line should hold a JSON object with a step") from error
    return found


def logged(directory: Path) -> list[tuple[int, str]]:
    """The whole lines of a run's metrics.jsonl, each behind its step; a line that a kill cut short is left out.

    Raises:
        InputError: a line is no JSON object with a step.
    """
    path = directory / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return [(row["step"], line) for row, line in zip(rows(whole, path), whole, strict=True)]


def seed_runs(directory: Path) -> list[Path]:
    """The runs of the seeds in a run of several, in their order; none in any other."""
    if (directory / "model.json").exists():
        return []
    found = [path.parent for path in directory.glob("seed-*/model.json")]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def next_serial(page: str) -> int:
    """A number above that of every run of the page: the order of runs, which a clock set back does not change."""
    return 1 + max((_order(record)[0] for _, record in _records(page)), default=0)


def _order(record: Mapping[str, Any]) -> tuple[int, str]:
    serial = record.get("serial")
    return serial if isinstance(serial, int) else 0, str(record.get("started", ""))


def _records(page: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    root = runs_root()
    for path in (*root.glob(f"{page}/*/run.json"), *root.glob(f"{page}/*/seed-*/run.json")):
        try:
            yield path.parent, read_record(path.parent)
        except InputError:
            continue  # one damaged run must not hide the others


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
