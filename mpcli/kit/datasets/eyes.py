"""`eyes`: pictures of eyes, drawn by rays through every pixel, each with the direction in which it looks.

Licence: that of mpcli, which draws them
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mpcli.kit.datasets.files import no_argument
from mpcli.kit.datasets.split import Split
from mpcli.kit.datasets.types import Pictures
from mpcli.kit.randomness import generator

HEIGHT, WIDTH = 32, 48
COUNTS = (3000, 100, 500)
ACROSS = 1.35  # radii of the eyeball from the middle of the picture to its left border
YAW, PITCH = 35.0, 22.0  # degrees to a side, at most
NOISE = 0.03


@dataclass(frozen=True)
class Gazes(Split[Pictures]):
    """Pictures of eyes, with `directions` [N, 3], float32, of length 1: x right, y up, z towards the camera."""

    directions: Split[Tensor] = field(kw_only=True)
    name: str = field(default="eyes", kw_only=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one picture."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    def describe(self, of: str = "eyes") -> str:
        """One line: how many eyes each part has, and their shape."""
        return super().describe(f"{of} of {'x'.join(map(str, self.shape))}, with the direction of each")


def eyes(argument: str) -> Gazes:
    """3000 training, 100 validation and 500 test eyes, 1x32x48, up to 35 degrees aside and 22 up and down."""
    no_argument("eyes", argument)
    parts = [_part(generator(0, number), n) for number, n in enumerate(COUNTS)]
    pictures, directions = zip(*parts, strict=True)
    return Gazes(*map(Pictures, pictures), directions=Split(*directions), name="eyes")


def _part(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    def between(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(n, generator=g))[:, None, None]

    yaw, pitch = between(-YAW, YAW).deg2rad(), between(-PITCH, PITCH).deg2rad()
    gaze = torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()])  # [3, N, 1, 1]
    # The camera is far away: rays are parallel, and meet the eyeball, of radius 1, where z is highest.
    pixel = 2 * ACROSS / WIDTH
    x = ((torch.arange(WIDTH) + 0.5) * pixel - ACROSS)[None, None] - between(-0.12, 0.12)
    y = ((HEIGHT / 2 - torch.arange(HEIGHT) - 0.5) * pixel)[None, :, None] - between(-0.08, 0.08)
    z = (1 - x.square() - y.square()).clamp(min=0).sqrt()
    away = (x * gaze[0] + y * gaze[1] + z * gaze[2]).clamp(-1, 1).acos()  # from the axis of the eye
    iris, pupil = between(0.44, 0.54), between(0.16, 0.28)
    light = torch.where(away < iris, between(0.25, 0.55) + 0.1 * (away / iris), between(0.7, 0.95) * (0.75 + 0.25 * z))
    light = torch.where(away < pupil, between(0.02, 0.1), light)
    # A lamp is seen where the surface of the eye has its normal halfway between lamp and camera.
    lamp = between(-0.3, 0.3), between(0.0, 0.35)
    light = torch.where((x - lamp[0]).square() + (y - lamp[1]).square() < 0.006, torch.tensor(1.0), light)
    # Lids follow the eye up and down, and hide more of it or less.
    arc = 1 - (x / 1.15).square()
    upper, lower = (between(0.45, 0.75) + 0.35 * pitch.sin()) * arc, (between(-0.65, -0.5) + 0.15 * pitch.sin()) * arc
    hidden = (y > upper) | (y < lower) | (arc <= 0) | (z <= 0)
    skin = between(0.35, 0.7) * (1 - 0.15 * y) - 0.15 * torch.exp(-((y - upper) / 0.07).square())
    light = torch.where(hidden, skin, light) * between(0.75, 1.1)
    light = light + NOISE * torch.randn(light.shape, generator=g)
    return (255 * light.clamp(0, 1)).round().byte()[:, None], gaze[:, :, 0, 0].T.contiguous()
