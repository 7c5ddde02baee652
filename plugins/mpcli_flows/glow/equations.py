"""The equations of the page, checked: each part of a step, and the density of a small flow."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mpcli.checks import Case, Printed, Sides, identity, uniform
from mpcli_flows import glow
from mpcli_flows.kit.flow import log_abs_det


def gradcheck() -> Iterator[Case]:
    drawn = (1, 3, 2, 2), (3, 3), (3,)  # h, W, log |s|

    def whole(f: nn.Module, h: Tensor) -> Tensor:
        return log_abs_det(lambda y: f.inverse(y.reshape(h.shape))[0].flatten(), h.flatten())  # type: ignore[operator]

    def actnorm(h: Tensor, a: Tensor) -> Sides:
        f = glow.ActNorm(3).double().eval().requires_grad_(False)
        f.log_scale.data = a[:, None, None]
        return torch.stack((f.inverse(h)[1][0], -4 * a.sum())), whole(f, h).expand(2), -a.sum().expand(2)

    yield identity("actnorm: log |det| = -H W sum_c a_c", actnorm, drawn[0], (3,), mistake="H W left out")

    def first_batch(h: Tensor) -> Sides:
        variance, mean = torch.var_mean(h, (0, 2, 3), correction=0, keepdim=True)
        f = glow.ActNorm(3).double().requires_grad_(False)
        return f.inverse(h)[0], (h - mean) / variance.sqrt(), (h - mean) / variance

    yield identity(
        "actnorm: the first batch gets mean 0 and variance 1", first_batch, (4, 3, 2, 2), mistake="variances"
    )

    def plain(h: Tensor, w: Tensor) -> Sides:
        f = glow.Conv1x1(3).double().requires_grad_(False)
        f.matrix.data = w
        return f.inverse(h)[1][0], whole(f, h), torch.linalg.slogdet(w)[1]

    yield identity("1x1 convolution: log |det| = H W log |det W|", plain, *drawn[:2], mistake="H W left out")

    def factors(w: Tensor, a: Tensor) -> tuple[glow.LUConv1x1, list[Tensor]]:  # and P, L, U, diag s
        f = glow.LUConv1x1(3).double().requires_grad_(False)
        f.permutation, f.sign = torch.eye(3).double()[[2, 0, 1]], w.diag().sign()
        f.lower.data, f.upper.data, f.log_s.data = w, w, a
        return f, [f.permutation, w.tril(-1) + torch.eye(3).double(), w.triu(1), (f.sign * a.exp()).diag()]

    def by_factors(h: Tensor, w: Tensor, a: Tensor) -> Sides:
        f, _ = factors(w, a)
        return torch.stack((f.inverse(h)[1][0], 4 * a.sum())), whole(f, h).expand(2), a.sum().expand(2)

    printed = Printed("002 section 4", "log |det| = sum_i log |s_i|", "log |det| = H W sum_i log |s_i|")
    yield identity("W = P L (U + diag s): log |det| = H W sum_c log |s_c|", by_factors, *drawn, printed=printed)

    def product(h: Tensor, w: Tensor, a: Tensor) -> Sides:
        f, (p, lower, upper, s) = factors(w, a)
        return f.weight()[0], p @ lower @ (upper + s), p @ (upper + s)

    printed = Printed("002 section 4", "W = P (U + diag s)", "W = P L (U + diag s)")
    yield identity("W = P L (U + diag s), every factor of it", product, *drawn, printed=printed)

    def mixed(h: Tensor, w: Tensor, a: Tensor) -> Sides:
        f, (p, lower, upper, s) = factors(w, a)
        matrices = p @ lower @ (upper + s), p @ (lower + s)
        return f.inverse(h)[0], *(torch.einsum("ij,bjhw->bihw", m, h) for m in matrices)

    printed = Printed("003 section 4", "W = P (L + diag s)", "W = P L (U + diag s)")
    yield identity("z = P L (U + diag s) x at every pixel", mixed, *drawn, printed=printed)

    def there_and_back(h: Tensor, w: Tensor, a: Tensor) -> Sides:
        f, _ = factors(w, a)
        z, logdet = f.inverse(h)
        x, back = f(z)
        return torch.cat((x.flatten(), back)), torch.cat((h.flatten(), -logdet))

    yield identity("the convolution and its inverse, log |det| and its negative", there_and_back, *drawn)

    def density(x: Tensor, w: Tensor) -> Sides:
        flow = glow.Glow(glow.Config(depth=2, channels=2), (1, 2, 2), 17).double().eval().requires_grad_(False)
        for i, parameter in enumerate(flow.parameters()):
            parameter.add_(0.3 * w.roll(i).repeat(parameter.numel())[: parameter.numel()].reshape(parameter.shape))
        log_base = flow.base.log_prob(flow.bijector.inverse(x)[0])[0]
        return flow(x)[0], log_base + whole(flow.bijector, x), log_base

    name = "log p(x) = log p_z(z) + the log-determinants of all steps"
    yield identity(name, density, uniform(0.1, 0.9, 1, 1, 2, 2), (7,), mistake="the determinants left out")
