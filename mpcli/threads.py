"""How long the threads of a computation wait for work before they sleep; chosen before torch starts them.

GNU's OpenMP lets a thread that has nothing to do spin 300 000 times, which is time that another training on the same
cores does not get. A short spin costs a training that is alone nothing (`benchmarks/threads.py`). The library reads its
environment when it is loaded, so nothing can be said later.
"""

import os

SPIN = "10000"
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


def spin_briefly() -> None:
    """Let waiting threads sleep soon, unless the user's environment says anything about threads."""
    if not any(name in os.environ for name in CHOSEN):
        os.environ["GOMP_SPINCOUNT"] = SPIN
