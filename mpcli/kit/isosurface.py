"""Surfaces out of functions: marching cubes over a lattice that is asked point by point, or coarse to fine.

A surface is the level set {x : f(x) = level} of a function f from points to numbers. Marching cubes turns the values of
f on a lattice into triangles; scikit-image does it in the topologically consistent form of Lewiner, Lopes, Vieira and
Tavares, Efficient Implementation of Marching Cubes' Cases with Topological Guarantees, Journal of Graphics Tools 8(2),
2003. Of n^3 points only the corners of the cells that the surface crosses matter, some n^2, so the octree asks f for
little more than those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

import numpy as np
import torch
import trimesh
from annotated_types import Interval
from jaxtyping import Float, Int
from skimage import measure
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit import raster
from mpcli.run import Run, watched

Field = Callable[[Tensor], Tensor]  # points [n, 3] -> values [n]
Box = tuple[tuple[float, float, float], tuple[float, float, float]]  # lower and upper corner

AT_ONCE = 1 << 15  # points a call of f: bounds the memory that f needs, and fits the caches
Z = (0.0, 0.0, 1.0)
CORNERS = np.array(list(product((0, 1), repeat=3)))


@dataclass(frozen=True)
class Grid:
    """What every page that extracts a surface lets its user choose."""

    resolution: Annotated[int, "cells along the longest side of the box", Interval(ge=2, le=1024)] = 128
    level: Annotated[float, "value of the function on the surface"] = 0.0
    bounds: Annotated[tuple[float, ...], "b for [-b, b]^3, or xmin,ymin,zmin,xmax,ymax,zmax [default: fitted]"] = ()
    method: Annotated[Literal["octree", "dense"], "ask the function coarse to fine, or everywhere"] = "octree"

    def box(self, fitted: Box) -> Box:
        """The box that `bounds` describes; `fitted` where it is empty.

        Raises:
            InputError: it has neither 1 nor 6 numbers, or describes no box.
        """
        if not self.bounds:
            return fitted
        if len(self.bounds) not in (1, 6):
            raise InputError(f"--bounds: has {len(self.bounds)} numbers; 1 or 6 would be right")
        low, high = np.reshape(self.bounds, (2, 3)) if len(self.bounds) == 6 else np.outer((-1, 1), self.bounds * 3)
        if not (np.isfinite(self.bounds).all() and (low < high).all()):
            raise InputError("--bounds: is no box; each lower bound must be a number below its upper bound")
        return corner(low), corner(high)


@dataclass(frozen=True)
class Surface:
    """A triangle mesh, and what it cost: f was called at `asked` points; the whole lattice has `points`."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    asked: int
    points: int

    def mesh(self) -> trimesh.Trimesh:
        """The triangles, counter-clockwise seen from the side where f is greater: outside, for a distance."""
        return trimesh.Trimesh(self.vertices, self.faces, process=False)


def extract(
    run: Run,
    field: Field,
    grid: Grid,
    fitted: Box,
    lipschitz: float = 1.0,
    *,
    heading: str = "",
    up: tuple[float, float, float] = Z,
    azimuth: float = 0.5,
) -> None:
    """What the verb `marching_cubes` of a page does: see `marching_cubes` and `write`; `fitted` is the default box."""
    box = grid.box(fitted)
    surface = marching_cubes(field, box, grid.resolution, grid.level, grid.method, lipschitz, device=run.device)
    write(run, surface, heading, up, azimuth)


def write(
    run: Run, surface: Surface, heading: str = "", up: tuple[float, float, float] = Z, azimuth: float = 0.5
) -> None:
    """Writes mesh.ply, or the format that the user asks for, and mesh.png; reports what the surface cost.

    The picture is seen as `raster.portrait` says, under a heading, which is the run's where none is given.
    """
    mesh = surface.mesh()
    run.mesh("mesh.ply", mesh)
    run.figure("mesh.png", raster.portrait(mesh, heading or run.heading, up, azimuth))
    vertices, faces, share = len(surface.vertices), len(surface.faces), surface.asked / surface.points
    run.say(f"{vertices} vertices, {faces} faces; asked at {surface.asked} points, {share:.2%} of the lattice")
    run.result(vertices=vertices, faces=faces, asked=share)


