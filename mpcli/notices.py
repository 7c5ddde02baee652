"""What a reader of files tells the user without refusing the file: what was skipped, assumed or not used."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpcli.run import Run


class Notice(UserWarning):
    """A sentence for the user about a file that was read."""


def notice(text: str) -> None:
    """Tell the user; within a run it is a line of the run."""
    warnings.warn(text, Notice, stacklevel=3)


@contextlib.contextmanager
def told_by(run: "Run") -> Iterator[None]:
    """Notices become lines of `run`: on standard error unless `--quiet`, and in its log.txt."""
    with warnings.catch_warnings():
        otherwise = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                run.say(str(message))
            else:
                otherwise(message, category, *where, **more)

        warnings.showwarning = show
        yield
