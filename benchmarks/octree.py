"""Does asking a function coarse to fine pay? Octree against dense extraction on the same lattice, 256 cells a side.

    python benchmarks/octree.py [--cells N] [--run RUN]

For the torus (R = 0.5, r = 0.25 in [-1, 1]^3), a formula that costs next to nothing, and for a trained `igr`, a
network. RUN is a run of `mpcli train igr`; without it one is trained first, with the default options. Behind the rows:
the share of the lattice that was asked, the share that no method can do without (the corners of the cells that the
surface crosses), and whether both gave the same mesh; for the torus also what it takes to split the cells with a change
of sign, from 32^3 on.

Mescheder, Oechsle, Niemeyer, Nowozin and Geiger, Occupancy Networks, 2019. arXiv:1812.03828 (splitting by signs)
"""

import argparse
import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from protocol import compare, cpu_seconds

parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
parser.add_argument("--cells", type=int, default=256)
parser.add_argument("--run", type=Path)
parser.add_argument("--scratch", type=Path)
OPTIONS = parser.parse_known_args()[0]
CUBE = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


def extraction(shape: str, method: str) -> float:
    from mpcli import heap

    heap.keep_freed_blocks()
    import torch

    from mpcli.kit import isosurface
    from mpcli.run import Trained
    from mpcli_surfaces import igr, torus

    torch.set_num_threads(1)
    if shape == "torus":
        field, box, slope, once = torus.Torus(0.5, 0.25).distance, CUBE, 1.0, {}
    else:
        model = Trained(OPTIONS.run, device="cpu").load(igr.IGR, igr.Config)
        field, box, slope, once = model.value, model.box(), igr.SLOPE, {"at_least": 0, "warmup": 0}
    found = []

    def work() -> None:
        found[:] = [isosurface.marching_cubes(field, box, OPTIONS.cells, method=method, lipschitz=slope)]

    seconds = cpu_seconds(work, **once)
    mesh = found[0]
    np.savez(OPTIONS.scratch / f"{shape}-{method}.npz", vertices=mesh.vertices, faces=mesh.faces,
             box=box, asked=[mesh.asked, mesh.points])  # fmt: skip
    return seconds


def report(shape: str) -> None:
    octree, dense = (np.load(OPTIONS.scratch / f"{shape}-{method}.npz") for method in ("octree", "dense"))
    asked, points = octree["asked"]
    low, high = octree["box"]
    cells = np.maximum(np.rint((high - low) / (high - low).max() * OPTIONS.cells), 1).astype(int)
    crossed = np.zeros(cells + 1, bool)
    # A triangle lies in one cell; its middle says in which.
    middle = octree["vertices"][octree["faces"]].mean(axis=1)
    index = np.clip(((middle - low) / (high - low) * cells).astype(int), 0, cells - 1)
    for corner in product((0, 1), repeat=3):
        crossed[tuple((index + corner).T)] = True
    same = octree["faces"].shape == dense["faces"].shape and (octree["faces"] == dense["faces"]).all()
    apart = np.abs(octree["vertices"] - dense["vertices"]).max() if same else np.nan
    print(f"{shape}: {asked / points:.2%} of {points} points asked, {crossed.sum() / points:.2%} needed")
    verdict = f"the same, vertices {apart:.1e} apart" if same else "NOT THE SAME"
    print(f"{shape}: the {len(octree['faces'])} faces of octree and dense are {verdict}")


def asked_by_signs(start: int = 32) -> float:
    """Share of the lattice asked by splitting the cells whose corners have two signs, from `start`^3 cells on."""
    import torch

    from mpcli_surfaces import torus

    n = OPTIONS.cells
    axis = torch.linspace(-1, 1, n + 1)
    inside = (torus.Torus(0.5, 0.25).distance(torch.stack(torch.meshgrid([axis] * 3, indexing="ij"), -1)) < 0).numpy()
    known, size = np.zeros(inside.shape, bool), n // start
    cells = np.indices((start,) * 3).reshape(3, -1).T * size
    corners, parts = np.array(list(product((0, 1), repeat=3))), np.array(list(product((0, 1, 2), repeat=3)))
    known[::size, ::size, ::size] = True
    while size > 1:
        signs = inside[tuple(np.moveaxis(cells[:, None] + corners * size, -1, 0))]
        cells = cells[signs.any(axis=1) != signs.all(axis=1)]
        size //= 2
        known[tuple((cells[:, None] + parts * size).reshape(-1, 3).T)] = True
        cells = (cells[:, None] + corners * size).reshape(-1, 3)
    return float(known.mean())


def trained(folder: str) -> Path:
    from mpcli.cli import run

    if run(["train", "igr", "--out", f"{folder}/igr", "--quiet"]) != 0:
        sys.exit("mpcli train igr failed")
    return Path(folder, "igr")


def questions() -> None:
    for shape, repeats in (("torus", 5), ("igr", 3)):
        sides = (partial(extraction, shape, method) for method in ("octree", "dense"))
        compare(f"{shape}, {OPTIONS.cells}^3: octree, peer dense", *sides, repeats=repeats,
                packages=("scikit-image",))  # fmt: skip
        if "--side" not in sys.argv and (OPTIONS.scratch / f"{shape}-dense.npz").exists():
            report(shape)
            if shape == "torus":
                print(f"torus: splitting by signs asks {asked_by_signs():.2%}")


if __name__ == "__main__":
    if OPTIONS.scratch:  # the process of one side
        questions()
    else:
        with tempfile.TemporaryDirectory() as folder:
            OPTIONS.scratch = Path(folder)
            sys.argv += ["--scratch", folder]
            if not OPTIONS.run:
                OPTIONS.run = trained(folder)
                sys.argv += ["--run", str(OPTIONS.run)]
            questions()