def marching_cubes(
    field: Field,
    box: Box,
    resolution: int,
    level: float = 0.0,
    method: Literal["octree", "dense"] = "octree",
    lipschitz: float = 1.0,
    device: torch.device | str = "cpu",
) -> Surface:
    """The surface f = level in `box`, on a lattice with `resolution` cells along the longest side.

    `dense` asks f at every lattice point. `octree` asks at the centres of blocks of lattice points, and goes on only
    with those whose centre leaves the sign of f - level open. With

        |f(x) - f(y)| <= L |x - y|     for all x and y in the box

    a block has the sign of its centre c throughout if |f(c) - level| > L r, r the distance from c to its farthest
    point. Every cell whose corners then disagree has all of them asked.

    **What is guaranteed.** Where `lipschitz` is a true bound L, nothing is missed, however thin: the mesh is that of
    `dense`, vertex by vertex and face by face (up to the last digits, where f rounds as the size of a batch has it). A
    distance has L = 1, and so have its moved copies, unions, intersections and offsets; any other function has the
    greatest length of its gradient. With a bound that is too small, parts that lie inside blocks dropped too early can
    be missed. Two things are watched that only a false bound can cause: a slope above it between a block and its parts
    or neighbours, and an inferred sign that is wrong where it is asked later. Either raises the bound and starts again.
    That finds functions that are steep over much of the box, and cannot find a needle between the points asked: for a
    function without a known bound, `dense` is the proof.

    Memory: up to 8 bytes a lattice point.

    Args:
        field: f; it is given points on `device`, float32, at most `AT_ONCE` of them.
        lipschitz: L, in units of f per unit of length.

    Raises:
        InputError: f is not finite at some point, or does not cross `level` in the box.
    """
    lattice = _Lattice(field, box, resolution, float(np.float32(level)), device)
    if method == "dense":
        values, mask = _everywhere(lattice), None
    else:
        values, mask = _coarse_to_fine(lattice, lipschitz)
    if not lattice.least <= lattice.level < lattice.greatest or (mask is not None and not mask.any()):
        raise InputError(
            f"--level {level:g}: no surface in the box, where the function was seen between {lattice.least:.4g} and "
            f"{lattice.greatest:.4g}; a level between its extremes, or other --bounds, would be right"
        )
    if lattice.touched:  # at a corner where f is the level scikit-image leaves holes: f is below it there
        values[values == lattice.level] = np.nextafter(np.float32(lattice.level), np.float32(-np.inf))
    vertices, faces, _, _ = measure.marching_cubes(
        values, lattice.level, gradient_direction="descent", allow_degenerate=False, mask=mask
    )
    if lattice.touched:
        faces = _single(faces)
    vertices = (lattice.low + vertices * lattice.spacing).astype(np.float32)
    return Surface(vertices, np.ascontiguousarray(faces, np.int32), lattice.asked, values.size)


def _single(faces: np.ndarray) -> np.ndarray:
    """Without the triangles that scikit-image gives twice, one on the back of the other: they enclose nothing."""
    _, first, times = np.unique(np.sort(faces, 1), axis=0, return_index=True, return_counts=True)
    return faces[np.sort(first[times % 2 == 1])]


class _Lattice:
    """The points low + index * spacing, `shape` of them, and f on them and between them."""

    def __init__(self, field: Field, box: Box, resolution: int, level: float, device: torch.device | str):
        low, high = np.array(box, float)
        cells = np.maximum(np.rint((high - low) / (high - low).max() * resolution), 1).astype(int)
        self.low, self.spacing, self.shape = low, (high - low) / cells, tuple((cells + 1).tolist())
        self.field, self.level, self.device = field, level, device
        self.asked, self.least, self.greatest, self.touched = 0, np.inf, -np.inf, False

    def ask(self, index: np.ndarray) -> np.ndarray:
        """f at lattice coordinates [n, 3], which need not be whole, as float32 [n]."""
        values = np.empty(len(index), np.float32)
        for start in watched(range(0, len(index), AT_ONCE), "asking the function"):
            part = slice(start, start + AT_ONCE)
            points = torch.from_numpy((self.low + index[part] * self.spacing).astype(np.float32))
            with torch.no_grad():
                values[part] = self.field(points.to(self.device)).cpu().numpy()
        if not np.isfinite(values).all():
            where = self.low + index[~np.isfinite(values)][0] * self.spacing
            raise InputError(f"the function is not finite at {corner(where)}; a surface needs numbers everywhere")
        self.asked += len(index)
        self.least = min(self.least, values.min(initial=np.inf))
        self.greatest = max(self.greatest, values.max(initial=-np.inf))
        self.touched |= bool((values == self.level).any())
        return values


