"""The wish of the user to stop, told by a signal."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, and a terminal that closes, interrupt as Ctrl-C does, so that what was begun is ended in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    # Only the main thread may handle signals; elsewhere (a test, a notebook) they stay as they are.
    with contextlib.suppress(ValueError):
        for number in (signal.SIGTERM, *_hangup()):
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hangup() -> tuple[int, ...]:
    """SIGHUP, unless nohup had it ignored."""
    return () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)


class Stop:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a wish to stop at the next step; the second stops at once.

    Args:
        patient: the second changes nothing either. torchrun passes on a Ctrl-C that each process has got already, and
            ends by force what does not end by itself.
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked = False
        self._patient = patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        with contextlib.suppress(ValueError):  # not the main thread
            for number in (signal.SIGINT, signal.SIGTERM, *_hangup()):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self._patient:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
