"""What a reader tells about a file is a line of the run, and silent where the user wants silence."""

import warnings

import pytest

from mpcli.notices import Notice, notice, told_by


class Run:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.mark.filterwarnings("default")
def test_a_notice_is_said_by_the_run_and_other_warnings_are_not():
    run = Run()
    with pytest.warns(DeprecationWarning, match="old"), warnings.catch_warnings(), told_by(run):
        notice("a.ply: 3 points are left out")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert run.said == ["a.ply: 3 points are left out"]


def test_a_notice_outside_a_run_is_a_warning():
    with pytest.warns(Notice, match="left out"):
        notice("a.ply: 3 points are left out")
