"""Invertible maps with known log-determinants, and how they are put together.

A bijector is a module with two directions, and each returns its result with log |det| of its own Jacobian, taken at
its own input, one number an example:

    x, log |det dx/dz| = f(z, c)             z, log |det dz/dx| = f.inverse(x, c)

`c` is a condition that a bijector may use or ignore. The determinant is never formed as a matrix's: it is a sum over
a diagonal.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Condition = Any  # whatever the flow's conditioners read: None, a tensor [B, ...], or several


class Chain(nn.ModuleList):
    """Composition x = f_K(...f_1(z)): the log-determinants add, each taken where its map is applied."""

    def forward(
        self, z: Float[Tensor, "batch *event"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch *image"], Float[Tensor, " batch"]]:
        total = z.new_zeros(len(z))
        for f in self:
            z, logdet = f(z, c)
            total = total + logdet
        return z, total

    def inverse(
        self, x: Float[Tensor, "batch *image"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        total = x.new_zeros(len(x))
        for f in reversed(self):
            x, logdet = f.inverse(x, c)  # type: ignore[operator]
            total = total + logdet
        return x, total


class Scale(nn.Module):
    """x_i = b_i + exp(a_i) z_i with learned a and b.

    `shape` is that of one example, a size of 1 sharing its a and b along that axis.
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "batch *event"]) -> None:
        """Set a and b so that these x come from z of mean 0 and variance 1."""
        shared = [0] + [i + 1 for i, size in enumerate(self.shift.shape) if size == 1 and x.shape[i + 1] > 1]
        variance, mean = torch.var_mean(x, shared, correction=0, keepdim=True)
        self.shift.copy_(mean[0])
        # A number that never varies has no unit; the floor keeps it finite.
        self.log_scale.copy_(0.5 * variance[0].clamp(min=1e-6).log())

    def _logdet(self, z: Tensor) -> Tensor:
        return self.log_scale.expand(z.shape[1:]).sum().expand(len(z))

    def forward(
        self, z: Float[Tensor, "batch *event"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        return z * self.log_scale.exp() + self.shift, self._logdet(z)

    def inverse(
        self, x: Float[Tensor, "batch *event"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        return (x - self.shift) * torch.exp(-self.log_scale), -self._logdet(x)


class Units(nn.Module):
    """x_i = b_i + u_i z_i with b and u those of the training data: what stands before it works in no unit at all.

    Neither is learned: steps of a fixed size in b would be nothing to large numbers, and everything to small ones.
    """

    origin: Tensor
    unit: Tensor

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("origin", torch.zeros(shape))
        self.register_buffer("unit", torch.ones(shape))

    def fit(self, x: Float[Tensor, "batch *event"]) -> None:
        """Take means and deviations of these x. A number that never varies has no unit; it gets a thousandth."""
        deviation, mean = torch.std_mean(x.double(), 0, correction=0)
        self.origin.copy_(mean)
        self.unit.copy_(torch.where(deviation > 1e-7 * mean.abs(), deviation, 1e-3))

    def _logdet(self, z: Tensor) -> Tensor:
        return self.unit.log().sum().expand(len(z))

    def forward(
        self, z: Float[Tensor, "batch *event"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        return z * self.unit + self.origin, self._logdet(z)

    def inverse(
        self, x: Float[Tensor, "batch *event"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        return (x - self.origin) / self.unit, -self._logdet(x)


class Logit(nn.Module):
    """x = (s(z) - margin) / (1 - 2 margin), s the sigmoid: from all numbers to those a little beyond [0, 1].

    Its inverse is the logit transform of pixels in Dinh et al., Density estimation using Real NVP, 2017.
    arXiv:1605.08803
    """

    def __init__(self, margin: float = 0.05):
        super().__init__()
        self.margin = margin

    def _logdet(self, z: Tensor) -> Tensor:
        slopes = F.logsigmoid(z) + F.logsigmoid(-z) - math.log(1 - 2 * self.margin)
        return slopes.flatten(1).sum(1)

    def forward(
        self, z: Float[Tensor, "batch *event"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        return (z.sigmoid() - self.margin) / (1 - 2 * self.margin), self._logdet(z)

    def inverse(
        self, x: Float[Tensor, "batch *event"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        z = torch.logit(self.margin + (1 - 2 * self.margin) * x)
        return z, -self._logdet(z)


class Shuffle(nn.Module):
    """A fixed permutation of the entries of a vector or the channels of a picture, drawn when it is made: |det| = 1."""

    order: Tensor
    back: Tensor

    def __init__(self, dim: int):
        super().__init__()
        order = torch.randperm(dim)
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())

    def forward(
        self, z: Float[Tensor, "batch dim *place"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch dim *place"], Float[Tensor, " batch"]]:
        return z[:, self.order], z.new_zeros(len(z))

    def inverse(
        self, x: Float[Tensor, "batch dim *place"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch dim *place"], Float[Tensor, " batch"]]:
        return x[:, self.back], x.new_zeros(len(x))


class Reshape(nn.Module):
    """Vectors as images and back: |det| = 1."""

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape

    def forward(
        self, z: Float[Tensor, "batch dim"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        return z.reshape(len(z), *self.shape), z.new_zeros(len(z))

    def inverse(
        self, x: Float[Tensor, "batch *event"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        return x.flatten(1), x.new_zeros(len(x))


class Unsqueeze(nn.Module):
    """[4C, H/2, W/2] -> [C, H, W]: every four channels become 2x2 pixels; its inverse is the squeeze. |det| = 1."""

    def forward(
        self, z: Float[Tensor, "batch deep low narrow"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        return F.pixel_shuffle(z, 2), z.new_zeros(len(z))

    def inverse(
        self, x: Float[Tensor, "batch channels height width"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch deep low narrow"], Float[Tensor, " batch"]]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))


class FactorOut(nn.Module):
    """One scale of a multi-scale flow: half of the channels are latent now, the others go through `deeper` first.

        z = (z_deeper, z_here):    x = (deeper(z_deeper), z_here)          z flat, [B, D]

    Dinh et al., Density estimation using Real NVP, 2017, section 3.6. arXiv:1605.08803
    """

    def __init__(self, deeper: Chain, shape: tuple[int, int, int]):
        super().__init__()
        self.deeper = deeper
        self.kept = shape[0] // 2
        self.here = (shape[0] - self.kept, *shape[1:])

    def forward(
        self, z: Float[Tensor, "batch dim"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        z_deeper, z_here = z.split((z.shape[1] - math.prod(self.here), math.prod(self.here)), 1)
        h, logdet = self.deeper(z_deeper, c)
        return torch.cat((h, z_here.reshape(len(z), *self.here)), 1), logdet

    def inverse(
        self, x: Float[Tensor, "batch channels height width"], c: Condition = None
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        h, z_here = x.split((self.kept, self.here[0]), 1)
        z_deeper, logdet = self.deeper.inverse(h, c)
        return torch.cat((z_deeper, z_here.flatten(1)), 1), logdet


def bounded(a: Float[Tensor, "*shape"], limit: float) -> Float[Tensor, "*shape"]:
    """a squeezed smoothly into (-limit, limit), with slope 1 at 0: exp(a) stays within reach of floats."""
    return limit * torch.tanh(a / limit)


def affine(
    x: Float[Tensor, "batch *shape"], s: Float[Tensor, "batch *shape"], t: Float[Tensor, "batch *shape"]
) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
    """z = x e^s + t, with log |det dz/dx| = sum s: what a coupling does to its second part on the way to latent."""
    return x * s.exp() + t, s.flatten(1).sum(1)


def affine_inverse(
    z: Float[Tensor, "batch *shape"], s: Float[Tensor, "batch *shape"], t: Float[Tensor, "batch *shape"]
) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
    """x = (z - t) e^-s, with log |det dx/dz| = -sum s."""
    return (z - t) * torch.exp(-s), -s.flatten(1).sum(1)
