"""Boxes over scenes, arrows over eyes, from the worst to the best."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from mpcli.kit.datasets import Boxes, Gazes
from mpcli.kit.pictures import figure
from mpcli_nets import cnn
from mpcli_nets.heads import centres, measures
from mpcli_nets.heads.measures import Found
from mpcli_nets.heads.tasks import Given, absolute, pictures_of

TRUE, SAID = "limegreen", "red"
SURE = 0.3  # scores below are not drawn
ACROSS = 6


def drawn(heading: str, task: str, given: Given, out: Tensor, n: int) -> Figure:
    """Test pictures with what is true (green) and what is said (red), from the worst to the best."""
    if isinstance(given, Gazes):
        wrong = measures.angle(out, given.directions.test)
        names = [f"{value:.1f} degrees" for value in wrong.tolist()]
    else:
        found = located(task, given, out)
        wrong = torch.tensor([1 - overlap(given, of, i) for i, of in enumerate(found)])
        names = [f"IoU {1 - value:.2f}" for value in wrong.tolist()]
    order = wrong.argsort(descending=True).tolist()
    chosen = cnn.evenly(order, n)
    down = -(-len(chosen) // ACROSS)
    height, width = given.shape[1:]
    made = figure(
        f"{heading}\ntest pictures from the worst to the best, true green, predicted red", 1180, 90 + down * 220
    )
    grid = made.subplots(down, min(len(chosen), ACROSS), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, i in zip(grid.flat, chosen, strict=False):
        axes.imshow(pictures_of(given.test)[i].permute(1, 2, 0).squeeze(-1).numpy(), "gray", vmin=0, vmax=1)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.set_title(names[i], fontsize=8)
        if isinstance(given, Gazes):
            arrow(axes, given.directions.test[i], (height, width), TRUE)
            arrow(axes, out[i], (height, width), SAID)
        else:
            boxed(axes, given.test.boxes[i], [given.classes[k] for k in given.test.labels[i].tolist()], TRUE, "left")
            boxes, scores, labels = found[i]
            text = [
                f"{given.classes[k]} {score:.2f}" for k, score in zip(labels.tolist(), scores.tolist(), strict=True)
            ]
            boxed(axes, boxes, text, SAID, "right")
    return made


def located(task: str, given: Boxes, out: Tensor) -> list[Found]:
    """What is said of each test picture, surely enough."""
    if task == "localize":
        p = out[:, :-4].softmax(1).max(1)
        boxes = absolute(out[:, -4:], given.shape)
        return [(boxes[i : i + 1], p.values[i : i + 1], p.indices[i : i + 1]) for i in range(len(out))]
    return [tuple(x[scores >= SURE] for x in (boxes, scores, labels)) for boxes, scores, labels in centres.decode(out)]  # type: ignore[misc]


def overlap(given: Boxes, found: Found, i: int) -> float:
    """The mean over objects of the best IoU of a box of their class, and over boxes of that of an object."""
    boxes, labels = given.test.boxes[i], given.test.labels[i]
    if not len(boxes) or not len(found[0]):
        return float(len(boxes) == len(found[0]))
    iou = measures.box_iou(found[0], boxes) * (found[2][:, None] == labels)
    return float(torch.cat([iou.amax(0), iou.amax(1)]).mean())


def boxed(axes: Axes, boxes: Tensor, names: Sequence[str], colour: str, side: str) -> None:
    """Boxes with a name each, over its upper left or under its lower right corner."""
    for (left, top, right, bottom), name in zip(boxes.tolist(), names, strict=True):
        axes.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1)
        )
        if side == "left":
            axes.text(left - 0.5, top - 1, name, fontsize=6, color=colour, va="bottom", clip_on=True)
        else:
            axes.text(right - 0.5, bottom, name, fontsize=6, color=colour, va="top", ha="right", clip_on=True)


def arrow(axes: Axes, direction: Tensor, size: tuple[int, int], colour: str) -> None:
    """A direction, seen from the front, from the middle of the picture."""
    x, y = direction[0].item(), direction[1].item()
    middle = (size[1] - 1) / 2, (size[0] - 1) / 2
    long = 0.6 * size[1]
    axes.annotate(
        "",
        (middle[0] + long * x, middle[1] - long * y),
        middle,
        arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.5},
    )


def centre_maps(heading: str, given: Boxes, out: Tensor) -> Figure:
    """Of the first test pictures the greatest score of any class at each cell, beside what it is to be."""
    n = min(4, len(given.test))
    made = figure(f"{heading}\nmaps of centres, the greatest of all classes", 900, 720)
    grid = made.subplots(3, n, squeeze=False)
    size = (1, len(given.classes), *out.shape[-2:])
    for column in range(n):
        boxes, labels = given.test.boxes[column], given.test.labels[column]
        heat = centres.heat(boxes, labels, torch.zeros(len(boxes), dtype=torch.int64), (1, size[1], size[2], size[3]))
        x = given.test.pictures[column].mean(0)
        for axes, image in zip(grid[:, column], (x, heat[0].amax(0), out[column, :-4].sigmoid().amax(0)), strict=True):
            axes.imshow(image.numpy(), "magma", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
    for axes, name in zip(grid[:, 0], ("picture", "to be", "predicted"), strict=True):
        axes.set_ylabel(name)
    return made
