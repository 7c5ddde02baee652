"""What tests cost: CPU seconds of each, children included, and a limit for one, which a slow machine stretches.

`MPCLI_TEST_COST=FILE` appends a line a test, from which `tools/test_cost.py` writes the table in CONTRIBUTING.md.
"""

import os
import time
from collections.abc import Generator
from pathlib import Path

import pytest

MOST = 10.0  # CPU seconds of a test that is not marked `learning`, on the machine of the table in CONTRIBUTING.md
ADDITIONS = 1_000_000
THERE = 0.027  # CPU seconds that they take on that machine


def spent() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def slowness() -> float:
    """How many times longer a plain loop takes here and now than there, at least 1."""
    taken = []
    for _ in range(5):
        before, total = time.process_time(), 0
        for i in range(ADDITIONS):
            total += i
        taken.append(time.process_time() - before)
    return max(1.0, min(taken) / THERE)


_AT_FIRST = slowness()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that takes too long and does not say so."""
    before = spent()
    result = yield
    cost = spent() - before
    if cost > MOST and not any(item.iter_markers("learning")) and not any(item.iter_markers("peers")):
        most = MOST * max(_AT_FIRST, slowness())
        if cost > most:
            pytest.fail(f"took {cost:.1f} CPU seconds, here {most:.1f} at most: shorten it, or mark it `learning`")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note what a test cost, fixtures included."""
    before = spent()
    result = yield
    if file := os.environ.get("MPCLI_TEST_COST"):
        with Path(file).open("a") as lines:
            lines.write(f"{spent() - before:.3f} {item.nodeid}\n")
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers share the tests file by file, and those of the contract page by page, so that fixtures are made once."""
    for item in items:
        page = getattr(item, "callspec", None) and item.callspec.params.get("name")
        group = str(page) if page and item.path.stem == "test_contract" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
