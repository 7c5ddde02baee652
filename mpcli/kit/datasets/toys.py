"""`moons`, `eight_gaussians`, `pinwheel`, `checkerboard`: distributions in the plane that are hard in their own ways.

Each gives 20000 rows for training, 5000 for validation and 5000 for testing, always the same ones.

Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, FFJORD: Free-Form Continuous Dynamics for Scalable Reversible
Generative Models, 2019, arXiv:1810.01367, from whose experiments the shapes are.

Origin: the experiments of FFJORD, Grathwohl and others, 2019

Licence: that of mpcli, which draws them
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from mpcli.kit.datasets.files import no_argument
from mpcli.kit.datasets.types import Table

SIZES = (20000, 5000, 5000)


def moons(argument: str) -> Table:
    """Two half circles of radius 2 that reach into each other, blurred by Gaussian noise of deviation 0.2."""

    def draw(random: np.random.RandomState, n: int) -> np.ndarray:
        upper = random.rand(n) < 0.5
        angle = math.pi * random.rand(n)
        x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
        y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
        return 2 * (np.stack([x, y], 1) - [0.5, 0.25] + 0.1 * random.randn(n, 2))

    return _table("moons", argument, draw)


def eight_gaussians(argument: str) -> Table:
    """Eight round Gaussians of deviation 0.5 / sqrt(2), evenly on a circle of radius 4 / sqrt(2)."""

    def draw(random: np.random.RandomState, n: int) -> np.ndarray:
        angle = 2 * math.pi * random.randint(8, size=n) / 8
        centre = 4 * np.stack([np.cos(angle), np.sin(angle)], 1)
        return (centre + 0.5 * random.randn(n, 2)) / math.sqrt(2)

    return _table("eight_gaussians", argument, draw)


def pinwheel(argument: str) -> Table:
    """Five Gaussian arms, longer than wide, each bent the further it is from the middle."""

    def draw(random: np.random.RandomState, n: int) -> np.ndarray:
        along, across = 1 + 0.3 * random.randn(n), 0.1 * random.randn(n)
        angle = 2 * math.pi * random.randint(5, size=n) / 5 + 0.25 * np.exp(along)
        turned = [along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle)]
        return 2 * np.stack(turned, 1)

    return _table("pinwheel", argument, draw)


def checkerboard(argument: str) -> Table:
    """The black fields, of side 2, of a board from -4 to 4: uniform with the density 1/32."""

    def draw(random: np.random.RandomState, n: int) -> np.ndarray:
        column, row = random.randint(4, size=n), random.randint(2, size=n)
        corner = np.stack([column, 2 * row + column % 2], 1)
        return 2 * (corner + random.rand(n, 2)) - 4

    return _table("checkerboard", argument, draw)


def _table(name: str, argument: str, draw: Callable[[np.random.RandomState, int], np.ndarray]) -> Table:
    no_argument(name, argument)
    rows = torch.from_numpy(draw(np.random.RandomState(0), sum(SIZES)).astype(np.float32))
    train, validation, test = rows.split(list(SIZES))
    return Table(train, validation, test, name=name)
