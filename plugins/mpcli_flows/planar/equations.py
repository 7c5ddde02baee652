"""The equations of the page, checked on one layer."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, gradient, identity, inequality
from mpcli_flows import planar
from mpcli_flows.kit.bases import Normal
from mpcli_flows.kit.bijectors import Chain
from mpcli_flows.kit.flow import Flow, log_abs_det


def gradcheck() -> Iterator[Case]:
    drawn = (3,), (3,), (3,), ()  # z, w, u, b

    def made(z: Tensor, w: Tensor, u: Tensor, b: Tensor) -> tuple[Flow, planar.Planar, Tensor, Tensor]:
        f = planar.Planar(3).double().requires_grad_(False)
        f.w.data, f.u.data, f.b.data = w, u, b
        slope = 1 + (1 - torch.tanh(w @ z + b).square()) * (f.invertible_u()[0] @ w)
        return Flow(Chain([f]), Normal(3)), f, f(z[None])[0], slope  # x = f(z), and 1 + h' u^T w

    def determinant(z: Tensor, *rest: Tensor) -> Sides:
        _, f, _, slope = made(z, *rest)
        found, right = [slope.log()], [log_abs_det(lambda y: f(y[None])[0][0], z)]
        for f.h in planar.BENDS:
            found.append(f(z[None])[1][0])
            right.append(log_abs_det(lambda y: f(y[None])[0][0], z))
        return torch.stack(found), torch.stack(right)

    yield identity("det df/dz = 1 + h'(w^T z + b) u^T w", determinant, *drawn)

    def backwards(*given: Tensor) -> Sides:
        _, f, x, slope = made(*given)
        return f.inverse(x)[1][0].exp(), 1 / slope, slope

    printed = Printed("(149)", "det df^-1/dx = 1 + h' u^T w", "det df/dz = 1 + h' u^T w")
    yield identity("det df^-1/dx = 1 / (1 + h' u^T w)", backwards, *drawn, printed=printed)

    def density(z: Tensor, *rest: Tensor) -> Sides:
        flow, _, x, slope = made(z, *rest)
        p_z = flow.base.log_prob(z[None]).exp()
        return flow(x).exp(), p_z / slope, p_z * slope

    printed = Printed("(150)", "p_z(z) (1 + h' u^T w)", "p_z(z) / |1 + h' u^T w|")
    yield identity("p(x) = p_z(z) / |1 + h' u^T w|, x = f(z)", density, *drawn, printed=printed)

    def change(z: Tensor, *rest: Tensor) -> Sides:
        flow, f, x, _ = made(z, *rest)
        p_z, logdet = flow.base.log_prob(z[None]).exp(), log_abs_det(lambda y: f.inverse(y[None])[0][0], x[0])
        return flow(x).exp(), p_z * logdet.exp(), p_z / logdet.abs()

    printed = Printed("(147)", "p_z(f^-1(x)) |log det df^-1/dx|^-1", "p_z(f^-1(x)) |det df^-1/dx|")
    yield identity("p(x) = p_z(f^-1(x)) |det df^-1/dx|", change, *drawn, printed=printed)

    def objective(z: Tensor, *rest: Tensor) -> Sides:
        flow, _, x, slope = made(z, *rest)
        return -flow(x)[0], *(weight * z @ z + slope.log() + 1.5 * math.log(2 * math.pi) for weight in (0.5, 1))

    printed = Printed("(152)", "|z|^2 + log |1 + h' u^T w|", "|z|^2 / 2 + log |1 + h' u^T w|")
    yield identity("-log p(x) = |z|^2/2 + log |1 + h' u^T w| + (D/2) log 2 pi", objective, *drawn, printed=printed)

    def constraint(z: Tensor, w: Tensor, u: Tensor, b: Tensor) -> Sides:
        return -1.0, made(z, w, 3 * u, b)[1].invertible_u()[0] @ w

    yield inequality("w^T u >= -1 for every u as parametrised", constraint, *drawn)

    def there_and_back(z: Tensor, w: Tensor, u: Tensor, b: Tensor) -> Sides:
        _, f, x, _ = made(z, w, u, b)
        u = -3 * w / (w @ w)
        folded = z + u * torch.tanh(w @ z + b)
        return f.inverse(x)[0][0], z, folded - u * torch.tanh(planar.root((w @ folded + b)[None], w @ u))

    printed = Printed("(145)", "f is invertible for any u and w", "f is invertible for w^T u >= -1")
    yield identity("f^-1 by the root of a + (w^T u) h(a + b) = w^T x", there_and_back, *drawn, printed=printed)

    def slopes(y: Tensor, s: Tensor) -> Sides:
        a = torch.stack([planar.root(y.requires_grad_(), s.tanh(), h) for h in planar.BENDS])
        return a, torch.autograd.grad(a.sum(), y)[0]

    yield gradient("the root's gradient: da/dy = 1 / (1 + s h'(a))", slopes, (3,), ())

    def free_energy(z: Tensor, *rest: Tensor) -> Sides:
        flow, _, x, slope = made(z, *rest)
        return (
            planar.FreeEnergy(flow, planar.u1)(z[None], 0.5) - 0.5 * planar.u1(x),
            flow(x),
            flow.base.log_prob(z[None]) + slope.log(),
        )

    name = "free energy: log q(x) + t U(x) at x = f(z), log q(x) = log p_z(z) - log |det df/dz|"
    yield identity(name, free_energy, *drawn, mistake="the log-determinant added")
