"""Depth and width at about as many parameters: how near networks of one to four hidden layers come to a function.

    python benchmarks/depth.py

`mlp` learns `function` with tanh, on its whole training set in every step; printed is the greatest error on a finer
grid, the median of three seeds.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise

HIDDEN = {1: (400,), 2: (33, 33), 3: (23, 23, 23), 4: (19, 19, 19, 19)}


def parameters(hidden: tuple[int, ...]) -> int:
    """Weights and biases of a network from one number to one."""
    sizes = (1, *hidden, 1)
    return sum((a + 1) * b for a, b in pairwise(sizes))


def error(hidden: tuple[int, ...], seed: int) -> float:
    """The greatest error of one training."""
    options = ["--data", "function", "--hidden", ",".join(map(str, hidden)), "--activation", "tanh", "--batch", "512"]
    command = [sys.executable, "-m", "mpcli", "train", "mlp", *options, "--seed", str(seed), "--json", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["metrics"]["sup_error"]


def main() -> None:
    """Print a line for each depth."""
    for depth, hidden in HIDDEN.items():
        off = [error(hidden, seed) for seed in range(3)]
        middle, shown = statistics.median(off), ", ".join(f"{value:.4f}" for value in off)
        print(f"{depth} hidden layers {hidden}, {parameters(hidden)} parameters: {middle:.4f} ({shown})")


if __name__ == "__main__":
    main()
