"""How an ensemble gets better by its members."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from mpcli.kit.pictures import figure

COLOURS = {"tree": "tab:green", "linear": "tab:purple", "network": "tab:red"}


def members(heading: str, name: str, alone: Tensor, together: Tensor, kinds: Sequence[str]) -> Figure:
    """Each member alone [K], and the mean of all up to it [K]."""
    made = figure(heading, 760, 460)
    axes = made.subplots()
    numbers = range(1, len(kinds) + 1)
    axes.plot(numbers, together.tolist(), "o-", color="tab:blue", label="the mean of so many members")
    for kind in dict.fromkeys(kinds):
        own = [(k, float(alone[k - 1])) for k in numbers if kinds[k - 1] == kind]
        axes.plot(*zip(*own, strict=True), "x", color=COLOURS[kind], label=f"a {kind} alone")
    axes.axhline(float(alone.mean()), color="black", linestyle=":", label="mean of the members alone")
    axes.set(xlabel="members", ylabel=f"{name}, test examples")
    axes.legend(fontsize=8)
    return made
