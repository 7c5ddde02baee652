"""Equations of convolutional layers, in the code that is trained with `--backward written`."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from mpcli.checks import Case, Printed, Sides, gradient, identity
from mpcli_nets.cnn import calculator, layers, written
from mpcli_nets.cnn.written import Window

ODD = Window((3, 2), stride=2, before=1, behind=0, dilation=2)


def gradcheck() -> Iterator[Case]:
    yield from convolutions()
    yield from pools()
    yield from counts()


def cell(x: Tensor, i: int, j: int) -> Tensor:
    """x(i, j), 0 outside."""
    inside = 0 <= i < x.shape[-2] and 0 <= j < x.shape[-1]
    return x[..., i, j] if inside else x.new_zeros(x.shape[:-2])


def convolutions() -> Iterator[Case]:
    """Forward and backward, place by place."""

    def forward(x: Tensor, w: Tensor, b: Tensor) -> Sides:
        """All of stride, borders and dilation; the notes print the size without dilation."""
        height, width = ODD.places(x)
        rows = []
        for k in range(len(w)):
            for i in range(height):
                for j in range(width):
                    terms = [
                        (w[k, :, m, n] * cell(x[0], 2 * i + 2 * m - 1, 2 * j + 2 * n - 1)).sum()
                        for m in range(3)
                        for n in range(2)
                    ]
                    rows.append(b[k] + torch.stack(terms).sum())
        return written.conv(x, w, b, ODD)[0].flatten(), torch.stack(rows)

    yield identity("a: sum over channels and window", forward, (1, 2, 7, 6), (3, 2, 3, 2), (3,))

    def of_input(x: Tensor, w: Tensor, g: Tensor) -> Sides:
        """g . a, and its gradient."""
        a = written.conv(x, w, w.new_zeros(3), ODD)
        return (g * a).sum(), written.conv_input(g, x, w, ODD)

    yield gradient("dL/dx", of_input, (1, 2, 7, 6), (3, 2, 3, 2), (1, 3, 2, 3))

    def of_weight(w: Tensor, x: Tensor, g: Tensor) -> Sides:
        a = written.conv(x, w, w.new_zeros(3), ODD)
        return (g * a).sum(), written.conv_weight(g, x, w, ODD)

    yield gradient("dL/dw", of_weight, (3, 2, 3, 2), (1, 2, 7, 6), (1, 3, 2, 3))

    at = Window((3, 3))

    def full(delta: Tensor, w: Tensor) -> Sides:
        """dL/dx(i) = sum over i' of delta(i') w(i - i'): in full, though what is computed is a correlation."""
        found = written.conv_input(delta[None, None], delta.new_zeros(1, 1, 6, 5), w[None, None], at)[0, 0]
        return found, full_convolution(delta, w), full_convolution(delta, w.flip(0, 1))

    yield identity("dL/dx: w * delta in full", full, (4, 3), (3, 3), mistake="with w turned by half a turn")

    def of_convolution(delta: Tensor, w: Tensor) -> Sides:
        """Where the forward pass turns w: dL/dz = delta * turned w = the correlation of w with delta moved over it."""
        turned = w.flip(0, 1)
        found = written.conv_input(delta[None, None], delta.new_zeros(1, 1, 6, 5), turned[None, None], at)[0, 0]
        right = full_convolution(delta, turned)
        return found, right, right.flip(0, 1)

    printed = Printed(
        "004 2.2", "dL/dz = delta correlated with W: delta(m) w(i + m)", "W with delta: w(m) delta(i + m)"
    )
    yield identity("dL/dz of a convolution", of_convolution, (4, 3), (3, 3), printed=printed)

    def indices(delta: Tensor, w: Tensor) -> Sides:
        """The derivative of one term is w(i' - i), not all of w."""
        turned = w.flip(0, 1)
        found = written.conv_input(delta[None, None], delta.new_zeros(1, 1, 6, 5), turned[None, None], at)[0, 0]
        sums = [
            torch.stack([delta[r, c] * cell(w, r - i + 2, c - j + 2) for r in range(4) for c in range(3)]).sum()
            for i in range(6)
            for j in range(5)
        ]
        return found.flatten(), torch.stack(sums), (delta.sum() * w.sum()).expand(30)

    printed = Printed("(31)", "sum over i', j' of delta(i', j') w(m, n)", "w(i' - i, j' - j)")
    yield identity("dL/dz of a convolution, place by place", indices, (4, 3), (3, 3), printed=printed)

    def valid(delta: Tensor, x: Tensor) -> Sides:
        """dL/dw(m) = sum over i of delta(i) x(i + m)."""
        w = delta.new_zeros(1, 1, 3, 3)
        sums = [(delta * x[m : m + 4, n : n + 3]).sum() for m in range(3) for n in range(3)]
        return written.conv_weight(delta[None, None], x[None, None], w, at).flatten(), torch.stack(sums)

    yield identity("dL/dw: a valid correlation of x and delta", valid, (4, 3), (6, 5))

    def of_weights(z: Tensor, delta: Tensor) -> Sides:
        """Where the forward pass turns w: dL/dw(m) = sum over i of delta(i) z(i - m) = delta * z turned."""
        w = delta.new_zeros(1, 1, 3, 3)
        found = written.conv_weight(delta[None, None], z[None, None], w, at)[0, 0].flip(0, 1)
        right = [(delta * z[2 - m : 6 - m, 2 - n : 5 - n]).sum() for m in range(3) for n in range(3)]
        back = z.flip(0, 1)
        wrong = [(delta * back[2 - m : 6 - m, 2 - n : 5 - n]).sum() for m in range(3) for n in range(3)]
        return found.flatten(), torch.stack(right), torch.stack(wrong)

    printed = Printed("004 2.2", "dL/dw = delta * z", "dL/dw = delta * z turned: sum delta(i) z(i - m)")
    yield identity("dL/dw of a convolution: delta(i) z(i - m)", of_weights, (6, 5), (4, 3), printed=printed)


def full_convolution(delta: Tensor, w: Tensor) -> Tensor:
    """sum_m delta(i - m) w(m) wherever the two touch, of delta [4, 3] and w [3, 3]."""
    sums = [
        torch.stack([cell(delta, i - m, j - n) * w[m, n] for m in range(3) for n in range(3)]).sum()
        for i in range(6)
        for j in range(5)
    ]
    return torch.stack(sums).reshape(6, 5)


def pools() -> Iterator[Case]:
    """Max and mean."""
    at = Window((3, 3), stride=2, before=1, behind=1)

    def greatest(x: Tensor, g: Tensor) -> Sides:
        value, which = written.max_pool(x, at)
        return (g * value).sum(), written.max_pool_input(g, x, which, at)

    yield gradient("max pool: dL/dx", greatest, (1, 2, 6, 5), (1, 2, 3, 3))

    def overlapping(x: Tensor) -> Sides:
        """What every window hands back, one after the other; to the last alone is what a plain assignment does."""
        value, which = written.max_pool(x, at)
        found = written.max_pool_input(torch.ones_like(value), x, which, at)
        sums, last = torch.zeros_like(x), torch.zeros_like(x)
        for i in range(3):
            for j in range(3):
                places = [(2 * i + m - 1, 2 * j + n - 1) for m in range(3) for n in range(3)]
                inside = [(r, c) for r, c in places if 0 <= r < 6 and 0 <= c < 5]
                r, c = max(inside, key=lambda place: float(x[0, 0, place[0], place[1]]))
                sums[0, 0, r, c] += 1
                last[0, 0, r, c] = 1
        return found, sums, last

    yield identity("max pool: overlapping windows add", overlapping, (1, 1, 6, 5), mistake="the last window alone")

    def index(x: Tensor) -> Sides:
        """The place of the greatest, not its value."""
        whole = Window((3, 3))
        value, which = written.max_pool(x, whole)
        i, j = divmod(int(which), 3)
        return x[0, 0, i, j], x.max(), value.square().sum()

    printed = Printed("001 5", "i* = max x_i", "i* = argmax x_i")
    yield identity("max pool: i* = argmax", index, (1, 1, 3, 3), printed=printed)

    def length(x: Tensor) -> Sides:
        """A window of k cells begins at s i and ends at s i + k - 1."""
        value, _ = written.max_pool(x, Window((2, 2), stride=2))
        right, wrong = (
            torch.stack([x[0, 0, 2 * i : 2 * i + k, 2 * j : 2 * j + k].max() for i in range(3) for j in range(3)])
            for k in (2, 3)
        )
        return value.flatten(), right, wrong

    printed = Printed("004 2.2", "max over s i to s i + k, k + 1 cells", "s i to s i + k - 1")
    yield identity("max pool: k cells from s i", length, (1, 1, 6, 6), printed=printed)

    def mean(x: Tensor, g: Tensor) -> Sides:
        return (g * written.mean_pool(x, at)).sum(), written.mean_pool_input(g, x, at)

    yield gradient("mean pool: dL/dx", mean, (1, 2, 6, 5), (1, 2, 3, 3))

    def normalised(x: Tensor, g: Tensor) -> Sides:
        module = nn.BatchNorm2d(2, eps=1e-3).double()
        leaves: written.Leaves = {p: written.Node(p.detach()) for p in module.parameters()}
        leaf = written.Node(x)
        node = written.norm_node(module, leaf, leaves)
        ((_, pull), *_) = node.parents
        return (g * node.value).sum(), pull(g)

    yield gradient("batch normalisation of maps: dL/dx", normalised, (2, 2, 2, 3), (2, 2, 2, 3))


def net_of(text: str, shape: tuple[int, int, int]) -> nn.Sequential:
    return layers.build(text, shape)[0]


def counts() -> Iterator[Case]:
    """Sizes, weights and fields."""

    def size(numbers: Tensor) -> Sides:
        """Windows that fit, counted one by one; the notes leave the dilation out."""
        n, side, stride, before, behind, dilation = (int(k) for k in numbers)
        span = dilation * (side - 1) + 1
        fit = sum(1 for left in range(-before, n + behind, stride) if left + span <= n + behind)
        plain = layers.output_size(n, side, stride, before, behind)
        return layers.output_size(n, side, stride, before, behind, dilation), fit, plain

    def any_sizes(g: torch.Generator) -> Tensor:
        def some(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=g))

        return torch.tensor([some(12, 20), some(2, 4), some(1, 3), some(0, 2), some(0, 2), some(2, 3)])

    printed = Printed("(41)", "(n + p + p' - m) / s + 1", "floor((n + p + p' - d (m - 1) - 1) / s) + 1")
    yield identity("size: windows that fit", size, any_sizes, printed=printed)

    def weights(_: Tensor) -> Sides:
        five = [net_of(text, (3, 32, 32)) for text in ("conv 5 1", "dense 1")]
        small = net_of(", ".join(["conv 3 1"] * 5), (1, 32, 32))
        large = net_of("conv 11 1", (1, 32, 32))
        found = [sum(p.numel() for p in net.parameters()) for net in (*five, small, large)]
        # With the biases, which the notes leave out.
        return torch.tensor(found), torch.tensor([75 + 1, 3072 + 1, 45 + 5, 121 + 1]), torch.tensor([75, 3072, 45, 121])

    printed = Printed("004 2.2", "5 x 5 x 3 = 75 weights", "(5 x 5 x 3 + 1) K, with the bias")
    yield identity("weights: (m^2 C + 1) K", weights, (1,), printed=printed)

    def picture(_: Tensor) -> Sides:
        net = net_of("dense 1", (3, 256, 256))
        return calculator.table(net, (3, 256, 256))[-1].parameters, 196_608 + 1, 2_000_000

    printed = Printed("004 2.2", "256 x 256 x 3 -> 1 has nearly 2 million weights", "196 608, and a bias")
    yield identity("weights: of a dense layer for 256 x 256 x 3", picture, (1,), printed=printed)

    def field(text: str, side: int) -> Callable[[Tensor], Sides]:
        def sides(_: Tensor) -> Sides:
            """What the middle place of the last map notices."""
            net = net_of(text, (1, side, side))
            net = net.double()
            for module in net:
                if isinstance(module, nn.Conv2d):
                    nn.init.constant_(module.weight, 1.0)
            x = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
            out = net(x)
            middle = out.shape[-1] // 2
            (g,) = torch.autograd.grad(out[0, 0, middle, middle], x)
            rows = g[0, 0].abs().sum(1).nonzero()
            return calculator.table(net, (1, side, side))[-1].field, rows.max() - rows.min() + 1

        return sides

    yield identity("field: f' = f + d (m - 1) j", field("conv 3 2 s2, mean 2, conv 3 2 d2, conv 5 1 s2", 95), (1,))
    yield identity("field: five 3x3 see as far as one 11x11", field(", ".join(["conv 3 1"] * 5), 31), (1,))
