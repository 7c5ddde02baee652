"""SMPL: a body learned from scans, as a differentiable function of shape and pose.

    T(beta, theta) = T + sum_n beta_n S_n + sum_n (R_n(theta) - R_n(theta*)) P_n     the body before posing, [V, 3]
    J(beta)        = J (T + sum_n beta_n S_n)                  its joints: a sparse regression from vertices, [K, 3]
    G_k(theta, J)  = prod_{j on the way to k} [exp(theta_j), J_j - J_parent(j); 0, 1]            forward kinematics
    v_i            = sum_k w_ki G_k [I, -J_k; 0, 1] [T_i; 1],  sum_k w_ki = 1                 linear blend skinning

theta has one axis-angle vector for each of the K = 24 joints, the root first. R(theta) is the row of the 9 (K - 1) =
207 entries of the rotations of all joints but the root, and R(theta*) the same at rest, where all are identities: the
body at rest has no correction. beta ~ N(0, I) over people: S are principal components, as long as their deviation;
`--components 5` shows five, and the share of the variance that the first ten hold (99.3% in the embedded body).

Loper, Mahmood, Romero, Pons-Moll and Black, SMPL: A Skinned Multi-Person Linear Model, ACM Transactions on Graphics
34(6), 2015.
"""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import trimesh
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit import raster
from mpcli.kit.cameras import framing
from mpcli.kit.rotations import axis_angle_to_matrix
from mpcli.run import ANIMATIONS, Run, watched
from mpcli_bodies.smpl import gltf, shapes
from mpcli_bodies.smpl.equations import gradcheck as gradcheck
from mpcli_bodies.smpl.files import Body, Motion, read_body, read_motion, walk
from mpcli_bodies.smpl.view import upward

__all__ = ["SMPL", "Body", "Motion", "read_body", "read_motion"]


