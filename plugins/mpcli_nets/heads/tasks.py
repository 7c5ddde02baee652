"""The three tasks: their data, their loss, how they are judged, and what needs no network."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import Boxed, Boxes, Gazes, Pictures
from mpcli_nets.heads import centres, measures
from mpcli_nets.heads.measures import Found, Truth
from mpcli_nets.heads.net import Task

PIECE = 250  # pictures at once where nothing is learned
RIDGE = 10.0  # the penalty of what is linear in pixels
PATCH = 8  # pixels along a side to which what a threshold finds is scaled

Given = Boxes | Gazes
G = TypeVar("G", bound=Given, contravariant=True)


def pictures_of(part: Boxed | Pictures) -> Pictures:
    """The pictures of a part of the data of any task."""
    return part.pictures if isinstance(part, Boxed) else part


@torch.no_grad()
def outputs(model: nn.Module, part: Boxed | Pictures) -> Tensor:
    """What a network gives for all pictures, some at once."""
    pictures = pictures_of(part)
    return torch.cat([model(pictures[i : i + PIECE]) for i in range(0, len(pictures), PIECE)])


def ridge(x: Tensor, y: Tensor, other: Tensor) -> Tensor:  # [N, ...], [N, E], [M, ...] -> [M, E]
    """What is linear in the pixels of training pictures, with a constant, for other pictures."""
    mean = x.flatten(1).double().mean(0)
    a, b = x.flatten(1).double() - mean, other.flatten(1).double() - mean
    weights = torch.linalg.solve(
        a.T @ a + RIDGE * torch.eye(a.shape[1], dtype=a.dtype), a.T @ (y.double() - y.double().mean(0))
    )
    return (b @ weights + y.double().mean(0)).to(y)


class Kind(Protocol[G]):
    """What a task is, for data of one kind; `default` names some."""

    default: str

    def loss(self, given: G, out: Tensor, i: Tensor) -> Tensor: ...
    def measured(self, given: G, out: Tensor) -> dict[str, float]: ...
    def beside(self, given: G) -> dict[str, float]: ...


def first_boxes(part: Boxed) -> tuple[Tensor, Tensor]:
    """The one box of each picture [N, 4], and its class [N]."""
    return torch.stack([box[0] for box in part.boxes]), torch.stack([label[0] for label in part.labels])


def relative(boxes: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Boxes (left, top, right, bottom) in pixels as middle and size, in sides of the picture."""
    sides = torch.tensor([shape[2], shape[1]], dtype=boxes.dtype, device=boxes.device)
    low, high = boxes[:, :2] / sides, boxes[:, 2:] / sides
    return torch.cat([(low + high) / 2, high - low], 1)


