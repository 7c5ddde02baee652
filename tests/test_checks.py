"""The runner of checks: it passes what is true and fails what is false, and every case of the book can fail."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mpcli.checks import Case, Printed, cases, central_differences, gradient, identity, inequality, judge, uniform
from mpcli.registry import pages

DRAW = (uniform(0.5, 1.5, 3), (3,))
SQUARES = Printed("(1)", "x^2 + y^2", "x^2 + 2 x y + y^2")


TRUE = {
    "gradient": gradient("d(x^3 y)/dx = 3 x^2 y", lambda x, y: (x**3 * y, 3 * x**2 * y), *DRAW),
    "identity": identity("(x + y)^2", lambda x, y: ((x + y) ** 2, x**2 + 2 * x * y + y**2), *DRAW),
    "inequality": inequality("2 x y <= x^2 + y^2", lambda x, y: (2 * x * y, x**2 + y**2), *DRAW),
}
FALSE = {
    "gradient": gradient("d(x^3 y)/dx = 2 x^2 y", lambda x, y: (x**3 * y, 2 * x**2 * y), *DRAW),
    "identity": identity("(x + y)^2", lambda x, y: ((x + y) ** 2, x**2 + y**2), *DRAW),
    "inequality": inequality("x <= y", lambda x, y: (x, y), *DRAW),
}


def measured(case: Case, wrong, **named) -> Case:
    """The same case with a wrong formula behind its sides."""
    return replace(case, sides=lambda *given: (*case.sides(*given), wrong(*given)), **named)


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
        return x, x + 1e-5 * torch.tensor([0, 0, number == 5], dtype=torch.float64)

    case = identity("x = x", last_element_off_in_the_last_draw, *DRAW)
    assert case.draws == 5
    assert not judge(case).passed


def test_the_tolerance_is_atol_and_rtol_of_the_right_side():
    def off(by: float, **tolerance: float) -> Case:
        return identity("x = x", lambda x, y: (x / x * (100 + by), x / x * 100), *DRAW, **tolerance)

    assert judge(off(0.09, rtol=1e-3, atol=0)).passed
    assert not judge(off(0.11, rtol=1e-3, atol=0)).passed
    assert judge(off(0.11, rtol=1e-3, atol=0.02)).passed
    assert judge(off(0.05, rtol=1e-3, atol=0)).error == pytest.approx(0.5)
    assert judge(off(0.05, rtol=1e-3, atol=0)).difference == pytest.approx(0.05)


def test_numbers_are_taken_in_double_precision():
    outcome = judge(identity("1 / 3", lambda x, y: (1 / 3, torch.ones((), dtype=torch.float64) / 3), *DRAW))
    assert outcome.difference == 0


def test_an_inequality_fails_only_in_its_direction():
    def shifted(by: float) -> Case:
        return inequality("x <= x + by", lambda x, y: (x, x + by), *DRAW)

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
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_fails(kind, side, value):
    def spoilt(*given):
        sides = list(TRUE[kind].sides(*given))
        sides[side] = sides[side] * value
        return tuple(sides)

    outcome = judge(replace(TRUE[kind], sides=spoilt))
    assert not outcome.passed
    assert "not finite" in outcome.message


@pytest.mark.parametrize("part", ["draw", "sides"])
def test_an_exception_fails_with_its_message(part):
    def broken(*given):
        raise ZeroDivisionError("no such luck")

    outcome = judge(replace(TRUE["identity"], **{part: (broken,) if part == "draw" else broken}))
    assert not outcome.passed
    assert outcome.message == "ZeroDivisionError: no such luck"
    assert math.isnan(outcome.error)


def test_sides_of_different_shape_fail_though_they_would_broadcast():
    outcome = judge(identity("x = x", lambda x, y: (x, x[None]), *DRAW))
    assert not outcome.passed
    assert "(3,)" in outcome.message and "(1, 3)" in outcome.message


def test_a_printed_formula_and_a_mistake_are_measured_and_not_trusted():
    case = measured(TRUE["identity"], lambda x, y: (x + y) ** 2 + 0.25, printed=SQUARES)
    assert (judge(case).passed, judge(case).misprint, judge(case).mistake) == (True, pytest.approx(0.25), None)
    both = measured(case, lambda x, y: (x + y) ** 2 - 0.5, mistake="half too little")
    assert (judge(both).misprint, judge(both).mistake) == (pytest.approx(0.25), pytest.approx(0.5))
    slope = measured(TRUE["gradient"], lambda x, y: 2 * x**2 * y, printed=SQUARES)
    off = max(float((x**2 * y).abs().max()) for x, y in drawn(slope, seed=0))
    assert judge(slope).misprint == pytest.approx(off, rel=1e-6)


def test_a_wrong_formula_without_a_name_and_a_name_without_a_formula_fail():
    for case in (measured(TRUE["identity"], lambda x, y: x), replace(TRUE["identity"], mistake="nothing measures it")):
        assert not judge(case).passed and "are named" in judge(case).message


def test_a_printed_formula_without_a_value_is_not_reported_as_right():
    outcome = judge(measured(TRUE["identity"], lambda x, y: (-x).log(), printed=SQUARES))
    assert outcome.passed
    assert outcome.misprint is not None and not math.isfinite(outcome.misprint)


def drawn(case: Case, seed: int) -> list[list[Tensor]]:
    return [case.arguments(torch.Generator().manual_seed(seed * 1_000_003 + i)) for i in range(case.draws)]


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
from mpcli.checks import Printed, identity


def gradcheck():
    wrong = Printed("(7)", "x + x = 2 x + 1/2", "x + x = 2 x")
    yield identity("x + x = 2 x", lambda x: (x + x, 2 * x, 2 * x + 0.5), (2,), printed=wrong)
    {}
'''
WRONG = 'yield identity("[x] + x = 3 x", lambda x: (x + x, 3 * x), (2,))'


def test_the_verb_reports_every_case_and_exits_0(mpcli, book):
    book(sums=PAGE.format(""))
    result = mpcli("gradcheck", "sums")
    assert result.code == 0
    (case,) = json.loads(result.path.read_text())["cases"]
    assert case["passed"] and case["page"] == "sums" and case["misprint"] == pytest.approx(0.5)
    row = next(line for line in result.err.splitlines() if "x + x = 2 x" in line)
    assert row.startswith("ok") and row.rstrip().endswith("0.5")
    assert "1 of 1 cases hold" in result.err


def test_errata_are_told_with_their_number_the_right_formula_and_their_size(mpcli, book):
    book(sums=PAGE.format(""))
    head, row = mpcli("gradcheck", "sums", "--errata", "--quiet").out.splitlines()
    assert head.split() == ["page", "notes", "printed", "right", "off", "by"]
    assert re.split(r"  +", row) == ["sums", "(7)", "x + x = 2 x + 1/2", "x + x = 2 x", "0.5"]


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

    def off(*given):
        left, right = (torch.as_tensor(side).detach().to(torch.float64) for side in case.sides(*given)[:2])
        if case.kind == "inequality":
            return right, left
        largest = float(right.abs().max()) or 1.0
        return left, right + 1e-3 * (right.abs() + largest)

    return replace(case, sides=off, printed=None, mistake="")


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
def test_every_wrong_formula_is_off_by_more_than_the_tolerance(name):
    for case in cases(pages()[name].load()):
        outcome = judge(case, name)
        for size in (outcome.misprint, outcome.mistake):
            assert size is None or not size <= case.atol, case.name
