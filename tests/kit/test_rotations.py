"""Rotations against scipy, their derivatives at the places where naive formulas have none."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mpcli.kit import rotations

ANGLES = [0.0, 1e-12, 1e-7, 1e-4, 1e-2, 0.3, 0.4999, 0.5, 0.5001, 1.0, 2.0, 3.0, math.pi - 1e-4, math.pi - 1e-8]


def vectors(angle: float, n: int = 50) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(n, 3, generator=g, dtype=torch.float64), dim=-1)
    axis[:6] = torch.cat([torch.eye(3), -torch.eye(3)])
    return axis * angle


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_agrees_with_scipy_at_every_size(angle: float) -> None:
    v = vectors(angle)
    true = Rotation.from_rotvec(v.numpy())
    assert np.allclose(rotations.axis_angle_to_matrix(v).numpy(), true.as_matrix(), rtol=0, atol=1e-14)
    q = rotations.axis_angle_to_quaternion(v)
    assert np.allclose(q.numpy(), true.as_quat(scalar_first=True), rtol=0, atol=1e-15)
    assert np.allclose(rotations.quaternion_to_matrix(3 * q).numpy(), true.as_matrix(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("angle", ANGLES)
def test_logarithms_keep_their_accuracy_near_the_identity_and_near_half_turns(angle: float) -> None:
    v = vectors(angle)
    assert torch.allclose(
        rotations.quaternion_to_axis_angle(rotations.axis_angle_to_quaternion(v)), v, rtol=1e-14, atol=0
    )
    back = rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(v))
    # A matrix holds an angle near 0 only to about 1e-16 absolutely.
    assert torch.allclose(back, v, rtol=1e-12, atol=1e-15)


def test_a_half_turn_gives_one_of_its_two_axes() -> None:
    v = vectors(math.pi)
    rotation = torch.tensor(Rotation.from_rotvec(v.numpy()).as_matrix())
    back = rotations.matrix_to_axis_angle(rotation)
    assert torch.allclose(back.norm(dim=-1), torch.tensor(math.pi, dtype=torch.float64))
    assert torch.allclose(rotations.axis_angle_to_matrix(back), rotation, rtol=0, atol=1e-14)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 0.2, 0.6, 2.5, math.pi, 4.0, 7.0])
def test_the_exponential_has_its_first_and_second_derivative_everywhere(angle: float) -> None:
    v = vectors(angle, 7).requires_grad_()
    for f in (rotations.axis_angle_to_matrix, rotations.axis_angle_to_quaternion):
        assert torch.autograd.gradcheck(f, v)
        assert torch.autograd.gradgradcheck(f, v)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 0.01, 0.03, 0.2, 1.0, 2.5, 3.1])
def test_the_logarithm_has_its_derivatives_up_to_the_half_turn(angle: float) -> None:
    q = rotations.axis_angle_to_quaternion(vectors(angle, 7)).requires_grad_()
    assert torch.autograd.gradcheck(rotations.quaternion_to_axis_angle, q)
    assert torch.autograd.gradgradcheck(rotations.quaternion_to_axis_angle, q)
    v = vectors(angle, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(v)), v)


def test_derivatives_at_zero_are_the_generators() -> None:
    jacobian = torch.autograd.functional.jacobian(rotations.axis_angle_to_matrix, torch.zeros(3, dtype=torch.float64))
    for axis in range(3):
        assert torch.equal(jacobian[..., axis], rotations.skew(torch.eye(3, dtype=torch.float64)[axis]))


def test_single_precision_loses_no_more_than_it_must() -> None:
    for angle in ANGLES[:-1]:
        v = vectors(angle)
        single = v.float().requires_grad_()
        rotation = rotations.axis_angle_to_matrix(single)
        assert torch.allclose(rotation.double(), rotations.axis_angle_to_matrix(v), rtol=0, atol=4e-7)
        weights = torch.linspace(-1, 1, 9).reshape(3, 3)
        (gradient,) = torch.autograd.grad((rotation * weights).sum(), single)
        exact = v.clone().requires_grad_()
        (true,) = torch.autograd.grad((rotations.axis_angle_to_matrix(exact) * weights.double()).sum(), exact)
        assert torch.allclose(gradient.double(), true, rtol=0, atol=2e-5)


def test_quaternions_multiply_as_rotations_do_and_their_matrices_come_back() -> None:
    true = Rotation.random(200, rng=np.random.default_rng(1))
    other = Rotation.random(200, rng=np.random.default_rng(2))
    p, q = (torch.tensor(r.as_quat(canonical=True, scalar_first=True)) for r in (true, other))
    product = rotations.quaternion_to_matrix(rotations.quaternion_multiply(p, q))
    assert np.allclose(product.numpy(), (true * other).as_matrix(), atol=1e-14)
    assert torch.allclose(rotations.matrix_to_quaternion(torch.tensor(true.as_matrix())), p, atol=1e-14)


def test_six_numbers_give_a_rotation_and_a_rotation_its_six_numbers() -> None:
    six = torch.randn(100, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rotation = rotations.six_to_matrix(six)
    identity = torch.eye(3, dtype=torch.float64).expand(100, 3, 3)
    assert torch.allclose(rotation.mT @ rotation, identity, atol=1e-12)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(100, dtype=torch.float64))
    assert torch.allclose(rotations.six_to_matrix(rotations.matrix_to_six(rotation)), rotation, atol=1e-14)
    # The first column keeps the direction of the first three numbers, and the second stays in their plane.
    assert torch.allclose(torch.nn.functional.normalize(six[:, :3], dim=-1), rotation[..., 0])
    assert torch.allclose((six[:, 3:] * rotation[..., 2]).sum(-1), torch.zeros(100, dtype=torch.float64), atol=1e-12)
    assert torch.autograd.gradcheck(rotations.six_to_matrix, six[:5].requires_grad_())


def test_shapes_are_batched_from_the_left() -> None:
    v = torch.randn(2, 3, 4, 3, generator=torch.Generator().manual_seed(4))
    rotation = rotations.axis_angle_to_matrix(v)
    assert rotation.shape == (2, 3, 4, 3, 3)
    assert torch.allclose(rotation[1, 2, 3], rotations.axis_angle_to_matrix(v[1, 2, 3]))
    assert rotations.matrix_to_axis_angle(rotation[0, 0, 0]).shape == (3,)
    assert rotations.axis_angle_to_matrix(torch.zeros(0, 3)).shape == (0, 3, 3)
