"""How well boxes and directions are predicted."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Found = tuple[Tensor, Tensor, Tensor]  # boxes [M, 4], scores [M], classes [M] of one picture
Truth = tuple[Tensor, Tensor]  # boxes [M, 4], classes [M]

RECALLS = np.linspace(0, 1, 101)
ALL = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))


def box_iou(a: Tensor, b: Tensor) -> Tensor:  # [M, 4], [L, 4] -> [M, L]
    """Intersection over union of boxes (left, top, right, bottom)."""
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    one, other = ((of[:, 2:] - of[:, :2]).prod(-1) for of in (a, b))
    return both / (one[:, None] + other - both)


def matched(iou: np.ndarray, least: np.ndarray) -> np.ndarray:  # [M, L], [T] -> [T, M]
    """Whether each box, the surest first, is the best for an object that none before it had, by an IoU of `least`."""
    hits = np.zeros((len(least), len(iou)), bool)
    free = np.ones((len(least), iou.shape[1]), bool)
    for i, mine in enumerate(iou):
        if not len(mine) or mine.max() < least[0]:
            continue
        open_to = np.where(free, mine, -1.0)
        best = open_to.argmax(1)
        enough = open_to.max(1) >= least
        hits[enough, i] = True
        free[enough, best[enough]] = False
    return hits


def average_precision(
    found: Sequence[Found], truth: Sequence[Truth], label: int, least: Sequence[float]
) -> np.ndarray | None:
    """The mean over 101 recalls of the greatest precision at that recall or a higher one, for one class.

    As COCO has it, for each least IoU, the lowest first: [T]. None where there is no object of the class.
    """
    bounds = np.array(least)
    scores, hits, objects = [np.zeros(0)], [np.zeros((len(bounds), 0), bool)], 0
    for (boxes, sure, labels), (true_boxes, true_labels) in zip(found, truth, strict=True):
        theirs = true_labels == label
        objects += int(theirs.sum())
        mine = (labels == label).nonzero()[:, 0]
        if len(mine):
            mine = mine[sure[mine].argsort(descending=True, stable=True)]
            iou = box_iou(boxes[mine].double(), true_boxes[theirs].double())
            hits.append(matched(iou.numpy(), bounds))
            scores.append(sure[mine].double().numpy())
    if not objects:
        return None
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hit = np.concatenate(hits, 1)[:, order].cumsum(1)
    precision = hit / np.arange(1, len(order) + 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    # Behind the last recall that is reached nothing is right.
    ends = np.concatenate([envelope, np.zeros((len(bounds), 1))], 1)
    return np.array([e[np.searchsorted(h / objects, RECALLS)].mean() for e, h in zip(ends, hit, strict=True)])


def mean_average_precision(
    found: Sequence[Found], truth: Sequence[Truth], classes: int, least: Sequence[float] = ALL
) -> np.ndarray:
    """The mean over classes that there are, for each least IoU at which a box counts, the lowest first: [T]."""
    each = [average_precision(found, truth, label, least) for label in range(classes)]
    known = [value for value in each if value is not None]
    return np.mean(known, 0) if known else np.zeros(len(least))


def angle(a: Tensor, b: Tensor) -> Tensor:  # [N, 3], [N, 3] -> [N]
    """Degrees between directions: atan2(|a x b|, a . b), which is exact near 0 too."""
    return torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1)).rad2deg()
