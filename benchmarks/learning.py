"""CPU seconds that a side of a benchmark spends learning, on a clock that is stopped while its policy is tried."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

GOAL, EPISODES = (
    475,
    20,
)  # mean return of the greedy policy on CartPole-v1 that is good enough, and of how many episodes


class Reached(Exception):
    """The policy is good enough."""


class Clock:
    """CPU seconds since `start`, those in `ask` left out."""

    def __init__(self, side: str) -> None:
        self.side, self.spent = side, 0.0

    def start(self) -> None:
        self._since = time.process_time()

    def stop(self) -> None:
        self.spent += time.process_time() - self._since

    def ask(self, trial: Callable[[], float], steps: int) -> None:
        """Try the policy.

        Raises:
            Reached: it is good enough; the clock stands.
        """
        self.stop()
        earned = trial()
        if earned >= GOAL:
            print(f"{self.side}: {earned:.0f} after {steps} steps", file=sys.stderr)
            raise Reached
        self.start()

    def around(self, batches: Iterator[Any], after: Callable[[int], None]) -> Iterator[Any]:
        """The batches of a loop that is timed; `after` is told how many are done."""
        self.start()
        for done, batch in enumerate(batches, 1):
            yield batch
            after(done)
        self.stop()
