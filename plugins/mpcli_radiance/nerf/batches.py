"""Training batches: rays that can teach something, and where along them the networks look."""

from collections.abc import Callable

import torch
from torch import Tensor

from mpcli.kit import rays
from mpcli.kit.datasets import Scene
from mpcli.kit.randomness import generator
from mpcli_radiance.nerf.space import Space

CANDIDATES = 8  # pixels drawn for each that is kept: a scene fills a part of its views


def rays_that_meet(
    scene: Scene, space: Space, background: Tensor, size: int, seed: int
) -> Callable[[int], tuple[Tensor, ...]]:
    """Origins, directions and colours of `size` pixels of the training views, of rays that meet open space if they can.

    The colour of any other ray is that of the background whatever the networks say: it teaches nothing.
    """
    pixels = rays.pixel_batches(scene, scene.split.train, CANDIDATES * size, seed, background)

    def batch(step: int) -> tuple[Tensor, ...]:
        rows = pixels(step)
        misses = space.open(*rows[:2]).length == 0
        kept = misses.byte().argsort(stable=True)[:size]
        return tuple(row[kept] for row in rows)

    return batch


def jittered(
    pixels: Callable[[int], tuple[Tensor, ...]], coarse: int, fine: int, seed: int
) -> Callable[[int], tuple[Tensor, ...]]:
    """Rays and colours of a step, and offsets [R, coarse] and [R, fine] of the samples along them, even in [0, 1)."""

    def batch(step: int) -> tuple[Tensor, ...]:
        rows, g = pixels(step), generator(seed, step, 1)  # other numbers than those that chose the pixels
        return *rows, *(torch.rand(len(rows[0]), n, generator=g).to(rows[0]) for n in (coarse, fine))

    return batch
