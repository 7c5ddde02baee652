"""Keypoints of people as files: OpenPose's JSON, COCO's JSON, and joints in space as .npz.

Pixels come out in the convention of `mpcli.kit.cameras`: the formats count pixels, whose centres are at +0.5 there.
What was not seen has confidence 0.

Cao, Hidalgo, Simon, Wei and Sheikh, OpenPose: Realtime Multi-Person 2D Pose Estimation, 2019. arXiv:1812.08008
Lin et al., Microsoft COCO: Common Objects in Context, 2014. arXiv:1405.0312
"""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets.files import parsed_json, read_npz
from mpcli.notices import notice

COCO_17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
# OpenPose's neck is defined as the middle of the shoulders, which is not where a skeleton has its neck joint.
_BODY = (
    "nose", "mid_shoulder", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip
COCO_18 = (
    *_BODY, "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
BODY_25 = (
    *_BODY, "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
    "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
)  # fmt: skip
SMPL_24 = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip


@dataclass(frozen=True)
class Keypoints:
    """One person's points in a picture: pixels (x, y), confidences in [0, 1], and what is known of the picture.

    `space` holds the same points in metres where the file has them (camera axes), NaN where it lacks one.
    """

    names: tuple[str, ...]
    pixels: Float[Tensor, "points 2"]
    confidence: Float[Tensor, " points"]
    space: Float[Tensor, "points 3"] | None = None
    image: str = ""
    size: tuple[int, int] | None = None  # width, height
    number: int = 0  # OpenPose: the place in the file, where those who were not seen count too; COCO: among those seen


def read(path: Path) -> list[Keypoints]:
    """Every person of a keypoint file who has at least one seen point, in the order of the file.

    Known are OpenPose's output (BODY_25 with 25 points, COCO with 18), COCO's annotations and results (17 points, or
    those that the file's categories name) and MMPose's predictions of one picture (pairs, with keypoint_scores).

    Raises:
        InputError: the file is no JSON of these formats, a number is missing or not finite, or nobody is in it.
    """
    content = _one_picture(path, parsed_json(path))
    if isinstance(content, dict) and isinstance(content.get("people"), list):
        canvas = _canvas(path, content)
        found = _whole(content["people"], lambda number, person: _openpose(path, number, person, canvas))
    elif isinstance(content, dict) and isinstance(content.get("annotations"), list):
        images, categories = _images(path, content), _categories(path, content)
        found = _whole(content["annotations"], lambda number, item: _coco(path, number, item, images, categories))
    elif isinstance(content, list) and all(isinstance(item, dict) for item in content):
        found = _whole(content, lambda number, item: _coco(path, number, item, {}, {}))
    else:
        raise InputError(
            f"{path}: is neither OpenPose's output (people) nor COCO's (annotations, or a list of results)"
        )
    seen = [person for person in found if (person.confidence > 0).any()]
    if not seen:
        raise InputError(f"{path}: holds no person with a keypoint of confidence above 0; at least one is needed")
    return seen if seen[0].number >= 0 else [dataclasses.replace(person, number=i) for i, person in enumerate(seen)]


def _whole(people: list[Any], reader: Callable[[int, Any], Keypoints | None]) -> list[Keypoints]:
    """Those who can be read; whoever is damaged is left out, which is told, unless everybody is."""
    found, damaged = [], []
    for number, person in enumerate(people):
        try:
            found.append(reader(number, person))
        except InputError as error:
            damaged.append(error)
    seen = [person for person in found if person is not None]
    if damaged and not seen:
        raise damaged[0]
    for fault in damaged:
        notice(f"{fault}; is left out")
    return seen


def _one_picture(path: Path, content: Any) -> Any:
    """MMPose's file of a picture, or of a video with one frame, as the list of its people."""
    if isinstance(content, dict) and isinstance(content.get("instance_info"), list):
        content = content["instance_info"]
    frames = (
        [item["instances"] for item in content if isinstance(item, dict) and "instances" in item]
        if isinstance(content, list)
        else []
    )
    if len(frames) > 1:
        raise InputError(
            f"{path}: holds the people of {len(frames)} frames; right would be the instances of one of them"
        )
    return frames[0] if frames else content


def read_joints(path: Path) -> tuple[tuple[str, ...], Float[Tensor, "frames joints 3"], Float[Tensor, "frames joints"]]:
    """Joints in space from a .npz: their names, places in metres, and confidences in [0, 1].

    The keys are `joints` (or `positions_3d`) with shape (joints, 3) or (frames, joints, 3); `joint_names`, without
    which 24 joints are SMPL's in their order and 25 OpenPose's; and optionally `confidence`. NaN means not seen.

    Raises:
        InputError: the file cannot be read, lacks joints, or their shape or names make no sense.
    """
    content = read_npz(path)
    key = next((name for name in ("joints", "positions_3d") if name in content), None)
    if key is None:
        raise InputError(
            f"{path}: lacks joints; right would be an array of (joints, 3) or (frames, joints, 3) in metres"
        )
    places = content[key]
    if places.dtype.kind not in "fiu" or places.ndim not in (2, 3) or places.shape[-1] != 3 or 0 in places.shape:
        raise InputError(f"{path}: {key} has shape {places.shape}; right would be (joints, 3) or (frames, joints, 3)")
    places = places.reshape(-1, *places.shape[-2:]).astype(np.float64)
    count = places.shape[1]
    if "joint_names" in content:
        names = tuple(canonical(str(name)) for name in np.atleast_1d(content["joint_names"]))
        if "left_ankle" not in names:  # Human3.6M calls the ankle a foot
            names = tuple(name.replace("foot", "ankle") for name in names)
    else:
        names = {24: SMPL_24, 25: BODY_25}.get(count, ())
    if len(names) != count:
        raise InputError(
            f"{path}: {count} joints and {len(names)} names; right would be joint_names with one name a joint"
        )
    confidence = np.asarray(content.get("confidence", np.ones(places.shape[:2])), dtype=np.float64)
    if confidence.shape not in (places.shape[:2], places.shape[1:2]):
        raise InputError(
            f"{path}: confidence has shape {confidence.shape}; right would be {places.shape[:2]}, as joints"
        )
    whole = np.isfinite(places).all(-1)
    confidence = np.where(whole, np.clip(np.nan_to_num(np.broadcast_to(confidence, whole.shape)), 0, 1), 0)
    if not (confidence > 0).any():
        raise InputError(f"{path}: no joint is seen; at least one must be finite with a confidence above 0")
    return names, torch.tensor(np.where(whole[..., None], places, 0)).float(), torch.tensor(confidence).float()


def holds_joints(path: Path) -> bool:
    """Whether a .npz has the keys of `read_joints`."""
    return bool({"joints", "positions_3d"} & set(read_npz(path)))


def canonical(name: str) -> str:
    """A joint's name as it is called here: RHip, R_Hip and right hip are right_hip."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[RL])(?=[A-Z][a-z])", " ", name.strip())
    parts = re.sub(r"[^a-z0-9]+", " ", words.lower()).split()
    joined = "_".join({"l": "left", "r": "right"}.get(part, part) for part in parts)
    return {"hip": "pelvis", "root": "pelvis", "midhip": "mid_hip"}.get(joined, joined)


def _canvas(path: Path, content: dict[str, Any]) -> tuple[int, int] | None:
    """The size of the picture, which OpenPose does not write and editors of its files add."""
    width, height = content.get("canvas_width"), content.get("canvas_height")
    if width is None and height is None:
        return None
    if not all(isinstance(side, int) and 0 < side <= 100_000 for side in (width, height)):
        raise InputError(f"{path}: canvas_width and canvas_height are {width} and {height}; right would be pixels")
    return int(width or 0), int(height or 0)


def _openpose(path: Path, number: int, person: Any, canvas: tuple[int, int] | None) -> Keypoints:
    flat = person.get("pose_keypoints_2d", person.get("pose_keypoints")) if isinstance(person, dict) else None
    if person is None or (isinstance(person, dict) and flat in ([], None) and "pose_keypoints_2d" in person):
        flat = [0.0] * 3 * len(BODY_25)  # the place is kept for somebody who was not seen in this picture
    flat = flat if isinstance(flat, list) else []
    names = {len(names) * 3: names for names in (BODY_25, COCO_18)}.get(len(flat))
    if names is None:
        raise InputError(
            f"{path}: person {number} has {len(flat)} numbers in pose_keypoints_2d; "
            f"right would be 75 or 54 (BODY_25, COCO)"
        )
    rows = _rows(path, number, flat, 3)
    solid = (person or {}).get("pose_keypoints_3d") or []
    space = None
    if isinstance(solid, list) and len(solid) == 4 * len(names):
        four = _rows(path, number, solid, 4)
        space = torch.where(four[:, 3:] > 0, four[:, :3], torch.nan)
    return Keypoints(names, rows[:, :2] + 0.5, rows[:, 2].clamp(0, 1), space, size=canvas, number=number)


def _coco(
    path: Path,
    number: int,
    item: Any,
    images: dict[int, tuple[str, tuple[int, int]]],
    categories: dict[int, tuple[str, ...]],
) -> Keypoints | None:
    if not isinstance(item, dict) or "keypoints" not in item:
        return None  # an annotation of a box or a region only
    flat, names = _flat(item), categories.get(_id(item.get("category_id")), COCO_17)
    if not isinstance(flat, list) or len(flat) != 3 * len(names):
        count = len(flat) if isinstance(flat, list) else "no"
        raise InputError(
            f"{path}: annotation {number} has {count} numbers in keypoints; right would be {3 * len(names)}"
        )
    rows = _rows(path, number, flat, 3)
    # In annotations the third number says 0 not labelled, 1 hidden, 2 visible; in results it is a confidence.
    image, size = images.get(_id(item.get("image_id")), ("", None))
    return Keypoints(names, rows[:, :2] + 0.5, rows[:, 2].clamp(0, 1), None, image, size, number=-1)


def _id(value: Any) -> int:
    return value if type(value) is int else -1


def _flat(item: dict[str, Any]) -> Any:
    """The numbers x, y, confidence one after the other, also where the file has pairs and the scores beside them."""
    points, scores = item["keypoints"], item.get("keypoint_scores")
    if not isinstance(points, list) or not points or not all(isinstance(point, list) for point in points):
        flat = points
    elif isinstance(scores, list) and len(scores) == len(points) and all(len(point) == 2 for point in points):
        flat = [number for point, score in zip(points, scores, strict=True) for number in (*point, score)]
    else:
        flat = [number for point in points for number in (point if len(point) == 3 else (*point, 1.0))]
    # COCO-WholeBody has COCO's 17 points first, then feet, face and hands.
    return flat[:51] if isinstance(flat, list) and len(flat) == 3 * 133 else flat


def _categories(path: Path, content: dict[str, Any]) -> dict[int, tuple[str, ...]]:
    """The names of the points of each category, in the order of the file."""
    found = {}
    entries = content.get("categories", [])
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("keypoints"), list) or not entry["keypoints"]:
            continue
        if str(entry.get("name", "person")).lower() not in ("person", "human"):
            raise InputError(f"{path}: has keypoints of a {entry['name']}; right would be those of a person")
        names = tuple(canonical(str(name)) for name in entry["keypoints"])
        if "left_ankle" not in names:  # Human3.6M calls the ankle a foot
            names = tuple(name.replace("foot", "ankle") for name in names)
        if len(set(names) & {*COCO_17, *BODY_25}) < 4:
            raise InputError(f"{path}: names its points {', '.join(names)[:120]}; right would be joints of a person")
        found[_id(entry.get("id"))] = names
    return found


def _images(path: Path, content: dict[str, Any]) -> dict[int, tuple[str, tuple[int, int]]]:
    try:
        return {
            int(image["id"]): (str(image["file_name"]), (int(image["width"]), int(image["height"])))
            for image in content.get("images", [])
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: an image lacks {error}; right would be id, file_name, width and height") from error


def _rows(path: Path, number: int, flat: list[Any], width: int) -> Tensor:
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in flat):
        raise InputError(
            f"{path}: person {number} has a keypoint that is no number; right would be x, y and confidence"
        )
    rows = torch.tensor(flat, dtype=torch.float64).reshape(-1, width)
    if not torch.isfinite(rows).all() or rows.abs().max() > 1e7:
        raise InputError(
            f"{path}: person {number} has a keypoint that is not finite; right would be x, y and confidence"
        )
    return rows.float()
