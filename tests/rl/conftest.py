"""Half of what a page of this chapter costs is drawing: here pages draw dots, unless a test asks for `drawing`."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from mpcli_rl.kit import curves, playing

SAVE, MAP, RECORD = Figure.savefig, curves.policy_map, playing.record


def dot(figure: Figure, file: Any, **options: Any) -> None:
    SAVE(Figure((0.1, 0.1)), file, dpi=10)


def map_of_a_dot(run: Any, *given: Any) -> None:
    with run.file("values.png") as path:
        dot(Figure(), path)


def film_of_dots(make: Any, policy: Any, seed: int) -> tuple[torch.Tensor, float]:
    make().close()  # refuses what cannot be drawn
    return torch.zeros(2, 3, 8, 8), 25.0


@pytest.fixture(autouse=True, scope="module")
def _no_drawing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", dot)
        patch.setattr(curves, "policy_map", map_of_a_dot)
        patch.setattr(playing, "record", film_of_dots)
        yield


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws in earnest."""
    monkeypatch.setattr(Figure, "savefig", SAVE)
    monkeypatch.setattr(curves, "policy_map", MAP)
    monkeypatch.setattr(playing, "record", RECORD)
