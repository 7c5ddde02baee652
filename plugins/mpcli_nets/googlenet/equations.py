"""Equations of inception modules and of the loss with heads, in the code that trains."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpcli.checks import Case, Sides, identity
from mpcli_nets.googlenet import inception, loss


def module(bottleneck: bool = True) -> inception.Inception:
    torch.manual_seed(0)
    return inception.Inception(5, (2, 3, 4, 2, 3, 2), False, bottleneck).double()


def weights(part: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of the convolutions of a branch, in their order."""
    return [(m.weight, torch.as_tensor(m.bias)) for m in part.modules() if isinstance(m, nn.Conv2d)]


def gradcheck() -> Iterator[Case]:
    def joined(x: Tensor) -> Sides:
        made = module()

        def through(x: Tensor, part: nn.Module) -> Tensor:
            for w, b in weights(part):
                x = F.conv2d(x, w, b, padding=w.shape[-1] // 2).relu()
            return x

        pooled = F.max_pool2d(x, 3, 1, 1)
        parts = [through(x, made.one), through(x, made.three), through(x, made.five), through(pooled, made.pooled)]
        swapped = [through(x, made.pooled) if part is parts[3] else part for part in parts]
        return made(x), torch.cat(parts, 1), torch.cat(swapped, 1)

    yield identity("inception: four branches, joined", joined, (2, 5, 4, 5), mistake="without the pool")

    def everywhere(x: Tensor) -> Sides:
        """A 1x1 convolution is one dense layer for all places."""
        made = module()
        ((w, b),) = weights(made.one)
        right = (torch.einsum("nchw,kc->nkhw", x, w[:, :, 0, 0]) + b[:, None, None]).relu()
        return made.one(x), right

    yield identity("1x1: a dense layer at every place", everywhere, (2, 5, 4, 5))

    def saved(_: Tensor) -> Sides:
        """Two operations for each product: of 5x5 behind r = 2 channels, and on all C = 5."""
        found = [inception.flops(module(bottleneck).five, (5, 6, 7)) for bottleneck in (True, False)]
        behind, without = 5 * 2 + 25 * 2 * 3, 25 * 5 * 3
        return torch.tensor(found), 2 * 42 * torch.tensor([behind, without]), 2 * 42 * torch.tensor([without, without])

    yield identity("bottleneck: C r + m^2 r K for m^2 C K", saved, (1,), mistake="nothing saved")

    def heads(eta: Tensor, first: Tensor, second: Tensor) -> Sides:
        t = torch.tensor([0, 2, 1])
        top, one, two = (-z.log_softmax(1)[torch.arange(3), t].mean() for z in (eta, first, second))
        return loss.total(eta, [first, second], t), top + 0.3 * (one + two), top + one + two

    yield identity("L = L_top + 0.3 (L_a + L_b)", heads, (3, 4), (3, 4), (3, 4), mistake="all alike")

    def mean(x: Tensor) -> Sides:
        """Of maps that are even everywhere, a head says the same at any size."""
        torch.manual_seed(0)
        head = inception.Head(3, 2, 4, 3, False).double().eval()
        even = x[:, :, :1, :1].expand(-1, -1, 8, 8)
        return head(even), head(even[:, :, :4, :4])

    yield identity("head: pooled to 4x4, whatever the size", mean, (2, 3, 1, 1))
