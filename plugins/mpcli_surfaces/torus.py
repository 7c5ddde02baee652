"""Torus: the distance to a circle, less a radius.

    f(x, y, z) = sqrt((sqrt(x^2 + y^2) - R)^2 + z^2) - r        around the z axis; R to the ring, r of the tube

The circle's nearest point lies in the half-plane of x and the axis, so that this is a distance wherever |grad f| = 1:
everywhere but on the circle and the axis. The surface is also the zero set of, with `--form algebraic`,

    F = (sqrt(x^2 + y^2) - R)^2 + z^2 - r^2 = f (f + 2 r)        and of the polynomial, without a root,
    P = (x^2 + y^2 + z^2 + R^2 - r^2)^2 - 4 R^2 (x^2 + y^2)

which are no distances. Area 4 pi^2 R r, volume 2 pi^2 R r^2 (Pappus), for r <= R; a larger r closes the hole.

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

from mpcli.checks import Case, Sides, gradient, identity, inequality, uniform
from mpcli.kit import isosurface
from mpcli.run import Run
from mpcli_surfaces.kit import tracing
from mpcli_surfaces.kit.tracing import View


@dataclass(frozen=True)
class Torus:
    major: Annotated[float, "radius R of the ring", Interval(gt=0, le=1e6)] = 0.5
    minor: Annotated[float, "radius r of the tube", Interval(gt=0, le=1e6)] = 0.25

    form: Annotated[Literal["distance", "algebraic"], "f, or F"] = "distance"

    def distance(self, x: Tensor) -> Tensor:  # [..., 3] -> [...]
        return (from_ring(x, self.major).square() + x[..., 2].square()).sqrt() - self.minor

    def algebraic(self, x: Tensor) -> Tensor:  # [..., 3] -> [...]
        return from_ring(x, self.major).square() + x[..., 2].square() - self.minor**2

    def field(self, x: Tensor) -> Tensor:
        return self.distance(x) if self.form == "distance" else self.algebraic(x)

    def box(self) -> isosurface.Box:
        b = 4 / 3 * (self.major + self.minor)
        return (-b, -b, -b), (b, b, b)

    def steepest(self, box: isosurface.Box) -> float:  # a bound of |grad| in a box: |grad F| = 2 (f + r)
        across, deep, high = (max(abs(a), abs(b)) for a, b in zip(*box, strict=True))
        from_circle = max(self.major, math.hypot(across, deep) - self.major)
        return 1.0 if self.form == "distance" else 2 * math.hypot(from_circle, high)


def from_ring(x: Tensor, major: float) -> Tensor:  # [..., 3] -> distance from the cylinder sqrt(x^2 + y^2) = R [...]
    return (x[..., 0].square() + x[..., 1].square()).sqrt() - major


def marching_cubes(torus: Torus, run: Run, grid: isosurface.Grid) -> None:
    isosurface.extract(run, torus.field, grid, torus.box(), torus.steepest(grid.box(torus.box())))


def render(torus: Torus, run: Run, view: View) -> None:
    tracing.render(run, view, torus.field, torus.box(), torus.steepest(torus.box()))


def gradcheck() -> Iterator[Case]:
    big, small = 0.8, 0.3
    f, squared = Torus(big, small).field, Torus(big, small, "algebraic").field
    angle = uniform(0, 2 * math.pi, 6)

    def point(u: Tensor, v: Tensor, s: Tensor) -> Tensor:  # on the torus of tube radius s
        ring = big + s * v.cos()
        return torch.stack([ring * u.cos(), ring * u.sin(), s * v.sin()], -1)

    def around(u: Tensor, v: Tensor, s: Tensor) -> Sides:
        return f(point(u, v, s)), s - small

    yield identity("f = s - r on the torus of tube radius s", around, angle, angle, uniform(0.1, 0.7, 6))

    def nearest(x: Tensor, u: Tensor) -> Sides:
        return f(x) + small, (x - point(u, u, 0 * u)).norm(dim=-1)

    yield inequality("f + r <= |x - (R cos u, R sin u, 0)|: no point of the ring is nearer", nearest, (6, 3), angle)

    def slope(x: Tensor) -> Sides:
        flat = (1 - big / x[:, :2].norm(dim=-1, keepdim=True)) * x[:, :2]
        return f(x), torch.cat([flat, x[:, 2:]], -1) / (f(x) + small)[:, None]

    yield gradient("grad f = ((1 - R / sqrt(x^2 + y^2)) (x, y), z) / (f + r)", slope, (6, 3))

    def eikonal(x: Tensor) -> Sides:
        unit, other = (vmap(grad(field))(x).norm(dim=-1) for field in (f, squared))
        return unit, torch.ones_like(unit), other

    yield identity("|grad f| = 1", eikonal, (6, 3), mistake="(sqrt(x^2 + y^2) - R)^2 + z^2 - r^2 for a distance")

    def bound(x: Tensor) -> Sides:
        box = (-3.0, -1.0, -2.0), (2.0, 4.0, 1.0)
        inside = torch.sigmoid(x) * (torch.tensor(box[1]) - torch.tensor(box[0])) + torch.tensor(box[0])
        most = torch.tensor(Torus(big, small, "algebraic").steepest(box)).expand(len(x))
        return vmap(grad(squared))(inside).norm(dim=-1), most

    yield inequality("|grad F| = 2 (f + r) <= its bound in a box", bound, (6, 3))

    def product(x: Tensor) -> Sides:
        return f(x) * (f(x) + 2 * small), squared(x)

    yield identity("f (f + 2 r) = F = (sqrt(x^2 + y^2) - R)^2 + z^2 - r^2", product, (6, 3))

    def polynomial(x: Tensor) -> Sides:
        squares, other = x.square(), from_ring(x, -big).square() + x[:, 2].square() - small**2
        whole = (squares.sum(-1) + big**2 - small**2).square() - 4 * big**2 * squares[:, :2].sum(-1)
        return f(x) * (f(x) + 2 * small) * other, whole

    yield identity("P = F ((sqrt(x^2 + y^2) + R)^2 + z^2 - r^2): no other zeros for r < R", polynomial, (6, 3))
