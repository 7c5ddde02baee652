"""The runner of checks: it passes what is true and fails what is false, and every case of the book can fail."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mpcli.checks import Case, cases, central_differences, gradient, identity, inequality, judge
from mpcli.registry import pages


def draw(g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.rand(3, generator=g, dtype=torch.float64) + 0.5, torch.randn(3, generator=g, dtype=torch.float64)


TRUE = {
    "gradient": gradient("d(x^3 y)/dx = 3 x^2 y", lambda x, y: x**3 * y, lambda x, y: 3 * x**2 * y, draw),
    "identity": identity("(x + y)^2", lambda x, y: (x + y) ** 2, lambda x, y: x**2 + 2 * x * y + y**2, draw),
    "inequality": inequality("2 x y <= x^2 + y^2", lambda x, y: 2 * x * y, lambda x, y: x**2 + y**2, draw),
}
FALSE = {
    "gradient": gradient("d(x^3 y)/dx = 2 x^2 y", lambda x, y: x**3 * y, lambda x, y: 2 * x**2 * y, draw),
    "identity": identity("(x + y)^2", lambda x, y: (x + y) ** 2, lambda x, y: x**2 + y**2, draw),
    "inequality": inequality("x <= y", lambda x, y: x, lambda x, y: y, draw),
}


@pytest.mark.parametrize("kind", TRUE)
def test_a_true_statement_passes_and_a_false_one_fails(kind):
    right, wrong = judge(TRUE[kind], "page"), judge(FALSE[kind], "page")
    assert (right.page, right.kind, right.passed, right.message, right.misprint) == ("page", kind, True, "", None)
    assert right.error <= 1
    assert not wrong.passed and wrong.error > 1 and "differ by" in wrong.message


def test_one_wrong_element_in_one_draw_is_enough():
    number = 0

    def last_element_off_in_the_last_draw(x, y):
        nonlocal number
        number += 1
        return x + 1e-5 * torch.tensor([0, 0, number == 5], dtype=torch.float64)

    case = identity("x = x", lambda x, y: x, last_element_off_in_the_last_draw, draw)
    assert case.draws == 5
    assert not judge(case).passed


def test_the_tolerance_is_atol_and_rtol_of_the_right_side():
    def off(by: float, **tolerance: float) -> Case:
        return identity("x = x", lambda x, y: x / x * (100 + by), lambda x, y: x / x * 100, draw, **tolerance)

    assert judge(off(0.09, rtol=1e-3, atol=0)).passed
    assert not judge(off(0.11, rtol=1e-3, atol=0)).passed
    assert judge(off(0.11, rtol=1e-3, atol=0.02)).passed
    assert judge(off(0.05, rtol=1e-3, atol=0)).error == pytest.approx(0.5)
    assert judge(off(0.05, rtol=1e-3, atol=0)).difference == pytest.approx(0.05)


def test_numbers_are_taken_in_double_precision():
    outcome = judge(identity("1 / 3", lambda x, y: 1 / 3, lambda x, y: torch.ones((), dtype=torch.float64) / 3, draw))
    assert outcome.difference == 0


def test_an_inequality_fails_only_in_its_direction():
    def shifted(by: float) -> Case:
        return inequality("x <= x + by", lambda x, y: x, lambda x, y: x + by, draw)

    assert judge(shifted(0)).passed
    assert judge(shifted(0.25)).difference == pytest.approx(-0.25)
    assert not judge(shifted(-1e-6)).passed


def test_the_gradient_is_that_of_the_sum_with_respect_to_the_first_argument():
    x = torch.tensor([[0.5, -1.0], [2.0, 3.0]], dtype=torch.float64)
    before = x.clone()
    y = torch.tensor([[1.0], [10.0]], dtype=torch.float64)
    slopes = central_differences(lambda x, y: y * x**3, x, y)
    torch.testing.assert_close(slopes, 3 * y * x**2, rtol=1e-8, atol=0)
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", TRUE)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_fails(kind, side, value):
    case = TRUE[kind]
    function = getattr(case, side)
    outcome = judge(replace(case, **{side: lambda *given: function(*given) * value}))
    assert not outcome.passed
    assert "not finite" in outcome.message


@pytest.mark.parametrize("part", ["draw", "left", "right", "printed"])
def test_an_exception_fails_with_its_message(part):
    def broken(*given):
        raise ZeroDivisionError("no such luck")

    outcome = judge(replace(TRUE["identity"], **{part: broken}))
    assert not outcome.passed
    assert outcome.message == "ZeroDivisionError: no such luck"
    assert math.isnan(outcome.error)


def test_sides_of_different_shape_fail_though_they_would_broadcast():
    outcome = judge(identity("x = x", lambda x, y: x, lambda x, y: x[None], draw))
    assert not outcome.passed
    assert "(3,)" in outcome.message and "(1, 3)" in outcome.message


def test_a_printed_formula_is_measured_and_not_trusted():
    case = replace(TRUE["identity"], printed=lambda x, y: (x + y) ** 2 + 0.25)
    outcome = judge(case)
    assert outcome.passed
    assert outcome.misprint == pytest.approx(0.25)
    printed_gradient = replace(TRUE["gradient"], printed=FALSE["gradient"].right)
    off = max(float((x**2 * y).abs().max()) for x, y in drawn(printed_gradient, seed=0))
    assert judge(printed_gradient).misprint == pytest.approx(off, rel=1e-6)


def test_a_printed_formula_without_a_value_is_not_reported_as_right():
    outcome = judge(replace(TRUE["identity"], printed=lambda x, y: (-x).log()))
    assert outcome.passed
    assert outcome.misprint is not None and not math.isfinite(outcome.misprint)


def drawn(case: Case, seed: int) -> list[tuple[Tensor, ...]]:
    seen: list[tuple[Tensor, ...]] = []

    def record(g):
        seen.append(case.draw(g))
        return seen[-1]

    judge(replace(case, draw=record), seed=seed)
    return seen


def test_draws_differ_from_each_other_and_depend_on_the_seed_alone():
    first, again, other = (drawn(TRUE["inequality"], seed) for seed in (0, 0, 1))
    assert len(first) == 20
    assert len({tuple(x.tolist()) for x, _ in [*first, *other]}) == 40
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))


def test_what_is_no_case_and_a_name_given_twice_are_errors_of_the_page():
    for yielded in ([TRUE["identity"], FALSE["identity"]], ["x = x"]):
        page = SimpleNamespace(__name__="page", gradcheck=lambda yielded=yielded: iter(yielded))
        with pytest.raises(TypeError, match="page yields"):
            list(cases(page))


# The verb ------------------------------------------------------------------------------------------------------------

PAGE = '''"""Sums.

