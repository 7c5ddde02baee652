"""Rendering without waste: the sums of the page, computed where they are not zero.

A ray is followed from front to back and ends where nothing can shine through any more; only samples that are seen get a
colour; and samples go through the network in tiles whose activations stay in the cache, which alone makes a network of
width 256 faster by half than one large matrix after the other.
"""

import math

import torch
from torch import Tensor

from mpcli_radiance.nerf import Field, NeRF, weights

TILE = 1 << 19  # activations of a layer that are computed in one go
BLOCK = 16  # samples along a ray between two looks at whether it has ended
NEGLIGIBLE = 1e-6  # a share of a pixel that may be left out: at the end of a ray, and at a sample


def march(
    model: NeRF, field: Field, origins: Tensor, directions: Tensor, t: Tensor, delta: Tensor, coloured: bool
) -> tuple[Tensor, Tensor]:
    """Weights [R, N] of samples at t [R, N], each for delta [R, N], and, where asked for, their sum of colours [R, 3].

    A weight is off by less than `NEGLIGIBLE`, a colour by less than that for each sample of its ray.
    """
    w, colour = torch.zeros_like(t), torch.zeros_like(origins)
    thickness = torch.zeros_like(t[:, 0])  # of all that lies in front
    delta = delta / model.space.reach
    rows = max(1, TILE // model.cfg.width // BLOCK)
    for start in range(0, t.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        alive = torch.nonzero(thickness < -math.log(NEGLIGIBLE))[:, 0]
        for row in alive.split(rows):
            x = model.scaled(origins[row], directions[row], t[row, part])
            h = field.hidden(x.flatten(0, 1))
            sigma = field.density(h).unflatten(0, x.shape[:2])
            here = weights(sigma, delta[row, part]) * torch.exp(-thickness[row, None])
            w[row, part] = here
            thickness[row] += (sigma * delta[row, part]).sum(-1)
            if coloured:
                seen = torch.nonzero(here.flatten() > NEGLIGIBLE)[:, 0]
                ray = row[seen // here.shape[1]]
                colour.index_add_(0, ray, here.flatten()[seen, None] * field.colour(h[seen], directions[ray]))
    return w, colour
