"""Equations of the network's levels, of its copies and of its tiles, in the code that trains."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mpcli.checks import Case, Sides, identity
from mpcli_nets.unet import net, tiles


def ready(made: torch.nn.Module) -> torch.nn.Module:
    """A network in evaluation, in float64, of which nothing is 0."""
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, 0, 1 if parameter.ndim > 1 else 0.01)
    return made.double().eval()


def gradcheck() -> Iterator[Case]:
    @torch.no_grad()
    def level(x: Tensor, condition: Tensor) -> Sides:
        torch.manual_seed(0)
        made = ready(net.Level(3, 4, 5, "none", 2))
        assert isinstance(made, net.Level) and made.modulation is not None
        scale, shift = made.modulation(condition)[:, :, None, None].chunk(2, 1)

        def convolved(layer: torch.nn.Module, z: Tensor) -> Tensor:
            return F.conv2d(z, torch.as_tensor(layer.weight), torch.as_tensor(layer.bias), padding=1)

        z = convolved(made.first, x)
        right = convolved(made.second, (z * (1 + scale) + shift).relu()).relu()
        return made(x, condition), right, convolved(made.second, (z * scale + shift).relu()).relu()

    yield identity("z (1 + s) + b of the condition", level, (2, 3, 5, 4), (2, 5), mistake="z s + b")

    @torch.no_grad()
    def still(x: Tensor, condition: Tensor) -> Sides:
        """As made, a condition changes nothing, and all that comes out is 0."""
        torch.manual_seed(1)
        made = net.UNet(2, 3, (4, 8), condition=5, norm="group").double()
        levels = made.encode(x, condition)
        return torch.cat([levels[-1].flatten(), made(x, condition).flatten()]), torch.cat(
            [made.encode(x, 0 * condition)[-1].flatten(), torch.zeros(2 * 3 * 7 * 5)]
        )

    yield identity("begins at 0, whatever the condition", still, (2, 2, 7, 5), (2, 5))

    @torch.no_grad()
    def copied(x: Tensor) -> Sides:
        """The last level up has a copy of the first level down beside what comes from below."""
        torch.manual_seed(2)
        made = ready(net.UNet(1, 2, (3, 6), norm="none"))
        assert isinstance(made, net.UNet)
        shallow, deep = made.encode(x)
        step, level, top = made.steps[0], made.up[0], made.top
        below = F.conv_transpose2d(deep, torch.as_tensor(step.weight), torch.as_tensor(step.bias), stride=2)[
            ..., :7, :5
        ]

        def last(z: Tensor) -> Tensor:
            return F.conv2d(level(z), top.weight, top.bias)

        return made(x), last(torch.cat([shallow, below], 1)), last(torch.cat([shallow + below, 0 * below], 1))

    yield identity("skips are copies beside", copied, (2, 1, 7, 5), mistake="sums, as of residual blocks")

    @torch.no_grad()
    def tiled(_: Tensor, bytes_of: Tensor) -> Sides:
        torch.manual_seed(3)
        made = ready(net.UNet(1, 3, (2, 3, 4))).float()
        whole = tiles.classes_of(made, bytes_of, 4096)
        return tiles.classes_of(made, bytes_of, 16), whole, whole.flip(0)

    def picture(generator: torch.Generator) -> Tensor:
        return torch.randint(256, (1, 61, 45), generator=generator).to(torch.uint8)

    yield identity("tiles = the whole", tiled, (1,), picture, mistake="upside down")
