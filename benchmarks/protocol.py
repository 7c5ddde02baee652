"""The one protocol of every figure in this directory.

Ours and the peer run in one go on one machine, one thread each, in fresh processes that alternate (ours, peer, ours,
peer ...), so that a machine that slows down slows both. What counts is process CPU time, user and system, because it
does not see the neighbours; only what is about waiting (start-up) counts wall time, and says so. A figure is the median
of the ratios of at least three pairs; a ratio above 1 means that ours needs less. Machine and versions are printed.

A script asks one question a `compare`. A side is a function of no argument that returns the CPU seconds of one unit of
work (a step, an image, a call), which `cpu_seconds` measures:

    from protocol import compare, cpu_seconds

    def ours() -> float:
        from mpcli import heap          # import inside the side: the other side's process must not pay for it
        heap.keep_freed_blocks()        # before torch, where the figure is to be what a user of `mpcli` gets
        import torch
        x = ...                         # not measured
        return cpu_seconds(lambda: step(x), units=32)

    def peer() -> float: ...

    if __name__ == "__main__":
        compare("forward and backward, batch 32", ours, peer, rate="bodies/s", packages=("smplx",))
        compare("the same, batch 256", partial(ours, 256), partial(peer, 256), packages=("smplx",))

`python benchmarks/smpl.py [--only TEXT] [--repeats N]` then prints one row a question: `question | ours | peer | ratio
(median, min..max)`. A side may also be a command (a list of strings), whose whole process is timed. Options of the
script's own are handed on to the processes of the sides, so read them with `parse_known_args`. Where chance decides how
long the work is, as in learning, a side asks `pair()` for its seed: both sides of a pair get the same one, and each
pair another. Anything else that a side wants to tell (share of points asked, a check that both sides computed the same)
goes to standard error; a side that raises ends the benchmark. Both sides live in one Python environment, so both use
the same torch.
"""

import argparse
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from itertools import count
from pathlib import Path

Side = Callable[[], float] | Sequence[str]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_printed: set[str] = set()


def cpu_seconds(work: Callable[[], object], *, units: float = 1, at_least: float = 2.0, warmup: int = 2) -> float:
    """CPU seconds (user and system) of one unit; `work` does `units` of them, repeated for `at_least` seconds."""
    for _ in range(warmup):
        work()
    start, calls = time.process_time(), 0
    while (spent := time.process_time() - start) < at_least or calls == 0:
        work()
        calls += 1
    return spent / (calls * units)


def training_seconds(page: str, steps: int, *options: str) -> float:
    """CPU seconds of a step of `mpcli train` in this process, with all that it does before and behind its steps."""
    from mpcli import heap

    heap.keep_freed_blocks()

    from mpcli.cli import run

    with tempfile.TemporaryDirectory() as folder:
        names = (f"{folder}/{number}" for number in count())

        def train() -> None:
            command = ["train", page, "--steps", str(steps), "--quiet", "--out", next(names), *options]
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                code = run(command)
            if code:
                raise SystemExit(f"train {page}: exit code {code}")

        return cpu_seconds(train, units=steps, warmup=1)


def compare(
    question: str,
    ours: Side,
    peer: Side,
    *,
    rate: str = "",
    repeats: int = 5,
    packages: Sequence[str] = (),
    wall: bool = False,
) -> None:
    """Print the row of one question.

    Args:
        question: what is asked, unique in its script.
        ours, peer: functions that return the seconds of one unit, or commands to time as a whole.
        rate: unit of the figures where they are shown as units a second ("images/s"); else they are times.
        repeats: pairs of fresh processes; at least three.
        packages: distributions whose versions are printed beside those of mpcli, torch and numpy.
        wall: commands are timed by the clock on the wall instead of CPU time.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--side")
    parser.add_argument("--only", default="")
    parser.add_argument("--repeats", type=int, default=repeats)
    options = parser.parse_known_args()[0]
    sides = {"ours": ours, "peer": peer}
    if options.side:  # this is the fresh process of one side of one question
        for name, side in sides.items():
            if options.side == f"{name} {question}" and callable(side):
                print(side())
                sys.exit()
        return
    if options.only not in question:
        return
    if options.repeats < 3:
        parser.error("a figure needs at least three pairs")
    _print_once(f"{machine(packages)}\n\n| question | ours | peer | ratio (median, min..max) |\n|-|-|-|-|")
    seen: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(options.repeats):
        for name, side in sides.items():
            seen[name].append(_in_process(side, f"{name} {question}", number, wall))
        print(f"  {question}: {_shown(seen['ours'][-1], rate)}, peer {_shown(seen['peer'][-1], rate)}", file=sys.stderr)
    ratios = [theirs / mine for mine, theirs in zip(seen["ours"], seen["peer"], strict=True)]
    figures = " | ".join(_shown(statistics.median(seen[name]), rate) for name in sides)
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
    print(f"| {question} | {figures} | {spread} |", flush=True)


def pair() -> int:
    """The number of the pair that this process belongs to, from 0."""
    return int(os.environ["BENCHMARK_PAIR"])


def _in_process(side: Side, label: str, number: int, wall: bool) -> float:
    command = [sys.executable, *sys.argv, "--side", label] if callable(side) else list(side)
    start = time.perf_counter()
    env = os.environ | ONE_THREAD | {"BENCHMARK_PAIR": str(number)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    passed = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)  # or its destructor waits for it a second time
    if process.returncode != 0 or (callable(side) and not said):
        sys.exit(f"{label}: gave no figure (exit code {process.returncode})")
    if callable(side):
        return float(said.split()[-1])
    return passed if wall else used.ru_utime + used.ru_stime


def machine(packages: Sequence[str] = ()) -> str:
    """CPU, cores, and the versions that every figure depends on, those of `packages` among them."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    versions = ", ".join(f"{name} {version(name)}" for name in ("mpcli", "torch", "numpy", *packages))
    return f"{cpu}, {os.cpu_count()} cores, one thread used; Python {platform.python_version()}, {versions}"


def _shown(seconds: float, rate: str) -> str:
    if rate:
        return f"{1 / seconds:.4g} {rate}"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _print_once(text: str) -> None:
    if text not in _printed:
        _printed.add(text)
        print(text, flush=True)
