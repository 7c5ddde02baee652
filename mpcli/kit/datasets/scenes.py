"""What the readers of scenes share: pictures brought to one size, and how near and far there is something to see."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.cameras import Cameras
from mpcli.kit.datasets.files import has_alpha, open_image, read_image
from mpcli.kit.datasets.types import Pictures
from mpcli.notices import notice


def tell_skipped(names: list[str], count: int, source: Path) -> None:
    """Say which of `count` views are left out for want of their pictures.

    Raises:
        InputError: all of them are.
    """
    if len(names) == count:
        raise InputError(f"{source}: none of its {count} pictures is there; right would be the folder that has them")
    if names:
        notice(f"{source}: {len(names)} of {count} pictures are not there, {names[0]} first, and are left out")


def picture_sizes(paths: list[Path]) -> tuple[list[tuple[int, int]], tuple[int, int], str]:
    """Each (width, height), the one that most have, and the mode "RGBA" if one of them has alpha, else "RGB".

    Reads their headers only. Pictures of another size, which are scaled to that of most, are told.

    Raises:
        InputError: one is missing or no picture.
    """
    sizes, mode = [], "RGB"
    for path in paths:
        with open_image(path) as image:
            if has_alpha(image):
                mode = "RGBA"
            sizes.append(image.size)
    (usual, count), *others = Counter(sizes).most_common()
    if others:
        odd = next(path for path, size in zip(paths, sizes, strict=True) if size != usual)
        notice(
            f"{odd.parent}: {len(paths) - count} of {len(paths)} pictures, {odd.name} first, are not {usual[0]}x"
            f"{usual[1]}, to which they are scaled, each with its camera"
        )
    return sizes, usual, mode


def longer_side(size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """The (width, height) of a picture scaled so that its longer side is `longest`, or as it is."""
    if longest is None:
        return size
    scale = longest / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def read_pictures(paths: list[Path], mode: str, size: tuple[int, int]) -> Pictures:
    """The pictures, scaled to (width, height) where they have another size.

    Raises:
        InputError: one is damaged.
    """
    channels = len(mode)
    stack = torch.empty(len(paths), channels, size[1], size[0], dtype=torch.uint8)
    for i, path in enumerate(paths):
        image = read_image(path, mode)
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        stack[i] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return Pictures(stack)


def bounds_of_views(cameras: Cameras) -> tuple[float, float]:
    """A guess at the nearest and farthest distance of interest, where nothing but the cameras is known.

    The cameras are taken to look at something around the point p that is closest to all their axes: p minimises the
    sum of squared distances to the lines o + s d, so that sum (I - d d^T) (p - o) = 0. It is taken to reach half
    their distance in every direction; cameras at 4 give the customary 2 and 6.
    """
    pose = cameras.pose.double()
    origin, axis = pose[:, :3, 3], -pose[:, :3, 2]
    across = torch.eye(3, dtype=torch.float64) - axis[:, :, None] * axis[:, None, :]
    right = (across @ origin[..., None]).sum(0)
    point = torch.linalg.lstsq(across.sum(0), right, driver="gelsd").solution[:, 0]
    distance = (origin - point).norm(dim=-1)
    scale = float(distance.max())
    return (0.5 * float(distance.min().clamp(min=0.02 * scale)), 1.5 * scale) if scale > 0 else (0.1, 10.0)


def bounds_of_points(cameras: Cameras, xyz: Float[Tensor, "points 3"]) -> tuple[float, float] | None:
    """The nearest and farthest distance at which a camera sees one of the points, with a tenth to spare.

    The outermost thousandth at either end is left out as stray; None where no point is in any picture.
    """
    near, far = [], []
    for i in range(len(cameras)):
        pixels, depth = cameras[i].project(xyz)
        limit = pixels.new_tensor([cameras.width, cameras.height])
        seen = (depth > 0) & ((pixels >= 0) & (pixels < limit)).all(-1)
        if seen.any():
            distance = (xyz - cameras.pose[i, :3, 3]).norm(dim=-1)[seen[0]].double().numpy()
            near.append(np.quantile(distance, 0.001))
            far.append(np.quantile(distance, 0.999))
    return (0.9 * float(min(near)), 1.1 * float(max(far))) if near else None
