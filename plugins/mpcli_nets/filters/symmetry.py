"""Whether an operator on pictures is linear, and what it does with shifts: by trying, with the counter-example."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]

TOLERANCE = 1e-5  # of the largest number that comes out


@dataclass(frozen=True)
class Finding:
    """A property, by how much it fails at most, relative to what comes out, and where that was."""

    name: str
    off: float
    where: str

    @property
    def holds(self) -> bool:
        return self.off <= TOLERANCE


def linear(operator: Operator, u: Tensor, v: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
    """T(a u + b v) and a T(u) + b T(v)."""
    return operator(a * u + b * v), a * operator(u) + b * operator(v)


def equivariant(operator: Operator, u: Tensor, shift: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """T(f(u)) and f(T(u)), f a shift that brings back in on one side what goes out on the other."""
    return operator(moved(u, shift)), moved(operator(u), shift)


def invariant(operator: Operator, u: Tensor, shift: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """T(f(u)) and T(u)."""
    return operator(moved(u, shift)), operator(u)


def moved(u: Tensor, shift: tuple[int, int]) -> Tensor:
    """A picture [..., H, W] shifted cyclically."""
    return torch.roll(u, shift, (-2, -1))


def examined(operator: Operator, shape: tuple[int, ...], seed: int, trials: int = 8) -> list[Finding]:
    """Linearity, shift equivariance and shift invariance on random pictures, which are 0 near their borders.

    An operator whose result has no height and width is not asked for equivariance.
    """
    g = torch.Generator().manual_seed(seed)
    height, width = shape[-2:]
    margin = max(1, min(height, width) // 4)
    inner = torch.zeros(shape, dtype=torch.float64)
    inner[..., margin : height - margin, margin : width - margin] = 1
    worst = {name: (0.0, "") for name in ("linearity", "equivariance", "invariance")}
    for trial in range(trials):
        u, v = (inner * torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
        a, b = (2 * torch.randn(2, generator=g)).tolist()
        reach = max(1, margin // 2)
        shift = tuple(int(k) for k in torch.randint(1, reach + 1, (2,), generator=g))
        sides = {"linearity": (linear(operator, u, v, a, b), f"a = {a:.3g}, b = {b:.3g}")}
        sides["invariance"] = invariant(operator, u, (shift[0], shift[1])), f"a shift by {shift}"
        if operator(u).shape[-2:] == u.shape[-2:]:
            sides["equivariance"] = equivariant(operator, u, (shift[0], shift[1])), f"a shift by {shift}"
        for name, ((left, right), where) in sides.items():
            size = float(torch.maximum(left.abs().max(), right.abs().max())) or 1.0
            off = float((left - right).abs().max()) / size
            if off > worst[name][0] or trial == 0:
                worst[name] = (off, f"picture {trial} of seed {seed}, {where}")
    return [Finding(name, off, where) for name, (off, where) in worst.items() if where]
