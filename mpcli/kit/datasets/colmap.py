"""`colmap:DIR`: pictures with the cameras and points that COLMAP found, in its text or binary format.

The model lies in DIR/sparse/0, DIR/sparse, DIR/bin, DIR/txt or DIR itself, the pictures in DIR/images. Every eighth
picture, in the order of their names, is for testing. `colmap:DIR@640` scales the pictures so that their longer side
has 640 pixels; where sizes differ, all are scaled to that of most. Pictures of lenses that distort are resampled to
those of a pinhole (`mpcli.kit.datasets.lenses`). With `colmap:DIR@skip-missing` views whose pictures are not there are
left out.

Schoenberger and Frahm, Structure-from-Motion Revisited, CVPR 2016.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.cameras import Cameras, opencv_to_opengl
from mpcli.kit.datasets.files import SKIP_MISSING, inside, located_with_size, read_bytes, read_text
from mpcli.kit.datasets.lenses import MODELS, NUMBERED, RIGHT_MODEL, Lens, count, undistort
from mpcli.kit.datasets.scenes import (
    bounds_of_points,
    bounds_of_views,
    longer_side,
    picture_sizes,
    read_pictures,
    tell_skipped,
)
from mpcli.kit.datasets.types import Pictures, Points, Scene, every_eighth
from mpcli.notices import notice


@dataclass(frozen=True)
class Model:
    """What COLMAP found: lenses, the pose of every picture, sorted by name, and points with their colours in [0, 1]."""

    names: tuple[str, ...]
    lenses: tuple[Lens, ...]  # of every picture
    world_to_camera: Float[Tensor, "views 4 4"]  # OpenCV axes
    xyz: Float[Tensor, "points 3"]
    colours: Float[Tensor, "points 3"]

    def of(self, views: list[int]) -> "Model":
        """Some of the pictures, and all points."""
        return replace(
            self,
            names=tuple(self.names[i] for i in views),
            lenses=tuple(self.lenses[i] for i in views),
            world_to_camera=self.world_to_camera[views],
        )


def colmap(argument: str) -> Scene:
    """The registered pictures, undistorted, with their cameras and points.

    Raises:
        InputError: the model or a picture is missing or damaged, or a lens model is unknown.
    """
    skip, argument = argument.endswith(SKIP_MISSING), argument.removesuffix(SKIP_MISSING)
    folder, longest = located_with_size("colmap", argument)
    place = find_model(folder)
    model = read_model(place)
    pictures = next((path for path in (place, *place.parents[:2]) if (path / "images").is_dir()), folder) / "images"
    paths = [inside(pictures, name, place) for name in model.names]
    if not pictures.is_dir():
        raise InputError(f"{folder}: has no folder images; right would be {pictures} with {paths[0].name} in it")
    if skip:
        kept = [i for i, path in enumerate(paths) if path.is_file()]
        tell_skipped([path.name for path in paths if not path.is_file()], len(paths), place)
        model, paths = model.of(kept), [paths[i] for i in kept]
    sizes, usual, mode = picture_sizes(paths)
    for path, lens, found in zip(paths, model.lenses, sizes, strict=True):
        # Pictures are often scaled after the reconstruction; they then keep their proportions.
        if abs(found[0] / lens.width - found[1] / lens.height) * max(lens.width, lens.height) > 2:
            raise InputError(
                f"{path}: is {found[0]}x{found[1]} where its camera has {lens.width}x{lens.height}; "
                "right would be that size or the same proportions"
            )
    size = longer_side(usual, longest)
    images = read_pictures(paths, mode, size)
    cameras = Cameras(
        pose=opencv_to_opengl(model.world_to_camera).float(),
        focal=torch.tensor([_scaled(lens, size)[:2] for lens in model.lenses]),
        centre=torch.tensor([_scaled(lens, size)[2:] for lens in model.lenses]),
        width=size[0],
        height=size[1],
    )
    if any(lens.distorts for lens in model.lenses):
        undone, cameras = undistort(images[:], cameras, model.lenses, place)
        images = Pictures(undone.mul(255).round().byte())
    points = Points(model.xyz.float(), colours=model.colours.float(), name=folder.name) if len(model.xyz) else None
    bounds = bounds_of_points(cameras, points.xyz) if points else None
    return Scene(
        images=images,
        cameras=cameras,
        split=every_eighth(len(paths)),
        bounds=bounds or bounds_of_views(cameras),
        names=model.names,
        points=points,
        name=folder.name or "colmap",
    )


def _scaled(lens: Lens, size: tuple[int, int]) -> tuple[float, ...]:
    across, down = size[0] / lens.width, size[1] / lens.height
    return tuple(value * scale for value, scale in zip(lens.values, (across, down, across, down), strict=False))


def find_model(folder: Path) -> Path:
    """The folder in which cameras, images and points3D are.

    Raises:
        InputError: there is none.
    """
    models = {path.parent for path in folder.glob("sparse/*/images.*") if path.parent.name.isdecimal()}
    if len(models) > 1:
        # A scene that the mapper could not hold together: each model has coordinates of its own.
        largest = max(sorted(models), key=lambda model: max(path.stat().st_size for path in model.glob("images.*")))
        notice(f"{folder}: has {len(models)} models that do not hang together; the largest, {largest.name}, is read")
        return largest
    for inner in ("sparse/0", "sparse", "bin", "txt", "."):
        for suffix in (".bin", ".txt"):
            if (folder / inner / f"cameras{suffix}").is_file():
                return folder / inner
    raise InputError(f"{folder}: has no cameras.bin or cameras.txt; right would be a folder of sparse/0 and images")


def read_model(place: Path) -> Model:
    """Cameras, poses and points, from the binary files where they are, from text otherwise.

    Raises:
        InputError: a file is missing, damaged or contradicts another, or a lens model is unknown.
    """
    suffix = ".bin" if (place / "cameras.bin").is_file() else ".txt"
    cameras, images, points = (place / f"{name}{suffix}" for name in ("cameras", "images", "points3D"))
    read = (_cameras_bin, _images_bin, _points_bin) if suffix == ".bin" else (_cameras_txt, _images_txt, _points_txt)
    lenses = dict(_lens(cameras, *entry) for entry in read[0](cameras))
    views = sorted(read[1](images))
    if len(views) < 2:
        raise InputError(f"{images}: has {len(views)} pictures; right would be at least two, of which one is held out")
    chosen, poses = [], []
    for name, camera, pose in views:
        if camera not in lenses:
            raise InputError(
                f"{images}: {name} is of camera {camera}, and {cameras.name} has {sorted(lenses)[:9]}; "
                "right would be one of them"
            )
        chosen.append(lenses[camera])
        poses.append(_pose(pose, name, images))
    cloud = read[2](points)
    if not np.isfinite(cloud[:, :3]).all():
        raise InputError(f"{points}: has a point that is not finite; right would be finite coordinates")
    return Model(
        names=tuple(name for name, _, _ in views),
        lenses=tuple(chosen),
        world_to_camera=torch.from_numpy(np.stack(poses)),
        xyz=torch.from_numpy(cloud[:, :3].copy()),
        colours=torch.from_numpy(cloud[:, 3:] / 255),
    )


def _lens(path: Path, number: int, name: str, width: int, height: int, values: tuple[float, ...]) -> tuple[int, Lens]:
    if name not in MODELS:
        raise InputError(f"{path}: camera {number} is of the model {name[:40]}; {RIGHT_MODEL}")
    if len(values) != count(name):
        raise InputError(f"{path}: camera {number} has {len(values)} parameters; right would be those of {name}")
    full = tuple(0.0 if place is None else values[place] for place in MODELS[name])
    if not all(map(math.isfinite, full)) or min(full[:2]) <= 0 or not (0 < width < 2**16 and 0 < height < 2**16):
        raise InputError(
            f"{path}: camera {number} is {width}x{height} with {list(values)}; right would be sizes and "
            "focal lengths above 0"
        )
    return number, Lens(width, height, full, "FISHEYE" in name)


def _pose(values: tuple[float, ...], name: str, path: Path) -> np.ndarray:
    """World-to-camera, from a quaternion wxyz and a translation."""
    q, t = np.array(values[:4]), np.array(values[4:])
    norm = float(np.linalg.norm(q))
    if not np.isfinite(values).all() or norm < 1e-9:
        raise InputError(f"{path}: {name} has the pose {list(values)}; right would be a unit quaternion and a position")
    w, x, y, z = q / norm
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = t
    return pose


class _Binary:
    """A file of packed little-endian values, read one after the other."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.position = path, read_bytes(path), 0

    def take(self, layout: str) -> tuple:
        size = struct.calcsize("<" + layout)
        self.skip(size)
        return struct.unpack_from("<" + layout, self.data, self.position - size)

    def skip(self, size: int) -> None:
        self.position += size
        if self.position > len(self.data):
            raise InputError(f"{self.path}: is cut short at byte {len(self.data)}; right would be COLMAP's whole file")

    def text(self) -> str:
        end = self.data.find(b"\0", self.position)
        if end < 0:
            self.skip(len(self.data) + 1)
        name, self.position = self.data[self.position : end], end + 1
        try:
            return name.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: has the name {name[:40]!r}; right would be UTF-8") from error


