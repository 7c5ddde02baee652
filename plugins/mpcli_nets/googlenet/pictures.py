"""How large the gradient of every layer is as a network begins."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mpcli.kit.pictures import figure


def gradients(heading: str, found: Mapping[str, Sequence[float]]) -> Figure:
    """|dL/dW| of layers in their order, a line for each network."""
    made = figure(f"{heading}\nthe same network as it begins, without normalisation", 760, 430)
    axes = made.subplots()
    for name, norms in found.items():
        axes.semilogy(range(1, len(norms) + 1), norms, "o-", label=name)
    axes.set(xlabel="layer, along the 3x3 branches", ylabel="|dL/dW|")
    axes.legend()
    return made
