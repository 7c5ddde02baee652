"""Entropy, cross-entropy and divergences of distributions over finitely many values, in nats. 0 log 0 = 0."""

import torch
from torch import Tensor


def entropy(p: Tensor) -> Tensor:
    """H(p) = -sum p log p. [..., K] -> [...]."""
    return cross_entropy(p, p)


def cross_entropy(p: Tensor, q: Tensor) -> Tensor:
    """H(p, q) = -sum p log q, infinite where q rules out what p has. [..., K], [..., K] -> [...]."""
    return -torch.special.xlogy(p, q).sum(-1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) = sum p log(p / q) = H(p, q) - H(p), never negative. [..., K], [..., K] -> [...]."""
    return cross_entropy(p, q) - entropy(p)


def js(p: Tensor, q: Tensor) -> Tensor:
    """JS(p, q): the mean of KL(p || m) and KL(q || m), m = (p + q) / 2; at most log 2. [..., K], [..., K] -> [...]."""
    m = (p + q) / 2
    return (kl(p, m) + kl(q, m)) / 2
