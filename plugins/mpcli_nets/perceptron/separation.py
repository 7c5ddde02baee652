"""Whether a hyperplane separates two classes, by a linear program, and what Novikoff's theorem makes of it."""

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

MARGIN = 1e-7  # of the largest number; the program's solver is exact to about that


def signed(x: Tensor, t: Tensor) -> Tensor:
    """(2t - 1) (x, 1): u separates where its product with each is positive. [N, D], [N] -> [N, D + 1]."""
    return (2 * t - 1)[:, None] * torch.cat([x, torch.ones_like(x[:, :1])], 1)


def separator(x: Tensor, t: Tensor) -> Tensor | None:
    """A unit vector u = (w, b) [D + 1] that separates examples [N, D] of targets [N] in {0, 1}, or None.

    Minsky and Papert, Perceptrons, 1969: there is none where a weighted mean of the signed examples is zero.
    """
    z = signed(x.double(), t).numpy()
    size = np.abs(z).max()
    rows, columns = z.shape
    found = linprog(
        c=np.append(np.zeros(columns), -1.0),  # max g
        A_ub=np.hstack([-z / size, np.ones((rows, 1))]),  # g <= u^T z
        b_ub=np.zeros(rows),
        bounds=[(-1, 1)] * columns + [(0, None)],
        method="highs",
    )
    if found.status != 0:
        raise RuntimeError(f"the linear program was not solved: {found.message}")
    if found.x[-1] < MARGIN:
        return None
    u = torch.from_numpy(found.x[:-1])
    return u / u.norm()


def bound(u: Tensor, x: Tensor, t: Tensor) -> float:
    """(R / g)^2, the most mistakes that the rule can make where the unit vector u separates with the margin g."""
    z = signed(x.double(), t)
    return float((z.norm(dim=1).max() / (z @ u).min()).square())
