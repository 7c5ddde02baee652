"""Bodies and motions as files: SMPL's own keys in .npz and .pkl, AMASS's in .npz."""

import dataclasses
import importlib.resources
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit import pickles
from mpcli.kit.datasets.files import Npz, read_npz
from mpcli.kit.limits import afford
from mpcli.notices import notice

Array = np.ndarray


@dataclass(frozen=True)
class Body:
    """What a body file holds: V vertices, F faces, K joints, S shape components; lengths in metres.

    `landmarks` names vertices at the eyes, ears, nose, toes and heels, and `variance` has the share that each principal
    component of shape has in the variance over people; both are empty where the file does not say.
    """

    template: Array  # [V, 3]
    shapes: Array  # [V, 3, S]
    correctives: Array  # [V, 3, 9 (K - 1)]
    regressor: Array  # [K, V]
    weights: Array  # [V, K]
    parents: tuple[int, ...]  # -1 for the root
    faces: Array  # [F, 3]
    landmarks: dict[str, int]
    variance: Array  # [S or more]


KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")

RATES = ("mocap_framerate", "mocap_frame_rate", "fps", "frame_rate", "framerate")

# Where keypoint formats have a point and SMPL has no joint: vertices of the mesh that SMPL is published with.
_SMPL_LANDMARKS = {
    "nose": 332, "left_eye": 2800, "right_eye": 6260, "left_ear": 583, "right_ear": 4071, "left_big_toe": 3216,
    "left_small_toe": 3226, "left_heel": 3387, "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
}  # fmt: skip


def read_body(path: Path | None = None) -> Body:
    """The body in a .npz or .pkl of SMPL's layout; the embedded one without a path.

    A pickle is read without being executed; its chumpy arrays and sparse matrices become plain arrays.

    Raises:
        InputError: the file cannot be read, lacks a key, or a value has the wrong shape, is not finite or makes no
            sense (weights that do not sum to one, a kintree_table that is no tree, a face that names no vertex).
    """
    if path is None:
        with importlib.resources.as_file(importlib.resources.files("mpcli_data") / "body.npz") as embedded:
            return read_body(embedded)
    if path.suffix not in (".npz", ".pkl"):
        raise InputError(
            f"{path}: a body is a .npz or .pkl file with SMPL's keys, not {path.suffix or 'without suffix'}"
        )
    content: Any = read_npz(path) if path.suffix == ".npz" else pickles.load(path)
    if not isinstance(content, (dict, Npz)):
        raise InputError(f"{path}: holds a {type(content).__name__}; a body is a dictionary with {', '.join(KEYS)}")
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; a body has the keys {', '.join(KEYS)}")
    found = {key: content[key] for key in KEYS}
    _sizes_agree(path, found)
    values = {key: _numbers(path, key, value) for key, value in found.items()}
    template = values["v_template"]
    if template.ndim != 2 or template.shape[1] != 3 or not len(template):
        raise InputError(f"{path}: v_template has shape {template.shape}; right would be (vertices, 3)")
    vertices, joints = len(template), values["J_regressor"].shape[0] if values["J_regressor"].ndim else 0
    _fits(path, "J_regressor", values, (joints, vertices), "(joints, vertices)")
    _fits(path, "weights", values, (vertices, joints), "(vertices, joints)")
    _fits(path, "kintree_table", values, (2, joints), "(2, joints)")
    _fits(path, "shapedirs", values, (vertices, 3, max(1, values["shapedirs"].shape[-1])), "(vertices, 3, shapes)")
    _fits(path, "posedirs", values, (vertices, 3, 9 * (joints - 1)), "(vertices, 3, 9 (joints - 1))")
    weights, faces = values["weights"], values["f"]
    if weights.min() < 0 or abs(weights.sum(1) - 1).max() > 1e-3:
        worst = int(abs(weights.sum(1) - 1).argmax())
        raise InputError(
            f"{path}: weights of vertex {worst} are {weights[worst].min():g} and more and sum to "
            f"{weights[worst].sum():.4g}; right would be none below 0 and a sum of 1"
        )
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
        raise InputError(f"{path}: f has shape {faces.shape}; right would be (faces, 3)")
    if faces.min() < 0 or faces.max() >= vertices:
        raise InputError(f"{path}: f names vertex {int(faces.max())}; there are {vertices}, counted from 0")
    return Body(
        template=template,
        shapes=values["shapedirs"],
        correctives=values["posedirs"],
        regressor=values["J_regressor"],
        weights=weights,
        parents=_tree(path, values["kintree_table"]),
        faces=faces.astype(np.int64),
        landmarks=_landmarks(path, content, vertices),
        variance=_variance(path, content, values["shapedirs"].shape[2]),
    )


