"""Training losses against depth."""

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