class SMPL(nn.Module):
    """The body function of one body file, for a batch of shapes and poses. Nothing in it is trained."""

    template: Tensor
    directions: Tensor
    joint_template: Tensor
    joint_directions: Tensor
    weights: Tensor
    ancestors: Tensor
    parents: Tensor

    def __init__(self, body: Body, dtype: torch.dtype = torch.float32):
        super().__init__()
        joints, shapes = len(body.parents), body.shapes.shape[2]

        def keep(name: str, values: np.ndarray) -> None:
            self.register_buffer(name, torch.as_tensor(np.ascontiguousarray(values), dtype=dtype), persistent=False)

        # Coordinates before vertices, so that every loop over vertices runs along memory; S and P in one matrix.
        blend = np.concatenate([body.shapes, body.correctives], 2)  # [V, 3, S + 9 (K - 1)]
        keep("template", body.template.T.reshape(-1))
        keep("directions", blend.transpose(2, 1, 0).reshape(blend.shape[2], -1))
        keep("weights", body.weights.T)
        keep("joint_template", (body.regressor @ body.template).reshape(-1))
        # J (T + S beta) = J T + (J S) beta: the regression over all vertices is done once, here.
        keep("joint_directions", np.einsum("kv,vcs->skc", body.regressor, body.shapes).reshape(shapes, -1))
        parents = torch.tensor([*(p if p >= 0 else joints for p in body.parents), joints])
        # Composing every joint with its parent, then pairs with pairs, needs log2(depth) products, not one a joint.
        ancestors = []
        while (parents[:-1] != joints).any():
            ancestors.append(parents)
            parents = parents[parents]
        self.register_buffer("ancestors", torch.stack(ancestors), persistent=False)
        self.faces = body.faces

    @property
    def shapes(self) -> int:
        return len(self.joint_directions)

    @property
    def joints(self) -> int:
        return len(self.weights)

    def only(self, vertices: list[int]) -> "SMPL":
        """The same function for some of the vertices; the joints stay all."""
        part = copy.copy(self)
        part._buffers = dict(self._buffers)
        part.template = self.template.view(3, -1)[:, vertices].reshape(-1)
        part.directions = self.directions.view(len(self.directions), 3, -1)[..., vertices].flatten(1)
        part.weights = self.weights[:, vertices]
        return part

    def rest(self, betas: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        # [B, S], [B, K, 3, 3] -> body before posing [B, 3, V], its joints [B, K, 3]
        correction = rotations[:, 1:] - torch.eye(3, dtype=betas.dtype, device=betas.device)
        amounts = torch.cat([betas, correction.flatten(1)], 1)
        vertices = torch.addmm(self.template, amounts, self.directions).unflatten(1, (3, -1))
        joints = torch.addmm(self.joint_template, betas, self.joint_directions).unflatten(1, (-1, 3))
        return vertices, joints

    def kinematics(self, rotations: Tensor, joints: Tensor) -> Tensor:
        # [B, K, 3, 3], [B, K, 3] -> G [B, K, 4, 4]
        batch = len(joints)
        with_origin = torch.cat([joints, joints.new_zeros(batch, 1, 3)], 1)
        bones = joints - with_origin[:, self.ancestors[0, :-1]]
        last = joints.new_tensor([0, 0, 0, 1]).expand(batch, self.joints, 1, 4)
        local = torch.cat([torch.cat([rotations, bones[..., None]], -1), last], -2)
        chain = torch.cat([local, torch.eye(4).to(local).expand(batch, 1, 4, 4)], 1)
        for ancestor in self.ancestors:
            chain = chain[:, ancestor] @ chain
        return chain[:, :-1]

    def forward(self, betas: Tensor, pose: Tensor, translation: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # [B, S], [B, K, 3] in radians, [B, 3] -> vertices [B, V, 3], joints [B, K, 3], in metres
        rotations = axis_angle_to_matrix(pose)
        vertices, joints = self.rest(betas, rotations)
        chain = self.kinematics(rotations, joints)
        turn, posed = chain[..., :3, :3], chain[..., :3, 3]
        shift = posed - (turn @ joints[..., None])[..., 0]
        bones = torch.cat([turn, shift[..., None]], -1)  # G' [B, K, 3, 4]
        vertices = Skinning.apply(vertices, bones, self.weights).mT
        if translation is None:
            return vertices, posed
        return vertices + translation[:, None], posed + translation[:, None]


class Skinning(torch.autograd.Function):
    """v = sum_k w_k (R_k x + t_k), a few bodies at a time, with the blended bones computed again for the gradient.

    With T = [R t] = sum_k w_k G'_k and g the gradient of v:  dx = R^T g,  dG'_k = sum_v w_k [g x^T  g]. Blending again
    is one matrix product; to keep T would be to move twelve numbers a vertex through memory and back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bones: Tensor, weights: Tensor) -> Tensor:
        # [B, 3, V], [B, K, 3, 4], [K, V] -> [B, 3, V]
        ctx.save_for_backward(x, bones, weights)
        out = torch.empty_like(x)
        for part, blend in _blended(bones, weights):
            v, y = out[part], x[part]
            torch.mul(blend[:, :, 0], y[:, 0:1], out=v)
            v.addcmul_(blend[:, :, 1], y[:, 1:2]).addcmul_(blend[:, :, 2], y[:, 2:3]).add_(blend[:, :, 3])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, bones, weights = ctx.saved_tensors
        dx, dbones = torch.empty_like(x), []
        for part, blend in _blended(bones, weights):
            d, g, y = dx[part], grad[part].contiguous(), x[part]
            torch.mul(blend[:, 0, :3], g[:, 0:1], out=d)
            d.addcmul_(blend[:, 1, :3], g[:, 1:2]).addcmul_(blend[:, 2, :3], g[:, 2:3])
            torch.mul(g[:, :, None], y[:, None], out=blend[:, :, :3])  # T is done with: [g x^T  g] takes its place
            blend[:, :, 3] = g
            dbones.append((blend.flatten(0, 2) @ weights.mT).unflatten(0, (-1, 3, 4)))
        return dx, torch.cat(dbones).permute(0, 3, 1, 2), None


def _blended(bones: Tensor, weights: Tensor) -> Iterator[tuple[slice, Tensor]]:
    # [B, K, 3, 4], [K, V] -> T [b, 3, 4, V] of as many bodies as fit a cache, each in the memory of the last
    size = len(bones) if bones.is_cuda else max(1, 2**19 // weights.shape[1] // 12)
    rows = bones.permute(0, 2, 3, 1).reshape(-1, len(weights))
    memory = rows.new_empty(12 * min(size, len(bones)), weights.shape[1])
    for start in range(0, len(bones), size):
        some = rows[12 * start : 12 * (start + size)]
        blend = torch.mm(some, weights, out=memory[: len(some)])
        yield slice(start, start + size), blend.unflatten(0, (-1, 3, 4))


@torch.no_grad()
def render(
    run: Run,
    body: Annotated[Path | None, "SMPL body file (.npz, .pkl); without one the embedded body"] = None,
    pose: Annotated[Path | None, "motion file in AMASS's layout (.npz); without one a walk"] = None,
    frame: Annotated[int, "frame of the motion to show, or to start at", Ge(0)] = 0,
    betas: Annotated[tuple[float, ...], "shape coefficients; those not given are 0"] = (),
    correctives: Annotated[
        bool, "the corrections P of a pose; without them skinning alone, whose joints cave in"
    ] = True,
    components: Annotated[int | None, "show what the first so many components of shape do instead", Ge(1)] = None,
    seconds: Annotated[float | None, "length of .gif and .mp4 [default: 2] and of .glb [default: all]", Gt(0)] = None,
    fps: Annotated[float, "frames a second of .gif and .mp4, at most those of the motion", Gt(0)] = 20.0,
    size: Annotated[int, "height of the picture in pixels", Interval(ge=16, le=8192)] = 512,
    azimuth: Annotated[float, "angle of the camera around the body, radians; 0: in front of it"] = 0.5,
    elevation: Annotated[float, "angle of the camera above the body, radians", Interval(ge=-1.57, le=1.57)] = 0.12,
) -> None:
    """A picture; with `--out` NAME.ply or .obj the posed mesh, .gif or .mp4 the motion, .glb the motion as glTF.

    A glTF file poses by skinning alone: it has the shape and the motion, but not the corrections P.
    """
    file = read_body(body)
    model = run.place(SMPL(file))
    if components:
        shapes.components(run, model, file, components, size, azimuth, elevation)
        return
    if not correctives:
        model.directions[model.shapes :] = 0
    motion = read_motion(pose, model.joints) if pose else walk(model.joints)
    if frame >= len(motion):
        raise InputError(f"--frame {frame}: {pose or 'the walk'} has {len(motion)} frames, counted from 0")
    if len(betas) > model.shapes:
        raise InputError(
            f"--betas: {len(betas)} values, but the body has {model.shapes} shape components; give no more"
        )
    # The betas of a motion file mean something to the body that it was made with, not to the embedded one.
    known = betas or (tuple(motion.betas[: model.shapes].tolist()) if body else ())
    shape = torch.zeros(1, model.shapes, device=run.device)
    shape[0, : len(known)] = shape.new_tensor(known)
    motion = motion.to(run.device)
    moving, up = run.suffix in ANIMATIONS, upward(model(shape.expand(len(motion), -1), motion.poses)[1])

    if run.suffix == ".glb":
        still, joints = model(shape, torch.zeros_like(motion.poses[:1]))
        length = seconds or math.inf
        with run.file("body.glb") as path:
            gltf.write(path, still[0], joints[0], file, motion[frame:].first(length), up)
        return
    every = max(1, round(motion.rate / fps))
    shown = motion[frame:].first(seconds or 2.0)[::every] if moving else motion[frame : frame + 1]
    vertices = torch.cat([model(shape.expand(len(part), -1), part.poses, part.places)[0] for part in shown.parts(64)])
    meshes = [trimesh.Trimesh(v.cpu().numpy(), file.faces, process=False) for v in vertices]
    if run.suffix in (".ply", ".obj", ".stl"):
        run.mesh("body.ply", meshes[0])
        return
    camera = framing(vertices.flatten(0, 1), up, azimuth, elevation, height=size)
    pictures = torch.cat(
        [raster.render_mesh(mesh, camera, background=(1.0, 1.0, 1.0)) for mesh in watched(meshes, "frames")]
    )[:, :3]
    run.image("body.png", pictures if moving else pictures[0], fps=shown.rate)
