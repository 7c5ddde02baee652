"""One training at several seeds, side by side over the cores: a run that holds one run a seed, and what they share."""

import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpcli.errors import Failed, InputError, Interrupted
from mpcli.registry import spoken
from mpcli.run import Run
from mpcli.stop import Stop
from mpcli.store import read_record

SMOOTH = 20  # a curve is drawn as means over a part of the run, one in so many; the file holds it as it was


def child(run: Path, seed: int) -> Path:
    """Where the run of one seed lies."""
    return run / f"seed-{seed}"


def train(run: Run, page: str, verb: str, seeds: Sequence[int], checkpoint: float) -> None:
    """Carry out the run's own config.json at every seed, each in a process of its own, and sum up.

    The processes share the cores, so each computes with its part of them (unless OMP_NUM_THREADS says otherwise).

    Raises:
        InputError, Failed: a seed was refused or failed; the others were finished first.
        Interrupted: the user asked to stop; every seed under way saved a checkpoint.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    abreast = min(cores, len(seeds))
    env = {"OMP_NUM_THREADS": str(cores // abreast)} | os.environ
    command = [sys.executable, "-m", "mpcli", spoken(verb), page, "--config", str(run.dir / "config.json")]
    command += ["--seeds", "1", "--checkpoint", str(checkpoint), "--resume", "--quiet"]
    waiting, working = list(seeds), dict[int, _Process]()
    failures: dict[int, tuple[int, str]] = {}  # exit code and last words of a seed
    with Stop() as stop:
        while working or (waiting and not stop.asked):
            if waiting and len(working) < abreast and not stop.asked:
                seed = waiting.pop(0)
                working[seed] = _Process([*command, "--seed", str(seed), "--out", str(child(run.dir, seed))], env)
            for seed in [seed for seed, process in working.items() if process.ended(stop.asked)]:
                code, words = working.pop(seed).outcome()
                if code == 0:
                    run.say(f"seed {seed}: {_words(read_record(child(run.dir, seed))['result'])}")
                elif code != 130:
                    failures[seed] = code, words
            time.sleep(0.02)
    for seed, (code, words) in sorted(failures.items()):
        raise InputError(words) if code == 2 else Failed(f"seed {seed}: {words}")
    if stop.asked:
        raise Interrupted(f"stopped; continue with --resume on {run.dir}")
    _sum_up(run, seeds)


class _Process:
    """A seed under way. In a session of its own, so that Ctrl-C reaches it once, through us."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `outcome`
        self._told = False
        self._process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True
        )

    def ended(self, stop: bool) -> bool:
        if stop and not self._told:
            self._told = True
            self._process.send_signal(signal.SIGINT)
        return self._process.poll() is not None

    def outcome(self) -> tuple[int, str]:
        code = self._process.wait()
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
    with run.file("seeds.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", *shared])
        writer.writerows(
            [seed, *(result[name] for name in shared)] for seed, result in zip(seeds, results, strict=True)
        )
    for name in shared:
        values = [result[name] for result in results]
        run.result(**{name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)})
    logged = [_rows(child(run.dir, seed) / "metrics.jsonl") for seed in seeds]
    steps = sorted(set.intersection(*(set(rows) for rows in logged)))
    if steps:
        names = [name for name in logged[0][steps[0]] if all(name in rows[step] for rows in logged for step in steps)]
        curves = {name: [[rows[step][name] for step in steps] for rows in logged] for name in names}
        _write_curves(run, steps, curves)
        _draw_curves(run, steps, curves)


def _rows(path: Path) -> dict[int, dict[str, float]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {row.pop("step"): row for row in rows}


def _write_curves(run: Run, steps: list[int], curves: dict[str, list[list[float]]]) -> None:
    with run.file("curves.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *(f"{name}_{what}" for name in curves for what in ("median", "min", "max"))])
        for i, step in enumerate(steps):
            columns = [[curve[i] for curve in seeds] for seeds in curves.values()]
            writer.writerow([step, *(f(column) for column in columns for f in (statistics.median, min, max))])


def _draw_curves(run: Run, steps: list[int], curves: dict[str, list[list[float]]]) -> None:
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure((7, 2.5 * len(curves)), layout="constrained")
    panels: Any = figure.subplots(len(curves), squeeze=False, sharex=True)[:, 0]
    width = max(1, len(steps) // SMOOTH)
    for axes, (name, seeds) in zip(panels, curves.items(), strict=True):
        smooth = np.stack([np.convolve(curve, np.ones(width) / width, "valid") for curve in seeds])
        at = steps[width - 1 :]
        axes.fill_between(at, smooth.min(0), smooth.max(0), alpha=0.2, linewidth=0, label="all seeds")
        axes.plot(at, smooth.T, linewidth=0.5, color="C0", alpha=0.5)
        axes.plot(at, np.median(smooth, 0), label=f"median of {len(seeds)}")
        axes.set_ylabel(name)
    panels[0].legend(fontsize=8)
    panels[-1].set_xlabel("step" if width == 1 else f"step; means of {width} logged values")
    with run.file("curves.png") as path:
        figure.savefig(path, dpi=120)
