"""What the page draws: codes by class, and how noisy two estimates of a gradient are."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from mpcli.kit.pictures import figure

MOST = 20  # classes that a legend names


def scatter(
    heading: str, mean: Tensor, scale: Tensor, labels: Tensor | None, classes: Sequence[str], dims: list[int]
) -> Figure:
    """m(x) [N, D] of test images in two dimensions of z, a colour a class, over the prior's circles of 1 and 2."""
    first, second = dims[0], dims[-1]
    picture = figure(f"{heading}\nm(x) of test images; mean s(x) {float(scale.mean()):.3f}", 640, 560)
    axes = picture.subplots()
    place = mean[:, [first, second]].cpu()
    if labels is None:
        axes.plot(*place.T, ".", markersize=3, color="0.4")
    else:
        for k, name in enumerate(classes):
            of = place[labels.cpu() == k]
            axes.plot(*of.T, ".", markersize=3, label=name, color=f"C{k}")
        if len(classes) <= MOST:
            axes.legend(markerscale=3, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    for radius in (1, 2):
        axes.add_patch(Circle((0, 0), radius, fill=False, color="0.7", linewidth=0.8))
    axes.set(xlabel=f"z_{first + 1}", ylabel=f"z_{second + 1}", aspect="equal")
    return picture


def noise_picture(heading: str, table: Sequence[tuple[int, str, str, float]]) -> Figure:
    """The deviation of estimates of the gradient in m and in s, over the number of samples."""
    picture = figure(f"{heading}\nnoise of the gradient of the ELBO, first test image", 840, 400)
    for axes, of in zip(picture.subplots(1, 2), "ms", strict=True):
        for name in dict.fromkeys(row[1] for row in table):
            k, deviation = zip(*[(row[0], row[3]) for row in table if row[1:3] == (name, of)], strict=True)
            axes.loglog(k, deviation, "o-", label=name, base=2)
        axes.set(xlabel="samples K", ylabel="standard deviation", title=f"d ELBO / d{of}")
        axes.legend(fontsize="small")
    return picture
