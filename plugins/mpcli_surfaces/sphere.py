"""Sphere: the simplest signed distance.

    f(x) = |x| - r                     negative inside, zero on the surface, positive outside
    grad f = x / |x|,  |grad f| = 1    a distance changes by one unit a unit
    x - f(x) grad f = r x / |x|        so that the nearest point of the surface is one step away

The familiar polynomial, `--form algebraic`, has the same zeros, but is no distance; between the two,

    F(x) = x^2 + y^2 + z^2 - r^2 = f (f + 2 r),    |grad F| = 2 |x|

Hart, Sphere Tracing: A Geometric Method for the Antialiased Ray Tracing of Implicit Surfaces, The Visual Computer 12,
1996.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import normalize

from mpcli.checks import Case, Sides, gradient, identity, inequality
from mpcli.kit import isosurface
from mpcli.run import Run
from mpcli_surfaces.kit import tracing
from mpcli_surfaces.kit.tracing import View


@dataclass(frozen=True)
class Sphere:
    radius: Annotated[float, "radius r, around the origin", Interval(gt=0, le=1e6)] = 0.75

    form: Annotated[Literal["distance", "algebraic"], "f, or F"] = "distance"

    def distance(self, x: Tensor) -> Tensor:  # [..., 3] -> [...]
        return x.norm(dim=-1) - self.radius

    def polynomial(self, x: Tensor) -> Tensor:  # [..., 3] -> [...]
        return x.square().sum(-1) - self.radius**2

    def field(self, x: Tensor) -> Tensor:
        return self.distance(x) if self.form == "distance" else self.polynomial(x)

    def box(self) -> isosurface.Box:
        b = 4 / 3 * self.radius
        return (-b, -b, -b), (b, b, b)

    def steepest(self, box: isosurface.Box) -> float:  # a bound of |grad| in a box
        farthest = math.hypot(*(max(abs(a), abs(b)) for a, b in zip(*box, strict=True)))
        return 1.0 if self.form == "distance" else 2 * farthest


def marching_cubes(sphere: Sphere, run: Run, grid: isosurface.Grid) -> None:
    isosurface.extract(run, sphere.field, grid, sphere.box(), sphere.steepest(grid.box(sphere.box())))


def render(sphere: Sphere, run: Run, view: View) -> None:
    tracing.render(run, view, sphere.field, sphere.box(), sphere.steepest(sphere.box()))


def gradcheck() -> Iterator[Case]:
    r = 0.7
    f, polynomial = Sphere(r).field, Sphere(r, "algebraic").field

    def slope(x: Tensor) -> Sides:
        return f(x), normalize(x, dim=-1)

    yield gradient("grad f = x / |x|", slope, (6, 3))

    def step(x: Tensor) -> Sides:
        return x - f(x)[:, None] * vmap(grad(f))(x), r * normalize(x, dim=-1)

    yield identity("x - f grad f = r x / |x|, on the sphere", step, (6, 3))

    def nearest(x: Tensor, y: Tensor) -> Sides:
        return f(x).abs(), (x - r * normalize(y, dim=-1)).norm(dim=-1)

    yield inequality("|f(x)| <= |x - y| for every y on the sphere", nearest, (6, 3), (6, 3))

    def product(x: Tensor) -> Sides:
        return f(x) * (f(x) + 2 * r), polynomial(x)

    yield identity("f (f + 2 r) = x^2 + y^2 + z^2 - r^2", product, (6, 3))

    def bound(x: Tensor) -> Sides:
        box = (-3.0, -1.0, -2.0), (2.0, 4.0, 1.0)
        inside = torch.sigmoid(x) * (torch.tensor(box[1]) - torch.tensor(box[0])) + torch.tensor(box[0])
        found = [vmap(grad(shape.field))(inside).norm(dim=-1) for shape in (Sphere(r), Sphere(r, "algebraic"))]
        most = [torch.tensor(shape.steepest(box) + 1e-9) for shape in (Sphere(r), Sphere(r, "algebraic"))]
        return torch.stack(found), torch.stack(most)[:, None].expand(2, len(x))

    yield inequality("|grad f| = 1 and |grad F| <= 2 max |x| in a box", bound, (6, 3))

    def eikonal(x: Tensor) -> Sides:
        unit, other = (vmap(grad(field))(x).norm(dim=-1) for field in (f, polynomial))
        return unit, torch.ones_like(unit), other

    yield identity("|grad f| = 1", eikonal, (6, 3), mistake="the polynomial taken for a distance")
