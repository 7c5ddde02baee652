"""What a network of layers is made of and does: filters, maps of every layer, shifts, confusions, its table."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from mpcli.kit.pictures import figure, tiles
from mpcli.run import Run
from mpcli_nets.cnn.calculator import COLUMNS, cells, table
from mpcli_nets.cnn.examples import Pictured, logits, moved
from mpcli_nets.filters.pictures import signed

ACROSS, DOWN = 10, 12  # maps of a layer, and layers, that are drawn
FILTERS = 48
WORST = 10
T = TypeVar("T")

SHIFTS = (0, 1, 2, 3, 4)  # pixels


def show(run: Run, heading: str, model: nn.Module, given: Pictured) -> None:
    """Write the figures and the table of any network whose layers are modules, for pictures with classes."""
    with torch.no_grad():
        run.figure("maps.png", maps(heading, model, given.test[:1]))
        weights = next(m.weight for m in model.modules() if isinstance(m, nn.Conv2d))
        run.figure("filters.png", filters(heading, weights))
        run.figure("pooling.png", pooling(heading, weights, given))
        run.figure("confusions.png", confusions(heading, model, given))
    run.table("layers.csv", COLUMNS, map(cells, table(model, given.shape)))


def seen(model: nn.Module, x: Tensor) -> list[tuple[str, Tensor]]:
    """What every layer makes of pictures, in the order in which they are computed, where that is maps."""
    found: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, out: Tensor) -> None:
            if out.ndim == 4 and out.shape[-1] * out.shape[-2] > 1:
                found.append((f"{name} {type(module).__name__}", out.clone()))

        return hook

    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def maps(heading: str, model: nn.Module, x: Tensor) -> Figure:
    """A picture [1, C, H, W] and maps of layers: a row each, of which the strongest maps are drawn, dark to bright."""
    layers = [(name, out) for name, out in seen(model, x) if not name.endswith(("Dropout", "Identity"))]
    layers = evenly(layers, DOWN)
    side = 64
    first = torch.ones(ACROSS, 3, side, side)
    first[0] = enlarged(x[0].expand(3, -1, -1) if len(x[0]) != 3 else x[0], side)
    rows = [first]
    for _, out in layers:
        strongest = out[0].flatten(1).std(1).argsort(descending=True)[:ACROSS]
        row = torch.ones(ACROSS, 3, side, side)
        for at, number in enumerate(strongest.tolist()):
            one = out[0, number]
            low, high = one.min(), one.max()
            row[at] = enlarged(((one - low) / (high - low).clamp(min=1e-12)).expand(3, -1, -1), side)
        rows.append(row)
    names = ["picture", *(f"{name} {out.shape[-1]}x{out.shape[-2]}" for name, out in layers)]
    return tiles(torch.stack(rows), f"{heading}\nmaps of a test picture by layer, the most varied first", rows=names)


def evenly(items: Sequence[T], n: int) -> list[T]:
    """n of many, the first and the last among them, or all where there are fewer."""
    n = min(n, len(items))
    return [items[round(k * (len(items) - 1) / max(1, n - 1))] for k in range(n)]


def enlarged(x: Tensor, side: int) -> Tensor:
    """[C, H, W] -> [C, side, side], by the nearest pixel."""
    return nn.functional.interpolate(x[None], (side, side), mode="nearest-exact")[0]


def filters(heading: str, weights: Tensor) -> Figure:
    """First-layer weights [K, C, M, N]: in colour where they are of three colours."""
    if weights.shape[1] == 3:
        shown = weights[:FILTERS]
        limit = shown.abs().amax((1, 2, 3), keepdim=True)
        return tiles(0.5 + 0.5 * shown / limit, f"{heading}\nfilters of the first layer, grey is 0")
    return windows(f"{heading}\nfilters of the first layer, red above 0 and blue below", weights)


def windows(heading: str, weights: Tensor) -> Figure:
    """The first of many windows [K, C, M, N], the mean over C, red above 0 and blue below."""
    shown = weights[:FILTERS].mean(1)
    across = 12
    down = -(-len(shown) // across)
    made = figure(heading, 1080, 60 + 90 * down)
    axes = made.subplots(down, across, squeeze=False)
    for number, at in enumerate(axes.flat):
        if number < len(shown):
            signed(at, shown[number], "", most=0)
        else:
            at.set_axis_off()
    return made


def change(f: Callable[[Tensor], Tensor], x: Tensor, other: Tensor) -> float:
    """|f(other) - f(x)| / |f(x)|."""
    here, there = f(x), f(other)
    return float((there - here).norm() / here.norm().clamp(min=1e-12))


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max pool": lambda z: nn.functional.max_pool2d(z, 2),
    "average pool": lambda z: nn.functional.avg_pool2d(z, 2),
    "stride": lambda z: z[..., ::2, ::2],
}


def pooling(heading: str, weights: Tensor, given: Pictured) -> Figure:
    """How much what is read of test pictures changes when they are moved and turned, twice pooled in three ways."""
    x = given.test[:200]
    around = nn.functional.pad(x, (8, 8, 8, 8))
    side = weights.shape[-1] // 2

    def twice(pool: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda z: pool(pool(nn.functional.conv2d(z, weights, padding=side).relu()))

    one = torch.ones(len(x))
    turned = {
        degrees: moved(around, degrees * torch.pi / 180 * one, one, 0 * one, 0 * one) for degrees in (0, 5, 10, 15, 20)
    }
    made = figure(f"{heading}\nthe first layer, pooled twice by 2, of pictures that are moved", 1000, 430)
    left, right = made.subplots(1, 2, sharey=True)
    for name, pool in POOLS.items():
        f = twice(pool)
        left.plot(SHIFTS, [change(f, around, around.roll(s, -1)) for s in SHIFTS], "o-", label=name)
        right.plot(list(turned), [change(f, around, other) for other in turned.values()], "o-", label=name)
    left.set(xlabel="pixels to the right", ylabel="change, as part of what was there", ylim=(0, None))
    right.set(xlabel="degrees")
    left.legend()
    return made


def confusions(heading: str, model: nn.Module, given: Pictured) -> Figure:
    """How often each class is taken for each, and the test pictures whose own class is least likely."""
    eta, t = logits(model, given.test), given.targets.test
    k = len(given.classes)
    counts = torch.zeros(k, k).index_put((t, eta.argmax(1)), torch.ones(len(t)), accumulate=True)
    nll = nn.functional.cross_entropy(eta, t, reduction="none")
    worst = nll.argsort(descending=True)[:WORST].tolist()
    made = figure(heading, 1180, 520)
    grid = made.add_gridspec(2, 1 + WORST // 2, width_ratios=[3] + [1] * (WORST // 2))
    left = made.add_subplot(grid[:, 0])
    rest = [made.add_subplot(grid[row, column]) for row in range(2) for column in range(1, 1 + WORST // 2)]
    off = counts - counts.diag().diag()
    left.imshow(off.numpy(), "Reds")
    if k <= 20:
        left.set_xticks(range(k), given.classes, rotation=90 if max(map(len, given.classes)) > 2 else 0)
        left.set_yticks(range(k), given.classes)
        for i, row in enumerate(counts.int().tolist()):
            for j, count in enumerate(row):
                if count:
                    colour = "grey" if i == j else "white" if 2 * count > off.max() else "black"
                    left.text(j, i, str(count), ha="center", va="center", fontsize=7, color=colour)
    left.set(xlabel="said", ylabel="true", title="test pictures")
    for axes, number in zip(rest, worst, strict=False):
        image = given.test[number]
        axes.imshow(image.permute(1, 2, 0).squeeze(-1).clamp(0, 1).numpy(), "gray", vmin=0, vmax=1)
        said = int(eta[number].argmax())
        axes.set_title(f"{given.classes[int(t[number])]}, said {given.classes[said]}"[:28], fontsize=7)
    for axes in rest:
        axes.set_axis_off()
    return made
