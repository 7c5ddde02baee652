"""The equations of the page, checked: distances, the loss, the network's slope, the secant method."""

from collections.abc import Callable, Iterator
from functools import reduce

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import normalize

from mpcli.checks import Case, Printed, Sides, gradient, identity, uniform
from mpcli.kit.sphere_tracing import secant, trace
from mpcli_surfaces import igr, plane
from mpcli_surfaces.sphere import Sphere
from mpcli_surfaces.torus import Torus


def gradcheck() -> Iterator[Case]:
    yield from losses()
    yield from network()
    yield from roots()


def losses() -> Iterator[Case]:
    """What the three terms say of functions that are known."""

    def unit_slope(field: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return igr.terms(field(x), x, vmap(grad(field))(x), x)[1]

    def eikonal(x: Tensor, p: Tensor) -> Sides:
        fields = [Sphere(0.7).distance, Torus(0.8, 0.3).distance, lambda x: plane.distance(x, p, p)]
        occupancies = [lambda x, f=f: torch.sigmoid(-10 * f(x)) for f in fields]
        found, wrong = (torch.stack([unit_slope(f, x) for f in some]) for some in (fields, occupancies))
        return found, torch.zeros(3), wrong

    name = "E (|grad f| - 1)^2 = 0 for ball, torus and plane"
    yield identity(name, eikonal, (6, 3), (3,), mistake="an occupancy sigmoid(-10 f)")

    def slope_of_eikonal(g: Tensor) -> Sides:
        return igr.terms(g[:, 0], g, g, g)[1], 2 * (1 - 1 / g.norm(dim=-1, keepdim=True)) * g / len(g)

    yield gradient("d(|g| - 1)^2 / dg = 2 (|g| - 1) g / |g|", slope_of_eikonal, (6, 3))

    def all_terms(f: Tensor, slope: Tensor, in_space: Tensor, normals: Tensor) -> Sides:
        n, scale = normalize(normals, dim=-1) * torch.tensor([1, 1, 1, 1, 1, 0.0])[:, None], in_space[:, :1].exp()
        away = (slope - n)[:-1].square().sum(-1).sqrt().sum() / len(n)
        right = torch.stack([f.abs().sum() / len(f), (scale - 1).square().mean(), away, f @ f / len(f)])
        known = f, slope, scale * normalize(in_space, dim=-1), n
        return torch.stack([*igr.terms(*known), igr.terms(*known, "squared")[0]]), right

    name = "mean |f| or f^2, E (|grad f| - 1)^2 and mean |grad f - n|, the last where n is known"
    yield identity(name, all_terms, (6,), (6, 3), (6, 3), (6, 3))

    def where(x: Tensor) -> Sides:  # f = (|x|^2 - 1) / 2, whose slope is x, at points of the unit sphere and in space
        on_sphere, unknown = normalize(x, dim=-1), torch.zeros_like(x)
        loss = igr.terms(0 * x[:, 0], on_sphere, x, unknown)[1]
        return loss, (x.norm(dim=-1) - 1).square().mean(), igr.terms(0 * x[:, 0], on_sphere, on_sphere, unknown)[1]

    name = "E (|grad f| - 1)^2 sees that (|x|^2 - 1) / 2, of unit slope on the sphere, is no distance"
    printed = Printed("(228)", "E over points of the surface", "E over space")
    yield identity(name, where, (6, 3), printed=printed)

    def descent(w: Tensor, n: Tensor, x: Tensor) -> Sides:
        n = normalize(n, dim=0)
        x, rate, weight = x - (x @ n)[:, None] * n, 0.05, 0.1

        def loss(w: Tensor) -> Tensor:
            vanish, eikonal, _ = igr.terms(x @ w, w.expand(9, 3), w.expand(9, 3), torch.zeros(9, 3))
            return vanish + weight * eikonal

        return (w - rate * grad(loss)(w)) @ n, (1 - 2 * rate * weight * (1 - 1 / w.norm())) * (w @ n)

    name = "f = w . x on points with n . x = 0: descent takes w . n to (1 - 2 eta lambda (1 - 1 / |w|)) w . n"
    yield identity(name, descent, (3,), (3,), (9, 3))


def network() -> Iterator[Case]:
    def weights(g: torch.Generator) -> dict[str, Tensor]:
        return {name: 0.5 * torch.randn(p.shape, generator=g).double() for name, p in made().named_parameters()}

    def made(a: float = 1.0, c: float = 0.0) -> igr.IGR:  # for a cloud in a box, a times as large and moved by c
        low, high = (tuple(a * x + c for x in corner) for corner in ((-1.0, -2.0, -1.5), (2.0, 1.0, 1.0)))
        return igr.IGR(igr.Config(width=8, depth=3, sharpness=5.0), low, high).double()

    def layer_by_layer(x: Tensor, w: dict[str, Tensor]) -> Sides:
        net = made()
        net.load_state_dict(w)
        return net.value(x), net(x)[1]

    yield gradient("grad f = ... W_k^T (sigmoid(beta z_k) * (W_{k+1}^T ...))", layer_by_layer, (6, 3), weights)

    def lengths(x: Tensor, w: dict[str, Tensor]) -> Sides:
        small, large = made(), made(2.0, 3.0)
        small.load_state_dict(w)
        large.load_state_dict(w)
        return large(2 * x + 3)[0], 2 * small.value(x), small.value(x)

    name = "a f((x - c) / a) is a length: a cloud twice as large has distances twice as large"
    yield identity(name, lengths, (6, 3), weights, mistake="f not multiplied by a")


def roots() -> Iterator[Case]:
    def line(x0: Tensor, f0: Tensor, x1: Tensor, f1: Tensor) -> Sides:
        one = torch.ones_like(x0)
        line = torch.linalg.solve(torch.stack([x0, one, x1, one], -1).unflatten(-1, (2, 2)), torch.stack([f0, f1], -1))
        return secant(x0, f0, x1, f1), -line[:, 1] / line[:, 0]

    name = "secant: x1 - f1 (x1 - x0) / (f1 - f0) is the zero of the line"
    yield identity(name, line, *((5,),) * 4)

    root = uniform(1.1, 1.4, 1)

    def newton(s: Tensor) -> Sides:  # of f(x) = x^3 - s^3 at x = 2
        return secant(0 * s + 2 + 1e-7, (2 + 1e-7) ** 3 - s**3, 0 * s + 2, 8 - s**3), 2 - (8 - s**3) / 12

    yield identity("the secant step with both points at x is Newton's x - f / f'", newton, root)

    def iterated(s: Tensor) -> Sides:
        def f(x: Tensor) -> Tensor:
            return x**3 - s**3

        def step(pair: tuple[Tensor, Tensor], _: int) -> tuple[Tensor, Tensor]:
            return pair[1], secant(pair[0], f(pair[0]), pair[1], f(pair[1]))

        def bracketed(low: Tensor, _: int) -> Tensor:  # f is convex, so that the end at 2 never moves
            return secant(low, f(low), 0 * low + 2, f(0 * low + 2))

        found = reduce(step, range(9), (0 * s + 1, 0 * s + 2))[1]
        return found, s, reduce(bracketed, range(9), 0 * s + 1)

    printed = Printed("000 10.2", "go on with points of opposite signs", "go on with the last two points")
    yield identity("nine secant steps find the root of x^3 - s^3", iterated, root, printed=printed)

    def ray(origin: Tensor, aim: Tensor) -> Sides:  # from outside a ball towards a point in it
        o = 2 * normalize(origin, dim=-1)
        d = normalize(0.5 * normalize(aim, dim=-1) - o, dim=-1)
        t, hit = trace(Sphere(0.7).distance, o, d, torch.zeros(6).double(), torch.full((6,), 9.0).double())
        along = (o * d).sum(-1)
        meets = -along - (along.square() - o.square().sum(-1) + 0.49).sqrt()
        return torch.where(hit, t, torch.nan), meets

    yield identity("rays meet a ball at -o . d - sqrt((o . d)^2 - |o|^2 + r^2)", ray, (6, 3), (6, 3))
