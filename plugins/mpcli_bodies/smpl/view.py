"""Where to stand to look at people."""

import math

import torch
from torch import Tensor

from mpcli.kit import cameras


def upward(joints: Tensor) -> tuple[float, float, float]:  # posed joints [F, K, 3] -> y or z
    """The vertical axis of a recording, which differs from one to the next: people mostly keep their head up."""
    rise = (joints[:, min(15, joints.shape[1] - 1)] - joints[:, 0]).mean(0)
    return (0.0, 0.0, 1.0) if rise[2] > rise[1] else (0.0, 1.0, 0.0)


def camera_for(
    vertices: Tensor, up: tuple[float, float, float], azimuth: float, elevation: float, size: int
) -> cameras.Cameras:
    """A camera that sees all vertices [F, V, 3], as near as it can be; the picture is as wide as they need.

    Angles are radians, as in `mpcli.kit.cameras.orbit`.
    """
    points, half = vertices.flatten(0, 1), 0.25  # of the vertical field of view, radians
    middle = (points.amin(0) + points.amax(0)) / 2
    look = cameras.orbit(1, 1.0, elevation, up=up, width=size, height=size, azimuth=azimuth).pose[0, :3, :3].to(points)
    right, high, back = ((points - middle) @ look).unbind(-1)
    right, high = right.abs(), high.abs()
    aspect = min(2.0, max(0.7, float(right.max() / high.max())))
    room = 0.92 * math.tan(half)  # of the picture's half height, leaving a margin
    distance = float(torch.maximum(high / room + back, right / (room * aspect) + back).max())
    return cameras.orbit(
        1, distance, elevation, middle.tolist(), up, width=round(size * aspect), height=size,
        field_of_view=2 * math.atan(aspect * math.tan(half)), azimuth=azimuth,
    )  # fmt: skip
