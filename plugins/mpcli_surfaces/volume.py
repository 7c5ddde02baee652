"""Volume: a surface in measured values, such as a CT scan or a stored distance.

A grid v of n_1 x n_2 x n_3 numbers stands for the function that is linear along each axis between them: with
x = i + t, i whole and t in [0, 1]^3,

    f(x) = sum_{c in {0,1}^3} v[i + c] prod_k (t_k if c_k else 1 - t_k)                     trilinear interpolation
    |df / dx_k| <= D_k = max |differences of neighbours along axis k|,    |grad f| <= sqrt(D_1^2 + D_2^2 + D_3^2)

At the grid's own points this is v, and marching cubes there needs no more. The bound is what makes a search from coarse
to fine exact. The price of cells is n^3: twice as fine a grid has eight times the numbers, whatever the shape.

Lorensen and Cline, Marching Cubes: A High Resolution 3D Surface Construction Algorithm, SIGGRAPH 1987.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Gt, Interval
from torch import Tensor
from torch.func import grad, vmap

from mpcli.checks import Case, Sides, gradient, identity, inequality, uniform
from mpcli.errors import InputError
from mpcli.kit import isosurface
from mpcli.kit.datasets.files import read_npy, read_npz
from mpcli.run import Run


def marching_cubes(
    run: Run,
    data: Annotated[str, "grid of numbers, .npy or .npz [default: a gyroid in a ball]"] = "",
    key: Annotated[str, "which array of an .npz that has several"] = "",
    spacing: Annotated[tuple[float, ...], "distance of neighbours: one number, or one an axis", Gt(0)] = (1.0,),
    inside: Annotated[
        Literal["less", "greater"], "the solid is where values are less than the level, or greater"
    ] = "less",
    level: Annotated[float | None, "value on the surface [default: 0 between two signs, else halfway]"] = None,
    resolution: Annotated[
        int | None, "cells along the longest side [default: as the grid]", Interval(ge=2, le=1024)
    ] = None,
    bounds: Annotated[tuple[float, ...], "xmin,ymin,zmin,xmax,ymax,zmax [default: all of the grid]"] = (),
    method: Annotated[Literal["octree", "dense"], "ask the function coarse to fine, or everywhere"] = "octree",
) -> None:
    grid = read(Path(data), key) if data else gyroid(64)
    run.say(f"{' x '.join(map(str, grid.shape))} values between {grid.min():.4g} and {grid.max():.4g}")
    if level is None:
        level = 0.0 if grid.min() < 0 < grid.max() else float(grid.min() / 2 + grid.max() / 2)
    if len(spacing) not in (1, 3):
        raise InputError(f"--spacing: has {len(spacing)} numbers; 1 or 3 would be right")

    # Asked in units of cells, so that the grid's own points are whole numbers and their values exact.
    unit = np.broadcast_to(spacing, 3)
    low, high = isosurface.Grid(bounds=bounds).box(
        ((0.0, 0.0, 0.0), isosurface.corner((np.array(grid.shape) - 1) * unit))
    )
    box = isosurface.corner(low / unit), isosurface.corner(high / unit)
    cells = resolution or max(round(b - a) for a, b in zip(*box, strict=True))
    values = torch.from_numpy(grid).to(run.device)
    surface = isosurface.marching_cubes(
        lambda x: trilinear(values, x), box, cells, level, method, steepest(values), device=run.device
    )
    faces = surface.faces if inside == "less" else surface.faces[:, ::-1]
    isosurface.write(run, replace(surface, vertices=surface.vertices * unit.astype(np.float32), faces=faces))


def trilinear(v: Tensor, x: Tensor) -> Tensor:  # [n1, n2, n3], [n, 3] in units of cells -> [n]; constant outside
    last = torch.tensor(v.shape, device=x.device) - 2
    i = torch.minimum(x.floor().long().clamp(min=0), last)
    t = (x - i).clamp(0, 1)
    total = torch.zeros_like(x[:, 0])
    for c in product((0, 1), repeat=3):
        corner = i + torch.tensor(c, device=x.device)
        weight = torch.where(torch.tensor(c, device=x.device) == 1, t, 1 - t).prod(-1)
        total = total + weight * v[corner.unbind(-1)]
    return total


def steepest(v: Tensor) -> float:  # [n1, n2, n3] -> a bound on |grad f|
    return math.sqrt(sum(float(v.diff(dim=axis).abs().max()) ** 2 for axis in range(3)))


def read(path: Path, key: str = "") -> np.ndarray:
    """The grid in a file, float32 [n1, n2, n3].

    Raises:
        InputError: the file is neither .npy nor .npz, is damaged, holds Python objects, or its array is no grid.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; a grid of numbers in .npy or .npz would be right")
    if path.suffix == ".npz":
        arrays = read_npz(path)
        if not key and len(arrays) == 1:
            key = next(iter(arrays))
        if key not in arrays:
            wrong = f"has no array {key}" if key else f"has {len(arrays)} arrays"
            raise InputError(f"{path}: {wrong}; --key with one of {', '.join(arrays) or 'none'} would be right")
        array = arrays[key]
    elif path.suffix == ".npy":
        array = read_npy(path)
    else:
        raise InputError(f"{path}: is of no known format; .npy or .npz would be right")
    if array.ndim != 3 or min(array.shape) < 2 or array.dtype.kind not in "biuf":
        raise InputError(f"{path}: is {array.dtype} {list(array.shape)}; numbers in three dimensions, 2 or more along "
                         "each, would be right")  # fmt: skip
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as that
        grid = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(grid).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(grid))[0]]
        raise InputError(f"{path}: the value at {where} is {array[tuple(where)]}; finite numbers would be right")
    return grid


