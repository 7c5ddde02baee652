"""Curves of what runs logged: one panel a metric over the steps, of one run or of several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpcli import store
from mpcli.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 6
SMOOTH = 40  # the line drawn boldly shows means over a part of the run, one in so many


@dataclass(frozen=True)
class Curve:
    """A metric at some steps: for each seed, its values there."""

    steps: Sequence[int]
    seeds: Sequence[Sequence[float]]


def rows(path: Path) -> dict[int, dict[str, float]]:
    """The rows of a metrics.jsonl by step; none where there is no such file.

    Raises:
        InputError: a line is no JSON object with a step.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return {row.pop("step"): row for row in store.rows(lines, path)}


def of_run(logged: Mapping[int, Mapping[str, float]]) -> dict[str, Curve]:
    """Each metric of one run, at the steps that logged it."""
    names = dict.fromkeys(name for row in logged.values() for name in row)
    found = {}
    for name in names:
        steps = [step for step, row in logged.items() if name in row]
        found[name] = Curve(steps, [[logged[step][name] for step in steps]])
    return found


def of_seeds(logged: Sequence[Mapping[int, Mapping[str, float]]]) -> dict[str, Curve]:
    """Each metric at the steps at which every seed logged it."""
    shared = sorted(set.intersection(*(set(rows) for rows in logged)))
    found = {}
    for name in dict.fromkeys(name for step in shared for name in logged[0][step]):
        steps = [step for step in shared if all(name in rows[step] for rows in logged)]
        if steps:
            found[name] = Curve(steps, [[rows[step][name] for step in steps] for rows in logged])
    return found


def figure(curves: Mapping[str, Curve], heading: str) -> "Figure":
    """A panel for each of the first metrics, over one axis of steps."""
    from matplotlib.figure import Figure

    shown = list(curves.items())[:PANELS]
    height = 0.9 + 1.4 * len(shown)
    drawn = Figure((7, height))
    # Margins of fixed size: a layout engine would take longer than all the drawing.
    drawn.subplots_adjust(left=0.13, right=0.98, bottom=0.5 / height, top=1 - 0.35 / height, hspace=0.12)
    panels: Any = drawn.subplots(len(shown), squeeze=False, sharex=True)[:, 0]
    for axes, (name, curve) in zip(panels, shown, strict=True):
        _draw(axes, curve)
        axes.set_ylabel(name)
        axes.locator_params(axis="y", nbins=4)
    panels[0].legend(fontsize=8)
    panels[-1].set_xlabel("step")
    drawn.suptitle(heading, fontsize=10, y=1 - 0.1 / height)
    return drawn


def _draw(axes: Any, curve: Curve) -> None:
    import numpy as np

    values = np.array(curve.seeds)  # [S, N]
    width = max(1, values.shape[1] // SMOOTH)
    smooth = np.stack([np.convolve(row, np.ones(width) / width, "valid") for row in values])
    at = curve.steps[width // 2 : width // 2 + smooth.shape[1]]  # the middle of each mean
    if len(values) > 1:
        axes.fill_between(at, smooth.min(0), smooth.max(0), alpha=0.2, linewidth=0, label="all seeds")
        axes.plot(at, smooth.T, linewidth=0.5, color="C0", alpha=0.5)
        axes.plot(at, np.median(smooth, 0), color="C1", label=f"median of {len(values)}")
    else:
        axes.plot(curve.steps, values[0], linewidth=0.5, color="C0", alpha=0.5, label="as logged")
        axes.plot(at, smooth[0], color="C1", label=f"mean of {width}" if width > 1 else "")


def draw(run: Run) -> None:
    """Write curves.png of a training run that logged more than one row; a failure to do so is only told."""
    try:
        logged = rows(run.dir / "metrics.jsonl")
        if len(logged) > 1:
            run.figure("curves.png", figure(of_run(logged), run.heading))
    except Exception as error:  # a trained run is not lost for a picture of it
        run.say(f"curves.png was not drawn: {error}")
