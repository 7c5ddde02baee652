"""Shapes, parameters, operations and receptive fields of any network, without computing anything.

A network is run on the `meta` device, where tensors have a shape and no numbers. Each operation of torch is seen on
its way: what a product or a convolution costs, and how far back each of its places can see.

    field       f' = f + d (side - 1) j        pixels of the picture that a place can see along an axis
    jump        j' = j s                       pixels from one place to the next; a transposed convolution divides

What joins several maps sees as far as the one that sees farthest; what is laid flat sees everything.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass
class Row:
    """A layer: its name, what it is, the shape that comes out, and what it costs an example.

    `parameters` are its own; `flops` are two for each product that is added up. `field` is in pixels along the longer
    side, None where it is the whole picture.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    field: int | None
    jump: int | None


COLUMNS = ("layer", "kind", "shape", "parameters", "flops", "field", "jump")


def cells(row: Row) -> tuple[str | int, ...]:
    """A row as a table has it, under `COLUMNS`."""
    shape = "x".join(map(str, row.shape))
    return row.name, row.kind, shape, row.parameters, row.flops, row.field or "all", row.jump or ""


@dataclass(frozen=True)
class Sight:
    """How far a place sees along rows and columns, and how far apart two neighbours look."""

    field: tuple[float, float] = (1, 1)
    jump: tuple[float, float] = (1, 1)

    def through(self, side: Any, stride: Any, dilation: Any, transposed: bool = False) -> "Sight":
        (down, across), jump = zip(
            *(
                # Of a transposed one, `stride` places lie where one was, and so many of before reach into each.
                (f + (-(-(d * (m - 1) + 1) // s) - 1) * j, j / s) if transposed else (f + d * (m - 1) * j, j * s)
                for f, j, m, s, d in zip(self.field, self.jump, *map(pair, (side, stride, dilation)), strict=True)
            ),
            strict=True,
        )
        return Sight((down, across), (jump[0], jump[1]))


def pair(value: Any) -> tuple[int, int]:
    """One number for both axes, or one for each."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return (values[0], values[-1])


EVERYTHING = Sight((float("inf"), float("inf")), (1, 1))
POOLS = ("max_pool2d_with_indices", "max_pool2d", "avg_pool2d")
# Operations after which a place sees everything, where they change the shape of maps.
ELSEWHERE = ("mean", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "view", "_unsafe_view", "addmm", "mm", "bmm")


class Watch(TorchDispatchMode):
    """Counts operations, and follows how far each tensor sees."""

    def __init__(self) -> None:
        super().__init__()
        self.sights, self.flops = WeakTensorKeyDictionary(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        name = packet.__name__
        given = [x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else [arg]) if isinstance(x, Tensor)]
        known = [self.sights[x] for x in given if x in self.sights]
        if known:
            sight = joined(known)
            if name in ("convolution", "_convolution"):
                side = args[1].shape[2:]
                sight = sight.through(list(side), args[3], args[5], bool(args[6]))
            elif name in POOLS:
                stride = args[2] if len(args) > 2 and args[2] else args[1]
                dilation = args[4] if name != "avg_pool2d" and len(args) > 4 else 1
                sight = sight.through(args[1], stride, dilation)
            elif name in ELSEWHERE and out.shape[-2:] != given[0].shape[-2:]:
                sight = EVERYTHING
            for x in out if isinstance(out, (list, tuple)) else [out]:
                if isinstance(x, Tensor):
                    self.sights[x] = sight
        return out


def joined(sights: list[Sight]) -> Sight:
    """What sees through several."""
    fields, jumps = zip(*((s.field, s.jump) for s in sights), strict=True)
    rows, columns = zip(*fields, strict=True)
    down, right = zip(*jumps, strict=True)
    return Sight((max(rows), max(columns)), (max(down), max(right)))


def table(model: nn.Module, shape: tuple[int, ...]) -> list[Row]:
    """A row for each layer, in the order in which they are computed, for one picture of a shape [C, H, W].

    A layer is a module without modules of its own. The model is left as it is.
    """
    blank = copy.deepcopy(model).to("meta").eval()
    rows: list[Row] = []
    watch = Watch()
    before = [0]

    def begin(module: nn.Module, args: Any) -> None:
        before[0] = watch.flops

    def end_of(name: str) -> Any:
        def end(module: nn.Module, args: Any, out: Tensor) -> None:
            sight = watch.sights.get(out, EVERYTHING)
            far, jump = max(sight.field), max(sight.jump)
            whole = far == float("inf")
            rows.append(
                Row(
                    name,
                    type(module).__name__,
                    tuple(out.shape[1:]),
                    sum(p.numel() for p in module.parameters()),
                    watch.flops - before[0],
                    None if whole else round(far),
                    None if whole else round(jump),
                )
            )

        return end

    for name, module in blank.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(begin)
            module.register_forward_hook(end_of(name))
    kind = next((p.dtype for p in blank.parameters()), torch.float32)
    x = torch.empty(1, *shape, device="meta", dtype=kind)
    watch.sights[x] = Sight()
    with torch.no_grad(), watch:
        blank(x)
    return rows


def totals(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Parameters, FLOPs of one picture, and layers with weights, those side by side counted too."""
    rows = table(model, shape)
    weighty = sum(row.kind in ("Conv2d", "Linear", "ConvTranspose2d") for row in rows)
    return sum(p.numel() for p in model.parameters()), sum(row.flops for row in rows), weighty
