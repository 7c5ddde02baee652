"""The equations of the page, each against another way to the same number."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mpcli.checks import Case, Printed, Sides, gradient, identity, inequality, uniform
from mpcli_radiance import nerf

NODES, SHARES = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(40))  # on [-1, 1]
BACKGROUND = 1.0


def gradcheck() -> Iterator[Case]:
    yield from light()
    yield from samples()
    yield from openings()
    yield from fields()


@cache
def model() -> "nerf.NeRF":
    cfg = nerf.Config(width=16, depth=4, octaves=2, coarse=20, fine=20)
    return nerf.NeRF(cfg, (BACKGROUND,) * 3).double().eval()


def weights(g: torch.Generator) -> dict[str, Tensor]:
    parameters = model().named_parameters()
    return {name: torch.randn(p.shape, generator=g).double() * p.shape[-1] ** -0.5 for name, p in parameters}


def seen(sigma: Tensor, t: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [R, N] and light [R, 3] of rays that meet these densities [R, N] and colours [R, N, 3] at t."""
    ray, end = torch.zeros(len(t), 3, dtype=t.dtype), torch.full((len(t),), 4.0, dtype=t.dtype)
    return model().light(lambda x, d: (sigma, colour), ray, ray, t, nerf.spacing(t, end))


def light() -> Iterator[Case]:
    """The sums along a ray, on four rays of six slabs."""
    dense, colours = uniform(0, 4, 4, 6), uniform(0, 1, 4, 6, 3)

    def ascending(g: torch.Generator) -> Tensor:
        return 1 + 3 * torch.rand(4, 6, generator=g, dtype=torch.float64).sort(-1).values

    def passed(sigma: Tensor, t: Tensor) -> Tensor:  # optical thickness of each slab
        return sigma * torch.cat([t[:, 1:], torch.full((len(t), 1), 4.0)], 1).sub(t)

    def total(sigma: Tensor, t: Tensor, colour: Tensor) -> Sides:
        slabs = passed(sigma, t)
        itself = torch.exp(-slabs.cumsum(-1)) * (1 - torch.exp(-slabs))
        return seen(sigma, t, colour)[0].sum(-1), 1 - torch.exp(-slabs.sum(-1)), itself.sum(-1)

    name = "sum_i T_i alpha_i = 1 - exp(-sum_i sigma_i delta_i)"
    yield identity(name, total, dense, ascending, colours, mistake="T_i dimmed by sample i itself")

    def product(sigma: Tensor, t: Tensor, colour: Tensor) -> Sides:
        alpha = 1 - torch.exp(-passed(sigma, t))
        before = torch.cat([torch.ones(4, 1), (1 - alpha)[:, :-1]], -1).cumprod(-1)
        return seen(sigma, t, colour)[0], alpha * before, alpha * before[:, -1:]

    printed = Printed("(242)", "c = sum_{i=0} T_I alpha_i c_i", "c = sum_{i=1} T_i alpha_i c_i, T_1 = 1")
    yield identity("w_i = alpha_i prod_{j<i} (1 - alpha_j)", product, dense, ascending, colours, printed=printed)

    def integral(sigma: Tensor, t: Tensor, colour: Tensor) -> Sides:
        """int T sigma c dt + T(far) background slab by slab, by Gauss and Legendre's rule."""
        in_front, found = torch.zeros(4, 1).double(), torch.zeros(4, 3).double()
        for s, thickness, c in zip(sigma.T[..., None], passed(sigma, t).T[..., None], colour.unbind(1), strict=True):
            length = thickness / s
            along = torch.exp(-in_front - s * length * (NODES + 1) / 2) @ SHARES
            found += along[:, None] * s * c * length / 2
            in_front = in_front + thickness
        return seen(sigma, t, colour)[1], found + torch.exp(-in_front) * BACKGROUND, found

    name = "sum_i w_i c_i + (1 - sum_i w_i) background is the integral where sigma and c are constant between samples"
    yield identity(name, integral, dense, ascending, colours, mistake="no background")

    def slope(sigma: Tensor, t: Tensor, colour: Tensor) -> Sides:
        """More density shows more of itself and hides what is behind."""
        slabs, (w, c) = passed(sigma, t), seen(sigma, t, colour)
        own = (w[..., None] * colour).sum(-1)
        left = torch.exp(-slabs.cumsum(-1))
        behind = own.sum(-1, keepdim=True) - own.cumsum(-1) + 3 * BACKGROUND * left[:, -1:]
        return c, slabs / sigma * (left * colour.sum(-1) - behind)

    name = "dC/dsigma_k = delta_k (T_{k+1} c_k - sum_{i>k} w_i c_i - T_end background)"
    yield gradient(name, slope, dense, ascending, colours)