Somebody, 1999.
"""
import torch
from mpcli.checks import identity


def draw(g):
    return (torch.randn(2, generator=g, dtype=torch.float64),)


def gradcheck():
    yield identity("x + x = 2 x", lambda x: x + x, lambda x: 2 * x, draw, printed=lambda x: 2 * x + 0.5)
    {}
'''
WRONG = 'yield identity("[x] + x = 3 x", lambda x: x + x, lambda x: 3 * x, draw)'


def test_the_verb_reports_every_case_and_exits_0(mpcli, book):
    book(sums=PAGE.format(""))
    result = mpcli("gradcheck", "sums")
    assert result.code == 0
    (case,) = json.loads(result.path.read_text())["cases"]
    assert case["passed"] and case["page"] == "sums" and case["misprint"] == pytest.approx(0.5)
    row = next(line for line in result.err.splitlines() if "x + x = 2 x" in line)
    assert row.startswith("ok") and row.rstrip().endswith("0.5")
    assert "1 of 1 cases hold" in result.err


def test_the_verb_exits_1_when_a_case_fails_and_still_reports_all(mpcli, book):
    book(sums=PAGE.format(WRONG))
    result = mpcli("gradcheck", "sums", "--json", "--out", "report.json")
    assert result.code == 1
    assert [case["passed"] for case in result.json["cases"]] == [True, False]
    assert result.json["metrics"]["failures"] == 1
    with open("report.json") as file:
        assert json.load(file)["cases"] == result.json["cases"]
    row = next(line for line in result.err.splitlines() if "[x] + x = 3 x" in line)
    assert row.startswith("FAILED")
    assert "1 of 2 cases failed" in result.err and "Traceback" not in result.err


def test_a_page_that_does_not_import_fails_alone(mpcli, book):
    book(sums=PAGE.format(""), torn="def gradcheck():\n    yield\n\n\nraise ImportError('no such thing')\n")
    result = mpcli("gradcheck", "torn")
    assert result.code == 1
    assert "no such thing" in result.err
    assert mpcli("gradcheck", "sums", "--quiet").code == 0


# The book ------------------------------------------------------------------------------------------------------------

CHECKED = [name for name, page in pages().items() if page.distribution == "mpcli" and "gradcheck" in page.verbs]


def perturbed(case: Case) -> Case:
    """The same case gone wrong: its sides swapped, or the right one off by a thousandth."""
    if case.kind == "inequality":
        return replace(case, left=case.right, right=case.left, printed=None)

    def off(*given):
        right = torch.as_tensor(case.right(*given)).detach().to(torch.float64)
        largest = float(right.abs().max()) or 1.0
        return right + 1e-3 * (right.abs() + largest)

    return replace(case, right=off, printed=None)


@pytest.mark.parametrize("kind", TRUE)
def test_a_perturbed_case_fails_unless_it_is_one_that_cannot(kind):
    assert not judge(perturbed(TRUE[kind])).passed
    assert judge(perturbed(replace(TRUE[kind], atol=100.0))).passed


@pytest.mark.parametrize("name", CHECKED)
def test_every_case_of_the_book_holds_and_can_fail(name):
    found = list(cases(pages()[name].load()))
    assert found
    for case in found:
        outcome = judge(case, name)
        assert outcome.passed, f"{case.name}: {outcome.message}"
        worse = judge(perturbed(case), name)
        assert not worse.passed, f"{case.name}: passes when it is wrong by a thousandth"
        assert worse.error > 1, f"{case.name}: cannot be judged when it is perturbed ({worse.message})"


@pytest.mark.parametrize("name", CHECKED)
def test_every_printed_formula_is_wrong_by_more_than_the_tolerance(name):
    for case in cases(pages()[name].load()):
        if case.printed is None:
            continue
        assert judge(case, name).misprint > case.atol, case.name
        if case.kind != "inequality":
            assert not judge(replace(case, right=case.printed, printed=None), name).passed, case.name
