"""Rays: where they meet boxes, and training batches of them drawn from the pixels of a scene."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mpcli.kit.datasets.types import Scene
from mpcli.kit.randomness import generator


def intersect_box(
    origins: Float[Tensor, "*batch 3"],
    directions: Float[Tensor, "*batch 3"],
    low: Float[Tensor, "3"],
    high: Float[Tensor, "3"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Distances at which rays enter and leave an axis-aligned box, in units of the directions' length.

    An origin inside enters at 0. Where a ray misses, the first is not less than the second.

    Kay and Kajiya, Ray Tracing Complex Scenes, SIGGRAPH 1986.
    """
    first, second = (low - origins) / directions, (high - origins) / directions
    # A ray in the plane of a face divides zero by zero: that pair of faces then bounds nothing.
    nearer = torch.minimum(first, second).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    farther = torch.maximum(first, second).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return nearer.amax(-1).clamp(min=0), farther.amin(-1)


def over(images: Float[Tensor, "*batch C H W"], background: Float[Tensor, "3"]) -> Float[Tensor, "*batch 3 H W"]:
    """Pictures with opacity laid over a colour; pictures without it unchanged."""
    if images.shape[-3] == 3:
        return images
    colour, opacity = images[..., :3, :, :], images[..., 3:, :, :]
    return colour * opacity + background[:, None, None] * (1 - opacity)


def pixel_batches(
    scene: Scene, views: Int64[Tensor, " views"], size: int, seed: int, background: Float[Tensor, "3"]
) -> Callable[[int], tuple[Float[Tensor, "size 3"], Float[Tensor, "size 3"], Float[Tensor, "size 3"]]]:
    """Origins, unit directions and colours (over `background`) of `size` pixels drawn from some of the views.

    A pure function of the step: every pixel is drawn evenly and by itself, from a generator that (seed, step) seeds.
    """
    _, _, height, width = scene.images.shape
    device = scene.images.device

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        g = generator(seed, step)
        view = views[torch.randint(len(views), (size,), generator=g)]
        row = torch.randint(height, (size,), generator=g)
        column = torch.randint(width, (size,), generator=g)
        pixels = torch.stack([column, row], -1) + 0.5
        origins, directions = scene.cameras.rays_at(view.to(device), pixels.to(device))
        colours = over(scene.images[view, :, row, column][..., None, None], background)[..., 0, 0]
        return origins, directions, colours

    return batch
