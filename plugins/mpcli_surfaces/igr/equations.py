"""The equations of the page, checked: distances, the network's slope, the linear model, the secant method."""

import math
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mpcli.checks import Case
from mpcli.kit.rotations import axis_angle_to_matrix
from mpcli.kit.sphere_tracing import secant
from mpcli.old_checks import gradient, identity
from mpcli_surfaces import plane
from mpcli_surfaces.igr import IGR, Config
from mpcli_surfaces.sphere import Sphere
from mpcli_surfaces.torus import Torus


def cases() -> Iterator[Case]:
    def points(g: torch.Generator) -> tuple[Tensor]:
        return (torch.randn(6, 3, generator=g, dtype=torch.float64),)

    def slope(field: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.grad(field))(x).norm(dim=-1)

    ball, torus, p = Sphere(0.7).distance, Torus(0.8, 0.3).distance, torch.tensor([0.3, -0.2, 0.5]).double()
    fields = [ball, torus, lambda x: plane.distance(x, p, p)]
    occupancies = [lambda x, f=f: torch.sigmoid(-10 * f(x)) for f in fields]
    yield identity(
        "Eikonal: |grad f| = 1 for ball, torus and plane; an occupancy sigmoid(-10 f) is no solution",
        lambda x: torch.stack([slope(f, x) for f in fields]),
        lambda x: torch.ones(3, len(x), dtype=x.dtype),
        points,
        printed=lambda x: torch.stack([slope(f, x) for f in occupancies]),
    )
    yield gradient(
        "d(|g| - 1)^2 / dg = 2 (|g| - 1) g / |g|",
        lambda g: (g.norm(dim=-1) - 1).square(),
        lambda g: 2 * (1 - 1 / g.norm(dim=-1, keepdim=True)) * g,
        points,
    )

    def moved(g: torch.Generator) -> tuple[Tensor, ...]:  # points, a turn, a shift and a scale
        turn = axis_angle_to_matrix(torch.randn(3, generator=g).double())
        return *points(g), turn, torch.randn(3, generator=g).double(), 0.5 + torch.rand(1, generator=g).double()

    yield identity(
        "a f(R^T (x - c) / a) is the distance from the shape turned by R, scaled by a and moved to c",
        lambda x, turn, c, a: a * torus((x - c) @ turn / a),
        lambda x, turn, c, a: (
            (x - closest_on_torus((x - c) @ turn / a, 0.8, 0.3) @ turn.T * a - c).norm(dim=-1)
            * torus((x - c) @ turn / a).sign()
        ),
        moved,
    )

    def network(g: torch.Generator) -> tuple[Tensor, IGR]:
        net = IGR(Config(width=8, depth=3, sharpness=5.0), (-1.0, -2.0, -1.5), (2.0, 1.0, 1.0)).double()
        for parameter in net.parameters():
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=g).double()
        return *points(g), net

    yield gradient("grad f of the network, layer by layer", lambda x, f: f.value(x), lambda x, f: f(x)[1], network)

    def linear(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:  # w, a unit normal n, points with n . x = 0
        w, n = torch.randn(2, 3, generator=g, dtype=torch.float64)
        n, x = n / n.norm(), torch.randn(9, 3, generator=g, dtype=torch.float64)
        return w, n, x - (x @ n)[:, None] * n

    yield gradient(
        "d/dw [mean (w . x)^2 + lambda (|w|^2 - 1)^2] = 2 mean (w . x) x + 4 lambda (|w|^2 - 1) w",
        lambda w, n, x: linear_loss(w, x, 0.1),
        lambda w, n, x: 2 * (x @ w) @ x / len(x) + 4 * 0.1 * (w @ w - 1) * w,
        linear,
    )
    yield identity(
        "descent takes w . n to (1 - 4 eta lambda (|w|^2 - 1)) w . n: it keeps its sign, and |w| seeks 1",
        lambda w, n, x: (w - 0.05 * torch.func.grad(linear_loss)(w, x, 0.1)) @ n,
        lambda w, n, x: (1 - 4 * 0.05 * 0.1 * (w @ w - 1)) * (w @ n),
        linear,
    )

    def line(g: torch.Generator) -> tuple[Tensor, ...]:  # x0, f0, x1, f1
        return torch.randn(4, 5, generator=g, dtype=torch.float64).unbind()

    def solved(x0: Tensor, f0: Tensor, x1: Tensor, f1: Tensor) -> Tensor:
        one = torch.ones_like(x0)
        line = torch.linalg.solve(torch.stack([x0, one, x1, one], -1).unflatten(-1, (2, 2)), torch.stack([f0, f1], -1))
        return -line[:, 1] / line[:, 0]

    yield identity("secant: x1 - f1 (x1 - x0) / (f1 - f0) is the zero of the line", secant, solved, line)

    def cubic(g: torch.Generator) -> tuple[Tensor]:  # a, of f(x) = x^3 - a
        return (1.5 + torch.rand(1, generator=g, dtype=torch.float64),)

    yield identity(
        "the secant step with both points at x is Newton's x - f / f'",
        lambda a: secant(a * 0 + 2 + 1e-7, (2 + 1e-7) ** 3 - a, a * 0 + 2, 8 - a),
        lambda a: 2 - (8 - a) / 12,
        cubic,
    )
    yield identity(
        "the secant method's order is (1 + sqrt 5) / 2 = 1.618",
        lambda a: order_of_secant(a),
        lambda a: torch.full_like(a, (1 + math.sqrt(5)) / 2),
        cubic,
        rtol=1e-4,
    )
    yield identity(
        "kept to opposite signs (regula falsi) it is linear: errors shrink by 1 - f'(s) (b - s) / f(b)",
        lambda a: rate_of_regula_falsi(a),
        lambda a: 1 - 3 * a ** (2 / 3) * (2 - a ** (1 / 3)) / (8 - a),
        cubic,
    )


def linear_loss(w: Tensor, x: Tensor, weight: float) -> Tensor:  # [3], points [n, 3] -> [], of f(x) = w . x
    return (x @ w).square().mean() + weight * (w.square().sum() - 1).square()


def closest_on_torus(x: Tensor, major: float, minor: float) -> Tensor:  # [n, 3] -> [n, 3]
    ring = major * normalize(x * torch.tensor([1.0, 1.0, 0.0]), dim=-1)
    return ring + minor * normalize(x - ring, dim=-1)


def order_of_secant(a: Tensor) -> Tensor:
    """log(e3 / e2) / log(e2 / e1) of three late errors, to 1000 digits, as they soon have some hundred zeros."""
    with localcontext(prec=1000):
        number = Decimal(float(a))
        root = number ** (Decimal(1) / 3)
        x = [Decimal(2), Decimal("1.9")]
        for _ in range(13):
            f0, f1 = x[-2] ** 3 - number, x[-1] ** 3 - number
            x.append(x[-1] - f1 * (x[-1] - x[-2]) / (f1 - f0))
        e1, e2, e3 = (abs(value - root) for value in x[-3:])
        return a.new_tensor([float((e3 / e2).ln() / (e2 / e1).ln())])


def rate_of_regula_falsi(a: Tensor) -> Tensor:
    """e2 / e1 of two late errors. The function is convex, so that the end at 2 never moves."""
    with localcontext(prec=100):
        number = Decimal(float(a))
        root = number ** (Decimal(1) / 3)
        low, high = Decimal(1), Decimal(2)
        for _ in range(60):
            before, f0, f1 = low, low**3 - number, high**3 - number
            low = high - f1 * (high - low) / (f1 - f0)
        return a.new_tensor([float((low - root) / (before - root))])
