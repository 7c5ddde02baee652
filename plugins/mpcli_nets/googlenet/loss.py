"""The loss of a network with heads on its way."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

WEIGHT = 0.3  # of the loss of each head


def total(eta: Tensor, said: Sequence[Tensor], t: Tensor) -> Tensor:
    """L_top + 0.3 (L_a + L_b), nats, the mean over examples. [N, K], [N, K] of each head, classes [N]."""
    loss = F.cross_entropy(eta, t)
    for head in said:
        loss = loss + WEIGHT * F.cross_entropy(head, t)
    return loss
