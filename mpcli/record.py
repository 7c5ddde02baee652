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

from mpcli import store
from mpcli.errors import Failed, InputError, Interrupted
from mpcli.registry import Page
from mpcli.run import Run

ABOUT = ("run.json", "config.json", "command.txt", "env.json", "log.txt")  # what a run has before it did anything


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
        fresh: whether the run began with this command; one that did and came to nothing is removed.
    """
    began = time.monotonic()
    if not fresh:
        record["seconds"] = float(store.read_record(run.dir).get("seconds", 0.0))
    before = float(record["seconds"])
    with store.lock(run.dir) as commands:
        store.write_json(run.dir / "config.json", used)
        commands.write((shlex.join(["mpcli", *command]) + "\n").encode())
        commands.flush()
        store.write_json(run.dir / "env.json", environment(run))
        store.write_json(run.dir / "run.json", record)
        status = "failed"
        try:
            yield
            status = "done"
        except InputError:
            status = "refused"
            raise
        except (KeyboardInterrupt, Interrupted):
            status = "interrupted"
            raise
        except Failed:
            raise
        except BaseException as error:
            with (run.dir / "log.txt").open("a", encoding="utf-8") as log:
                traceback.print_exception(error, file=log)
            raise
        finally:
            run._write_rows()
            record["status"] = status
            record["seconds"] = round(before + time.monotonic() - began, 3)
            record["result"] = run.metrics
            record["artifacts"] = [_relative(path, run.dir) for path in run.artifacts]
            wrote = set(os.listdir(run.dir)) - set(ABOUT) or run.artifacts
            if status == "refused" and fresh and not wrote:
                _remove(run.dir)  # nothing came of it: the request never got as far as a run
            else:
                store.write_json(run.dir / "run.json", record)


def _remove(directory: Path) -> None:
    for name in ABOUT:
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
