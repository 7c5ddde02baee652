"""What poses people take, from anatomy: a Gaussian over the joints' axis-angle vectors, and the sense of the hinges.

Means are those of somebody standing at ease, deviations about a quarter of the range of motion of the joint. Axes are
those of the body at rest in the T-pose: x to its left, y up, z forward. Written for the left side; on the right, turns
about y and z change sign. Joints are independent but for the hip and the knee: the muscles behind the thigh span both,
so that a thigh is lifted far only with the knee bent.

Ranges: Norkin and White, Measurement of Joint Motion: A Guide to Goniometry, 5th edition, 2016.
"""

import torch
from torch import Tensor

from mpcli_bodies.kit.keypoints import SMPL_24

_STIFF = ((0.0, 0.0, 0.0), (0.1, 0.1, 0.1))
# joint: mean and deviation about x, y, z, in radians
_LEFT = {
    "hip": ((-0.25, 0.0, -0.05), (0.5, 0.25, 0.25)),  # to -x the thigh is lifted
    "knee": ((0.4, 0.0, 0.0), (0.45, 0.1, 0.1)),  # to +x the knee is bent
    "ankle": ((-0.1, 0.0, 0.0), (0.35, 0.2, 0.2)),
    "collar": ((0.0, 0.0, 0.0), (0.12, 0.15, 0.15)),
    "shoulder": ((0.1, -0.2, -1.0), (0.4, 0.6, 0.5)),  # to -z the arm hangs, to -y it points forward
    "elbow": ((0.0, -0.7, 0.0), (0.4, 0.6, 0.5)),  # to -y the elbow is bent, about z where the upper arm is turned
    "wrist": ((0.0, 0.0, 0.0), (0.25, 0.25, 0.25)),
}
_MIDDLE = {name: ((0.0, 0.0, 0.0), (0.25, 0.15, 0.15)) for name in ("spine1", "spine2", "spine3")}
_MIDDLE |= {name: ((0.0, 0.0, 0.0), (0.25, 0.25, 0.2)) for name in ("neck", "head")}


def poses(joints: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every joint's axis-angle vector, [K, 3] each; fingers hardly move."""
    rows = []
    for name in (*SMPL_24[:22], *[""] * (joints - 22)):
        side, _, part = name.partition("_")
        mean, deviation = _MIDDLE.get(name, _LEFT.get(part, _STIFF))
        sign = -1.0 if side == "right" else 1.0
        rows.append((mean[0], sign * mean[1], sign * mean[2], *deviation))
    table = torch.tensor(rows[:joints])
    return table[:, :3], table[:, 3:]


BENT_TOGETHER = 0.5  # how hip and knee correlate


def independent(away: Tensor) -> Tensor:
    """Deviations from the mean, in units of each one's own, [B, K, 3] -> the same people in independent N(0, 1).

    A knee is told relative to what its hip makes likely: (knee + rho hip) / sqrt(1 - rho^2); a lifted thigh is at -x.
    """
    knees = away[:, 4:6, :1] + BENT_TOGETHER * away[:, 1:3, :1]
    knees = torch.cat([knees / (1 - BENT_TOGETHER**2) ** 0.5, away[:, 4:6, 1:]], -1)
    return torch.cat([away[:, :4], knees, away[:, 6:]], 1)


# joint, axis, and the sign with which the angle grows as the hinge bends its natural way
HINGES = ((4, 0, 1.0), (5, 0, 1.0), (18, 1, -1.0), (19, 1, 1.0))
