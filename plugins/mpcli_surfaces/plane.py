"""Plane: through three points, by the cross product.

    n = (q - p) x (r - p)              perpendicular to both edges, as long as twice the triangle's area
    f(x) = n . (x - p) / |n|           signed distance: positive on the side that sees p, q, r counter-clockwise

With k = -n . p, the surface is n_1 x + n_2 y + n_3 z + k = 0: `--form algebraic`, which is f in units of 1 / |n|.
Through (a, 0, 0), (0, b, 0) and (0, 0, c) it is

    x / a + y / b + z / c - 1 = 0,     n = (b c, a c, a b),  k = -a b c

A plane has no inside, and its mesh ends where the box does.

Hesse, Vorlesungen über analytische Geometrie des Raumes, 1861 (the normal form of the equation).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mpcli.checks import Case, Sides, gradient, identity, uniform
from mpcli.errors import InputError
from mpcli.kit import isosurface
from mpcli.run import Run
from mpcli_surfaces.kit import tracing
from mpcli_surfaces.kit.tracing import View


@dataclass(frozen=True)
class Plane:
    p: Annotated[tuple[float, ...], "first point: x,y,z"] = (0.75, 0.0, 0.0)
    q: Annotated[tuple[float, ...], "second point: x,y,z"] = (0.0, 0.75, 0.0)
    r: Annotated[tuple[float, ...], "third point: x,y,z"] = (0.0, 0.0, 0.75)
    form: Annotated[Literal["distance", "algebraic"], "f, or n . x + k"] = "distance"


def solved(plane: Plane) -> tuple[Callable[[Tensor], Tensor], isosurface.Box, float]:
    """The function, a box around the three points, and |grad|.

    Raises:
        InputError: they are no points, or lie on one line.
    """
    points = plane.p, plane.q, plane.r
    for name, point in zip("pqr", points, strict=True):
        if len(point) != 3 or not torch.tensor(point).isfinite().all():
            raise InputError(f"-{name} {','.join(map(str, point))}: is no point; x,y,z in numbers would be right")
    p, q, r = torch.tensor(points, dtype=torch.float64)
    n = cross(q - p, r - p)
    if n.norm() <= 1e-6 * (q - p).norm() * (r - p).norm():
        raise InputError("-p, -q, -r: lie on one line; three points of just one plane would be right")
    middle = (p + q + r) / 3
    reach = 1.5 * torch.stack([p, q, r]).sub(middle).abs().max()
    box = isosurface.corner(middle - reach), isosurface.corner(middle + reach)
    if plane.form == "distance":
        return lambda x: distance(x, p.to(x), n.to(x)), box, 1.0
    return lambda x: linear(x, p.to(x), n.to(x)), box, float(n.norm())


def marching_cubes(plane: Plane, run: Run, grid: isosurface.Grid) -> None:
    field, box, steepest = solved(plane)
    isosurface.extract(run, field, grid, box, steepest)


@dataclass(frozen=True)
class Facing(View):
    azimuth: Annotated[float, "angle of the (first) camera around the object, radians"] = 2.6


def render(plane: Plane, run: Run, view: Facing) -> None:
    tracing.render(run, view, *solved(plane))


def cross(a: Tensor, b: Tensor) -> Tensor:  # [..., 3], [..., 3] -> [..., 3]
    (a1, a2, a3), (b1, b2, b3) = a.unbind(-1), b.unbind(-1)
    return torch.stack([a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1], -1)


def distance(x: Tensor, p: Tensor, n: Tensor) -> Tensor:  # [..., 3] -> [...], from the plane through p normal to n
    return (x - p) @ n / n.norm()


def linear(x: Tensor, p: Tensor, n: Tensor) -> Tensor:  # [..., 3] -> [...], n . x + k
    return x @ n - n @ p


def gradcheck() -> Iterator[Case]:
    points = ((3,),) * 4  # x, p, q, r

    def f(x: Tensor, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        return distance(x, p, cross(q - p, r - p))

    def slope(x: Tensor, p: Tensor, q: Tensor, r: Tensor) -> Sides:
        return f(x, p, q, r), normalize(torch.linalg.cross(q - p, r - p), dim=0)

    yield gradient("grad f = n / |n|, n = (q - p) x (r - p)", slope, *points)

    def parallelogram(a: Tensor, b: Tensor) -> Sides:
        return cross(a, b).square().sum(), (a @ a) * (b @ b) - (a @ b) ** 2

    yield identity("|a x b|^2 = |a|^2 |b|^2 - (a . b)^2: a parallelogram's squared area", parallelogram, (3,), (3,))

    def above(x: Tensor, p: Tensor, q: Tensor, r: Tensor) -> Sides:
        foot = p + x[0] * (q - p) + x[1] * (r - p)
        return f(foot + x[2] * normalize(cross(q - p, r - p), dim=0), p, q, r), x[2]

    yield identity("f at a point d above p + u (q - p) + v (r - p) is d", above, *points)

    def prism(x: Tensor, p: Tensor, q: Tensor, r: Tensor) -> Sides:
        base = torch.linalg.cross(q - p, r - p).norm()
        return f(x, p, q, r), torch.linalg.det(torch.stack([q - p, r - p, x - p])) / base

    yield identity("f = det(q - p, r - p, x - p) / |n|: the volume of a prism over its base", prism, *points)

    def intercepts(x: Tensor, abc: Tensor) -> Sides:
        n, k = abc.prod() / abc, -abc.prod()
        algebraic = linear(x, torch.diag(abc)[0], n)
        left = torch.stack([f(x, *torch.diag(abc)) * n.norm(), algebraic]) / -k
        return left, ((x / abc).sum() - 1).expand(2), ((x @ n - k) / -k).expand(2)

    name = "x / a + y / b + z / c - 1 = f |n| / (a b c), n = (b c, a c, a b), k = -a b c"
    yield identity(name, intercepts, (3,), uniform(0.5, 1.5, 3), mistake="k with the sign of n . p")
