"""The equations of SMPL, on bodies of random numbers."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mpcli.checks import Case
from mpcli.kit.rotations import axis_angle_to_matrix, skew
from mpcli.old_checks import gradient, identity
from mpcli_bodies.smpl import SMPL, Body
from mpcli_bodies.smpl.files import random_body


def draw(g: torch.Generator) -> tuple[Any, ...]:
    """A pose, a shape, a direction, and the body that they are for."""
    body = random_body(g, vertices=40)
    pose, betas, c = (torch.randn(*size, generator=g, dtype=torch.float64) for size in ((1, 24, 3), (1, 10), (40, 3)))
    return 0.7 * pose, betas, c, body, SMPL(body, torch.float64)


def gradients() -> Iterator[Case]:
    """What autograd says of the body function, through the backward pass written by hand."""

    def seen(pose: Tensor, betas: Tensor, c: Tensor, body: Body, model: SMPL) -> Tensor:
        vertices, joints = model(betas, pose)
        return (vertices * c).sum() + (joints * c[:24]).sum()

    def slope(name: int) -> Any:
        def gradient_of(*drawn: Any) -> Tensor:
            asked = [x.detach().requires_grad_() if i == name else x for i, x in enumerate(drawn)]
            return torch.autograd.grad(seen(*asked), asked[name])[0]

        return gradient_of

    yield gradient("d v / d theta", seen, slope(0), draw)
    yield gradient(
        "d v / d beta",
        lambda betas, pose, *others: seen(pose, betas, *others),
        lambda betas, pose, *others: slope(1)(pose, betas, *others),
        lambda g: (lambda pose, betas, *others: (betas, pose, *others))(*draw(g)),
    )


def blend_shapes() -> Iterator[Case]:
    """The body before posing, and its joints."""

    def still(pose: Tensor) -> Tensor:
        return torch.eye(3).to(pose).expand(*pose.shape[:-1], 3, 3)

    def shaped(pose: Tensor, betas: Tensor, c: Tensor, body: Body, model: SMPL) -> Tensor:  # T + sum_n beta_n S_n
        return torch.from_numpy(body.template + body.shapes @ betas[0].numpy())

    def corrected(row: Tensor, body: Body) -> Tensor:  # sum_n row_n P_n
        return torch.from_numpy(body.correctives) @ row[0, 1:].flatten()

    yield identity(
        "T(beta, theta) has (R_n(theta) - R_n(theta*)) P_n; printed: linear in theta",
        lambda pose, betas, c, body, model: model.rest(betas, axis_angle_to_matrix(pose))[0][0].mT,
        lambda pose, *o: shaped(pose, *o) + corrected(axis_angle_to_matrix(pose) - still(pose), o[2]),
        draw,
        printed=lambda pose, *o: shaped(pose, *o) + corrected(skew(pose), o[2]),
    )
    yield identity(
        "T(beta, theta*) = T + sum_n beta_n S_n; printed: R(theta*) not taken off",
        lambda pose, betas, c, body, model: model(betas, 0 * pose)[0][0],
        shaped,
        draw,
        printed=lambda pose, *o: shaped(pose, *o) + corrected(still(pose), o[2]),
    )
    yield identity(
        "beta = 0 and theta = theta* give the template",
        lambda pose, betas, c, body, model: model(0 * betas, 0 * pose)[0][0],
        lambda pose, betas, c, body, model: torch.from_numpy(body.template),
        draw,
    )
    yield identity(
        "J(beta) = J (T + sum_n beta_n S_n)",
        lambda pose, betas, c, body, model: model(betas, 0 * pose)[1][0],
        lambda pose, *o: torch.from_numpy(o[2].regressor) @ shaped(pose, *o),
        draw,
    )


def skinning() -> Iterator[Case]:
    """What turns or moves the whole body."""

    def turned(pose: Tensor, betas: Tensor, c: Tensor, body: Body, model: SMPL) -> Tensor:
        vertices, joints = model(betas, torch.cat([0 * pose[:, :1], pose[:, 1:]], 1))
        return (vertices - joints[:, :1]) @ axis_angle_to_matrix(pose[:, 0]).mT + joints[:, :1]

    yield identity("theta_0 turns the body about its root", lambda p, b, c, f, model: model(b, p)[0], turned, draw)

    def carried(pose: Tensor, betas: Tensor, c: Tensor, body: Body, model: SMPL) -> Tensor:
        moved = dataclasses.replace(body, template=body.template + c[0].numpy())
        return SMPL(moved, torch.float64)(betas, pose)[0]

    yield identity(
        "sum_k w_k = 1: a template moved by c gives a body moved by c",
        carried,
        lambda pose, betas, c, body, model: model(betas, pose)[0] + c[0],
        draw,
    )
