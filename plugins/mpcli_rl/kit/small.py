"""Worlds of a few states, for proofs: a model out of drawn numbers, and its policies valued by linear solves."""

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from mpcli_rl.kit import mdp


def table(p: Float[Tensor, "S A S"], r: Float[Tensor, "S A"]) -> mdp.Table:
    """The model that goes on with probabilities p and earns r in the mean; episodes begin anywhere."""
    return mdp.Table(sparse.csr_array(p.flatten(0, 1).numpy()), r.numpy(), np.full(len(p), 1 / len(p)))


def worth(
    p: Float[Tensor, "S A S"], r: Float[Tensor, "S A"], pi: Float[Tensor, "S A"], gamma: float
) -> Float[Tensor, "S A"]:
    """The values of all pairs where a policy acts afterwards: q = r + gamma P v, v = sum_a pi q."""
    under = torch.eye(len(p), dtype=p.dtype) - gamma * torch.einsum("sa,sat->st", pi, p)
    return r + gamma * p @ torch.linalg.solve(under, (pi * r).sum(1))


def optimum(p: Float[Tensor, "S A S"], r: Float[Tensor, "S A"], gamma: float) -> Float[Tensor, " S"]:
    """The values of the best of all A^S policies."""
    states, actions = r.shape
    policies, rows = torch.cartesian_prod(*[torch.arange(actions)] * states), torch.arange(states)
    under = torch.eye(states, dtype=p.dtype) - gamma * p[rows, policies]
    return torch.linalg.solve(under, r[rows, policies]).amax(0)
