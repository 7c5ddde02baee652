"""What makes a flow affordable, and what it still costs: determinants, depth and size.

    determinant   the log-determinants of 64 triangular Jacobians from their diagonals, beside those of 64 full ones
    depth         held-out nll of `realnvp` on moons with so many couplings, all else as it comes
    size          CPU seconds of a training step of `glow` on 64 grey pictures with so many pixels a side, all else
                  as it comes, as multiples of that on pictures of 8x8

`python benchmarks/flows_cost.py [--only determinant|depth|size]`
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial

from protocol import ONE_THREAD, compare, cpu_seconds

BATCH = 64


def triangular(dim: int) -> float:
    import torch

    scales = torch.randn(BATCH, dim)
    return cpu_seconds(lambda: scales.sum(1))


def full(dim: int) -> float:
    import torch

    jacobian = torch.randn(BATCH, dim, dim)
    return cpu_seconds(lambda: torch.linalg.slogdet(jacobian))


def nll(couplings: int) -> float:
    command = [sys.executable, "-m", "mpcli", "train", "realnvp", "--data", "moons", "--couplings", str(couplings)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--json", "--quiet", "--out", f"{folder}/run"],
            env=os.environ | ONE_THREAD,
            stdout=subprocess.PIPE,
            check=True,
        )
    return float(json.loads(done.stdout)["metrics"]["nll"])


def step(side: int) -> float:
    import torch

    from mpcli_flows.glow import Config, Glow

    model = Glow(Config(), (1, side, side), 256)
    adam = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.rand(BATCH, 1, side, side)

    def train() -> None:
        adam.zero_grad()
        (-model(x).mean()).backward()
        adam.step()

    return cpu_seconds(train)


def main() -> None:
    for dim in (16, 64, 256, 1024):
        name = f"log-determinants, {dim} dimensions"
        compare(name, partial(triangular, dim), partial(full, dim), repeats=3)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    only = parser.parse_known_args()[0].only
    if only in ("", "depth"):
        print("| couplings | nll |\n|-|-|")
        for couplings in (2, 4, 8, 16):
            print(f"| {couplings} | {nll(couplings):.3f} |", flush=True)
    if only in ("", "size"):
        import torch

        torch.set_num_threads(1)
        print("| side | CPU s a step | times that of 8 |\n|-|-|-|")
        first = step(8)
        for side in (8, 16, 32, 64):
            seconds = first if side == 8 else step(side)
            print(f"| {side} | {seconds:.3f} | {seconds / first:.1f} |", flush=True)


if __name__ == "__main__":
    main()
