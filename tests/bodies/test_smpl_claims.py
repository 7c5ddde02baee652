"""What is said of SMPL, measured: correctives keep volume, ten shapes suffice, gradients by hand are the gradients."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh

from mpcli_bodies.smpl import SMPL, read_body
from mpcli_bodies.smpl.files import random_body

ELBOW, WRIST, HIP, KNEE = 18, 20, 1, 4  # on the left; the right one is the next


def volume_of_bend(model: SMPL, joint: int, axis: int, angle: float, faces: np.ndarray) -> float:
    """Cubic metres, relative to the body at rest."""
    pose = torch.zeros(2, 24, 3)
    pose[1, joint, axis] = angle
    still, bent = model(torch.zeros(2, model.shapes), pose)[0].numpy()
    return trimesh.Trimesh(bent, faces, process=False).volume - trimesh.Trimesh(still, faces, process=False).volume


@pytest.mark.parametrize("angle", [1.0, 1.5])
@pytest.mark.parametrize(
    ("joint", "axis", "sense"),
    [(ELBOW, 1, -1), (ELBOW + 1, 1, 1), (KNEE, 0, 1), (KNEE + 1, 0, 1), (HIP, 0, -1), (HIP + 1, 0, -1), (WRIST, 0, 1)],
)
def test_skinning_alone_loses_volume_and_correctives_give_most_of_it_back(joint, axis, sense, angle):
    """At a bend; and at the twist of a wrist. Flesh cannot be pressed together, so that all of it would be right.

    Most: they give back more than they leave lost, and do not add as much as was lost.
    """
    body = read_body()
    bare = dataclasses.replace(body, correctives=0 * body.correctives)
    alone = volume_of_bend(SMPL(bare), joint, axis, sense * angle, body.faces)
    corrected = volume_of_bend(SMPL(body), joint, axis, sense * angle, body.faces)
    assert alone < -1e-5  # cubic metres: ten millilitres and more
    assert abs(corrected) < abs(alone) / 2


def test_correctives_are_no_linear_function_of_the_angle():
    body = read_body()
    model = SMPL(body, torch.float64)
    angles = torch.tensor([0.0, 0.7, 1.4], dtype=torch.float64)
    turns = torch.eye(3, dtype=torch.float64).repeat(3, 24, 1, 1)
    turns[:, ELBOW, 0, 0] = turns[:, ELBOW, 2, 2] = angles.cos()
    turns[:, ELBOW, 2, 0] = angles.sin()
    turns[:, ELBOW, 0, 2] = -angles.sin()
    rest = model.rest(torch.zeros(3, model.shapes, dtype=torch.float64), turns)[0]
    once, twice = rest[1] - rest[0], rest[2] - rest[0]
    assert once.abs().max() > 1e-3
    assert (twice - 2 * once).abs().max() > 0.1 * twice.abs().max()


def test_the_embedded_shapes_are_components_of_unit_deviation():
    """Later ones say ever less; most of the difference between people is in the first three."""
    size = np.square(read_body().shapes).sum((0, 1))
    assert size.shape == (10,)
    assert size[:3].sum() > 0.9 * size.sum()
    assert (size[1:] < 1.2 * size[:-1]).all()


@pytest.mark.parametrize("batch", [1, 7])
def test_skinnings_gradient_by_hand_is_that_of_plain_operations(batch):
    """More bodies than are blended at once, and in double precision, so that a wrong block would show."""
    g = torch.Generator().manual_seed(batch)
    body = random_body(g, vertices=17_000)  # 2^19 / 17000 / 12: two bodies at a time
    model = SMPL(body, torch.float64)
    betas = torch.randn(batch, 10, generator=g, dtype=torch.float64).requires_grad_()
    pose = torch.randn(batch, 24, 3, generator=g, dtype=torch.float64).requires_grad_()
    along = torch.randn(17_000, 3, generator=g, dtype=torch.float64)

    def plain() -> torch.Tensor:
        from mpcli.kit.rotations import axis_angle_to_matrix

        rotations = axis_angle_to_matrix(pose)
        rest, joints = model.rest(betas, rotations)
        chain = model.kinematics(rotations, joints)
        bones = torch.cat([chain[..., :3, :3], chain[..., :3, 3:] - chain[..., :3, :3] @ joints[..., None]], -1)
        blend = torch.einsum("kv,bkij->bvij", model.weights, bones)
        return (blend[..., :3] @ rest.mT[..., None])[..., 0] + blend[..., 3]

    by_hand = model(betas, pose)[0]
    assert torch.allclose(by_hand, plain(), atol=1e-12)
    ours = torch.autograd.grad((by_hand * along).sum(), (betas, pose))
    theirs = torch.autograd.grad((plain() * along).sum(), (betas, pose))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_some_vertices_alone_are_those_of_the_whole():
    model = SMPL(read_body())
    g = torch.Generator().manual_seed(2)
    betas, pose = torch.randn(3, 10, generator=g), 0.5 * torch.randn(3, 24, 3, generator=g)
    vertices, joints = model(betas, pose)
    some, same = model.only([5, 6000, 77])(betas, pose)
    assert torch.allclose(some, vertices[:, [5, 6000, 77]], atol=1e-6)
    assert torch.allclose(same, joints)
    assert len(model.template) == 3 * 6890  # and the whole is still whole
