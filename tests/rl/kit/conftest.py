"""The kit is what draws: its tests look at the pictures."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_drawing() -> Iterator[None]:
    yield
