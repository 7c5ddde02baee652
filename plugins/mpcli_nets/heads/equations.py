"""Equations of centres, boxes, directions and of what is measured of them, in the code that trains."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mpcli.checks import Case, Sides, identity
from mpcli.kit.datasets import Gazes, Pictures, Split
from mpcli_nets.heads import centres, measures, tasks

SIZE = (12, 12)  # cells


def some_boxes(generator: torch.Generator) -> Tensor:
    """Three boxes [3, 4] whose centres are two cells apart or more, in 48x48 pixels."""
    place = torch.tensor([[10.0, 10.0], [30.0, 12.0], [20.0, 34.0]]) + 3 * torch.rand(3, 2, generator=generator)
    half = 3 + 5 * torch.rand(3, 2, generator=generator)
    return torch.cat([place - half, place + half], 1).double()


def labels_of(generator: torch.Generator) -> Tensor:
    return torch.randint(2, (3,), generator=generator)


def gradcheck() -> Iterator[Case]:
    yield from of_centres()
    yield from of_measures()
    yield from of_directions()


def of_centres() -> Iterator[Case]:
    def back(boxes: Tensor, labels: Tensor) -> Sides:
        """Maps that say just what is true are read as the boxes that they were made of."""
        heat = centres.heat(boxes, labels, torch.zeros(3).long(), (1, 2, *SIZE))
        cell, place, size = centres.centred(boxes)
        maps = torch.cat([heat.logit(1e-6), torch.zeros(1, 4, *SIZE, dtype=heat.dtype)], 1)
        maps[0, -4:, cell[:, 0], cell[:, 1]] = torch.cat([place, size], 1).T
        ((found, _, classes),) = centres.decode(maps)
        order = [int((found[:3] - box).abs().sum(1).argmin()) for box in boxes]
        right = torch.cat([boxes, labels[:, None].double()], 1)
        wrong = boxes - torch.cat([place.flip(1), place.flip(1)], 1) * centres.STRIDE
        said = torch.cat([found[order], classes[order, None].double()], 1)
        return said, right, torch.cat([wrong, labels[:, None].double()], 1)

    yield identity(
        "decode(encode(boxes)) = boxes", back, some_boxes, labels_of, mistake="without the place in the cell"
    )

    def bump(boxes: Tensor) -> Sides:
        """One object: its class has the Gaussian of its cell, the other class nothing."""
        box = boxes[:1]
        found = centres.heat(box, torch.tensor([1]), torch.tensor([0]), (1, 2, *SIZE))
        width, height = (box[0, 2:] - box[0, :2]).tolist()
        row, column = (int((box[0, 1 - k] + box[0, 3 - k]) / 2 // 4) for k in (0, 1))
        far = (torch.arange(12)[:, None] - row) ** 2 + (torch.arange(12) - column) ** 2
        s = (width * height) ** 0.5 / 4 / 3
        right = torch.stack([torch.zeros(SIZE), torch.exp(-far / (2 * s * s))])[None].double()
        return found, right, torch.stack([torch.zeros(SIZE), torch.exp(-far / (s * s))])[None].double()

    yield identity("y = exp(-d^2 / (2 s^2))", bump, some_boxes, mistake="exp(-d^2 / s^2)", rtol=1e-5, atol=1e-7)

    def focal(logits: Tensor, boxes: Tensor, labels: Tensor) -> Sides:
        y = centres.heat(boxes, labels, torch.zeros(3).long(), (1, 2, *SIZE))
        p = 1 / (1 + (-logits).exp())
        at = y == 1
        here = ((1 - p[at]) ** 2 * p[at].log()).sum()
        rest = p[~at] ** 2 * (1 - p[~at]).log()
        count = at.sum()
        right = -(here + ((1 - y[~at]) ** 4 * rest).sum()) / count
        return centres.focal(logits, y), right, -(here + rest.sum()) / count

    name = "-(1 - p)^2 log p, -(1 - y)^4 p^2 log(1 - p)"
    yield identity(name, focal, (1, 2, *SIZE), some_boxes, labels_of, mistake="without (1 - y)^4")

    def whole(boxes: Tensor) -> Sides:
        """Middle and size in sides of the picture, and back."""
        numbers = tasks.relative(boxes, (1, 48, 64))
        left, top, right, bottom = boxes.unbind(1)
        written = torch.stack([(left + right) / 128, (top + bottom) / 96, (right - left) / 64, (bottom - top) / 48], 1)
        swapped = torch.stack([(left + right) / 96, (top + bottom) / 128, (right - left) / 48, (bottom - top) / 64], 1)
        both = torch.cat([numbers, tasks.absolute(numbers, (1, 48, 64))])
        return both, torch.cat([written, boxes]), torch.cat([swapped, boxes])

    yield identity("box: middle and size, in sides", whole, some_boxes, mistake="sides exchanged")


def of_measures() -> Iterator[Case]:
    def whole_box(generator: torch.Generator) -> Tensor:
        low = torch.randint(0, 10, (2,), generator=generator)
        return torch.cat([low, low + torch.randint(3, 12, (2,), generator=generator)]).double()

    def iou(a: Tensor, b: Tensor) -> Sides:
        """Counted pixel by pixel."""
        masks = []
        for box in (a, b):
            left, top, right, bottom = box.int().tolist()
            mask = torch.zeros(24, 24, dtype=torch.bool)
            mask[top:bottom, left:right] = True
            masks.append(mask)
        both, one = (masks[0] & masks[1]).sum(), (masks[0] | masks[1]).sum()
        return measures.box_iou(a[None], b[None])[0, 0], float(both) / float(one), float(2 * both) / float(both + one)

    yield identity("IoU of boxes, pixel by pixel", iou, whole_box, whole_box, mistake="Dice")

    def scores(generator: torch.Generator) -> Tensor:
        return torch.rand(6, generator=generator, dtype=torch.float64)

    def precision(sure: Tensor, boxes: Tensor) -> Sides:
        """Six boxes for three objects: the first three are right, one of them is found twice, two are elsewhere."""
        elsewhere = boxes[:2] + 200
        found = torch.cat([boxes, boxes[:1] + 0.1, elsewhere])
        hit = torch.tensor([1, 1, 1, 1, 0, 0])
        order = sure.argsort(descending=True).tolist()
        precisions, recalls, seen, hits = [], [], set(), 0
        for count, k in enumerate(order, 1):
            of = 0 if k == 3 else k
            if hit[k] and of not in seen:
                seen.add(of)
                hits += 1
            precisions.append(hits / count)
            recalls.append(hits / 3)
        best = [
            max([p for p, r in zip(precisions, recalls, strict=True) if r >= level / 100 - 1e-12], default=0.0)
            for level in range(101)
        ]
        wrong = [
            next((p for p, r in zip(precisions, recalls, strict=True) if r >= level / 100 - 1e-12), 0.0)
            for level in range(101)
        ]
        label = torch.zeros(6).long()
        left = measures.mean_average_precision([(found, sure, label)], [(boxes, label[:3])], 1, (0.5,))[0]
        return left, sum(best) / 101, sum(wrong) / 101

    yield identity(
        "AP: the greatest precision at a recall or above", precision, scores, some_boxes, mistake="the first"
    )


def of_directions() -> Iterator[Case]:
    def angle(a: Tensor, b: Tensor) -> Sides:
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
        # |a - b| is twice the sine of half the angle.
        right = (2 * ((a - b).norm(dim=1) / 2).clamp(max=1).asin()).rad2deg()
        return measures.angle(a, b), right, (a - b).norm(dim=1).rad2deg()

    yield identity("angle: 2 asin(|a - b| / 2)", angle, (4, 3), (4, 3), mistake="|a - b|")

    def near(a: Tensor, b: Tensor) -> Sides:
        """The loss of a direction is 2 - 2 cos of its angle."""
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
        blank = Pictures(torch.zeros(4, 1, 2, 2))
        given = Gazes(blank, blank, blank, directions=Split(b, b, b))
        cosine = measures.angle(a, b).deg2rad().cos()
        return tasks.TASKS["gaze"].loss(given, a, torch.arange(4)), (2 - 2 * cosine).mean(), (1 - cosine).mean()

    yield identity("gaze: |a - b|^2 = 2 - 2 cos", near, (4, 3), (4, 3), mistake="1 - cos")
