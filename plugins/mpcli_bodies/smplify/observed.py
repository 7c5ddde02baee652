"""What was seen of a person: points in a picture, joints in space, or a scan of the skin. The page fits all alike.

Each says where the mean body may start (`start`: root turns [H, 3] and places [H, 3]), how far bodies are from it, in
square metres (`misfit`: [B]), and judges and draws the result.
"""

import math
from pathlib import Path

import numpy as np
import torch
import trimesh
from scipy.spatial import KDTree
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit import datasets, metrics
from mpcli.kit.cameras import Cameras, framing
from mpcli.kit.meshes import vertex_normals
from mpcli.kit.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from mpcli_bodies.kit import keypoints
from mpcli_bodies.kit.keypoints import SMPL_24, Keypoints
from mpcli_bodies.smpl import SMPL, Body

TURNS = 8  # directions that the person may face at the start


def robust(squared: Tensor, sigma: float) -> Tensor:
    """Geman and McClure's rho(e) = sigma^2 e^2 / (sigma^2 + e^2), of e^2: an outlier costs sigma^2 at most."""
    return sigma**2 * squared / (sigma**2 + squared)


def project(points: Tensor, focal: float | Tensor, centre: Tensor) -> Tensor:
    """Pixels [..., 2] of points [..., 3] in camera axes: x right, y up, looking down -z."""
    right_down = torch.stack([points[..., 0], -points[..., 1]], -1)
    return centre + focal * right_down / (-points[..., 2:]).clamp(min=0.1)


def facing(upright: Tensor) -> Tensor:
    """Root turns [TURNS, 3] of somebody turned all ways about y and then by `upright` [3, 3]."""
    angle = 2 * math.pi * torch.arange(TURNS, device=upright.device) / TURNS
    return matrix_to_axis_angle(upright @ axis_angle_to_matrix(torch.stack([0 * angle, angle, 0 * angle], -1)))


class Points:
    """The points of a body that have given names: joints, landmarks of its skin, and the middles of two joints."""

    def __init__(self, smpl: SMPL, body: Body, names: tuple[str, ...], confidence: Tensor, source: str) -> None:
        # Only a body of 24 joints has hands as its last two; others have fingers, a jaw and eyes there.
        joints = {name: k for k, name in enumerate(SMPL_24 if smpl.joints == 24 else SMPL_24[:22])}
        if "spine1" not in names:  # other skeletons have their head and neck elsewhere
            joints = {name: k for name, k in joints.items() if name not in ("head", "neck")}
        where = {name: [k] for name, k in joints.items()}
        where |= {name: [smpl.joints + k] for k, name in enumerate(body.landmarks)}
        seen = {name for name, c in zip(names, confidence.tolist(), strict=True) if c > 0}
        for part in ("shoulder", "hip"):
            sides = [f"left_{part}", f"right_{part}"]
            if not seen.issuperset(sides):  # else the middle says nothing new
                where[f"mid_{part}"] = [joints[side] for side in sides]
        self.used = [i for i, name in enumerate(names) if name in where and name in seen]
        self.names = [names[i] for i in self.used]
        self.weights = confidence[self.used].to(smpl.weights.device)
        if len(self.used) < 4:
            raise InputError(f"{source}: {len(self.used)} points of the body were seen; right would be four at least")
        self.smpl = smpl.only(list(body.landmarks.values()))
        self.mix = smpl.weights.new_zeros(len(self.used), smpl.joints + len(body.landmarks))
        for row, name in enumerate(self.names):
            self.mix[row, where[name]] = 1 / len(where[name])

    def __call__(self, betas: Tensor, pose: Tensor, place: Tensor) -> Tensor:  # [B, n, 3]
        vertices, joints = self.smpl(betas, pose, place)
        return self.mix @ torch.cat([joints, vertices], 1)

    def of(self, *parts: str) -> list[int]:
        return [row for row, name in enumerate(self.names) if name.split("_")[-1] in parts]