def absolute(numbers: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The inverse of `relative`."""
    sides = torch.tensor([shape[2], shape[1]], dtype=numbers.dtype, device=numbers.device)
    middle, half = numbers[:, :2], numbers[:, 2:].clamp(min=1e-3) / 2
    return torch.cat([(middle - half) * sides, (middle + half) * sides], 1)


class Localize:
    """The class of the one object, and a box around it."""

    default = "one_digit"

    def loss(self, given: Boxes, out: Tensor, i: Tensor) -> Tensor:
        """-log p of the class, and 10 |error| of middle and size, in sides of the picture."""
        boxes, labels = first_boxes(given.train[i])
        wrong = (out[:, -4:] - relative(boxes, given.shape)).abs().sum(1).mean()
        return F.cross_entropy(out[:, :-4], labels) + 10 * wrong

    def scored(self, given: Boxes, boxes: Tensor, classes: Tensor) -> dict[str, float]:
        """Accuracy, IoU with the box, and the share of pictures of which both are right, the box by an IoU of half."""
        true, labels = first_boxes(given.test)
        iou = torch.stack([measures.box_iou(a[None], b[None])[0, 0] for a, b in zip(boxes, true, strict=True)])
        right = classes == labels
        return {
            "accuracy": float(right.double().mean()),
            "iou": float(iou.double().mean()),
            "exact": float((right & (iou >= 0.5)).double().mean()),
        }

    def measured(self, given: Boxes, out: Tensor) -> dict[str, float]:
        return self.scored(given, absolute(out[:, -4:], given.shape), out[:, :-4].argmax(1))

    def beside(self, given: Boxes) -> dict[str, float]:
        """The mean box and the commonest class; what is linear in the pixels."""
        boxes, labels = first_boxes(given.train)
        x, other = given.train.pictures[:], given.test.pictures[:]
        one = F.one_hot(labels, len(given.classes)).float()
        linear = ridge(x, torch.cat([one, relative(boxes, given.shape)], 1), other)
        mean = self.scored(given, boxes.mean(0).expand(len(other), -1), labels.mode().values.expand(len(other)))
        return {f"mean_{name}": value for name, value in mean.items()} | {
            f"ridge_{name}": value for name, value in self.measured(given, linear).items()
        }


class Detect:
    """Every object, with its class and its box."""

    default = "digit_scenes"

    def loss(self, given: Boxes, out: Tensor, i: Tensor) -> Tensor:
        part = given.train[i]
        picture = torch.repeat_interleave(torch.tensor([len(box) for box in part.boxes]))
        return centres.loss_of(out, torch.cat(part.boxes), torch.cat(part.labels), picture.to(out.device))

    def scored(self, given: Boxes, found: Sequence[Found]) -> dict[str, float]:
        """mAP as COCO has it, and at an IoU of 0.5 and of 0.75 alone."""
        truth: list[Truth] = list(zip(given.test.boxes, given.test.labels, strict=True))
        each = dict(zip(measures.ALL, measures.mean_average_precision(found, truth, len(given.classes)), strict=True))
        mean = sum(each.values()) / len(each)
        return {"map": float(mean), "map_50": float(each[0.5]), "map_75": float(each[0.75])}

    def measured(self, given: Boxes, out: Tensor) -> dict[str, float]:
        return self.scored(given, centres.decode(out))

    def beside(self, given: Boxes) -> dict[str, float]:
        """Pieces above Otsu's threshold, each of the class of the training object that looks most like it."""
        known = [
            (patch(x, box), label)
            for x, boxes, labels in zip(given.train.pictures[:], given.train.boxes, given.train.labels, strict=True)
            for box, label in zip(boxes, labels, strict=True)
        ]
        patches, classes = torch.stack([p for p, _ in known]), torch.stack([label for _, label in known])
        found = []
        for x in given.test.pictures[:]:
            boxes = pieces(x)
            looks = torch.stack([patch(x, box) for box in boxes]) if len(boxes) else patches[:0]
            labels = classes[torch.cdist(looks, patches).argmin(1)] if len(boxes) else classes[:0]
            found.append((boxes, torch.ones(len(boxes)), labels))
        return {f"threshold_{name}": value for name, value in self.scored(given, found).items()}


def pieces(x: Tensor) -> Tensor:
    """Boxes [M, 4] around what hangs together above Otsu's threshold of a picture [C, H, W], but for specks."""
    grey = ndimage.gaussian_filter(x.mean(0).numpy(), 0.7)
    if grey.min() == grey.max():
        return torch.zeros(0, 4)
    numbered, _ = ndimage.label(grey > threshold_otsu(grey), np.ones((3, 3)))
    found = [(rows, columns) for rows, columns in ndimage.find_objects(numbered)]
    boxes = [[c.start, r.start, c.stop, r.stop] for r, c in found if r.stop - r.start > 4 and c.stop - c.start > 2]
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def patch(x: Tensor, box: Tensor) -> Tensor:
    """What lies in a box of a picture [C, H, W], scaled to 8x8 pixels and to length 1, laid flat."""
    left, top, right, bottom = box.round().long().tolist()
    part = x.mean(0)[None, None, top : max(bottom, top + 1), left : max(right, left + 1)]
    flat = F.interpolate(part, (PATCH, PATCH), mode="bilinear", antialias=True).flatten()
    return F.normalize(flat - flat.mean(), dim=0)


class Gaze:
    """The direction in which an eye looks."""

    default = "eyes"

    def loss(self, given: Gazes, out: Tensor, i: Tensor) -> Tensor:
        """|a - b|^2 = 2 - 2 cos of the angle between them."""
        return (out - given.directions.train[i]).square().sum(1).mean()

    def measured(self, given: Gazes, out: Tensor) -> dict[str, float]:
        return {"angle": float(measures.angle(out, given.directions.test).double().mean())}

    def beside(self, given: Gazes) -> dict[str, float]:
        """The mean direction of training eyes; what is linear in the pixels."""
        mean = F.normalize(given.directions.train.mean(0), dim=0).expand(len(given.test), -1)
        linear = F.normalize(ridge(given.train[:], given.directions.train, given.test[:]), dim=1)
        return {
            f"{name}_{measure}": value
            for name, out in (("mean", mean), ("ridge", linear))
            for measure, value in self.measured(given, out).items()
        }


TASKS: dict[Task, Kind[Any]] = {"localize": Localize(), "detect": Detect(), "gaze": Gaze()}


def loaded(task: Task, data: str, shape: tuple[int, ...] | None = None, classes: int | None = None) -> Given:
    """The pictures of a task.

    Args:
        shape, classes: what a trained model needs; None takes any.

    Raises:
        InputError: there is no such dataset, it is of another kind, or has others than are needed.
    """
    if task == "gaze":
        return datasets.load(data, Gazes, shape=shape)
    given = datasets.load(data, Boxes, shape=shape)
    if classes not in (None, len(given.classes)):
        raise InputError(f"{data}: has {len(given.classes)} classes, but the model was trained on {classes}")
    alone = all(len(box) == 1 for part in given.parts().values() for box in part.boxes)
    if task == "localize" and not alone:
        raise InputError(f"{data}: has pictures without or with several boxes; right would be one, or --task detect")
    if task == "detect" and not sum(len(box) for box in given.train.boxes):
        raise InputError(f"{data}: has no box to learn from; right would be one or more")
    return given
