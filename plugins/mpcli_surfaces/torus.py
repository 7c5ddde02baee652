"""Torus: the distance to a circle, less a radius.

    f(x, y, z) = sqrt((sqrt(x^2 + y^2) - R)^2 + z^2) - r        around the z axis; R to the ring, r of the tube

The circle's nearest point lies in the half-plane of x and the axis, so that this is a distance wherever |grad f| = 1:
everywhere but on the circle and the axis. The surface is also the zero set of

    F = (sqrt(x^2 + y^2) - R)^2 + z^2 - r^2 = f (f + 2 r)        and of the polynomial, without a root,
    P = (x^2 + y^2 + z^2 + R^2 - r^2)^2 - 4 R^2 (x^2 + y^2)

which are no distances. Area 4 pi^2 R r, volume 2 pi^2 R r^2 (Pappus), for r <= R; a larger r closes the hole.

Hart, Sphere Tracing: A Geometric Method for the Antialiased Ray Tracing of Implicit Surfaces, The Visual Computer 12,
1996.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from mpcli.checks import Case
from mpcli.kit import isosurface
from mpcli.old_checks import gradient, identity, inequality
from mpcli.run import Run


@dataclass(frozen=True)
class Torus:
    major: Annotated[float, "radius R of the ring", Interval(gt=0, le=1e6)] = 0.5
    minor: Annotated[float, "radius r of the tube", Interval(gt=0, le=1e6)] = 0.25

    def distance(self, x: Tensor) -> Tensor:  # [..., 3] -> [...]
        return (from_ring(x, self.major).square() + x[..., 2].square()).sqrt() - self.minor


def from_ring(x: Tensor, major: float) -> Tensor:  # [..., 3] -> distance from the cylinder sqrt(x^2 + y^2) = R [...]
    return (x[..., 0].square() + x[..., 1].square()).sqrt() - major


def marching_cubes(torus: Torus, run: Run, grid: isosurface.Grid) -> None:
    b = 4 / 3 * (torus.major + torus.minor)
    isosurface.extract(run, torus.distance, grid, fitted=((-b, -b, -b), (b, b, b)))


def gradcheck() -> Iterator[Case]:
    torus = Torus(0.8, 0.3)
    big, small = torus.major, torus.minor

    def anywhere(g: torch.Generator) -> tuple[Tensor]:
        return (torch.randn(6, 3, generator=g, dtype=torch.float64),)

    def around(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:  # angles along ring and tube, a radius within R
        u, v, s = torch.rand(3, 6, generator=g, dtype=torch.float64)
        return 2 * math.pi * u, 2 * math.pi * v, 0.1 + 0.6 * s

    def point(u: Tensor, v: Tensor, s: Tensor) -> Tensor:  # on the torus of tube radius s
        ring = big + s * v.cos()
        return torch.stack([ring * u.cos(), ring * u.sin(), s * v.sin()], -1)

    def slope(x: Tensor) -> Tensor:
        flat = (1 - big / x[:, :2].norm(dim=-1, keepdim=True)) * x[:, :2]
        return torch.cat([flat, x[:, 2:]], -1) / (torus.distance(x) + small)[:, None]

    def squared(x: Tensor) -> Tensor:
        return from_ring(x, big).square() + x[:, 2].square() - small**2

    def polynomial(x: Tensor) -> Tensor:
        squares = x.square()
        return (squares.sum(-1) + big**2 - small**2).square() - 4 * big**2 * squares[:, :2].sum(-1)

    yield identity(
        "f = s - r on the torus of tube radius s",
        lambda u, v, s: torus.distance(point(u, v, s)),
        lambda u, v, s: s - small,
        around,
    )
    yield inequality(
        "f + r <= |x - (R cos u, R sin u, 0)|: no point of the ring is nearer",
        lambda x, u: torus.distance(x) + small,
        lambda x, u: (x - point(u, u, torch.zeros_like(u))).norm(dim=-1),
        lambda g: (*anywhere(g), around(g)[0]),
    )
    yield gradient(
        "grad f = ((1 - R / sqrt(x^2 + y^2)) (x, y), z) / (f + r)",
        torus.distance,
        slope,
        anywhere,
    )
    yield identity(
        "|grad f| = 1; (sqrt(x^2 + y^2) - R)^2 + z^2 - r^2, taken for a distance, has 2 (f + r)",
        lambda x: torch.func.vmap(torch.func.grad(torus.distance))(x).norm(dim=-1),
        lambda x: torch.ones_like(x[:, 0]),
        anywhere,
        printed=lambda x: torch.func.vmap(torch.func.grad(lambda y: squared(y[None])[0]))(x).norm(dim=-1),
    )
    yield identity(
        "(sqrt(x^2 + y^2) - R)^2 + z^2 - r^2 = f (f + 2 r)",
        squared,
        lambda x: torus.distance(x) * (torus.distance(x) + 2 * small),
        anywhere,
    )
    yield identity(
        "P = F ((sqrt(x^2 + y^2) + R)^2 + z^2 - r^2), whose second factor is positive for r < R",
        polynomial,
        lambda x: squared(x) * (from_ring(x, -big).square() + x[:, 2].square() - small**2),
        anywhere,
    )
