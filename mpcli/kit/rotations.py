"""Rotations of space in the forms that the field writes them, and the maps between them.

    matrix      R in SO(3), y = R x                         everywhere unless a name says otherwise
    axis-angle  v = t n, |n| = 1: turn by t radians about n; R = exp([v]) = I + a [v] + b [v]^2     (Rodrigues)
                a = sin t / t,   b = (1 - cos t) / t^2
    quaternion  wxyz, of unit length: w = cos(t/2), (x, y, z) = n sin(t/2); q and -q are the same rotation
    six numbers the first two columns of R, made orthonormal by Gram and Schmidt

[v] is the matrix with [v] x = v cross x. The functions of t are even, so they are smooth functions of s = t^2 = |v|^2,
and near s = 0 they are summed as such: value and every derivative are right at v = 0, where t itself has none.

Gallego and Yezzi, A Compact Formula for the Derivative of a 3-D Rotation in Exponential Coordinates, 2015.
arXiv:1312.0788
Zhou, Barnes, Lu, Yang and Li, On the Continuity of Rotation Representations in Neural Networks, 2019. arXiv:1812.07035
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

_SMALL = 0.25  # of s; with eight terms a series is then exact in double precision, derivatives included
_TERMS = 8


def axis_angle_to_matrix(v: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation by |v| radians about v (Rodrigues' formula); the identity at v = 0. Smooth everywhere."""
    s = v.square().sum(-1, keepdim=True)
    a, b = _even(
        s,
        [lambda k: math.factorial(2 * k + 1), lambda k: math.factorial(2 * k + 2)],
        lambda t: [t.sin() / t, (1 - t.cos()) / t.square()],
    )
    c, av, bv = 1 - b * s, a * v, b * v  # [v]^2 = v v^T - |v|^2 I
    identity = torch.eye(3, dtype=v.dtype, device=v.device)
    return c[..., None] * identity + skew(av) + bv[..., :, None] * v[..., None, :]


def matrix_to_axis_angle(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """The v with |v| <= pi that `axis_angle_to_matrix` turns into the rotation; at |v| = pi one of the two.

    Goes through the quaternion, so it keeps its accuracy near the identity and near half turns alike.
    """
    return quaternion_to_axis_angle(matrix_to_quaternion(rotation))


def axis_angle_to_quaternion(v: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """The unit quaternion wxyz of the rotation by |v| radians about v. Smooth everywhere."""
    s = v.square().sum(-1, keepdim=True) / 4
    w, a = _even(
        s,
        [lambda k: math.factorial(2 * k), lambda k: math.factorial(2 * k + 1)],
        lambda t: [t.cos(), t.sin() / t],
    )
    return torch.cat([w, a * v / 2], -1)


def quaternion_to_axis_angle(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """The v with |v| <= pi of a quaternion wxyz of any length but zero."""
    q = torch.where(q[..., :1] < 0, -q, q)
    w, xyz = q[..., :1], q[..., 1:]
    squared = xyz.square().sum(-1, keepdim=True)
    small = squared < 1e-4 * w.square()
    one = torch.ones_like(w)
    length = torch.where(small, one, squared).sqrt()  # no square root at 0: it has no derivative there
    # t/2 = atan(|xyz| / w), and atan(r) / r is a series in r^2 that converges fast for small r.
    safe = torch.where(small, w, one)
    r = torch.where(small, squared, 0 * squared) / safe.square()
    series = (1 - r * (1 / 3 - r * (1 / 5 - r * (1 / 7 - r / 9)))) / safe
    return 2 * xyz * torch.where(small, series, torch.atan2(length, w) / length)


def quaternion_to_matrix(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation of a quaternion wxyz; one of any length but zero is normalised."""
    w, x, y, z = normalize(q, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def matrix_to_quaternion(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """The unit quaternion wxyz, w >= 0, of a rotation.

    4 q q^T is linear in R. Its longest row, which is at least as long as 2, is q up to sign, and nothing is divided by
    a small number.
    """
    r = rotation
    xx, yy, zz = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    wx, wy, wz = r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]
    xy, xz, yz = r[..., 0, 1] + r[..., 1, 0], r[..., 0, 2] + r[..., 2, 0], r[..., 1, 2] + r[..., 2, 1]
    rows = [
        1 + xx + yy + zz, wx, wy, wz,
        wx, 1 + xx - yy - zz, xy, xz,
        wy, xy, 1 - xx + yy - zz, yz,
        wz, xz, yz, 1 - xx - yy + zz,
    ]  # fmt: skip
    products = torch.stack(rows, -1).unflatten(-1, (4, 4))
    longest = products.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = products.take_along_dim(longest[..., None, None], -2)[..., 0, :]
    q = normalize(row, dim=-1)
    return torch.where(q[..., :1] < 0, -q, q)


def quaternion_multiply(p: Float[Tensor, "*#batch 4"], q: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*#batch 4"]:
    """Hamilton's product of quaternions wxyz: as a rotation, first q and then p."""
    a, u = p[..., :1], p[..., 1:]
    b, v = q[..., :1], q[..., 1:]
    cross = torch.linalg.cross(*torch.broadcast_tensors(u, v))
    return torch.cat([a * b - (u * v).sum(-1, keepdim=True), a * v + b * u + cross], -1)


def six_to_matrix(six: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation whose first two columns come from the numbers (a, b) by Gram and Schmidt.

    Continuous and onto, which no map from four numbers or fewer can be together with its inverse; a must not be zero
    and b not parallel to it.
    """
    first = normalize(six[..., :3], dim=-1)
    second = six[..., 3:] - (first * six[..., 3:]).sum(-1, keepdim=True) * first
    second = normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def matrix_to_six(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """The first two columns of a rotation, one after the other."""
    return rotation[..., :2].mT.flatten(-2)


def skew(v: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """[v], the antisymmetric matrix with [v] x = v cross x."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def _even(
    s: Tensor, factorials: Sequence[Callable[[int], int]], closed: Callable[[Tensor], list[Tensor]]
) -> list[Tensor]:
    """Functions f(sqrt(s)) of s [..., 1] by `closed`; where s is small by their series sum_k (-s)^k / factorial(k)."""
    small = s < _SMALL
    first, *rest = [s.new_tensor([1 / f(k) for f in factorials]) for k in reversed(range(_TERMS))]
    series = first
    for coefficients in rest:  # Horner
        series = torch.addcmul(coefficients, s, series, value=-1)
    t = torch.where(small, torch.ones_like(s), s).sqrt()
    return [torch.where(small, *pair) for pair in zip(series.split(1, -1), closed(t), strict=True)]