def _cameras_bin(path: Path) -> Iterator[tuple[int, str, int, int, tuple[float, ...]]]:
    file = _Binary(path)
    for _ in range(file.take("Q")[0]):
        number, model, width, height = file.take("IiQQ")
        name = NUMBERED[model] if 0 <= model < len(NUMBERED) else f"number {model}"
        # The length of an entry is known only for the models that are read.
        yield number, name, width, height, file.take(f"{count(name) if name in MODELS else 0}d")


def _images_bin(path: Path) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    file = _Binary(path)
    for _ in range(file.take("Q")[0]):
        _, *pose, camera = file.take("I7dI")
        name = file.text()
        file.skip(24 * file.take("Q")[0])
        yield name, camera, tuple(pose)


def _points_bin(path: Path) -> np.ndarray:
    file = _Binary(path)
    rows = []
    for _ in range(file.take("Q")[0]):
        _, x, y, z, red, green, blue, _, track = file.take("Q3d3BdQ")
        file.skip(8 * track)
        rows.append((x, y, z, red, green, blue))
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.startswith("#"):
            yield number, line.split()


def _numbers(path: Path, line: int, words: list[str], kind: type) -> list:
    try:
        return [kind(word) for word in words]
    except ValueError as error:
        raise InputError(f"{path}: line {line}: {error}; right would be a number") from error


