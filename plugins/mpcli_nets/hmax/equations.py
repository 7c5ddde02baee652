"""Equations of simple and complex cells, in the code that sees."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, identity, inequality
from mpcli_nets.hmax import cells

SIGMA = 1.5


def gradcheck() -> Iterator[Case]:
    def simple(x: Tensor, w: Tensor) -> Sides:
        """Of each window of three angles, by sums; the notes leave x without its index."""
        square = cells.distance(x[None], w)[0, 0]
        whole, loose = [], []
        for i in range(2):
            for j in range(3):
                window = x[:, i : i + 2, j : j + 2]
                whole.append((-(w[0] - window).square().sum() / (2 * SIGMA**2)).exp())
                loose.append((-(w[0] - window.mean()).square().sum() / (2 * SIGMA**2)).exp())
        # The inner ones: the others reach over the border.
        return cells.tuned(square, SIGMA)[1:3, 1:4].flatten(), torch.stack(whole), torch.stack(loose)

    printed = Printed("(16)", "exp(-sum_j (w_j - x)^2 / 2 sigma^2)", "exp(-sum_j (w_j - x_j)^2 / 2 sigma^2)")
    yield identity("S: exp(-sum_j (w_j - x_j)^2 / 2 sigma^2)", simple, (3, 3, 4), (1, 3, 2, 2), printed=printed)

    def peak(x: Tensor) -> Sides:
        """A part that was cut out of the picture says 1, however far its place is from any other."""
        return cells.anywhere([x[None]], x[None, :, 2:4, 1:3], SIGMA), torch.ones(1, 1)

    yield identity("C2: 1 where the part was cut", peak, (3, 5, 6))

    def below(x: Tensor, w: Tensor) -> Sides:
        return cells.anywhere([x], w, SIGMA), torch.ones(4, 2)

    yield inequality("C2 <= 1", below, (4, 3, 5, 5), (2, 3, 2, 2))

    def greatest(x: Tensor, y: Tensor, w: Tensor) -> Sides:
        """The greatest S2, though it is found as that of the least distance."""
        every = [cells.tuned(cells.distance(band, w), SIGMA).flatten(2).amax(2) for band in (x, y)]
        least = [cells.tuned(cells.distance(band, w), SIGMA).flatten(2).amin(2) for band in (x, y)]
        return cells.anywhere([x, y], w, SIGMA), torch.maximum(*every), torch.maximum(*least)

    draws = (1, 3, 5, 5), (1, 3, 4, 4), (2, 3, 2, 2)
    yield identity("C: max over places and sizes", greatest, *draws, mistake="the least")

    def pooled(x: Tensor, y: Tensor) -> Sides:
        """C1 by sums over windows of 4, two places apart, that begin two places outside."""
        both = torch.nn.functional.pad(torch.maximum(x, y), (2, 2, 2, 2), value=-torch.inf)
        whole = [
            both[..., i : i + 4, j : j + 4].amax((-2, -1)) for i in range(0, 7, cells.STRIDE) for j in range(0, 7, 2)
        ]
        return cells.pooled([x, y], 4).flatten(2), torch.stack(whole, -1)

    yield identity("C1: max over a window and two sizes", pooled, (1, 2, 6, 6), (1, 2, 6, 6))

    def shifted(x: Tensor) -> Sides:
        """Of a picture that is black around: moved by a window's stride, C1 moves by one place, and C2 not at all."""
        wide = torch.zeros(1, 1, 40, 40, dtype=x.dtype)
        wide[..., 17:22, 17:22] = x
        w = cells.gabors(4)[0][0].to(x)
        one, other = (cells.pooled([cells.line(y, w)] * 2, 8) for y in (wide, torch.roll(wide, (2, -4), (2, 3))))
        part = one[:, :, 9:13, 9:13]
        return (
            torch.cat([cells.anywhere([other], part, SIGMA).flatten(), other[..., 1:, :-2].flatten()]),
            torch.cat([cells.anywhere([one], part, SIGMA).flatten(), one[..., :-1, 2:].flatten()]),
            torch.cat([cells.anywhere([one], part, SIGMA).flatten(), one[..., 1:, :-2].flatten()]),
        )

    yield identity("moved by strides: C2 the same, C1 moved", shifted, (5, 5), mistake="C1 the same")

    def even(light: Tensor) -> Sides:
        picture = light.abs()[:, None, None, None].expand(-1, 1, 20, 20)
        seen = cells.linear(picture, cells.gabors(4)[0][1].double())
        return seen, torch.zeros_like(seen)

    yield identity("S1: 0 for even light", even, (3,), atol=1e-6)

    def sign(x: Tensor) -> Sides:
        w = cells.gabors(4)[0][0].to(x)
        return cells.line(x, w), cells.line(-x, w), cells.linear(-x, w)

    yield identity("S1: a line of either sign", sign, (1, 1, 12, 12), mistake="without |.|")
