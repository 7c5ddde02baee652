"""SMPLify: the body behind keypoints, joints or a scan, by descending an energy from the mean pose.

    E(beta, theta, t) = 1/s^2 sum_i w_i rho(e_i) + 1/2 (theta - mu)' C^-1 (theta - mu) + 1/2 |beta|^2
                        + sum_hinges exp(-a (bend + b))
    e_i = |Pi(x_i(beta, theta, t)) - y_i| z / f      keypoints: pixels, as metres at the distance z of the body
        = |x_i(beta, theta, t) - y_i|                joints, or points of a scan and their nearest on the skin
    Pi(x) = c + f (x, -y) / -z                       the camera stands at the origin and looks down -z
    rho(e) = sigma^2 e^2 / (sigma^2 + e^2)           Geman and McClure: an outlier costs sigma^2 at most

The prior says what poses people take; without it, any of the poses with the same picture would do. What is seen is
trusted little at first (s = 7 cm), when only the root is free, and ever more, so that the prior leads to the right
valley and then lets go. Facing away gives nearly the same keypoints: eight starts are descended together, and the best
is kept.

Even so the picture leaves one thing open: Pi(a x) = Pi(x), so a body a times as large, a times as far, looks the same.
Only the prior on beta decides. The original also keeps limbs from passing through each other; this page does not.

Bogo, Kanazawa, Lassner, Gehler, Romero and Black, Keep it SMPL: Automatic Estimation of 3D Human Pose and Shape from a
Single Image, 2016. arXiv:1607.08128
"""

import importlib.resources
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import trimesh
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit.arrays import write_npz
from mpcli.kit.datasets.files import read_image
from mpcli.run import FIGURES, MESHES, Run
from mpcli_bodies.smpl import SMPL, read_body
from mpcli_bodies.smplify import prior
from mpcli_bodies.smplify.equations import gradcheck as gradcheck
from mpcli_bodies.smplify.observed import InPicture, InSpace, Scan, read
from mpcli_bodies.smplify.picture import figure


@dataclass(frozen=True)
class Stage:
    until: float  # the share of all steps at which it ends
    s: float  # metres by which what is seen may be off, but not below what its kind deserves
    keep: int  # how many of the starts go on
    free: bool = True  # the whole body, and not the root only
    fine: bool = False  # a scan is compared with the whole skin


STAGES = (Stage(0.15, 0.07, 8, free=False), Stage(0.4, 0.07, 8), Stage(0.7, 0.027, 4), Stage(1.0, 0.0, 1, fine=True))


def stage(step: int, steps: int) -> tuple[Stage, float]:
    """The stage of a step, and the learning rate relative to its largest, falling in each stage as a half cosine."""
    start = 0.0
    for now in STAGES:
        if step < round(now.until * steps) or now is STAGES[-1]:
            along = (step - start) / max(1.0, now.until * steps - start)
            return now, 0.51 + 0.49 * math.cos(math.pi * along)
        start = round(now.until * steps)
    raise AssertionError