def _short(path: Path, line: int, what: str) -> InputError:
    return InputError(f"{path}: line {line} is too short; right would be {what}")


def _cameras_txt(path: Path) -> Iterator[tuple[int, str, int, int, tuple[float, ...]]]:
    for line, words in _lines(path):
        if not words:
            continue
        if len(words) < 5:
            raise _short(path, line, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]")
        number, width, height = _numbers(path, line, [words[0], *words[2:4]], int)
        yield number, words[1], width, height, tuple(_numbers(path, line, words[4:], float))


def _images_txt(path: Path) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    lines = _lines(path)
    for line, words in lines:
        if not words:
            continue
        if len(words) < 10:
            raise _short(path, line, "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and a line of points")
        camera = _numbers(path, line, [words[8]], int)[0]
        yield " ".join(words[9:]), camera, tuple(_numbers(path, line, words[1:8], float))
        # The line of its points, which may be empty; their last number is whole, and no name of a picture.
        points = next(lines, (line, []))[1]
        if points and not points[-1].lstrip("-").isdecimal() and len(points) >= 10:
            raise InputError(
                f"{path}: line {line + 1} is not the line of points that belongs to {' '.join(words[9:])}; "
                "right would be two lines a picture, the second one empty where it has no points"
            )
        if len(points) % 3:
            raise InputError(f"{path}: line {line + 1} does not end; right would be X Y POINT3D_ID for every point")


def _points_txt(path: Path) -> np.ndarray:
    rows = []
    for line, words in _lines(path):
        if not words:
            continue
        if len(words) < 8:
            raise _short(path, line, "POINT3D_ID X Y Z R G B ERROR TRACK[]")
        rows.append(_numbers(path, line, words[1:7], float))
    return np.array(rows, dtype=np.float64).reshape(-1, 6)