def gyroid(n: int) -> np.ndarray:
    """One side of the surface sin x cos y + sin y cos z + sin z cos x = 0, cut to a ball with a rounded edge."""
    x = torch.stack(torch.meshgrid(*[torch.linspace(-1.1, 1.1, n)] * 3, indexing="ij"))
    wave = ((6.5 * x).sin() * (6.5 * x).cos().roll(-1, 0)).sum(0)
    return (torch.logsumexp(30 * torch.stack([wave / 8, x.norm(dim=0) - 1]), 0) / 30).numpy()


def gradcheck() -> Iterator[Case]:
    grid, inside = (4, 4, 4), uniform(0, 3, 8, 3)
    lattice = torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * 3)

    def multilinear(a: Tensor, x: Tensor) -> Tensor:  # a[0,0,0] + a[1,0,0] x + ... + a[1,1,1] x y z
        powers = (torch.stack([torch.ones_like(u), u], -1) for u in x.unbind(-1))
        return torch.einsum("ijk,ni,nj,nk->n", a, *powers)

    def exact(x: Tensor, a: Tensor) -> Sides:
        return trilinear(multilinear(a, lattice).reshape(grid), x), multilinear(a, x)

    yield identity("a grid of a + b x + ... + h x y z gives back the function", exact, inside, (2, 2, 2))

    def kept(v: Tensor) -> Sides:
        return trilinear(v, lattice), v.flatten()

    yield identity("f = v at the grid's own points", kept, grid)

    def along_z(z: Tensor, x: Tensor, v: Tensor) -> Sides:
        below, above = (trilinear(v, torch.cat([x[:, :2], z.floor() + k], -1)) for k in (0, 1))
        return trilinear(v, torch.cat([x[:, :2], z], -1)), (above - below)[:, None]

    name = "df/dz = the difference along z, interpolated in x and y"
    yield gradient(name, along_z, uniform(1.1, 1.9, 8, 1), inside, grid)

    def bounded(x: Tensor, v: Tensor) -> Sides:
        slope = vmap(grad(lambda point: trilinear(v, point[None])[0]))(x)
        return slope.norm(dim=-1), torch.full((len(x),), steepest(v))

    yield inequality("|grad f| <= sqrt(D_1^2 + D_2^2 + D_3^2)", bounded, inside, grid)

    def reached(a: Tensor) -> Sides:
        return steepest((lattice @ a).reshape(grid)), a.norm()

    yield identity("of a . x the bound is |a|", reached, (3,))