def _everywhere(lattice: _Lattice) -> np.ndarray:
    values = np.empty(lattice.shape, np.float32)
    slab = np.stack(np.meshgrid(0, *map(np.arange, lattice.shape[1:]), indexing="ij"), -1).reshape(-1, 3)
    for x in watched(range(lattice.shape[0]), "layers"):
        slab[:, 0] = x
        values[x] = lattice.ask(slab).reshape(lattice.shape[1:])
    return values


class _Refuted(Exception):
    """Values that the assumed bound forbids; `bound` is one that allows them."""

    def __init__(self, bound: float):
        self.bound = bound


def _coarse_to_fine(lattice: _Lattice, lipschitz: float) -> tuple[np.ndarray, np.ndarray]:
    """Values that are right at the corners of all crossed cells and 0 elsewhere; the mask that selects those cells."""
    while True:
        try:
            above, index, values = _signs(lattice, lipschitz)
            return _crossed_cells(lattice, lipschitz, above, index, values)
        except _Refuted as refuted:
            lipschitz = refuted.bound


def _signs(lattice: _Lattice, lipschitz: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where f > level, for the whole lattice; and the lattice points [n, 3] that were asked for it, with their values.

    A block of the present size (in lattice points a side) is near if its centre leaves its sign open. `above` holds the
    sign of each block, its own or inherited from a larger one.
    """
    spacing, level = lattice.spacing, lattice.level
    diagonal = float(np.linalg.norm(spacing))

    def blocks(size: int) -> tuple[int, ...]:
        return tuple(-(-n // size) for n in lattice.shape)

    def check(difference: np.ndarray, distance: float) -> None:
        steepest = float(np.abs(difference).max(initial=0)) / distance
        if steepest > 1.001 * lipschitz:  # the thousandth is far above what rounding does to a slope
            raise _Refuted(1.5 * steepest)

    size = 1 << max(int(np.ceil(np.log2(max(lattice.shape) / 16))), 0)
    index = np.indices(blocks(size)).reshape(3, -1).T
    values = lattice.ask(index * size + (size - 1) / 2)
    cube = values.reshape(blocks(size))
    for axis in range(3):
        check(np.diff(cube, axis=axis), size * float(spacing[axis]))
    above = cube > level
    while size > 1:
        reach = diagonal * ((size - 1) / 2 + 1e-3)  # and again, no rounding may decide
        near = np.abs(values - level) <= lipschitz * reach
        size //= 2
        for axis in range(3):
            above = above.repeat(2, axis)
        above = above[tuple(map(slice, blocks(size)))]
        index = (2 * index[near, None] + CORNERS).reshape(-1, 3)
        inside = (index < blocks(size)).all(1)
        index, parents = index[inside], values[near].repeat(8)[inside]
        values = lattice.ask(index * size + (size - 1) / 2)
        check(values - parents, diagonal * size / 2)
        above[tuple(index.T)] = values > level
    return above, index, values


def _crossed_cells(
    lattice: _Lattice, lipschitz: float, above: np.ndarray, index: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Asks for what is still unknown of the cells whose corners disagree; see `_coarse_to_fine`."""
    shape = lattice.shape
    steps = np.array((shape[1] * shape[2], shape[2], 1))  # in flat indices, a step along each axis
    above = np.ascontiguousarray(above).reshape(-1)
    grid, known = np.zeros(above.size, np.float32), np.zeros(above.size, bool)
    grid[index @ steps], known[index @ steps] = values, True

    some, every = above, above
    for step in steps:
        some, every = some[:-step] | some[step:], every[:-step] & every[step:]
    cells = np.flatnonzero(some ^ every)
    low = np.stack(np.unravel_index(cells, shape), 1)
    whole = (low + 1 < shape).all(1)  # a flat step over the end of a row leads to no neighbour
    cells, low = cells[whole], low[whole]
    for corner in CORNERS:
        index = cells + corner @ steps
        missing = ~known[index]
        index = index[missing]
        values = lattice.ask(low[missing] + corner)
        if (above[index] != (values > lattice.level)).any():
            raise _Refuted(2 * lipschitz)
        grid[index], known[index] = values, True
    known[:] = False
    known[cells + steps.sum()] = True  # scikit-image names a cell by its greatest corner
    return grid.reshape(shape), known.reshape(shape)


def corner(point: np.ndarray | Tensor) -> tuple[float, float, float]:
    """Three numbers as a corner of a box."""
    x, y, z = map(float, point)
    return x, y, z
