"""`digit_scenes` and `one_digit`: pictures of 64x64 pixels with digits of 16 to 28 pixels, and boxes around them.

Digits are those of `digits`; `digit_scenes:mnist:DIR` takes those of any dataset of pictures with classes. They are
enlarged, laid where they overlap little, four at most, and noise is added.

Licence: CC BY 4.0, that of `digits`
"""

import numpy as np
import torch
from PIL import Image

from mpcli.errors import InputError
from mpcli.kit.datasets.boxes import Boxed, Boxes
from mpcli.kit.datasets.types import Images, Pictures

SIDE = 64
LEAST, MOST = 16, 28  # pixels along a side of a digit
COUNTS = (2000, 100, 400)  # scenes of each part
OVERLAP = 0.1  # of the smaller of two boxes
INK = 0.2  # of the brightest pixel, from which on a box holds a pixel

Box = tuple[float, float, float, float]  # left, top, right, bottom


def digit_scenes(argument: str) -> Boxes:
    """2000 training, 100 validation and 400 test scenes of one to four digits, each of digits of its own part."""
    return _scenes(argument, "digit_scenes", 4)


def one_digit(argument: str) -> Boxes:
    """2000 training, 100 validation and 400 test scenes of one digit each."""
    return _scenes(argument, "one_digit", 1)


def _scenes(argument: str, name: str, most: int) -> Boxes:
    from mpcli.kit import datasets

    source = argument or "digits"
    given = datasets.load(source, Images)
    if given.labels is None or given.shape[0] != 1:
        raise InputError(f"{name}:{argument}: right would be grey pictures with classes, such as digits or mnist:DIR")
    random = np.random.RandomState(0)
    labels = given.labels.parts()
    parts = [
        _part(random, n, part[:].mul(255).round().byte().numpy()[:, 0], labels[of].numpy(), most)
        for n, (of, part) in zip(COUNTS, given.parts().items(), strict=True)
    ]
    return Boxes(*parts, classes=given.classes, name=f"{name}:{given.name}" if argument else name)


def _part(random: np.random.RandomState, n: int, digits: np.ndarray, labels: np.ndarray, most: int) -> Boxed:
    scenes = np.zeros((n, 1, SIDE, SIDE), np.uint8)
    boxes, classes = [], []
    for number in range(n):
        light = np.zeros((SIDE, SIDE))
        mine: list[Box] = []
        which: list[int] = []
        for _ in range(random.randint(1, most + 1)):
            i, size = random.randint(len(digits)), random.randint(LEAST, MOST + 1)
            ink = np.asarray(Image.fromarray(digits[i]).resize((size, size), Image.Resampling.BICUBIC)) / 255.0
            rows, columns = (np.nonzero((ink > INK * ink.max()).any(axis))[0][[0, -1]] for axis in (1, 0))
            extent = (float(columns[0]), float(rows[0]), float(columns[1] + 1), float(rows[1] + 1))
            if place := _free(random, size, extent, mine):
                left, top = place
                light[top : top + size, left : left + size] += ink * random.uniform(0.6, 1.0)
                mine.append(_moved(extent, left, top))
                which.append(int(labels[i]))
        noisy = 255 * np.clip(0.1 + 0.85 * np.clip(light, 0, 1) + random.normal(0, 0.06, light.shape), 0, 1)
        scenes[number, 0] = np.round(noisy)
        boxes.append(torch.tensor(mine))
        classes.append(torch.tensor(which))
    return Boxed(Pictures(torch.from_numpy(scenes)), tuple(boxes), tuple(classes))


def _free(random: np.random.RandomState, size: int, extent: Box, others: list[Box]) -> tuple[int, int] | None:
    """Where (column, row) a digit of so many pixels, with a box in it, overlaps little with others; 20 tries."""
    for _ in range(20):
        top, left = map(int, random.randint(0, SIDE - size + 1, 2))
        if all(_overlap(_moved(extent, left, top), other) <= OVERLAP for other in others):
            return left, top
    return None


def _moved(box: Box, right: int, down: int) -> Box:
    return box[0] + right, box[1] + down, box[2] + right, box[3] + down


def _overlap(a: Box, b: Box) -> float:
    """The part of the smaller box that lies in the other."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    least = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0.0, width) * max(0.0, height) / least