def _sizes_agree(path: Path, found: Mapping[str, Any]) -> None:
    """A sparse matrix says its shape in a few bytes: it must fit the arrays beside it before it is made dense."""
    template, tree = (np.shape(found[key]) for key in ("v_template", "kintree_table"))
    for key, value in found.items():
        if scipy.sparse.issparse(value):
            right = (tree[-1:] + template[:1])[:: -1 if key == "weights" else 1]
            if value.shape != right:
                raise InputError(
                    f"{path}: {key} has shape {value.shape}; right would be {right}, as the others have it"
                )
            afford(path, 8 * math.prod(value.shape), key)


def _numbers(path: Path, key: str, value: Any) -> Array:
    array = np.asarray(value.toarray() if scipy.sparse.issparse(value) else value)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {key} holds no numbers ({array.dtype}); right would be an array of them")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{path}: {key} holds NaN or infinity; its values must be finite")
    return array


def _fits(path: Path, key: str, values: dict[str, Array], shape: tuple[int, ...], words: str) -> None:
    if values[key].shape != shape or 0 in shape:
        raise InputError(f"{path}: {key} has shape {values[key].shape}; right would be {words}, here {shape}")


def _tree(path: Path, table: Array) -> tuple[int, ...]:
    """The parent of each joint from the two rows (parent's id, own id); the root's parent is no joint's id."""
    place = {int(joint): k for k, joint in enumerate(table[1])}
    parents = [place.get(int(parent), -1) for parent in table[0]]
    if len(place) < len(parents) or parents[0] != -1 or parents.count(-1) != 1:
        raise InputError(
            f"{path}: kintree_table has {parents.count(-1)} roots and {len(place)} different joints; right would be "
            f"one root, the first joint, and {len(parents)} joints"
        )
    for k in range(len(parents)):
        chain = [k]
        while parents[chain[-1]] != -1 and len(chain) <= len(parents):
            chain.append(parents[chain[-1]])
        if len(chain) > len(parents):
            raise InputError(f"{path}: kintree_table is no tree: joint {k} is its own ancestor")
    return tuple(parents)


def _landmarks(path: Path, content: dict[str, Any] | Npz, vertices: int) -> dict[str, int]:
    if "landmarks" not in content:
        return _SMPL_LANDMARKS if vertices == 6890 else {}
    names, places = np.asarray(content.get("landmark_names", ())), np.asarray(content["landmarks"])
    if names.shape != places.shape or places.ndim != 1 or places.dtype.kind not in "iu" or (places >= vertices).any():
        raise InputError(
            f"{path}: landmarks and landmark_names must be equally many vertex numbers below {vertices} and names"
        )
    return {str(name): int(place) for name, place in zip(names, places, strict=True)}


def _variance(path: Path, content: dict[str, Any] | Npz, shapes: int) -> Array:
    if "shape_variance" not in content:
        return np.zeros(0)
    shares = _numbers(path, "shape_variance", content["shape_variance"])
    if shares.ndim != 1 or len(shares) < shapes or shares.min() < 0 or shares.sum() > 1.001:
        raise InputError(
            f"{path}: shape_variance has shape {shares.shape} and the sum {shares.sum():.4g}; right would be a share "
            f"for each of {shapes} components or more, 1 together at most"
        )
    return shares


@dataclass(frozen=True)
class Motion:
    """F frames: poses [F, K, 3] in radians, places of the root [F, 3] in metres, frames a second, a person's betas."""

    poses: Tensor
    places: Tensor
    rate: float
    betas: Tensor

    def __len__(self) -> int:
        return len(self.poses)

    def __getitem__(self, frames: slice) -> "Motion":
        rate = self.rate / (frames.step or 1)
        return dataclasses.replace(self, poses=self.poses[frames], places=self.places[frames], rate=rate)

    def first(self, seconds: float) -> "Motion":
        """The frames of the first so many seconds, at least one."""
        return self[: max(1, round(min(seconds * self.rate, len(self))))]

    def to(self, device: torch.device) -> "Motion":
        return dataclasses.replace(self, poses=self.poses.to(device), places=self.places.to(device))

    def parts(self, size: int) -> Iterator["Motion"]:
        """The same frames, not more than `size` at a time."""
        for start in range(0, len(self.poses), size):
            yield self[start : start + size]


