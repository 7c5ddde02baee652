"""Training losses against depth, and what networks cost."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mpcli.kit.pictures import figure


def by_depth(heading: str, steps: int, rows: Sequence[tuple[str, int, float, float]]) -> Figure:
    """Loss and accuracy of (network, layers, loss, accuracy), a line for each kind of network."""
    made = figure(f"{heading}\ndepth, after {steps} steps of training each", 980, 430)
    left, right = made.subplots(1, 2)
    for name in dict.fromkeys(row[0] for row in rows):
        of = [row for row in rows if row[0] == name]
        depths = [depth for _, depth, _, _ in of]
        left.semilogy(depths, [loss for _, _, loss, _ in of], "o-", label=name)
        right.plot(depths, [accuracy for _, _, _, accuracy in of], "o-", label=name)
    left.set(xlabel="layers", ylabel="training loss, nats", title="on pictures that are trained on")
    right.set(xlabel="layers", ylabel="accuracy", ylim=(0, 1.02), title="on test pictures")
    left.legend()
    return made


def family(heading: str, rows: Sequence[tuple[str, int, int, int]]) -> Figure:
    """Parameters against FLOPs of (network, parameters, flops, layers), a disc as large as there are layers."""
    made = figure(f"{heading}\nnetworks for 1000 classes of 224x224 pixels, and this one for its pictures", 840, 560)
    axes = made.subplots()
    for name, parameters, flops, layers in rows:
        axes.scatter(flops, parameters, s=12 * layers, alpha=0.5, label=f"{name}: {layers} layers")
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a picture", ylabel="parameters")
    axes.margins(0.2)
    made.legend(loc="outside right center", markerscale=0.5)
    return made
