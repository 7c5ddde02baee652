"""Sphere: the simplest signed distance.

    f(x) = |x| - r                     negative inside, zero on the surface, positive outside
    grad f = x / |x|,  |grad f| = 1    a distance changes by one unit a unit
    x - f(x) grad f = r x / |x|        so that the nearest point of the surface is one step away

The familiar polynomial has the same zeros, but is no distance; between the two,

    F(x) = x^2 + y^2 + z^2 - r^2 = f (f + 2 r),    |grad F| = 2 |x|

Hart, Sphere Tracing: A Geometric Method for the Antialiased Ray Tracing of Implicit Surfaces, The Visual Computer 12,
1996.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from mpcli.checks import Case
from mpcli.kit import isosurface
from mpcli.old_checks import gradient, identity
from mpcli.run import Run


@dataclass(frozen=True)
class Sphere:
    radius: Annotated[float, "radius r, around the origin", Interval(gt=0, le=1e6)] = 0.75

    def distance(self, x: Tensor) -> Tensor:  # [..., 3] -> [...]
        return x.norm(dim=-1) - self.radius


def marching_cubes(sphere: Sphere, run: Run, grid: isosurface.Grid) -> None:
    b = 4 / 3 * sphere.radius
    isosurface.extract(run, sphere.distance, grid, fitted=((-b, -b, -b), (b, b, b)))


def gradcheck() -> Iterator[Case]:
    sphere = Sphere(0.7)
    r = sphere.radius

    def draw(g: torch.Generator) -> tuple[Tensor]:
        return (torch.randn(6, 3, generator=g, dtype=torch.float64),)

    def slope(x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    def polynomial(x: Tensor) -> Tensor:
        return x.square().sum(-1) - r**2

    yield gradient("grad f = x / |x|", sphere.distance, slope, draw)
    yield identity(
        "|f(x)| is the distance to the nearest point r x / |x|, sign by side",
        sphere.distance,
        lambda x: (x - r * slope(x)).norm(dim=-1) * (x.norm(dim=-1) - r).sign(),
        draw,
    )
    yield identity(
        "x - f grad f lies on the sphere",
        lambda x: (x - sphere.distance(x)[:, None] * slope(x)).norm(dim=-1),
        lambda x: torch.full_like(x[:, 0], r),
        draw,
    )
    yield identity(
        "x^2 + y^2 + z^2 - r^2 = f (f + 2 r)",
        polynomial,
        lambda x: sphere.distance(x) * (sphere.distance(x) + 2 * r),
        draw,
    )
    yield identity(
        "|grad f| = 1; the polynomial, taken for a distance, has 2 |x|",
        lambda x: torch.func.vmap(torch.func.grad(sphere.distance))(x).norm(dim=-1),
        lambda x: torch.ones_like(x[:, 0]),
        draw,
        printed=lambda x: torch.func.vmap(torch.func.grad(polynomial))(x).norm(dim=-1),
    )
