"""What judges any likelihood: noise for grey levels, nll in nats, bits/dim, held-out evaluation in bounded memory.

A model is anything that gives a log probability, or a log density, for each of several examples: [N, ...] -> [N].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpcli.kit import datasets, randomness
from mpcli.kit.datasets import Images, Pictures, Table
from mpcli.run import watched


def dequantised(
    x: Float[Tensor, "*shape"], levels: int, generator: torch.Generator | None = None
) -> Float[Tensor, "*shape"]:
    """Pixels k/(levels - 1) as (k + u)/levels, u uniform in [0, 1): a density of these bounds the pixels' probability.

        log P(k) >= E_u[log p((k + u)/levels)] - D log(levels)        one unit cell has volume levels^-D

    Theis, van den Oord and Bethge, A note on the evaluation of generative models, 2016. arXiv:1511.01844
    """
    k = (x * (levels - 1)).round()
    device = generator.device if generator else x.device
    u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
    return (k + u) / levels


def quantised(x: Float[Tensor, "*shape"], levels: int) -> Float[Tensor, "*shape"]:
    """The pixels k/(levels - 1) of which x = (k + u)/levels is a noisy form; beyond [0, 1] the nearest one."""
    return (x * levels).floor().clamp(0, levels - 1) / (levels - 1)


def bits_per_dim(nll: Float[Tensor, "*batch"], dimensions: int) -> Float[Tensor, "*batch"]:
    """The negative log probability `nll` of an example (nats) as bits for each of its dimensions.

    It compares models only where nll is that of a probability: of grey levels themselves, or of their noisy form with
    the D log(levels) that `nll` adds.
    """
    return nll / (dimensions * math.log(2))


@torch.no_grad()
def nll(
    log_prob: Callable[..., Tensor],
    x: Float[Tensor, "N *shape"] | Pictures,
    *given: Tensor | None,
    levels: int = 0,
    draws: int = 4,
    part: int = 512,
) -> Float[Tensor, "N *parts"]:
    """-log p of each example in nats (or of its parts): the same numbers for the same examples, always.

    Args:
        log_prob: of examples, and of what else is given with each, cut alike: [n, ...] -> [n].
        levels: grey levels of pictures whose density is asked for: the mean over `draws` of the noise of
            `dequantised`, as (a bound of) the probability of the pictures; 0 asks for log_prob of x itself.
        part: examples asked for at once, which bounds the memory.
    """
    noise = torch.Generator(x.device).manual_seed(0)
    found = []
    for i in watched(range(0, len(x), part), "evaluating"):
        rest = [c if c is None else c[i : i + part] for c in given]
        some = x[i : i + part]
        each = [log_prob(dequantised(some, levels, noise), *rest) for _ in range(draws)] if levels else []
        found.append(-torch.stack(each or [log_prob(some, *rest)]).mean(0))
    return torch.cat(found) + x[0].numel() * math.log(levels or 1)


@dataclass(frozen=True)
class Examples:
    """A table's rows, or pictures, as a density sees them: pictures get the noise that fills their grey levels."""

    data: Table | Images
    levels: int  # of grey; 0 for a table

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.train.shape[1:])

    def continuous(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return dequantised(x, self.levels, generator) if self.levels else x

    def batches(self, size: int, seed: int) -> Callable[[int], Tensor]:
        """Training batches with their noise, both a pure function of the step."""
        batch = self.data.batches(size, seed)

        def noisy(step: int) -> Tensor:
            x = batch(step)
            if not self.levels:
                return x
            return dequantised(x, self.levels, randomness.generator(seed, step, 1))

        return noisy

    def held_out(self, model: nn.Module, c: Tensor | None = None) -> dict[str, Tensor]:
        """What `evaluate` reports: nll in nats on the test data and, for pictures, the same in bits/dim."""
        mean = nll(model.eval(), self.data.test, c, levels=self.levels).mean()
        return {"nll": mean} | ({"bits_per_dim": bits_per_dim(mean, math.prod(self.shape))} if self.levels else {})


def load(spec: str, device: torch.device) -> Examples:
    """A dataset of rows or of pictures.

    Raises:
        InputError: there is no such dataset, it is of neither kind, or it cannot be read.
    """
    data = datasets.load(spec, Images, Table).to(device)
    return Examples(data, data.levels if isinstance(data, Images) else 0)


Density = Callable[[Tensor], Tensor]  # [N, 2] -> log density [N]


def on_grid(
    log_density: Density, low: tuple[float, float], high: tuple[float, float], size: int, like: Tensor | None = None
) -> Float[Tensor, "size size"]:
    """A log density at the centres of size x size cells of the box from `low` to `high`; row i has the i-th y.

    `like` says of which type and on which device the points are (float32 on the CPU).
    """
    like = torch.zeros(()) if like is None else like
    step = (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) / size
    x, y = (a + (b - a) * step for a, b in zip(low, high, strict=True))
    points = torch.stack((x.expand(size, size), y[:, None].expand(size, size)), -1).reshape(-1, 2)
    return torch.cat([log_density(part) for part in points.split(2**16)]).reshape(size, size)


def log_integral(
    log_density: Density, low: tuple[float, float], high: tuple[float, float], size: int, like: Tensor | None = None
) -> Float[Tensor, ""]:
    """Log of the integral of exp(log_density) over a box, by the midpoint rule.

    For a smooth density that vanishes at the box's sides the rule's error falls faster than any power of 1/size.
    """
    cell = math.prod((b - a) / size for a, b in zip(low, high, strict=True))
    return on_grid(log_density, low, high, size, like).flatten().logsumexp(0) + math.log(cell)
