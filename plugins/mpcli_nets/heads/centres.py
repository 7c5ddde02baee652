"""Objects as points: a map of centres for each class, where in its cell a centre is, and how large the object is.

Zhou, Wang and Kraehenbuehl, Objects as Points, 2019. arXiv:1904.07850
"""

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE = 4  # pixels from one cell of the maps to the next
NARROW = 3.0  # the mean side of a box is so many deviations of the Gaussian around its centre
MOST = 32  # boxes a picture


def centred(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # [M, 4] -> [M, 2], [M, 2], [M, 2]
    """Of boxes in pixels the cell (row, column), where in it the centre is, and log(size / 4), rows first."""
    low, high = boxes[:, :2].flip(1), boxes[:, 2:].flip(1)
    middle = (low + high) / 2 / STRIDE
    cell = middle.floor()
    return cell.long(), middle - cell, ((high - low) / STRIDE).log()


def heat(boxes: Tensor, labels: Tensor, picture: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    """[N, K, h, w]: 1 at the cells of centres, and around them exp(-d^2 / (2 s^2)), the greatest where several reach.

    Args:
        boxes, labels, picture: of all objects of a batch, [M, 4], [M], [M]: the number of its picture.
        size: N, K, h, w.
    """
    cell, _, log_size = centred(boxes)
    deviation = (log_size.mean(1).exp() / NARROW)[:, None, None]
    rows, columns = (torch.arange(n, device=boxes.device) for n in size[2:])
    far = (rows[:, None] - cell[:, 0, None, None]).square() + (columns - cell[:, 1, None, None]).square()
    bumps = torch.exp(-far / (2 * deviation.square()))
    flat = torch.zeros(size[0] * size[1], *size[2:], dtype=bumps.dtype, device=boxes.device)
    index = (picture * size[1] + labels)[:, None, None].expand_as(bumps)
    return flat.scatter_reduce(0, index, bumps, "amax").unflatten(0, size[:2])


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """-(1 / M) sum (1 - p)^2 log p at M centres, (1 - y)^4 p^2 log(1 - p) elsewhere; p the sigmoid, y the heat.

    Lin, Goyal, Girshick, He and Dollar, Focal Loss for Dense Object Detection, 2017. arXiv:1708.02002
    """
    p = logits.sigmoid()
    at = target == 1
    here = (1 - p).square() * F.logsigmoid(logits)
    elsewhere = (1 - target) ** 4 * p.square() * F.logsigmoid(-logits)
    return -torch.where(at, here, elsewhere).sum() / at.sum().clamp(min=1)


def loss_of(maps: Tensor, boxes: Tensor, labels: Tensor, picture: Tensor) -> Tensor:
    """Of maps [N, K + 4, h, w] (centres, place in the cell, log size): focal loss, and |error| of place and size."""
    n, channels, height, width = maps.shape
    target = heat(boxes, labels, picture, (n, channels - 4, height, width))
    cell, place, size = centred(boxes)
    there = maps[picture, -4:, cell[:, 0], cell[:, 1]]
    wrong = (there - torch.cat([place, size], 1)).abs().sum() / max(1, len(boxes))
    return focal(maps[:, :-4], target) + wrong


def decode(maps: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes [M, 4] in pixels, scores [M] and classes [M] of each picture, the surest first.

    A centre is a cell of maps [N, K + 4, h, w] above all of its eight neighbours: nothing else is suppressed.
    """
    p = maps[:, :-4].sigmoid()
    peaks = torch.where(p == F.max_pool2d(p, 3, 1, 1), p, 0.0)
    width = p.shape[-1]
    found = []
    for scores, rest in zip(peaks.flatten(1), maps[:, -4:].flatten(2), strict=True):
        best, index = scores.topk(min(MOST, len(scores)))
        label, cell = index // rest.shape[1], index % rest.shape[1]
        place = torch.stack([cell // width, cell % width], 1) + rest[:2, cell].T
        half = rest[2:, cell].T.exp() / 2
        box = STRIDE * torch.cat([(place - half).flip(1), (place + half).flip(1)], 1)
        found.append((box, best, label))
    return found