class InPicture:
    """Keypoints seen by a pinhole camera, in whose axes the body is placed."""

    certain = 0.015  # metres to which it is trusted in the end

    def __init__(self, smpl: SMPL, body: Body, seen: Keypoints, focal: float | None, source: str) -> None:
        self.points = Points(smpl, body, seen.names, seen.confidence, source)
        self.weights = self.points.weights
        self.pixels = seen.pixels[self.points.used].to(self.weights)
        self.space = None if seen.space is None else seen.space[self.points.used].to(self.weights)
        low, high = self.pixels.amin(0), self.pixels.amax(0)
        side = float((high - low).max())
        if side < 1:
            raise InputError(f"{source}: all keypoints are at one place; right would be a person of some size")
        # A picture of unknown size is taken to show the person in its middle.
        self.size = seen.size or (math.ceil(1.7 * side), math.ceil(1.7 * side))
        half = torch.tensor(self.size).to(self.weights) / 2
        self.corner = 0 * half if seen.size else ((low + high) / 2 - half).round()
        self.centre, self.focal = self.corner + half, focal or 1.1 * max(self.size)
        self.pixel = 1.0  # its size in metres at the depth of the body

    def start(self, pose: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Facing all ways, upright along the line from hips to shoulders, at the distance that gives its size."""
        roll, hips, shoulders = torch.zeros_like(pose[0]), self.points.of("hip"), self.points.of("shoulder")
        if hips and shoulders:
            spine = self.pixels[shoulders].mean(0) - self.pixels[hips].mean(0)
            roll[2] = torch.atan2(-spine[0], -spine[1])
        root = facing(axis_angle_to_matrix(roll))
        pose = torch.cat([root[:, None], pose[1:].expand(TURNS, -1, 3)], 1)
        flat = self.points(betas.expand(TURNS, -1), pose, torch.zeros_like(root))[..., :2]
        share = (self.weights / self.weights.sum())[:, None]
        middle, target = (share * flat).sum(1), (share * self.pixels).sum(0)
        spread = (share * (flat - middle[:, None]).square()).sum((1, 2)).sqrt()
        depth = self.focal * spread / (share * (self.pixels - target).square()).sum().sqrt()
        self.pixel = float(depth.median()) / self.focal
        aside = (target - self.centre) * depth[:, None] / self.focal
        return root, torch.stack([aside[:, 0] - middle[:, 0], -aside[:, 1] - middle[:, 1], -depth], -1)

    def misfit(self, betas: Tensor, pose: Tensor, place: Tensor, fine: bool) -> Tensor:
        apart = project(self.points(betas, pose, place), self.focal, self.centre) - self.pixels
        return robust((self.pixel * apart).square().sum(-1), 0.3) @ self.weights

    def judge(self, betas: Tensor, pose: Tensor, place: Tensor) -> dict[str, float]:
        points = self.points(betas, pose, place)[0]
        apart = (project(points, self.focal, self.centre) - self.pixels).norm(dim=-1)
        found = {"reprojection": float((apart * self.weights).sum() / self.weights.sum())}
        if self.space is not None and (known := torch.isfinite(self.space).all(-1)).sum() >= 4:
            # How far away the person stands cannot be seen: compare about the mean of the points.
            mine, true = points[known], self.space[known]
            found["mpjpe"] = float(metrics.mpjpe(mine - mine.mean(0), true - true.mean(0)))
            found["pa_mpjpe"] = float(metrics.mpjpe(mine, true, aligned=True))
        return found

    def view(self, vertices: Tensor) -> tuple[Cameras, Tensor]:
        """The camera, and the pixels that were given."""
        centre = (self.centre - self.corner)[None].cpu()
        camera = Cameras(torch.eye(4)[None], torch.full((1, 2), float(self.focal)), centre, *self.size)
        return camera, (self.pixels - self.corner).cpu()


class InSpace:
    """Joints in space, in metres."""

    certain = 0.005

    def __init__(self, smpl: SMPL, body: Body, names: tuple[str, ...], places: Tensor, confidence: Tensor, source: str):
        self.points = Points(smpl, body, names, confidence, source)
        self.weights = self.points.weights
        self.places = places[self.points.used].to(self.weights)

    def start(self, pose: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Turned and moved so that the trunk lies best on the one seen (Kabsch's rotation)."""
        still = torch.cat([0 * pose[:1], pose[1:]])[None]
        points = self.points(betas[None], still, 0 * still[:, 0])[0]
        trunk = self.points.of("hip", "shoulder", "pelvis", "neck", "spine1", "spine2", "spine3")
        rows = trunk if len(trunk) > 3 else list(range(len(points)))
        x, y = points[rows], self.places[rows]
        u, _, vt = torch.linalg.svd((y - y.mean(0)).mT @ (x - x.mean(0)))
        turn = u * torch.stack([*torch.ones(2).to(u), torch.linalg.det(u @ vt).sign()]) @ vt
        pelvis = self.points.smpl(betas[None], still)[1][0, 0]
        return matrix_to_axis_angle(turn)[None], (y.mean(0) - pelvis - turn @ (x.mean(0) - pelvis))[None]

    def misfit(self, betas: Tensor, pose: Tensor, place: Tensor, fine: bool) -> Tensor:
        apart = self.points(betas, pose, place) - self.places
        return robust(apart.square().sum(-1), 0.3) @ self.weights

    def judge(self, betas: Tensor, pose: Tensor, place: Tensor) -> dict[str, float]:
        return {"mpjpe": float(metrics.mpjpe(self.points(betas, pose, place)[0], self.places))}

    def view(self, vertices: Tensor) -> tuple[Cameras, Tensor]:
        return _onto(self.places, vertices)


class Scan:
    """Points on the skin, in metres; which part of the body each is on is not known."""

    certain = 0.008
    COUNT, FINE = 800, 4000  # points compared
    WORTH = 40.0  # keypoints: what all of them together count as

    def __init__(self, smpl: SMPL, body: Body, xyz: Tensor, source: str, seed: int) -> None:
        extent = float((xyz.amax(0) - xyz.amin(0)).max())
        if len(xyz) < 50 or not 0.3 < extent < 4:
            raise InputError(
                f"{source}: {len(xyz)} points over {extent:.3g} units; right would be 50 or more of a person in metres"
            )
        order = torch.randperm(len(xyz), generator=torch.Generator().manual_seed(seed))
        self.all, self.smpl = xyz.to(smpl.weights), smpl
        self.some, self.more = (self.all[order[:count].to(xyz.device)] for count in (self.COUNT, self.FINE))
        self.faces = torch.from_numpy(body.faces).to(smpl.weights.device)
        self.coarse = smpl.only(_spread(body.template, 500))

    def start(self, pose: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Facing all ways, with the head up along y, z, or the longest axis in either sense; the nearest of them."""
        centred = self.some - self.some.mean(0)
        longest = torch.linalg.eigh(centred.mT @ centred)[1][:, 2]
        up = torch.stack([*torch.eye(3).to(longest)[1:], longest, -longest])
        side = torch.linalg.cross(up, torch.eye(3).to(up)[up.abs().argmin(1)])
        upright = torch.stack([side, up, torch.linalg.cross(side, up)], -1)
        root = torch.cat([facing(u) for u in torch.nn.functional.normalize(upright, dim=1)])
        pose = torch.cat([root[:, None], pose[1:].expand(len(root), -1, 3)], 1)
        betas = betas.expand(len(root), -1)
        place = self.some.mean(0) - self.coarse(betas, pose)[0].mean(1)
        nearest = self.misfit(betas, pose, place, False).topk(TURNS, largest=False).indices
        return root[nearest], place[nearest]

    def misfit(self, betas: Tensor, pose: Tensor, place: Tensor, fine: bool) -> Tensor:
        """Coarse: from each point to the nearest vertex and back. Fine: to the plane of the skin there."""
        if not fine:
            vertices = self.coarse(betas, pose, place)[0]
            with torch.no_grad():
                apart = torch.cdist(vertices, self.some.expand(len(vertices), -1, -1))
                there, back = apart.argmin(1), apart.argmin(2)
            near = vertices.gather(1, there[..., None].expand(-1, -1, 3)) - self.some
            far = vertices - self.some[back]
            return self.WORTH * torch.stack([robust(x.square().sum(-1), 0.3).mean(1) for x in (near, far)]).sum(0)
        parts = []
        for vertices in self.smpl(betas, pose, place)[0]:
            skin = vertices.detach()
            nearest = torch.from_numpy(KDTree(skin.cpu().numpy()).query(self.more.cpu().numpy())[1]).to(skin.device)
            apart = vertices[nearest] - self.more
            # Along the skin a vertex is only near the point it stands for; a little holds it there all the same.
            off = (apart * vertex_normals(skin, self.faces)[nearest]).sum(-1).square() + 0.1 * apart.square().sum(-1)
            parts.append(self.WORTH * robust(off, 0.1).mean())
        return torch.stack(parts)

    def judge(self, betas: Tensor, pose: Tensor, place: Tensor) -> dict[str, float]:
        vertices = self.smpl(betas, pose, place)[0][0].cpu().numpy()
        mesh = trimesh.Trimesh(vertices, self.faces.cpu().numpy(), process=False)
        return {"point_to_surface": 1000 * float(metrics.point_to_surface(self.all[:50_000].cpu(), mesh).mean())}

    def view(self, vertices: Tensor) -> tuple[Cameras, Tensor]:
        return _onto(self.more, vertices)


def _onto(points: Tensor, vertices: Tensor) -> tuple[Cameras, Tensor]:
    camera = framing(vertices.cpu(), (0.0, 1.0, 0.0), 0.5, 0.12, height=512)
    return camera, camera.project(points.cpu())[0][0]


def _spread(points: np.ndarray, count: int) -> list[int]:
    """Points chosen one after the other, each the farthest from those before."""
    chosen, far = [0], np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        far = np.minimum(far, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(far.argmax()))
    return chosen


def read(
    path: Path,
    smpl: SMPL,
    body: Body,
    *,
    person: int,
    frame: int,
    size: tuple[int, ...],
    focal: float | None,
    seed: int,
) -> InPicture | InSpace | Scan:
    """What a file shows: keypoints (.json), joints (.npz with joints), or a scan (any mesh or point cloud).

    Raises:
        InputError: it cannot be read, or has no such person or frame.
    """
    if path.suffix == ".json":
        people = keypoints.read(path)
        seen = next((someone for someone in people if someone.number == person), None)
        if seen is None:
            shown = ", ".join(str(someone.number) for someone in people[:20])
            raise InputError(f"--person {person}: {path} shows {len(people)}, counted from 0: {shown}")
        if size and seen.size and tuple(size) != seen.size:
            says = "x".join(map(str, seen.size))
            raise InputError(f"{path}: says that its picture is {says}, and --image or --size {size[0]}x{size[1]}; "
                             "right would be the picture in which the keypoints were seen")  # fmt: skip
        if size:
            seen = Keypoints(seen.names, seen.pixels, seen.confidence, seen.space, seen.image, (size[0], size[1]))
        return InPicture(smpl, body, seen, focal, str(path))
    if path.suffix == ".npz" and keypoints.holds_joints(path):
        names, places, confidence = keypoints.read_joints(path)
        if frame >= len(places):
            raise InputError(f"--frame {frame}: {path} has {len(places)} frames, counted from 0")
        return InSpace(smpl, body, names, places[frame], confidence[frame], str(path))
    return Scan(smpl, body, datasets.load(str(path), datasets.Points).xyz, str(path), seed)