def samples() -> Iterator[Case]:
    """Where along a ray the networks look."""

    def parts(u: Tensor) -> Sides:
        t = nerf.stratified(2.0, 6.0, 8, u)
        return ((t - 2) / 0.5).floor(), torch.arange(8.0).expand(4, 8)

    yield identity("stratified: sample i lies in the i-th of N equal parts", parts, uniform(0, 1, 4, 8))

    def inverse(widths: Tensor, mass: Tensor, u: Tensor) -> Sides:  # F at the places drawn
        edges = widths.cumsum(-1)
        t = nerf.importance(edges, mass, u)[:, :, None]
        covered = ((t - edges[:, None, :-1]) / edges.diff()[:, None]).clamp(0, 1)
        return (covered * (mass / mass.sum(-1, keepdim=True))[:, None]).sum(-1), u

    draw = uniform(0.1, 1.1, 4, 9), uniform(0.1, 1.1, 4, 8), uniform(0.01, 0.99, 4, 5)
    yield identity("F(F^{-1}(u)) = u: importance sampling", inverse, *draw)

    def fast(weights: dict[str, Tensor], x: Tensor, d: Tensor) -> Sides:
        scene = model()
        scene.load_state_dict(weights, strict=False)  # the space is what it is
        rays = 3 * normalize(x, dim=-1), normalize(0.5 * d - x, dim=-1)
        return (scene.render(*rays)[0] - scene(*rays)[1]).abs(), torch.full((8, 3), 40e-6)

    yield inequality("rendering leaves out less than 1e-6 a sample", fast, weights, (8, 3), (8, 3), draws=5)


def fields() -> Iterator[Case]:
    """The networks, and what they are fed with."""

    def entries(p: Tensor) -> Sides:
        return torch.tensor([nerf.Octaves(10)(p).numel(), nerf.Octaves(4)(p).numel()]), torch.tensor([60, 24])

    name = "gamma: 3 -> 3 * 2 * 10 = 60 for places, 3 -> 3 * 2 * 4 = 24 for directions"
    yield identity(name, entries, (3,))

    def gamma(p: Tensor) -> Sides:
        frequencies = torch.pi * 2.0 ** torch.arange(4)  # as exact as those of the page
        angles = p[:, None] * frequencies
        return nerf.Octaves(4)(p), (frequencies * (angles.cos() - angles.sin())).sum(-1)

    name = "d sin(2^k pi p)/dp = 2^k pi cos(2^k pi p), d cos(2^k pi p)/dp = -2^k pi sin(2^k pi p)"
    yield gradient(name, gamma, uniform(-1, 1, 3))

    def look(weights: dict[str, Tensor], x: Tensor, d: Tensor, other: Tensor) -> Sides:
        scene = model()
        scene.load_state_dict(weights, strict=False)  # the space is what it is
        field = scene.fine
        return field(x, normalize(d, dim=-1))[0], field(x, normalize(other, dim=-1))[0]

    name = "d sigma / d direction = 0: density is read off before the direction enters"
    yield identity(name, look, weights, uniform(-1, 1, 8, 3), (8, 3), (8, 3))


def openings() -> Iterator[Case]:
    """Space that silhouettes leave, as one length along a ray."""

    def passed(origins: Tensor, aims: Tensor, cells: Tensor, shares: Tensor) -> Sides:
        space = nerf.Space().double()
        space.cells.copy_(cells > 0)
        directions = normalize(aims - origins, dim=-1)
        way = space.open(origins, directions)
        t = way.at(shares * way.length[:, None])
        # how much of the ray up to there lies in open cells, from a look at each of its parts
        middles = way.near[:, None] + way.part[:, None] * (torch.arange(nerf.space.PARTS) + 0.5)
        x = origins[:, None] + middles[..., None] * directions[:, None]
        i, j, k = ((x + 1) / 2 * len(cells)).long().clamp(0, len(cells) - 1).unbind(-1)
        held = cells[i, j, k] > 0
        behind = ((t[:, :, None] - middles[:, None]) / way.part[:, None, None] + 0.5).clamp(0, 1)
        return (behind * held[:, None]).sum(-1) * way.part[:, None], shares * way.length[:, None]

    def cells(g: torch.Generator) -> Tensor:
        return torch.randn(8, 8, 8, generator=g).repeat_interleave(8, 0).repeat_interleave(8, 1).repeat_interleave(8, 2)

    def outside(g: torch.Generator) -> Tensor:
        return 3 * normalize(torch.randn(6, 3, generator=g, dtype=torch.float64), dim=-1)

    draw = outside, uniform(-0.5, 0.5, 6, 3), cells, uniform(0.05, 0.95, 6, 5)
    yield identity("the length s of open space has been passed at t(s)", passed, *draw)
