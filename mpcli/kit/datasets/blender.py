"""`blender:DIR`: a scene as transforms_train.json, transforms_val.json and transforms_test.json, or transforms.json.

Each lists frames with a picture and its camera-to-world matrix in OpenGL axes. The opening angle `camera_angle_x` of
the NeRF scenes, or `fl_x fl_y cx cy` in pixels of the tools that came after it, says how the lens sees, for all frames
or for one. `blender:DIR@400` scales the pictures so that their longer side has 400 pixels. Where sizes differ, all are
scaled to that of most. A picture that stands elsewhere is found by an absolute path. With `blender:DIR@skip-missing`
frames whose pictures are not there are left out.

Mildenhall, Srinivasan, Tancik, Barron, Ramamoorthi and Ng, NeRF: Representing Scenes as Neural Radiance Fields for
View Synthesis, 2020. arXiv:2003.08934
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpcli.errors import InputError
from mpcli.kit.cameras import Cameras
from mpcli.kit.datasets.files import SKIP_MISSING, inside, located_with_size, near_miss, read_json, there
from mpcli.kit.datasets.lenses import Lens, undistort
from mpcli.kit.datasets.scenes import bounds_of_views, longer_side, picture_sizes, read_pictures, tell_skipped
from mpcli.kit.datasets.split import Split
from mpcli.kit.datasets.types import Pictures, Scene, every_eighth
from mpcli.notices import notice

DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
LENSES = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE")
HIGHER = {"OPENCV_FISHEYE": DISTORTION[:2] + DISTORTION[4:6], "FULL_OPENCV": DISTORTION}  # others have k1, k2, p1, p2
FILENAMES = {"train": "train_filenames", "validation": "val_filenames", "test": "test_filenames"}
USED = {
    "frames", "file_path", "transform_matrix", "camera_model", "camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "cx",
    "cy", "w", "h", *DISTORTION, "is_fisheye", *FILENAMES.values(),
}  # fmt: skip
# What says nothing of where a pixel looks: sharpness, settings of other programs, numbers of their own.
HARMLESS = {
    "rotation", "sharpness", "aabb_scale", "scale", "offset", "applied_transform", "applied_scale", "ply_file_path",
    "colmap_im_id", "orientation_override", "auto_scale_poses_override", "enable_depth_loading", "integer_depth_scale",
}  # fmt: skip


def blender(argument: str) -> Scene:
    """The frames of all files, split as the files are; every eighth is for testing where there is no test file.

    Raises:
        InputError: a file or picture is missing or damaged, a matrix is no rotation and position, or a lens is
            unknown.
    """
    skip, argument = argument.endswith(SKIP_MISSING), argument.removesuffix(SKIP_MISSING)
    named = Path(argument).expanduser()
    one = named if named.name == "transforms.json" and there(named) else None
    folder, longest = located_with_size("blender", str(named.parent) if one else argument)
    files = {
        part: folder / f"transforms_{short}.json"
        for part, short in (("train", "train"), ("validation", "val"), ("test", "test"))
    }
    files = {part: path for part, path in files.items() if path.exists() and not one}
    if not files:
        files = {"train": folder / "transforms.json"}
    if "train" not in files or not files["train"].exists():
        raise InputError(f"{folder}: has no transforms_train.json; right would be that file, or transforms.json")
    frames: list[Frame] = []
    parts: dict[str, torch.Tensor] = {}
    for part, path in files.items():
        found, split = _read_frames(path, folder, skip)
        if split and len(files) == 1:
            parts |= split
        else:
            parts[part] = torch.arange(len(frames), len(frames) + len(found))
        frames += found
    if "test" not in parts:
        # The files that are there hold one block of frames each, and train comes first.
        held_out = every_eighth(len(parts["train"]))
        parts |= {"train": held_out.train, "test": held_out.test}
    if len(parts["train"]) == 0:
        raise InputError(f"{folder}: has {len(frames)} frames; right would be at least two, of which one is held out")
    paths = [frame.picture for frame in frames]
    sizes, usual, mode = picture_sizes(paths)
    size = longer_side(usual, longest)
    scale = np.array(size) / sizes
    lenses = np.array([frame.lens(*own) for frame, own in zip(frames, sizes, strict=True)])
    cameras = Cameras(
        pose=torch.from_numpy(np.stack([frame.pose for frame in frames])).float(),
        focal=torch.from_numpy(scale * lenses[:, :2]).float(),
        centre=torch.from_numpy(scale * lenses[:, 2:]).float(),
        width=size[0],
        height=size[1],
    )
    images = read_pictures(paths, mode, size)
    straight = torch.cat([cameras.focal, cameras.centre], 1).tolist()
    each = tuple(
        Lens(*size, (*row, *frame.distortion()), frame.fisheye) for row, frame in zip(straight, frames, strict=True)
    )
    if any(lens.distorts for lens in each):
        undone, cameras = undistort(images[:], cameras, each, files["train"])
        images = Pictures(undone.mul(255).round().byte())
    return Scene(
        images=images,
        cameras=cameras,
        split=Split(*(parts.get(part, torch.arange(0)) for part in ("train", "validation", "test"))),
        bounds=bounds_of_views(cameras),
        names=tuple(str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in paths),
        name=folder.name or "blender",
    )


class Frame:
    """One entry of `frames`, checked: its picture, its pose, and what its file says of the lens."""

    def __init__(self, entry: Any, shared: dict[str, Any], path: Path, folder: Path, number: int) -> None:
        self.where = f"{path}: frame {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
            raise InputError(f"{self.where} has no file_path; right would be the path of its picture")
        self.picture = _picture(entry["file_path"], path, folder)
        self.pose = self._pose(entry.get("transform_matrix"))
        self.values = {**shared, **entry}

    def _pose(self, matrix: Any) -> np.ndarray:
        try:
            pose = np.array(matrix, dtype=np.float64)
        except (TypeError, ValueError):
            pose = np.zeros(0)
        if pose.shape == (3, 4):
            pose = np.vstack([pose, [0, 0, 0, 1]])
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise InputError(f"{self.where} has no transform_matrix of 4x4 numbers; right would be camera-to-world")
        turn = pose[:3, :3]
        if abs(np.linalg.det(turn)) < 1e-6:
            raise InputError(f"{self.where} has a singular transform_matrix; right would be a rotation and a position")
        rigid = np.abs(turn.T @ turn - np.eye(3)).max() < 1e-3 and np.abs(pose[3] - [0, 0, 0, 1]).max() < 1e-6
        if not rigid or np.linalg.det(turn) < 0:
            raise InputError(
                f"{self.where} has a transform_matrix that scales, shears or mirrors; "
                "right would be a rotation and a position"
            )
        return pose

    def lens(self, width: int, height: int) -> tuple[float, float, float, float]:
        """(f_x, f_y, c_x, c_y) in pixels of a picture of `width` by `height`."""
        model = self.model
        if model not in LENSES:
            raise InputError(f"{self.where} is of a lens with {model}; right would be one of {', '.join(LENSES)}")
        foreign = [key for key in DISTORTION if key not in HIGHER.get(model, DISTORTION[:4]) and self._number(key, 0.0)]
        if foreign:
            raise InputError(
                f"{self.where} is of a lens with {' and '.join(foreign)}, which {model} has not; right would be "
                "OPENCV_FISHEYE, with k1 to k4, or FULL_OPENCV as its camera_model"
            )
        angle = self._number("camera_angle_x", None)
        focal = self._number("fl_x", None)
        # The numbers in pixels are of pictures of w by h, which may since have been scaled.
        across = width / self._positive("w", float(width))
        down = height / self._positive("h", float(height))
        if abs(across - down) * max(width / across, height / down) > 2:
            raise InputError(
                f"{self.picture}: is {width}x{height} where {self.where} says {self.values.get('w')}x"
                f"{self.values.get('h')}; right would be that size or the same proportions"
            )
        if focal is not None:
            f_x = across * self._positive("fl_x", 0.0)
            f_y = down * self._positive("fl_y", focal)
        elif angle is not None and 0 < angle < math.pi:
            f_x = f_y = width / (2 * math.tan(angle / 2))
            if (upright := self._number("camera_angle_y", None)) is not None:
                if not 0 < upright < math.pi:
                    raise InputError(f"{self.where} has the camera_angle_y {upright}; right would be from 0 to pi")
                f_y = height / (2 * math.tan(upright / 2))
        else:
            raise InputError(f"{self.where} has no lens; right would be camera_angle_x from 0 to pi, or fl_x in pixels")
        c_x, c_y = self._number("cx", None), self._number("cy", None)
        return f_x, f_y, width / 2 if c_x is None else across * c_x, height / 2 if c_y is None else down * c_y

    @property
    def model(self) -> str:
        """That of the lens, as COLMAP calls it."""
        return "OPENCV_FISHEYE" if self.values.get("is_fisheye") else str(self.values.get("camera_model", "OPENCV"))

    @property
    def fisheye(self) -> bool:
        return self.model == "OPENCV_FISHEYE"

    def distortion(self) -> tuple[float, ...]:
        """(k1, k2, p1, p2, k3, k4, k5, k6) of the lens."""
        return tuple(self._number(key, 0.0) or 0.0 for key in DISTORTION)

    def _number(self, key: str, default: float | None) -> float | None:
        value = self.values.get(key, default)
        if value is None:
            return None
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
        raise InputError(f"{self.where} has the {key} {value!r}; right would be a finite number")

    def _positive(self, key: str, default: float) -> float:
        value = self._number(key, default)
        if value is None or value <= 0:
            raise InputError(f"{self.where} has the {key} {value}; right would be a positive number")
        return value


def _read_frames(path: Path, folder: Path, skip: bool) -> tuple[list[Frame], dict[str, torch.Tensor]]:
    """The frames, and the split that the file itself may name."""
    tree = read_json(path)
    frames = tree.get("frames")
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{path}: has no frames; right would be a list of pictures with their matrices")
    shared = {key: value for key, value in tree.items() if key != "frames"}
    gone: list[str] = []
    if skip:
        named = [entry["file_path"] for entry in frames if isinstance(entry, dict) and "file_path" in entry]
        gone = [name for name in named if isinstance(name, str) and _find(name, path, folder) is None]
        tell_skipped(gone, len(frames), path)
        frames = [entry for entry in frames if not (isinstance(entry, dict) and entry.get("file_path") in gone)]
    read = [Frame(entry, shared, path, folder, number) for number, entry in enumerate(frames)]
    unknown = sorted({*shared, *(key for entry in frames for key in entry)} - USED - HARMLESS)
    if unknown:
        notice(f"{path}: {', '.join(unknown)[:200]} is not used")
    return read, _named_split(path, tree, [entry["file_path"] for entry in frames], gone)


def _named_split(path: Path, tree: dict[str, Any], names: list[str], gone: list[str]) -> dict[str, torch.Tensor]:
    """The numbers of the frames that train_filenames, val_filenames and test_filenames name."""
    place = {name: number for number, name in enumerate(names)}
    parts = {}
    for part, key in FILENAMES.items():
        if key in tree:
            listed = [name for name in (tree[key] if isinstance(tree[key], list) else [tree[key]]) if name not in gone]
            missing = [name for name in listed if not isinstance(name, str) or name not in place]
            if missing:
                raise InputError(f"{path}: {key} names {missing[0]!r}, which no frame has; right would be a file_path")
            parts[part] = torch.tensor([place[name] for name in listed], dtype=torch.int64)
    left = len(names) - len({number for numbers in parts.values() for number in numbers.tolist()})
    if parts and "train" not in parts:
        raise InputError(f"{path}: has no train_filenames beside {FILENAMES[next(iter(parts))]}; right would be both")
    if parts and left:
        notice(f"{path}: {left} of {len(names)} frames are in none of {', '.join(FILENAMES.values())} and are left out")
    return parts


def _find(name: str, path: Path, folder: Path) -> Path | None:
    if Path(name).is_absolute() and "\0" not in name and there(Path(name)) and Path(name).is_file():
        return Path(name)
    # A path that Windows wrote has backslashes.
    for spelt in dict.fromkeys((name, name.replace("\\", "/"))):
        for suffix in ("", ".png", ".jpg", ".jpeg"):
            found = inside(folder, spelt + suffix, path)
            if there(found) and found.is_file():
                return found
    return None


def _picture(name: str, path: Path, folder: Path) -> Path:
    if found := _find(name, path, folder):
        return found
    near = near_miss(folder / name)
    hint = f"did you mean {near.name}?" if near else f"right would be a picture of that name in {folder}"
    raise InputError(f"{path}: there is no picture {name}; {hint}, or blender:DIR{SKIP_MISSING} to leave it out")
