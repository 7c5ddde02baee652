"""What waiting threads cost: one training alone, beside one other, beside two, by how long OpenMP's threads spin.

`python benchmarks/threads.py [--steps N] [--rounds N] [--beside N ...] [--only TEXT]` prints a row a setting and
a column a number of others: CPU seconds (user and system) and wall seconds of the whole command, as ratios of medians
over what GNU's OpenMP does by itself. The settings alternate within a round, so that a machine that slows down slows
all of them. The others train with the setting that is measured, for `make -j` starts all of them alike.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = {
    "OpenMP's own (spins 300 000 times)": {"GOMP_SPINCOUNT": "300000"},
    "ours (10 000 times)": {},
    "1000 times": {"GOMP_SPINCOUNT": "1000"},
    "PASSIVE (none)": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


def start(folder: Path, steps: int, setting: dict[str, str]) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in os.environ.items() if name not in NAMES} | setting
    command = [sys.executable, "-m", "mpcli", "train", "vae", "--steps", str(steps), "--quiet", "--out", str(folder)]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


def measure(root: Path, steps: int, setting: dict[str, str], others: int) -> tuple[float, float]:
    """CPU and wall seconds of one training beside so many others, which last longer than it."""
    beside = [start(root / f"other-{number}", 100 * steps, setting) for number in range(others)]
    try:
        if others:
            time.sleep(8)  # until they train
        began = time.monotonic()
        process = start(root / "measured", steps, setting)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
        if any(other.poll() is not None for other in beside):
            raise RuntimeError("another training ended before the one that is measured")
    finally:
        for other in beside:
            other.kill()
            other.wait()
    if process.returncode:
        raise RuntimeError(f"the training exited with {process.returncode}")
    for path in root.iterdir():
        shutil.rmtree(path)
    return usage.ru_utime + usage.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 1, 2], help="how many other trainings")
    parser.add_argument("--only", nargs="+", default=[""], help="words of the settings; the first is always measured")
    options = parser.parse_args()
    first, *rest = SETTINGS
    chosen = [first, *(name for name in rest if any(text in name for text in options.only))]
    spent: dict[tuple[str, int], list[tuple[float, float]]] = {(n, c): [] for n in chosen for c in options.beside}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for others in options.beside:
                for name in chosen:
                    cpu, wall = measure(Path(folder), options.steps, SETTINGS[name], others)
                    spent[name, others].append((cpu, wall))
                    figures = f"{cpu:.1f} CPU s, {wall:.1f} s, load {os.getloadavg()[0]:.1f}"
                    print(f"{number} {name}, beside {others}: {figures}", file=sys.stderr)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, rounds: {options.rounds}")
    print(f"| setting | {' | '.join(f'beside {others}: CPU, wall' for others in options.beside)} |")
    print(f"|---|{'---:|' * len(options.beside)}")
    for name in chosen:
        cells = []
        for others in options.beside:
            mine, base = (
                [statistics.median(column) for column in zip(*spent[which, others], strict=True)]
                for which in (name, first)
            )
            cells.append(", ".join(f"{value / of:.2f}" for value, of in zip(mine, base, strict=True)))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
