"""How much memory a file may ask for: what it declares is held against a limit before anything is paid for.

`MPCLI_MAX_BYTES` sets the limit in bytes; without it, a quarter of the machine's memory.
"""

import os
from pathlib import Path

from mpcli.errors import InputError

VARIABLE = "MPCLI_MAX_BYTES"


def max_bytes() -> int:
    """The most bytes that one part of a file may become.

    Raises:
        InputError: the variable holds no number of bytes.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
        except (ValueError, OSError, AttributeError):
            return 2**31
    if not text.isdecimal() or len(text) > 18 or int(text) == 0:
        raise InputError(f"{VARIABLE}: {text[:40]!r} is no number of bytes; right would be such as {2**32}")
    return int(text)


def afford(path: Path, size: int, what: str = "it") -> None:
    """Refuse `what` of a file if it would take more than `max_bytes()`.

    Raises:
        InputError: it would.
    """
    limit = max_bytes()
    if size > limit:
        raise InputError(
            f"{path}: {what} asks for {size} bytes of memory and the limit is {limit}; "
            f"right would be a smaller file, or a higher {VARIABLE}"
        )
