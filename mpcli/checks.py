"""Numerical proof: what a page's `gradcheck` yields, and how it is judged.

A case draws float64 inputs several times and hands them to one function, which returns the two sides of a statement. A
gradient is compared with central differences, an identity side by side, an inequality in its direction:

    def powers(x: Tensor) -> Sides:
        return cube(x), 3 * x**2

    yield gradient("d(x^3)/dx = 3 x^2", powers, (4,))

A wrong formula can ride along behind the two sides; it is never trusted, only measured. `printed` says that the course
notes print it so, `mistake` that people make it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Sides = tuple[Any, ...]  # left, right, and then what is printed, and the mistake, where the case names them
Draw = tuple[int, ...] | Callable[["torch.Generator"], Any]

STEP = 6e-6  # near the cube root of float64's resolution, where central differences err least


@dataclass(frozen=True)
class Printed:
    """A formula that the course notes print wrongly.

    Attributes:
        where: its number in the notes, such as "(59)".
        formula: as the notes print it.
        right: as it must be.
    """

    where: str
    formula: str
    right: str


@dataclass(frozen=True)
class Case:
    """One statement about a page's mathematics.

    Attributes:
        name: what is stated, best with its formula.
        kind: gradient (left is a function of the first argument, right its gradient), identity (left = right),
            inequality (left <= right).
        sides: of what is drawn, gives left and right (tensors of one shape, or numbers), then the value of `printed`
            and that of `mistake`, for those of the two that the case has.
        draw: for each argument a shape, which standard normal numbers fill, or a function of the generator.
        printed: what the notes print in place of the right formula, or None.
        mistake: what people write in place of it, or "".
        rtol, atol: sides may differ by `atol + rtol * |right|`, element by element.
        draws: how often to draw.
    """

    name: str
    kind: Literal["gradient", "identity", "inequality"]
    sides: Callable[..., Sides]
    draw: tuple[Draw, ...]
    printed: Printed | None = None
    mistake: str = ""
    rtol: float = 1e-6
    atol: float = 1e-9
    draws: int = 5

    def arguments(self, generator: "torch.Generator") -> list[Any]:
        """One draw of all arguments."""
        import torch

        return [
            draw(generator) if callable(draw) else torch.randn(draw, dtype=torch.float64, generator=generator)
            for draw in self.draw
        ]


def gradient(
    name: str,
    sides: Callable[..., Sides],
    *draw: Draw,
    printed: Printed | None = None,
    mistake: str = "",
    rtol: float = 1e-5,
    atol: float = 1e-7,
    draws: int = 5,
) -> Case:
    """`sides` gives f(x, ...) and the gradient of its sum with respect to x, the first argument."""
    return Case(name, "gradient", sides, draw, printed, mistake, rtol, atol, draws)


def identity(
    name: str,
    sides: Callable[..., Sides],
    *draw: Draw,
    printed: Printed | None = None,
    mistake: str = "",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    draws: int = 5,
) -> Case:
    """`sides` gives two equal values."""
    return Case(name, "identity", sides, draw, printed, mistake, rtol, atol, draws)


def inequality(
    name: str,
    sides: Callable[..., Sides],
    *draw: Draw,
    printed: Printed | None = None,
    mistake: str = "",
    rtol: float = 0.0,
    atol: float = 1e-12,
    draws: int = 20,
) -> Case:
    """`sides` gives a value and one that it is never above, element by element."""
    return Case(name, "inequality", sides, draw, printed, mistake, rtol, atol, draws)


def uniform(low: float, high: float, *shape: int) -> Draw:
    """A draw of numbers evenly between two bounds."""
    import torch

    return lambda g: low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=g)


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        error: how far the sides are apart, as a multiple of what is allowed (at most 1 passes); NaN if it raised.
        difference: the largest absolute difference (for an inequality: violation, negative where it holds).
        misprint: the largest absolute difference of the printed formula from the truth, or None.
        mistake: that of the mistake, or None.
        message: why it failed, or "".
    """

    page: str
    case: str
    kind: str
    passed: bool
    error: float
    difference: float
    misprint: float | None
    mistake: float | None
    message: str


def judge(case: Case, page: str = "", seed: int = 0) -> Outcome:
    """Draw and compare. An exception inside the case is a failure with its message, never silence."""
    import torch

    worst, difference = 0.0, -math.inf
    off = {name: 0.0 for name, there in (("misprint", case.printed), ("mistake", case.mistake)) if there}
    try:
        for number in range(case.draws):
            arguments = case.arguments(torch.Generator().manual_seed(seed * 1_000_003 + number))
            left, right, *wrong = map(_tensor, case.sides(*arguments))
            if len(wrong) != len(off):
                return _failed(case, page, f"{len(wrong)} wrong formulas come with it, and {len(off)} are named")
            if case.kind == "gradient":
                left = central_differences(lambda *x: case.sides(*x)[0], *arguments)
            if left.shape != right.shape:
                return _failed(case, page, f"the sides have shapes {tuple(left.shape)} and {tuple(right.shape)}")
            gap = left - right if case.kind == "inequality" else (left - right).abs()
            if not torch.isfinite(gap).all():
                return _failed(case, page, "a side is not finite")
            allowed = case.atol + case.rtol * right.abs()
            worst = max(worst, float((gap / allowed).max()))
            difference = max(difference, float(gap.max()))
            for name, value in zip(off, wrong, strict=True):
                # A form without a value must not pass for a right one.
                off[name] = float(torch.stack([(value - left).abs().max(), torch.tensor(off[name]).double()]).max())
    except Exception as error:  # the report must go on with the next case
        return _failed(case, page, f"{type(error).__name__}: {error}")
    passed = worst <= 1
    message = "" if passed else f"the sides differ by {difference:.3g}, {worst:.3g} times what is allowed"
    sizes = off.get("misprint"), off.get("mistake")
    return Outcome(page, case.name, case.kind, passed, worst, difference, *sizes, message)


def _failed(case: Case, page: str, message: str) -> Outcome:
    return Outcome(page, case.name, case.kind, False, math.nan, math.nan, None, None, message)


def _tensor(value: Any) -> "Tensor":
    import torch

    return torch.as_tensor(value, dtype=torch.float64).detach()


def central_differences(function: Callable[..., Any], first: "Tensor", *rest: Any) -> "Tensor":
    """The gradient of `function(first, *rest).sum()` with respect to `first`, by (f(x + h) - f(x - h)) / 2h."""
    import torch

    flat = first.detach().clone().reshape(-1)
    slopes = torch.empty_like(flat)
    for index in range(flat.numel()):
        sides = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[index] += sign * STEP
            sides.append(_tensor(function(moved.reshape(first.shape), *rest)).sum())
        slopes[index] = (sides[0] - sides[1]) / (2 * STEP)
    return slopes.reshape(first.shape)


def cases(module: Any) -> Iterator[Case]:
    """The cases of a page; two of one name are an error of the page.

    Raises:
        TypeError: `gradcheck` yields something that is no case, or names one twice.
    """
    seen: set[str] = set()
    for case in module.gradcheck():
        if not isinstance(case, Case) or case.name in seen:
            raise TypeError(f"gradcheck of {module.__name__} yields {case!r}, which is no new Case")
        seen.add(case.name)
        yield case
