"""Where to stand to look at people."""

from torch import Tensor


def upward(joints: Tensor) -> tuple[float, float, float]:  # posed joints [F, K, 3] -> y or z
    """The vertical axis of a recording, which differs from one to the next: people mostly keep their head up."""
    rise = (joints[:, min(15, joints.shape[1] - 1)] - joints[:, 0]).mean(0)
    return (0.0, 0.0, 1.0) if rise[2] > rise[1] else (0.0, 1.0, 0.0)
