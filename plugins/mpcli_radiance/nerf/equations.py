"""The equations of the page, each against another way to the same number."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mpcli.checks import Case
from mpcli.old_checks import gradient, identity, inequality
from mpcli_radiance.nerf import Config, Field, Octaves, importance, weights

NODES, SHARES = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(40))  # on [-1, 1]


def medium(g: torch.Generator) -> tuple[Tensor, ...]:
    """Densities and lengths of six slabs on each of four rays, their colours, and a background colour a ray."""
    sigma, delta, colour = (torch.rand(4, 6, generator=g, dtype=torch.float64) for _ in range(3))
    return 4 * sigma, 0.05 + delta, colour, torch.rand(4, generator=g, dtype=torch.float64)


def composed(sigma: Tensor, delta: Tensor, colour: Tensor, background: Tensor) -> Tensor:  # C [R]
    w = weights(sigma, delta)
    return (w * colour).sum(-1) + (1 - w.sum(-1)) * background


def integrated(sigma: Tensor, delta: Tensor, colour: Tensor, background: Tensor) -> Tensor:
    """int T sigma c dt + T(far) background slab by slab, by Gauss and Legendre's rule."""
    in_front, total = torch.zeros_like(background), torch.zeros_like(background)
    for s, length, c in zip(sigma.T, delta.T, colour.T, strict=True):
        t = length[:, None] * (NODES + 1) / 2
        total += (torch.exp(-in_front[:, None] - s[:, None] * t) * SHARES).sum(-1) * s * c * length / 2
        in_front += s * length
    return total + torch.exp(-in_front) * background


def slope(sigma: Tensor, delta: Tensor, colour: Tensor, background: Tensor) -> Tensor:
    """delta_k (T_{k+1} c_k - what shines through from behind): more density shows more of itself and hides the rest."""
    thickness = (sigma * delta).cumsum(-1)
    light = weights(sigma, delta) * colour
    behind = light.sum(-1, keepdim=True) - light.cumsum(-1) + (torch.exp(-thickness[:, -1]) * background)[:, None]
    return delta * (torch.exp(-thickness) * colour - behind)


def cases() -> Iterator[Case]:
    yield identity(
        "sum_i T_i alpha_i = 1 - exp(-sum_i sigma_i delta_i)",
        lambda sigma, delta, *_: weights(sigma, delta).sum(-1),
        lambda sigma, delta, *_: 1 - torch.exp(-(sigma * delta).sum(-1)),
        medium,
        printed=lambda sigma, delta, *_: (  # with a T_i whose product reaches to i itself
            torch.exp(-(sigma * delta).cumsum(-1)) * (1 - torch.exp(-sigma * delta))
        ).sum(-1),
    )
    yield identity(
        "T_i = prod_{j<i} (1 - alpha_j)",
        lambda sigma, delta, *_: weights(sigma, delta),
        lambda sigma, delta, *_: (
            (1 - torch.exp(-sigma * delta))
            * torch.cat([torch.ones_like(sigma[:, :1]), torch.exp(-sigma * delta)[:, :-1]], -1).cumprod(-1)
        ),
        medium,
    )
    yield identity(
        "the sum is the integral where density and colour are constant between samples", composed, integrated, medium
    )
    name = "dC/dsigma_k = delta_k (T_{k+1} c_k - sum_{i>k} w_i c_i - T_end background)"
    yield gradient(name, composed, slope, medium)
    yield inequality(
        "sum_i w_i <= 1",
        lambda sigma, delta, *_: weights(sigma, delta).sum(-1),
        lambda sigma, *_: torch.ones_like(sigma[:, 0]),
        medium,
    )
    yield inequality(
        "w_i >= 0",
        lambda sigma, *_: torch.zeros_like(sigma),
        lambda sigma, delta, *_: weights(sigma, delta),
        medium,
    )

    def histogram(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:  # edges [4, 9], mass [4, 8], shares [4, 5]
        widths, mass = 0.1 + torch.rand(2, 4, 9, generator=g, dtype=torch.float64)
        return widths.cumsum(-1), mass[:, 1:], 0.01 + 0.98 * torch.rand(4, 5, generator=g, dtype=torch.float64)

    def distribution(edges: Tensor, mass: Tensor, u: Tensor) -> Tensor:  # F at the places drawn
        t = importance(edges, mass, u)[:, :, None]
        covered = ((t - edges[:, None, :-1]) / edges.diff()[:, None]).clamp(0, 1)
        return (covered * (mass / mass.sum(-1, keepdim=True))[:, None]).sum(-1)

    yield identity("F(F^{-1}(u)) = u: importance sampling", distribution, lambda edges, mass, u: u, histogram)

    def place(g: torch.Generator) -> tuple[Tensor]:
        return (2 * torch.rand(3, generator=g, dtype=torch.float64) - 1,)

    yield identity(
        "gamma: 3 -> 3 * 2 * 10 = 60 for places, 3 -> 3 * 2 * 4 = 24 for directions",
        lambda p: torch.tensor([Octaves(10)(p).numel(), Octaves(4)(p).numel()]),
        lambda p: torch.tensor([60, 24]),
        place,
    )
    gamma = Octaves(4)

    def gamma_slope(p: Tensor) -> Tensor:  # of the sum of all entries
        angles = p[:, None] * gamma.frequencies
        return (gamma.frequencies * (angles.cos() - angles.sin())).sum(-1)

    yield gradient("d sin(2^k pi p)/dp = 2^k pi cos(2^k pi p), and so on", gamma, gamma_slope, place)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = Field(Config(width=16, depth=4)).double()
    torch.nn.init.constant_(field.to_density.bias, 1.0)

    def looks(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:  # places, and two directions for each
        d = torch.nn.functional.normalize(torch.randn(2, 8, 3, generator=g, dtype=torch.float64), dim=-1)
        return 2 * torch.rand(8, 3, generator=g, dtype=torch.float64) - 1, d[0], d[1]

    yield identity(
        "d sigma / d direction = 0: density is read off before the direction enters",
        lambda x, d, other: field(x, d)[0],
        lambda x, d, other: field(x, other)[0],
        looks,
    )
