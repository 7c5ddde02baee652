"""Layers from a line of text, as modules of torch: `conv 3 32 p1, norm, relu, pool 2, dense 10`."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from mpcli.errors import InputError

GRAMMAR = (
    "conv SIDE CHANNELS, pool SIDE (the greatest), mean SIDE, global (the mean of all places), norm, relu, "
    "drop KEEP, dense UNITS, joined by commas; behind a side s2 is the stride, p1 a border of zeros, d2 the dilation"
)
LARGEST = 4096  # side, channels, units, stride, border or dilation
_NUMBER = re.compile(r"[0-9]+\Z")


def output_size(size: int, side: int, stride: int = 1, before: int = 0, behind: int = 0, dilation: int = 1) -> int:
    """Places of a window along an axis: floor((size + before + behind - dilation (side - 1) - 1) / stride) + 1."""
    return (size + before + behind - dilation * (side - 1) - 1) // stride + 1


@dataclass(frozen=True)
class Sizes:
    """What goes into a layer: maps of (rows, columns) places, or, when they are laid flat, one number each."""

    channels: int
    places: tuple[int, int] | None

    @property
    def units(self) -> int:
        return self.channels * (self.places[0] * self.places[1] if self.places else 1)


def build(text: str, shape: tuple[int, int, int], option: str = "--layers") -> tuple[nn.Sequential, Sizes]:
    """The layers of a text for pictures (channels, height, width), and what comes out of them.

    Raises:
        InputError: the text is not of this grammar, or a window is larger than the maps that it is laid on.
    """
    made, sizes = [], Sizes(shape[0], shape[1:])
    for item in text.split(","):
        word, *rest = item.split() or [""]
        if word not in LAYERS:
            raise InputError(f"{option}: has {item.strip()!r}; right would be {GRAMMAR}")
        try:
            layers, sizes = LAYERS[word](rest, sizes)
        except (ValueError, IndexError):
            raise InputError(f"{option}: has {item.strip()!r}; right would be {GRAMMAR}") from None
        if sizes.places and min(sizes.places) < 1:
            raise InputError(
                f"{option}: at {item.strip()!r} nothing is left of pictures {shape[2]}x{shape[1]}; "
                "right would be fewer or smaller windows, or a border"
            )
        made += layers
    return nn.Sequential(*made), sizes


Built = tuple[list[nn.Module], Sizes]


def number(text: str) -> int:
    if not _NUMBER.match(text) or not 1 <= int(text) <= LARGEST:
        raise ValueError(text)
    return int(text)


def window(words: list[str], side: int, stride: int) -> dict[str, int]:
    """Stride, border and dilation of a window, from words such as s2, p1, d2."""
    found = {"s": stride, "p": 0, "d": 1}
    for word in words:
        if word[0] not in found:
            raise ValueError(word)
        found[word[0]] = 0 if word == "p0" else number(word[1:])
    if found["p"] > found["d"] * (side - 1):
        raise ValueError("a border wider than the window")
    return {"stride": found["s"], "padding": found["p"], "dilation": found["d"]}


def placed(sizes: Sizes, channels: int, side: int, at: dict[str, int]) -> Sizes:
    if sizes.places is None:
        raise ValueError("no maps any more")
    height, width = (
        output_size(n, side, at["stride"], at["padding"], at["padding"], at["dilation"]) for n in sizes.places
    )
    return Sizes(channels, (height, width))


def conv(words: list[str], sizes: Sizes) -> Built:
    side, channels = number(words[0]), number(words[1])
    at = window(words[2:], side, 1)
    layer = nn.Conv2d(sizes.channels, channels, side, at["stride"], at["padding"], at["dilation"])
    return [layer], placed(sizes, channels, side, at)


def pool(words: list[str], sizes: Sizes) -> Built:
    side = number(words[0])
    at = window(words[1:], side, side)
    if 2 * at["padding"] > side:
        raise ValueError("a border wider than half of the window")
    return [nn.MaxPool2d(side, at["stride"], at["padding"], at["dilation"])], placed(sizes, sizes.channels, side, at)


def mean(words: list[str], sizes: Sizes) -> Built:
    side = number(words[0])
    at = window(words[1:], side, side)
    if at["dilation"] > 1 or 2 * at["padding"] > side:
        raise ValueError("a mean has no dilation")
    return [nn.AvgPool2d(side, at["stride"], at["padding"])], placed(sizes, sizes.channels, side, at)


def flattened(words: list[str], sizes: Sizes) -> Built:
    """`global`: one number a map."""
    if sizes.places is None or words:
        raise ValueError("no maps any more")
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()], Sizes(sizes.channels, None)


def dense(words: list[str], sizes: Sizes) -> Built:
    (units,) = map(number, words)
    return [*([nn.Flatten()] if sizes.places else []), nn.Linear(sizes.units, units)], Sizes(units, None)


def norm(words: list[str], sizes: Sizes) -> Built:
    if words:
        raise ValueError(words)
    return [(nn.BatchNorm2d if sizes.places else nn.BatchNorm1d)(sizes.channels)], sizes


def relu(words: list[str], sizes: Sizes) -> Built:
    if words:
        raise ValueError(words)
    return [nn.ReLU()], sizes


def drop(words: list[str], sizes: Sizes) -> Built:
    (keep,) = map(float, words)
    if not 0 < keep <= 1:
        raise ValueError(keep)
    return [nn.Dropout(1 - keep)], sizes


LAYERS: dict[str, Callable[[list[str], Sizes], Built]] = {
    "conv": conv,
    "pool": pool,
    "mean": mean,
    "global": flattened,
    "norm": norm,
    "relu": relu,
    "drop": drop,
    "dense": dense,
}
