"""What regularises a layer: batch normalisation, dropout, and the steps of penalties."""

import torch
from torch import Tensor, nn

from mpcli_nets.maximum_likelihood.optimum import soft

__all__ = ["BatchNorm", "dropped", "shrunk", "soft"]


class BatchNorm(nn.Module):
    """gamma (z - m) / (v + eps)^1/2 + beta for each of D units, [N, D] -> [N, D].

    In training m and v are the mean and the mean square deviation (by 1 / n) of the batch, and running means of m and
    of the unbiased v (by 1 / (n - 1)) are kept; afterwards these take their place.

    Ioffe and Szegedy, Batch Normalization, 2015. arXiv:1502.03167
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float = 1e-5, rate: float = 0.1):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.eps, self.rate = eps, rate

    def forward(self, z: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            n = len(z)
            mean = z.mean(0)
            var = (z - mean).square().mean(0)
            with torch.no_grad():
                self.running_mean += self.rate * (mean - self.running_mean)
                self.running_var += self.rate * (var * n / (n - 1) - self.running_var)
        return self.gamma * (z - mean) / (var + self.eps).sqrt() + self.beta


def dropped(z: Tensor, keep: float, training: bool) -> Tensor:
    """r * z with r ~ Bernoulli(keep) in training, and its mean keep * z afterwards: weights scaled by keep."""
    if keep == 1:
        return z
    return z * (torch.rand_like(z) < keep) if training else keep * z


def shrunk(w: Tensor, by: Tensor | float) -> Tensor:
    """(1 - by) w: what a penalty by / 2 |w|^2 adds to a step."""
    return (1 - by) * w
