"""The equations of SMPL, on bodies of random numbers."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from mpcli.checks import Case, Printed, Sides, gradient, identity, uniform
from mpcli.kit.rotations import axis_angle_to_matrix, skew
from mpcli_bodies import smpl
from mpcli_bodies.smpl.files import Body, random_body

JOINTS = 6
POSE, BETAS, DIRECTION = uniform(-1, 1, 1, JOINTS, 3), (1, 10), (20, 3)


def drawn(g: torch.Generator) -> Body:
    return random_body(g, vertices=20, joints=JOINTS)


def gradcheck() -> Iterator[Case]:
    yield from gradients()
    yield from blend_shapes()
    yield from skinning()


def gradients() -> Iterator[Case]:
    """What autograd says of the body function, through the backward pass written by hand."""

    def by_autograd(x: Tensor, other: Tensor, c: Tensor, body: Body, shape_first: bool) -> Sides:
        leaf = x.detach().requires_grad_()
        vertices, joints = smpl.SMPL(body, torch.float64)(*((leaf, other) if shape_first else (other, leaf)))
        seen = (vertices * c).sum() + (joints * c[:JOINTS]).sum()
        return seen, torch.autograd.grad(seen, leaf)[0]

    yield gradient("d v / d theta", by_autograd, POSE, BETAS, DIRECTION, drawn, lambda g: False)
    yield gradient("d v / d beta", by_autograd, BETAS, POSE, DIRECTION, drawn, lambda g: True)


def blend_shapes() -> Iterator[Case]:
    """The body before posing, and its joints."""

    def shaped(betas: Tensor, body: Body) -> Tensor:  # T + sum_n beta_n S_n
        return torch.from_numpy(body.template + body.shapes @ betas[0].numpy())

    def corrected(row: Tensor, body: Body) -> Tensor:  # sum_n row_n P_n
        return torch.from_numpy(body.correctives) @ row[0, 1:].flatten()

    def posed(pose: Tensor, betas: Tensor, body: Body) -> Sides:
        turns, person = axis_angle_to_matrix(pose), shaped(betas, body)
        rest = smpl.SMPL(body, torch.float64).rest(betas, turns)[0][0].mT
        return rest, person + corrected(turns - torch.eye(3), body), person + corrected(skew(pose), body)

    printed = Printed("002 9.3", "p(theta) = P theta", "p(theta) = P (R(theta) - R(theta*))")
    yield identity("p(theta) = sum_n (R_n(theta) - R_n(theta*)) P_n", posed, POSE, BETAS, drawn, printed=printed)

    def still(betas: Tensor, body: Body) -> Sides:
        rest, person = torch.zeros(1, JOINTS, 3).double(), shaped(betas, body)
        kept = corrected(axis_angle_to_matrix(rest), body)
        return smpl.SMPL(body, torch.float64)(betas, rest)[0][0], person, person + kept

    name = "T(beta, theta*) = T + sum_n beta_n S_n: at rest nothing is turned, moved or corrected"
    yield identity(name, still, BETAS, drawn, mistake="R(theta*) not taken off")

    def joints(betas: Tensor, body: Body) -> Sides:
        found = smpl.SMPL(body, torch.float64)(betas, torch.zeros(1, JOINTS, 3).double())[1][0]
        regressor = torch.from_numpy(body.regressor)
        return found, regressor @ shaped(betas, body), regressor @ torch.from_numpy(body.template)

    yield identity("J(beta) = J (T + sum_n beta_n S_n)", joints, BETAS, drawn, mistake="joints of the template")

    def count(body: Body) -> Sides:
        model = smpl.SMPL(body)
        return len(model.directions) - model.shapes, 9 * 23, 9 * 3

    printed = Printed("(252)", "23 joints, K = 3", "23 joints but the root, K = 23")
    yield identity("9 K = 207 pose blend shapes", count, lambda g: random_body(g, vertices=20), printed=printed)


def skinning() -> Iterator[Case]:
    """Joints along the skeleton, and what turns or moves the whole body."""

    def forward_kinematics(pose: Tensor, joints: Tensor, body: Body) -> Sides:
        turns = axis_angle_to_matrix(pose)[0]
        chain: list[Tensor] = []
        for k, parent in enumerate(body.parents):
            local = torch.eye(4).double()
            local[:3, :3], local[:3, 3] = turns[k], joints[0, k] - (joints[0, parent] if parent >= 0 else 0)
            chain.append(chain[parent] @ local if parent >= 0 else local)
        return smpl.SMPL(body, torch.float64).kinematics(turns[None], joints)[0], torch.stack(chain)

    name = "G_k = G_parent(k) [exp(theta_k), J_k - J_parent(k); 0, 1]"
    yield identity(name, forward_kinematics, POSE, (1, JOINTS, 3), drawn)

    def turned(pose: Tensor, betas: Tensor, body: Body) -> Sides:
        model, straight = smpl.SMPL(body, torch.float64), torch.cat([0 * pose[:, :1], pose[:, 1:]], 1)
        vertices, joints = model(betas, straight)
        about = (vertices - joints[:, :1]) @ axis_angle_to_matrix(pose[:, 0]).mT + joints[:, :1]
        return model(betas, pose)[0], about

    yield identity("theta_0 turns the body about its root", turned, POSE, BETAS, drawn)

    def carried(pose: Tensor, betas: Tensor, body: Body, c: Tensor) -> Sides:
        moved = dataclasses.replace(body, template=body.template + c.numpy())
        there, here = (smpl.SMPL(which, torch.float64)(betas, pose)[0] for which in (moved, body))
        return there, here + c

    yield identity("sum_k w_k = 1: a template moved by c gives a body moved by c", carried, POSE, BETAS, drawn, (3,))
