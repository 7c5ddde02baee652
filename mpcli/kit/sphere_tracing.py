"""Where rays meet an implicit surface: steps as long as the distance allows, then the secant method.

A signed distance f promises an empty ball of radius |f(x)| around x, so a ray may go that far. Near the surface a few
secant steps finish: superlinear, and without the derivative that Newton's method asks for.

Hart, Sphere Tracing: A Geometric Method for the Antialiased Ray Tracing of Implicit Surfaces, The Visual Computer 12,
1996.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Field = Callable[[Tensor], Tensor]  # points [n, 3] -> values [n]


def secant(
    x0: Float[Tensor, "*n"], f0: Float[Tensor, "*n"], x1: Float[Tensor, "*n"], f1: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """The zero of the line through (x0, f0) and (x1, f1); x1 where that line is level.

    x2 = x1 - f1 (x1 - x0) / (f1 - f0)
    """
    rise = f1 - f0
    return x1 - torch.where(rise == 0, 0, f1 * (x1 - x0) / torch.where(rise == 0, 1, rise))


@torch.no_grad()
def trace(
    field: Field,
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    near: Float[Tensor, " n"],
    far: Float[Tensor, " n"],
    lipschitz: float = 1.0,
    tolerance: float = 1e-4,
    steps: int = 200,
    refinements: int = 4,
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """The first zero of `field` along each ray in [near, far].

    A ray marches by f / lipschitz until f is less than `tolerance`, or negative where f was steeper than promised; then
    secant steps through its last two points, each kept where it brings f nearer to 0.

    Args:
        directions: of unit length.
        lipschitz: f changes by at most this much a unit; 1 for a distance. Too small a number can step over thin parts.
        tolerance: in units of f.

    Returns:
        The distance along each ray, and whether it met the surface; the distance means nothing where it did not.
    """

    def at(rays: Tensor, t: Tensor) -> Tensor:
        return field(origins[rays] + t[:, None] * directions[rays])

    t, hit = near.clone(), torch.zeros_like(near, dtype=torch.bool)
    before, f_before, f_last = near.clone(), torch.zeros_like(near), torch.zeros_like(near)
    going = torch.nonzero(near < far)[:, 0]
    for _ in range(steps):
        if not len(going):
            break
        f = at(going, t[going])
        f_before[going], f_last[going] = f_last[going], f
        met = f < tolerance
        hit[going[met]] = True
        going, f = going[~met], f[~met]
        before[going] = t[going]
        t[going] += f / lipschitz
        going = going[t[going] < far[going]]

    rays = torch.nonzero(hit)[:, 0]
    x0, f0, x1, f1 = before[rays], f_before[rays], t[rays], f_last[rays]
    for _ in range(refinements):
        x2 = secant(x0, f0, x1, f1)
        f2 = at(rays, x2)
        better = f2.abs() < f1.abs()
        x0, f0 = torch.where(better, x1, x0), torch.where(better, f1, f0)
        x1, f1 = torch.where(better, x2, x1), torch.where(better, f2, f1)
    t[rays] = x1
    return t, hit
