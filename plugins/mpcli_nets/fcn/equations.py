"""Equations of ways up, of windows laid over a whole picture, and of what is measured, in the code that trains."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mpcli.checks import Case, Sides, identity
from mpcli_nets.fcn import examples, measures, nets, up

ODD = (2, 3, 7, 5)  # rows and columns of which half is no whole number
HALF = (2, 3, 4, 3)


def gradcheck() -> Iterator[Case]:
    yield from ways_up()
    yield from networks()
    yield from judged()


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b>."""
    return (a * b).sum()


def quarter(x: Tensor) -> Tensor:
    """Maps as 2x2 windows, [N, C, h, w, 4], zeros beyond the border."""
    x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
    return x.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).transpose(-3, -2).flatten(-2)


def ways_up() -> Iterator[Case]:
    def nearest(y: Tensor, x: Tensor) -> Sides:
        return inner(up.nearest(y, (7, 5)), x), inner(y, quarter(x).sum(-1)), inner(y, quarter(x).mean(-1))

    yield identity("<nearest y, x> = <y, sum pool x>", nearest, HALF, ODD, mistake="the mean pool")

    def nails(y: Tensor, x: Tensor) -> Sides:
        return inner(up.nails(y, (7, 5)), x), inner(y, x[..., ::2, ::2])

    yield identity("<nails y, x> = <y, every second x>", nails, HALF, ODD)

    def unpool(y: Tensor, x: Tensor, z: Tensor) -> Sides:
        _, switches = up.pooled(z)
        there = x.flatten(2).gather(2, switches.flatten(2)).reshape(y.shape)
        return inner(up.unpool(y, (7, 5), switches), x), inner(y, there), inner(y, up.pooled(x)[0])

    mistake = "x at its own greatest"
    yield identity("<unpool y, x> = <y, x where z was greatest>", unpool, HALF, ODD, ODD, mistake=mistake)

    def back(y: Tensor, z: Tensor) -> Sides:
        _, switches = up.pooled(z)
        return up.pooled(up.unpool(y.abs(), (7, 5), switches))[0], y.abs()

    yield identity("pool(unpool(y)) = y, y > 0", back, HALF, ODD)

    def transposed(y: Tensor, w: Tensor) -> Sides:
        right = up.copies(y, (7, 6), w)
        return up.transposed(y, (7, 6), w), right, up.copies(y, (7, 6), w.flip(2, 3))

    yield identity("transposed: copies of w, summed", transposed, HALF, (3, 2, 3, 3), mistake="w turned")

    def adjoint(y: Tensor, x: Tensor, w: Tensor) -> Sides:
        return inner(up.transposed(y, (7, 5), w), x), inner(y, F.conv2d(x, w, stride=2, padding=1))

    yield identity("<K' y, x> = <y, K x>, 3x3 of stride 2", adjoint, HALF, (2, 2, 7, 5), (3, 2, 3, 3))


def ready(made: torch.nn.Module) -> torch.nn.Module:
    """A network in evaluation, in float64, whose normalisation does something."""
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    return made.double().eval()


def networks() -> Iterator[Case]:
    @torch.no_grad()
    def sliding(x: Tensor) -> Sides:
        torch.manual_seed(0)
        net = ready(nets.Windows(3, 1, 2))
        at = torch.tensor([[i, j] for i in range(9) for j in range(7)]).expand(2, -1, -1)
        return net(x), net(x, at).reshape(2, 2, 9, 7)

    yield identity("sliding = patch by patch, at every pixel", sliding, (2, 1, 9, 7))

    @torch.no_grad()
    def shifted(x: Tensor) -> Sides:
        """The scores of a picture that is moved by the stride of all pools; near the border zeros differ."""
        torch.manual_seed(1)
        net = ready(nets.EncoderDecoder(8, 1, 2, "nearest"))
        around = F.pad(x, (144, 144, 144, 144))
        right = net(around.roll((16, 16), (2, 3)))[..., 112:-112, 112:-112]
        straight = net(around.roll((8, 8), (2, 3)))[..., 112:-112, 112:-112]
        moved = net(around).roll((16, 16), (2, 3))[..., 112:-112, 112:-112]
        return moved, right, straight

    yield identity("a shift by 16 pixels shifts the scores", shifted, (1, 1, 16, 16), mistake="any shift", draws=1)

    @torch.no_grad()
    def straight(x: Tensor) -> Sides:
        """All pixels that lie in one square of 16x16 have one score."""
        torch.manual_seed(2)
        net = ready(nets.EncoderDecoder(2, 1, 2, "straight"))
        scores = net(x)
        return scores, scores[..., ::16, ::16].repeat_interleave(16, 2).repeat_interleave(16, 3)[..., :20, :33]

    yield identity("straight: one score for 16x16 pixels", straight, (1, 1, 20, 33))


def disc(generator: torch.Generator) -> Tensor:
    """A disc somewhere in 24x24 pixels, bool."""
    row, column, radius = torch.rand(3, generator=generator) * torch.tensor([8.0, 8.0, 3.0]) + torch.tensor([8, 8, 4])
    i = torch.arange(24)
    return (i[:, None] - row).square() + (i - column).square() <= radius**2


def judged() -> Iterator[Case]:
    def overlap(a: Tensor, b: Tensor) -> Sides:
        p = torch.stack([~a, a])[None].double() * 80
        soft = 1 - examples.soft_dice(p, b[None].long())
        both, one = float((a & b).sum()), float(a.sum() + b.sum())
        right = torch.tensor([2 * both / one, (2 * both + 1) / (one + 1)])
        wrong = torch.tensor([both / (one - both), both / (one - both)])
        return torch.tensor([measures.dice(a, b), float(soft)]), right, wrong

    yield identity("Dice = 2 |A and B| / (|A| + |B|)", overlap, disc, disc, mistake="the IoU", rtol=1e-6)

    def edges(a: Tensor, b: Tensor) -> Sides:
        """A pixel is of the boundary where a walk of two steps along rows and columns leads out of the mask."""

        def boundary(mask: Tensor) -> Tensor:
            around = F.pad(mask, (2, 2, 2, 2))
            steps = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if abs(i) + abs(j) <= 2]
            return mask & ~torch.stack([around[2 + i : 26 + i, 2 + j : 26 + j] for i, j in steps]).all(0)

        c, d = boundary(a), boundary(b)
        return measures.boundary_iou(a, b), float((c & d).sum() / (c | d).sum()), float((a & b).sum() / (a | b).sum())

    yield identity("boundary IoU", edges, disc, disc, mistake="the IoU")

    def found(a: Tensor, far: Tensor) -> Sides:
        """Two objects, one found if it overlaps by half, and one that is not there."""
        b = a.roll(int(far), 0)
        said = torch.cat([a.int(), 2 * a.int()], 1)
        true = torch.cat([b.int(), 0 * b.int()], 1)
        hit = int(float((a & b).sum()) > 0.5 * float((a | b).sum()))
        return measures.average_precision(said, true), hit / (3 - hit), hit

    def way(generator: torch.Generator) -> Tensor:
        return torch.randint(5, (), generator=generator)

    yield identity("AP = TP / (TP + FP + FN)", found, disc, way, mistake="the recall")

    def apart(a: Tensor) -> Sides:
        """Two discs that touch are two objects."""
        end = int(a.any(0).nonzero()[-1]) + 1
        touching = torch.cat([a[:, :end], a[:, :end].flip(1)], 1)
        return int(measures.objects(touching).max()), 2, 1

    yield identity("discs that touch are two objects", apart, disc, mistake="pieces that hang together")