def read_motion(path: Path, joints: int = 24) -> Motion:
    """A motion in AMASS's layout (poses, trans, betas, mocap_framerate), for a body of so many joints.

    AMASS tells the 52 joints of a body with fingers; another body gets the first 22, and the rest stay as they are.

    Raises:
        InputError: the file cannot be read, lacks poses, or they have the wrong shape or are not finite.
    """
    content = read_npz(path)
    if "poses" not in content:
        raise InputError(
            f"{path}: lacks poses; a motion in AMASS's layout has poses (frames, 3 joints) and trans (frames, 3)"
        )
    poses = _numbers(path, "poses", content["poses"])
    if poses.ndim != 2 or not len(poses) or (poses.shape[1] != 3 * joints and poses.shape[1] < 66):
        raise InputError(
            f"{path}: poses has shape {poses.shape}; right would be (frames, {3 * joints}) or (frames, 156)"
        )
    places = _numbers(path, "trans", content.get("trans", np.zeros((len(poses), 3))))
    if places.shape != (len(poses), 3):
        raise InputError(
            f"{path}: trans has shape {places.shape}; right would be ({len(poses)}, 3), as there are poses"
        )
    rate = _rate(path, content, len(poses))
    betas = _numbers(path, "betas", content.get("betas", np.zeros(0))).reshape(-1)
    known = joints if poses.shape[1] == 3 * joints else min(22, joints)
    full = np.zeros((len(poses), joints, 3))
    full[:, :known] = poses[:, : 3 * known].reshape(len(poses), known, 3)
    return Motion(torch.tensor(full).float(), torch.tensor(places).float(), rate, torch.tensor(betas))


def _rate(path: Path, content: Npz, frames: int) -> float:
    """Frames a second, under any of the names that files have for it."""
    found = {key: _numbers(path, key, content[key]) for key in RATES if key in content}
    for key, rate in found.items():
        if rate.size != 1 or not 0 < rate.item() <= 10_000:
            raise InputError(f"{path}: {key} must be one number of frames a second, at most 10000")
    rates = {rate.item() for rate in found.values()}
    if len(rates) > 1:
        raise InputError(f"{path}: {' and '.join(found)} differ; right would be one number of frames a second")
    if not rates and frames > 1:
        notice(f"{path}: does not say how many frames a second it has; 60 are taken")
    return rates.pop() if rates else 60.0


def walk(joints: int, frames: int = 60, rate: float = 50.0) -> Motion:
    """One double step on the spot: legs and arms swing as sine waves, knees and elbows bend when they are free."""
    phase = 2 * math.pi * torch.arange(frames) / frames + 0.9
    poses = torch.zeros(frames, max(joints, 24), 3)
    for leg, knee, foot, shoulder, elbow, side in ((1, 4, 7, 16, 18, 1), (2, 5, 8, 17, 19, -1)):
        swing = side * phase.sin()
        lift = side * phase.cos()
        poses[:, leg, 0] = -0.45 * swing - 0.08
        poses[:, leg, 2] = -0.07 * side
        poses[:, knee, 0] = 0.15 + 0.55 * lift.clamp(min=0) + 0.1 * (-swing).clamp(min=0)
        poses[:, foot, 0] = 0.15 * swing - 0.05
        poses[:, shoulder, 2] = -1.25 * side
        poses[:, shoulder, 0] = 0.05
        poses[:, shoulder, 1] = 0.5 * side * swing
        poses[:, elbow, 1] = -side * (0.35 - 0.2 * swing)
    poses[:, 3, 1] = 0.1 * phase.sin()
    poses[:, 0, 0] = 0.04
    places = torch.zeros(frames, 3)
    places[:, 1] = 0.02 * (2 * phase).cos()
    return Motion(poses[:, :joints], places, rate, torch.zeros(0))


def random_body(generator: torch.Generator, vertices: int = 60, joints: int = 24, shapes: int = 10) -> Body:
    """A body of random numbers in SMPL's layout, to compare ways of computing on; four bones move each vertex."""

    def normal(*size: int, scale: float = 1.0) -> Array:
        return (scale * torch.randn(*size, generator=generator, dtype=torch.float64)).numpy()

    def sparse(rows: int, columns: int, count: int) -> Array:  # each row sums to one
        keep = torch.rand(rows, columns, generator=generator).argsort(1)[:, :count]
        share = torch.rand(rows, count, generator=generator, dtype=torch.float64) + 0.1
        return (
            torch.zeros(rows, columns, dtype=torch.float64).scatter(1, keep, share / share.sum(1, keepdim=True)).numpy()
        )

    parents = [-1] + [int(torch.randint(max(0, j - 4), j, (1,), generator=generator)) for j in range(1, joints)]
    return Body(
        template=normal(vertices, 3, scale=0.5),
        shapes=normal(vertices, 3, shapes, scale=0.05),
        correctives=normal(vertices, 3, 9 * (joints - 1), scale=0.01),
        regressor=sparse(joints, vertices, min(vertices, 20)),
        weights=sparse(vertices, joints, min(joints, 4)),
        parents=tuple(parents),
        faces=torch.randint(0, vertices, (2 * vertices, 3), generator=generator).numpy(),
        landmarks={},
        variance=np.zeros(0),
    )
