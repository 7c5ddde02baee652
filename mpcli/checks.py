"""Numerical proof: what a page's `gradcheck` yields, and how it is judged.

A case draws float64 inputs several times and compares two sides. A gradient is compared with central differences, an
identity side by side, an inequality in its direction. A formula that is often printed wrongly can ride along as
`printed`; it is never trusted, only measured.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Draw = Callable[[torch.Generator], tuple[Any, ...]]
    Side = Callable[..., Tensor]

STEP = 6e-6  # near the cube root of float64's resolution, where central differences err least


@dataclass(frozen=True)
class Case:
    """One statement about a page's mathematics.

    Attributes:
        name: what is stated, best with its formula.
        kind: gradient (left is a function, right its gradient), identity (left = right), inequality (left <= right).
        left, right: functions of what `draw` gives; tensors of one shape (or numbers).
        draw: from a seeded generator to the arguments, float64.
        printed: a formula for the same value that is often printed wrongly, or None.
        rtol, atol: sides may differ by `atol + rtol * |right|`, element by element.
        draws: how often to draw.
    """

    name: str
    kind: Literal["gradient", "identity", "inequality"]
    left: "Side"
    right: "Side"
    draw: "Draw"
    printed: "Side | None" = None
    rtol: float = 1e-6
    atol: float = 1e-9
    draws: int = 5


def gradient(
    name: str,
    function: "Side",
    derivative: "Side",
    draw: "Draw",
    *,
    printed: "Side | None" = None,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    draws: int = 5,
) -> Case:
    """`derivative(*x)` is the gradient of `function(*x).sum()` with respect to the first argument."""
    return Case(name, "gradient", function, derivative, draw, printed, rtol, atol, draws)


def identity(
    name: str,
    left: "Side",
    right: "Side",
    draw: "Draw",
    *,
    printed: "Side | None" = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    draws: int = 5,
) -> Case:
    """`left(*x) == right(*x)`."""
    return Case(name, "identity", left, right, draw, printed, rtol, atol, draws)


def inequality(
    name: str,
    lesser: "Side",
    greater: "Side",
    draw: "Draw",
    *,
    printed: "Side | None" = None,
    rtol: float = 0.0,
    atol: float = 1e-12,
    draws: int = 20,
) -> Case:
    """`lesser(*x) <= greater(*x)`, element by element."""
    return Case(name, "inequality", lesser, greater, draw, printed, rtol, atol, draws)


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        error: how far the sides are apart, as a multiple of what is allowed (at most 1 passes); NaN if it raised.
        difference: the largest absolute difference (for an inequality: violation, negative where it holds).
        misprint: the largest absolute difference of the printed formula from the truth, or None.
        message: why it failed, or "".
    """

    page: str
    case: str
    kind: str
    passed: bool
    error: float
    difference: float
    misprint: float | None
    message: str


def judge(case: Case, page: str = "", seed: int = 0) -> Outcome:
    """Draw and compare. An exception inside the case is a failure with its message, never silence."""
    import torch

    worst, difference, misprint = 0.0, -math.inf, None
    try:
        for number in range(case.draws):
            arguments = case.draw(torch.Generator().manual_seed(seed * 1_000_003 + number))
            right = _tensor(case.right(*arguments))
            if case.kind == "gradient":
                left = central_differences(case.left, *arguments)
            else:
                left = _tensor(case.left(*arguments))
            if left.shape != right.shape:
                return _failed(case, page, f"the sides have shapes {tuple(left.shape)} and {tuple(right.shape)}")
            gap = left - right if case.kind == "inequality" else (left - right).abs()
            if not torch.isfinite(gap).all():
                return _failed(case, page, "a side is not finite")
            allowed = case.atol + case.rtol * right.abs()
            worst = max(worst, float((gap / allowed).max()))
            difference = max(difference, float(gap.max()))
            if case.printed is not None:
                off = float((_tensor(case.printed(*arguments)) - left).abs().max())
                # A printed form without a value must not pass for a right one.
                misprint = off if misprint is None or not off <= misprint else misprint
    except Exception as error:  # the report must go on with the next case
        return _failed(case, page, f"{type(error).__name__}: {error}")
    passed = worst <= 1
    message = "" if passed else f"the sides differ by {difference:.3g}, {worst:.3g} times what is allowed"
    return Outcome(page, case.name, case.kind, passed, worst, difference, misprint, message)


def _failed(case: Case, page: str, message: str) -> Outcome:
    return Outcome(page, case.name, case.kind, False, math.nan, math.nan, None, message)


def _tensor(value: Any) -> "Tensor":
    import torch

    return torch.as_tensor(value, dtype=torch.float64).detach()


def central_differences(function: "Side", first: "Tensor", *rest: Any) -> "Tensor":
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