class People(nn.Module):
    """H guesses at one person: what is descended, and the energy."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, shapes: int, root: Tensor, place: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.root = nn.Parameter(root[:, None])
        self.body = nn.Parameter(mean[1:].repeat(len(root), 1, 1))
        self.betas = nn.Parameter(mean.new_zeros(len(root), shapes))
        self.place = nn.Parameter(place)

    def guess(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # beta [h, S], theta [h, K, 3], t [h, 3]
        return self.betas[rows], torch.cat([self.root, self.body], 1)[rows], self.place[rows]

    def forward(self, seen: InPicture | InSpace | Scan, rows: Tensor, now: Stage) -> Tensor:  # E [h]
        betas, pose, place = self.guess(rows)
        unusual = 0.5 * prior.independent((pose - self.mean) / self.deviation)[:, 1:].square().sum((1, 2))
        build = 0.5 * betas.square().sum(1)
        return (
            seen.misfit(betas, pose, place, now.fine) / max(now.s, seen.certain) ** 2
            + unusual
            + build
            + overextension(pose)
        )


def overextension(pose: Tensor, a: float = 20.0, b: float = 0.1) -> Tensor:  # [B, K, 3] -> [B]
    """What knees and elbows pay for bending backwards by more than b radians."""
    bend = torch.stack([sign * pose[:, joint, axis] for joint, axis, sign in prior.HINGES])
    return torch.exp(-a * (bend + b)).sum(0)


def fit_smpl(
    run: Run,
    data: Annotated[
        Path | None, "keypoints (.json), joints (.npz) or a scan (.ply, .obj); without one an example"
    ] = None,
    body: Annotated[Path | None, "SMPL body file (.npz, .pkl); without one the embedded body"] = None,
    person: Annotated[int, "which person of a keypoint file", Ge(0)] = 0,
    frame: Annotated[int, "which frame of a file of joints", Ge(0)] = 0,
    image: Annotated[
        Path | None, "the picture that keypoints were seen in; its size is used, and it is drawn on"
    ] = None,
    size: Annotated[tuple[int, ...], "width,height of that picture where there is none; else guessed", Gt(0)] = (),
    focal: Annotated[float | None, "focal length in pixels [default: 1.1 times the longer side]", Gt(0)] = None,
    steps: Annotated[int, "steps of descent", Ge(1)] = 400,
) -> None:
    """Writes parameters that `mpcli render smpl --pose` reads, the posed mesh, and the body over what was seen."""
    file = read_body(body)
    if len(file.parents) < 24:
        raise InputError(f"{body}: has {len(file.parents)} joints; a pose is fitted to SMPL's 24")
    if size and len(size) != 2:
        raise InputError(f"--size: {len(size)} numbers; right would be width,height")
    smpl = run.place(SMPL(file))
    behind = (
        torch.from_numpy(np.array(read_image(image, "RGB", upright=True))).permute(2, 0, 1) / 255 if image else None
    )
    size = (behind.shape[2], behind.shape[1]) if behind is not None else size
    with importlib.resources.as_file(importlib.resources.files("mpcli_data") / "keypoints.json") as example:
        source = data or example
        seen = read(source, smpl, file, person=person, frame=frame, size=size, focal=focal, seed=run.seed)

    mean, deviation = (x.to(run.device) for x in prior.poses(smpl.joints))
    with torch.no_grad():
        root, place = seen.start(mean, mean.new_zeros(smpl.shapes))
    people = run.place(People(mean, deviation, smpl.shapes, root, place))
    adam = torch.optim.Adam(people.parameters(), betas=(0.9, 0.99))
    rows, energy = torch.arange(len(root), device=run.device), torch.zeros(len(root), device=run.device)
    for now, rate in run.track(lambda step: stage(step, steps), steps, people=people, adam=adam):
        if len(rows) > now.keep:
            rows = rows[energy.topk(now.keep, largest=False).indices]
        energy = people(seen, rows, now)
        adam.zero_grad()
        energy.sum().backward()
        if not now.free:
            people.body.grad = people.betas.grad = None
        for group in adam.param_groups:
            group["lr"] = 0.04 * rate
        adam.step()
        run.log(loss=energy.min())

    with torch.no_grad():
        best = people.guess(rows[energy.argmin()][None])
        vertices, joints = smpl(*best)
        run.result(loss=energy.min(), **seen.judge(*best))
        write(run, seen, file.faces, best, vertices[0], joints, behind)


def write(run: Run, seen: InPicture | InSpace | Scan, faces: np.ndarray, best: tuple[Tensor, Tensor, Tensor],
          vertices: Tensor, joints: Tensor, behind: Tensor | None) -> None:  # fmt: skip
    mesh = trimesh.Trimesh(vertices.cpu().numpy(), faces, process=False)

    def parameters() -> None:
        betas, pose, place = (x.cpu().numpy() for x in best)
        camera: dict[str, Any] = {}
        if isinstance(seen, InPicture):
            camera = {"focal": seen.focal, "centre": seen.centre.cpu().numpy()}
        with run.file("body.npz") as path:
            write_npz(path, poses=pose.reshape(1, -1), trans=place, betas=betas[0], gender="neutral",
                      mocap_framerate=30.0, joints=joints.cpu().numpy(), **camera)  # fmt: skip

    def picture() -> None:
        camera, points = seen.view(vertices)
        fitted = None if isinstance(seen, Scan) else camera.project(seen.points(*best)[0].cpu())[0][0]
        run.figure("overlay.png", figure(mesh, camera, points, fitted, behind, run.heading))

    parts = {".npz": parameters, MESHES: lambda: run.mesh("body.ply", mesh), FIGURES: picture}
    for _, write_part in sorted(parts.items(), key=lambda part: run.suffix not in part[0] if run.suffix else False):
        write_part()
