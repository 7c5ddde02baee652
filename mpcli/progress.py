"""How far work is: a bar on a terminal, plain lines elsewhere, nothing when quiet. Always on standard error."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

REFRESH = 0.1  # seconds between two looks of the bar
LINES = 10  # plain lines in a whole run
PATIENCE = 2.0  # seconds after which `watched` work is shown

T = TypeVar("T")


def tell(text: str) -> None:
    """A line on standard error; where nobody reads it any longer, silence, for work is not lost for a message."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lasts


def live() -> bool:
    """Whether standard error can show a bar."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@dataclass(frozen=True)
class Teller:
    """What is told of work in a run: under the page's name on a terminal, under the run's name elsewhere."""

    page: str = ""
    run: str = ""
    quiet: bool = True

    def line(self, text: str) -> None:
        if not self.quiet:
            tell(text if live() or not self.run else f"{self.run}: {text}")


_teller = Teller()
_shown: "Progress | None" = None  # one display at a time


@contextlib.contextmanager
def telling(teller: Teller) -> Iterator[None]:
    """`watched` work inside is told by this teller; outside of any it is silent."""
    global _teller
    before, _teller = _teller, teller
    try:
        yield
    finally:
        _teller = before


def watched(items: Sequence[T], what: str) -> Iterator[T]:
    """The items one after another; that work on them takes long is shown after two seconds.

    Args:
        what: what is done with them: "evaluating", "frames".
    """
    if _teller.quiet or _shown or len(items) < 2:  # the display of training goes on above what it does in between
        yield from items
        return
    with Progress(0, len(items), _teller, what, PATIENCE) as progress:
        for number, item in enumerate(items):
            yield item
            progress.advance(number + 1)


class Progress:
    """Progress of steps `start` to `steps`; a context manager.

    Args:
        what: what the steps are, "" for those of training.
        patience: seconds of work of which nothing is shown.
    """

    def __init__(self, start: int, steps: int, teller: Teller, what: str = "", patience: float = 0.0) -> None:
        self._teller = teller
        self._what = what
        self._steps = steps
        self._step = self._first = start
        self._bar: Any = None
        self._live = not teller.quiet and live()
        self._plain = not teller.quiet and not self._live
        self._patience = patience
        self._next = 0.0
        self._values: Mapping[str, float] = {}

    def __enter__(self) -> "Progress":
        global _shown
        self._began = time.monotonic()
        _shown = self
        if self._live and not self._patience:
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        global _shown
        _shown = None
        if self._bar:
            self._bar.stop()
            self._bar.console.print(f"{self._title} {self._line()}", markup=False, highlight=False)

    @property
    def _title(self) -> str:
        return f"{self._teller.page}: {self._what}".strip(": ") + (":" if self._what else "")

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn(self._title), BarColumn(None), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=Console(stderr=True), auto_refresh=False, transient=True, expand=True)
        self._bar.start()
        self._task = self._bar.add_task("", total=self._steps, completed=self._first)

    def show(self, values: Mapping[str, float]) -> None:
        """The values of this step, to be drawn when the display is next refreshed."""
        self._values = values

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        self._step = step
        now = time.monotonic()
        if now - self._began < self._patience:
            return
        if self._live:
            if not self._bar and step < self._steps:
                self._start()
            if self._bar and (now >= self._next or step == self._steps):
                self._next = now + REFRESH
                self._bar.update(self._task, completed=step, description=self._words(), refresh=True)
        elif self._plain and (step * LINES // self._steps > (step - 1) * LINES // self._steps or step == self._steps):
            self._teller.line(self._line())

    def write(self, text: str) -> None:
        """A line above the bar."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._teller.line(text)

    def _line(self) -> str:
        what = f"{self._what} " if self._what and not self._bar else "" if self._bar else "step "
        return f"{what}{self._step}/{self._steps}  {self._words()}"

    def _words(self) -> str:
        """Values, rate, time spent and, while there is some, time left."""
        spent = max(time.monotonic() - self._began, 1e-9)
        rate = (self._step - self._first) / spent
        words = [f"{name} {value:.4g}" for name, value in self._values.items()]
        words += [f"{rate:.3g} {'' if self._what else 'steps'}/s", f"elapsed {_clock(spent)}"]
        if rate and self._step < self._steps:
            words.append(f"remaining {_clock((self._steps - self._step) / rate)}")
        return "  ".join(words)


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
