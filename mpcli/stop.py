"""The wish of the user to stop, told by a signal."""

import contextlib
import signal
from types import FrameType
from typing import Any


class Stop:
    """Turns the first SIGINT or SIGTERM into a wish to stop at the next step; the second stops at once.

    Args:
        patient: the second changes nothing either. torchrun passes on a Ctrl-C that each process has got already, and
            ends by force what does not end by itself.
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked = False
        self._patient = patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        # Only the main thread may handle signals; elsewhere (a test, a notebook) they stay as they are.
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self._patient:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
