"""Keep freed memory in the process, so that loops over large tensors do not pay for page faults at every step.

glibc maps large blocks one by one (always above 32 MiB) and gives them back when they are freed, so that the next
tensor of that size is mapped and zeroed anew. Keeping them costs memory: a process stays as large as it ever was, or
larger.
`benchmarks/heap.py` measures both. `MPCLI_HEAP=system` leaves the allocator as it is.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_blocks() -> bool:
    """Ask glibc to serve every size from the heap and never to shrink it; False where that is not done."""
    if os.environ.get("MPCLI_HEAP") == "system" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
