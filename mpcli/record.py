"""The record of a run: run.json and what stands beside it, true whatever happens to the work."""

import contextlib
import os
import platform
import shlex
import subprocess
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mpcli import files, store
from mpcli.errors import Failed, InputError, Interrupted
from mpcli.registry import Page
from mpcli.run import Run


def new(page: Page, verb: str, parent: Path | None) -> dict[str, Any]:
    """The record of a run that begins."""
    return {
        "format": store.FORMAT,
        "page": page.name,
        "distribution": page.distribution,
        "version": page.version,
        "verb": verb,
        "status": "running",
        "started": store.now(),
        "seconds": 0.0,
        "artifacts": [],
        "result": {},
        "parent": str(parent) if parent else None,
    }


@contextlib.contextmanager
def kept(
    run: Run, record: dict[str, Any], used: dict[str, Any], command: Sequence[str], fresh: bool = True
) -> Iterator[None]:
    """Keep run.json true whatever happens inside.

    Args:
        used: every option as used, for config.json.
        command: the command line without the program's name.
        fresh: whether the run began with this command. One that did and came to nothing is removed; one that is resumed
            stays as it is until `Run.begin` is called.
    """
    before = 0.0 if fresh else _seconds(run.dir)
    began = time.monotonic()
    with store.lock(run.dir) as commands:
        if fresh and store.holds_run(run.dir):
            raise InputError(f"--out {run.dir}: {store.TAKEN}")

        def begin() -> None:
            files.sweep(run.dir)
            commands.write((shlex.join(["mpcli", *command]) + "\n").encode(errors="surrogateescape"))
            commands.flush()
            files.write_json(run.dir / "config.json", used)
            files.write_json(run.dir / "env.json", environment(run))
            record["serial"] = store.next_serial(record["page"])
            _claim(run.dir, record) if fresh else files.write_json(run.dir / "run.json", record)

        run.begins_with(begin)
        if fresh:
            run.begin()
        status = "failed"
        try:
            yield
            run.begin()
            run.write_rows()
            status = "done"
        except (KeyboardInterrupt, Interrupted) as error:
            status = "interrupted"
            if isinstance(error, KeyboardInterrupt) and (run.dir / "checkpoint.pt").exists():
                raise Interrupted(f"interrupted; continue with: {run.again}") from None
            raise
        except Exception as error:
            status = _status(run, error)
            if status == "done" and not isinstance(error, Failed):
                raise Failed(f"{run.dir} is trained, but what follows failed: {error}") from error
            told = run.told(error)
            if told is not error:
                raise told from error
            raise
        finally:
            if run.begun:
                record["seconds"] = round(before + time.monotonic() - began, 3)
                _conclude(run, record, status, fresh)


def _seconds(directory: Path) -> float:
    seconds = store.read_record(directory).get("seconds", 0.0)
    if not isinstance(seconds, (int, float)):
        raise InputError(f"{directory / 'run.json'}: is damaged; seconds should be a number, not {seconds!r}")
    return float(seconds)


def _claim(directory: Path, record: dict[str, Any]) -> None:
    path = directory / "run.json"
    if not store.holds_run(directory):
        path.unlink(missing_ok=True)
    if not files.create_json(path, record):
        raise InputError(f"--out {directory}: {store.TAKEN}")


def _status(run: Run, error: Exception) -> str:
    """What a run is that ended by an error; one that was no sentence to the user goes to the log as a whole."""
    if run.begun and not isinstance(error, (InputError, Failed)):
        with contextlib.suppress(InputError):
            files.append_text(run.dir / "log.txt", "".join(traceback.format_exception(error)))
    if run.saved:
        return "done"
    return "refused" if isinstance(error, InputError) and not run.tracked else "failed"


def _conclude(run: Run, record: dict[str, Any], status: str, fresh: bool) -> None:
    with contextlib.suppress(InputError):  # a full disk has been told already
        run.write_rows()
    record["status"] = status
    record["result"] = run.metrics
    record["artifacts"] = [_relative(path, run.dir) for path in run.artifacts]
    wrote = set(os.listdir(run.dir)) - set(store.ABOUT) or run.artifacts
    if status == "refused" and fresh and not wrote:
        _remove(run.dir)  # nothing came of it: the request never got as far as a run
    else:
        files.rewrite(run.dir / "run.json", record)


def _remove(directory: Path) -> None:
    for name in store.ABOUT:
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: something of the user's is in it
        directory.rmdir()


def _relative(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)


def environment(run: Run) -> dict[str, Any]:
    """What a run depends on beside its options: versions, device, threads, commit."""
    from importlib.metadata import version

    import torch

    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in ("mpcli", "torch", "numpy")},
        "device": str(run.device),
        "threads": torch.get_num_threads(),
        "git": commit or None,
    }
