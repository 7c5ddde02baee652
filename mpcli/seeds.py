"""One training at several seeds, side by side over the cores: a run that holds one run a seed, and what they share."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mpcli import curves
from mpcli.errors import Failed, InputError, Interrupted
from mpcli.registry import spoken
from mpcli.run import Run
from mpcli.stop import Stop
from mpcli.store import read_record

BAND: tuple[Callable[[Sequence[float]], float], ...] = (statistics.median, min, max)


def child(run: Path, seed: int) -> Path:
    """Where the run of one seed lies."""
    return run / f"seed-{seed}"


def train(run: Run, page: str, verb: str, seeds: Sequence[int], checkpoint: float, quiet: bool) -> None:
    """Carry out the run's own config.json at every seed, each in a process of its own, and sum up.

    The processes share the cores, so each computes with its part of them (unless OMP_NUM_THREADS says otherwise).

    Raises:
        InputError, Failed: a seed was refused or failed; the others were finished first.
        Interrupted: the user asked to stop; every seed under way saved a checkpoint.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    abreast = min(cores, len(seeds))
    env = {"OMP_NUM_THREADS": str(cores // abreast)} | os.environ
    # Safe path (-P): the folder that the user is in is no place to import from.
    command = [sys.executable, "-P", "-c", "from mpcli.seeds import follow; follow()"]
    command += [spoken(verb), page, "--config", str(run.dir / "config.json")]
    command += ["--seeds", "1", "--checkpoint", str(checkpoint), "--resume"]
    run.begin()  # the processes read its config.json
    waiting, working = list(seeds), dict[int, _Process]()
    failures: dict[int, tuple[int, str]] = {}  # exit code and last words of a seed
    with Stop() as stop:
        while working or (waiting and not stop.asked):
            if waiting and len(working) < abreast and not stop.asked:
                seed = waiting.pop(0)
                working[seed] = _Process([*command, "--seed", str(seed), "--out", str(child(run.dir, seed))], env)
                run.say(f"seed {seed}: under way")
            for seed, process in () if quiet else working.items():
                for line in process.steps():
                    run.teller.line(f"seed {seed}: {line}")
            for seed in [seed for seed, process in working.items() if process.ended(stop.asked)]:
                code, words = working.pop(seed).outcome()
                if code == 0:
                    run.say(f"seed {seed}: {_words(read_record(child(run.dir, seed))['result'])}")
                elif code != 130 or not stop.asked:
                    failures[seed] = code, words
            time.sleep(0.02)
    for seed, (code, words) in sorted(failures.items()):
        raise InputError(words) if code == 2 else Failed(f"seed {seed}: {words}")
    if stop.asked:
        raise Interrupted(f"stopped; continue with: {run.again}")
    _sum_up(run, seeds)


def follow() -> None:
    """Be the process of a seed: run the command line that stands in the arguments, and stop when the parent is gone."""
    from mpcli.cli import main

    def watch() -> None:
        os.read(0, 1)  # the parent holds the other end and writes nothing: this returns when it has ended
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    main(sys.argv[1:])


class _Process:
    """A seed under way. In a session of its own, so that Ctrl-C reaches it once, through us."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `outcome`
        self._told = False
        self._read = 0
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            start_new_session=True,
        )

    def steps(self) -> list[str]:
        """The lines of progress that it has written since they were last asked for."""
        # Read at a place: the process writes where the file's own position stands.
        text = os.pread(self._said.fileno(), 1 << 16, self._read)
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = (line.partition(": ")[2] for line in whole.decode(errors="replace").splitlines())
        return [line for line in lines if line.startswith("step ")]

    def ended(self, stop: bool) -> bool:
        if stop and not self._told:
            self._told = True
            self._process.send_signal(signal.SIGINT)
        return self._process.poll() is not None

    def outcome(self) -> tuple[int, str]:
        code = self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        with self._said as said:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
        return code, lines[-1].removeprefix("mpcli: ")


def _words(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())


def _sum_up(run: Run, seeds: Sequence[int]) -> None:
    """seeds.csv, curves.csv, curves.png; and each metric's median, least and greatest as the result."""
    results = [read_record(child(run.dir, seed))["result"] for seed in seeds]
    shared = [name for name in results[0] if all(name in result for result in results)]
    rows = [[seed, *(result[name] for name in shared)] for seed, result in zip(seeds, results, strict=True)]
    run.table("seeds.csv", ["seed", *shared], rows)
    for name in shared:
        values = [result[name] for result in results]
        run.result(**{name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)})
    logged = [curves.rows(child(run.dir, seed) / "metrics.jsonl") for seed in seeds]
    if found := curves.of_seeds(logged):
        _write_curves(run, found)
        run.figure("curves.png", curves.figure(found, run.heading))


def _write_curves(run: Run, found: dict[str, curves.Curve]) -> None:
    """curves.csv: a row a step, empty where a metric was not logged by every seed."""
    bands = [
        {step: [f(column) for f in BAND] for step, column in zip(c.steps, zip(*c.seeds, strict=True), strict=True)}
        for c in found.values()
    ]
    names = [f"{name}_{what}" for name in found for what in ("median", "min", "max")]
    empty = [""] * len(BAND)
    steps = sorted(set().union(*bands))
    rows = ([step, *(cell for band in bands for cell in band.get(step, empty))] for step in steps)
    run.table("curves.csv", ["step", *names], rows)
