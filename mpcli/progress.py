"""How far a loop is: a bar on a terminal, plain lines elsewhere, nothing when quiet. Always on standard error."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

REFRESH = 0.1  # seconds between two looks of the bar
LINES = 10  # plain lines in a whole run


def tell(text: str) -> None:
    """A line on standard error; where nobody reads it any longer, silence, for work is not lost for a message."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lasts


class Progress:
    """Progress of steps `start` to `steps`; a context manager."""

    def __init__(self, start: int, steps: int, quiet: bool) -> None:
        self._steps = steps
        self._step = self._first = start
        self._bar: Any = None
        self._plain = not quiet and not sys.stderr.isatty()
        self._live = not quiet and not self._plain
        self._next = 0.0
        self._values: Mapping[str, float] = {}

    def __enter__(self) -> "Progress":
        self._began = time.monotonic()
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._steps, completed=self._first)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, values: Mapping[str, float]) -> None:
        """The values of this step, to be drawn when the display is next refreshed."""
        self._values = values

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        self._step = step
        if self._live:
            now = time.monotonic()
            if now >= self._next or step == self._steps:
                self._next = now + REFRESH
                self._bar.update(self._task, completed=step, description=self._words(), refresh=True)
        elif self._plain and (step * LINES // self._steps > (step - 1) * LINES // self._steps or step == self._steps):
            rate = (step - self._first) / max(time.monotonic() - self._began, 1e-9)
            tell(f"step {step}/{self._steps}  {self._words()}  {rate:.3g} steps/s")

    def write(self, text: str) -> None:
        """A line above the bar."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._plain:
            tell(text)

    def _words(self) -> str:
        return "  ".join(f"{name} {value:.4g}" for name, value in self._values.items())
