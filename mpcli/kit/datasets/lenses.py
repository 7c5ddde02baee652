"""Lenses of COLMAP and OpenCV, and pictures without their distortion.

    u' = u R + 2 p1 u v + p2 (r^2 + 2 u^2)          u, v: undistorted, at depth 1;  r^2 = u^2 + v^2
    v' = v R + 2 p2 u v + p1 (r^2 + 2 v^2)          R = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6)

and of a fisheye, with a = arctan r, (u', v') = (u, v) a (1 + k1 a^2 + k2 a^4 + k3 a^6 + k4 a^8) / r.

Pictures are resampled to those of a pinhole, magnified where its corners would otherwise stay empty.

Kannala and Brandt, A Generic Camera Model and Calibration Method for Conventional, Wide-Angle, and Fish-Eye Lenses,
2006. doi:10.1109/TPAMI.2006.153
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.cameras import Cameras

# Where each of (f_x, f_y, c_x, c_y, k1, k2, p1, p2, k3, k4, k5, k6) stands among a model's parameters.
_NONE = (None, None, None, None)
MODELS: dict[str, tuple[int | None, ...]] = {
    "SIMPLE_PINHOLE": (0, 0, 1, 2, *_NONE, *_NONE),
    "PINHOLE": (0, 1, 2, 3, *_NONE, *_NONE),
    "SIMPLE_RADIAL": (0, 0, 1, 2, 3, None, None, None, *_NONE),
    "RADIAL": (0, 0, 1, 2, 3, 4, None, None, *_NONE),
    "OPENCV": (0, 1, 2, 3, 4, 5, 6, 7, *_NONE),
    "OPENCV_FISHEYE": (0, 1, 2, 3, 4, 5, None, None, 6, 7, None, None),
    "FULL_OPENCV": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    "SIMPLE_RADIAL_FISHEYE": (0, 0, 1, 2, 3, None, None, None, *_NONE),
    "RADIAL_FISHEYE": (0, 0, 1, 2, 3, 4, None, None, *_NONE),
}
# The numbers that the binary format has for them; FOV and THIN_PRISM_FISHEYE are named and not read.
NUMBERED = (
    *("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV"),
    *("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE"),
)
RIGHT_MODEL = f"right would be one of {', '.join(MODELS)}, such as `colmap image_undistorter` makes"


def count(model: str) -> int:
    """How many parameters a model has."""
    return 1 + max(place for place in MODELS[model] if place is not None)


@dataclass(frozen=True)
class Lens:
    """A camera of COLMAP: the size of its pictures, and f_x, f_y, c_x, c_y, k1, k2, p1, p2, k3, k4, k5, k6."""

    width: int
    height: int
    values: tuple[float, ...]
    fisheye: bool = False

    @property
    def distorts(self) -> bool:
        """Whether its pictures differ from those of a pinhole."""
        return self.fisheye or any(self.values[4:])

    def distorted(self, undistorted: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 2"]:
        """Where the lens puts what a pinhole would put at (u, v), both at depth 1."""
        k1, k2, p1, p2, k3, k4, k5, k6 = self.values[4:]
        u, v = undistorted.unbind(-1)
        squared = u.square() + v.square()
        if self.fisheye:
            r = squared.sqrt().clamp(min=1e-12)
            angle = r.atan()
            a = angle.square()
            return undistorted * (angle / r * (1 + a * (k1 + a * (k2 + a * (k3 + a * k4)))))[..., None]
        radial = 1 + squared * (k1 + squared * (k2 + squared * k3))
        radial = radial / (1 + squared * (k4 + squared * (k5 + squared * k6)))
        return torch.stack(
            [
                u * radial + 2 * p1 * u * v + p2 * (squared + 2 * u.square()),
                v * radial + 2 * p2 * u * v + p1 * (squared + 2 * v.square()),
            ],
            -1,
        )


def undistort(
    images: Float[Tensor, "views channels height width"], cameras: Cameras, lenses: tuple[Lens, ...], place: Path
) -> tuple[Float[Tensor, "views channels height width"], Cameras]:
    """The pictures that pinholes would have taken, and those pinholes; `place` is for messages.

    The focal length of a lens is kept, or raised until every pixel of the pinhole is seen by the lens.

    Raises:
        InputError: a lens distorts so much that its formula folds over within the picture.
    """
    focal, images = cameras.focal.clone(), images.clone()
    size = torch.tensor([cameras.width, cameras.height])
    columns, rows = torch.meshgrid(torch.arange(cameras.width), torch.arange(cameras.height), indexing="xy")
    pixels = torch.stack([columns, rows], -1) + 0.5  # [H, W, 2]
    edge = torch.cat([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    zooms: dict[Lens, float] = {}
    for i, lens in enumerate(lenses):
        if not lens.distorts:
            continue
        at = partial(_source, lens, cameras.focal[i], cameras.centre[i])
        if lens not in zooms:
            zooms[lens] = _zoom(partial(at, edge), size)
            corner = (edge - cameras.centre[i]).abs().max(0).values / (zooms[lens] * cameras.focal[i])
            if not _unfolded(lens, float(corner.norm())):
                raise InputError(f"{place}: a camera distorts too strongly to be undone here; {RIGHT_MODEL}")
        images[i] = _sampled(images[i], 2 * at(pixels, zooms[lens]) / size - 1)
        focal[i] *= zooms[lens]
    return images, Cameras(cameras.pose, focal, cameras.centre, cameras.width, cameras.height)


def _source(
    lens: Lens, focal: Float[Tensor, "2"], centre: Float[Tensor, "2"], pixels: Float[Tensor, "*points 2"], zoom: float
) -> Float[Tensor, "*points 2"]:
    """Where the lens put what a pinhole magnified by `zoom` has at `pixels`."""
    return lens.distorted((pixels - centre) / (zoom * focal)) * focal + centre


def _zoom(edge: Callable[[float], Tensor], size: Tensor) -> float:
    """The smallest magnification of 1 or more at which the picture's edge comes from inside the picture."""

    def within(zoom: float) -> bool:
        at = edge(zoom)
        return bool(((at >= 0) & (at <= size)).all())

    low, high = 1.0, 1.0
    while not within(high) and high < 8:
        low, high = high, 1.25 * high
    for _ in range(20 if high > 1 else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return high


def _unfolded(lens: Lens, radius: float) -> bool:
    """Whether what is farther out up to `radius` is farther out in the picture too, but for p1 and p2."""
    r = torch.linspace(0, radius, 257, dtype=torch.float64)
    radial = Lens(lens.width, lens.height, (*lens.values[:6], 0.0, 0.0, *lens.values[8:]), lens.fisheye)
    return bool((radial.distorted(torch.stack([r, 0 * r], -1))[:, 0].diff() > 0).all())


def _sampled(image: Float[Tensor, "channels height width"], grid: Float[Tensor, "height width 2"]) -> Tensor:
    """Bilinear samples; colours are weighted by alpha, or the fully transparent would bleed into the others."""
    if len(image) == 4:
        image = torch.cat([image[:3] * image[3:], image[3:]])
    found = torch.nn.functional.grid_sample(image[None], grid[None], padding_mode="border", align_corners=False)[0]
    if len(image) == 4:
        found = torch.cat([found[:3] / found[3:].clamp(min=1e-6), found[3:]])
    return found.clamp(0, 1)
