"""One execution of a verb: the public interface of pages.

A page is handed a `Run` and, for verbs that read a trained model, a `Trained`. What pages may rely on:

    Run      dir, seed, device, suffix, heading; place, track, log, say, save, result; image, figure, table, mesh, file
    Trained  dir, options, extras, heading; load
    watched  the items of work that may take long, with a bar

torch is imported when a method needs it, so that this module costs nothing at start-up.
"""

import json
import math
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mpcli import checkpoint, distributed, files, schedules, store
from mpcli.artifacts import ANIMATIONS, FIGURES, IMAGES, MESHES, Artifacts
from mpcli.checkpoint import Stateful, seed_everything
from mpcli.errors import Failed, Finished, InputError, Interrupted
from mpcli.progress import Progress, Teller, watched
from mpcli.registry import spoken
from mpcli.stop import Stop
from mpcli.trained import Trained

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    M = TypeVar("M", bound=nn.Module)

__all__ = ["ANIMATIONS", "FIGURES", "IMAGES", "MESHES", "Run", "Stateful", "Trained", "seed_everything", "watched"]

_NOT_FINITE = re.compile(r"\b(invalid values|non-?finite|infs?|nans?)\b", re.IGNORECASE)
LOGGED = 1000  # a run writes about this many rows to metrics.jsonl, however many steps it takes

T = TypeVar("T")


class Run(Artifacts):
    """What a verb writes to.

    Attributes:
        dir: the run directory.
        seed: the seed of this run; torch's, numpy's and random's global generators are seeded with it already.
        device: where to compute.
        suffix: the suffix that `--out` asks for (".png"), or "".
        metrics: what `result` was given.

    Args:
        resume: the directory whose checkpoint training goes on from.
        name: what lines off a terminal begin with; that of the directory where it is empty.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int = 0,
        device: "torch.device | str" = "cpu",
        out: Path | None = None,
        quiet: bool = True,
        resume: Path | None = None,
        checkpoint: float = 60.0,
        page: str = "",
        verb: str = "train",
        name: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        import torch

        super().__init__(directory, out)
        self._page = page
        self._verb = verb
        self.teller = Teller(page, name or directory.name, quiet)
        self._begin: Callable[[], None] | None = None
        self._options = options or {}
        self.seed = seed
        self.device = torch.device(device)
        self.metrics: dict[str, float] = {}
        self._resume = resume
        self._seconds = checkpoint
        self.tracked = False
        self._step = 0
        self._steps = 0
        self._every = 1
        self._rows: list[dict[str, float]] = []
        self._progress: Progress | None = None
        self._kept: Mapping[str, Stateful] = {}  # what `track` keeps, while it does

    @property
    def heading(self) -> str:
        """The line that a picture carries: page, data or environment, the main metric so far."""
        return store.heading(self._page, self._options, self.metrics)

    def place(self, module: "M") -> "M":
        """The module on the run's device, ready to be called in training."""
        return module.to(self.device)

    def track(self, batches: Callable[[int], T], steps: int, **state: Stateful | dict | list) -> Iterator[T]:
        """Yield `batches(step)` for every step still to do, and keep what training would lose.

        It owns the progress bar, the step count, checkpoints (every `--checkpoint` seconds, at the end, and on the
        first Ctrl-C), resuming and the log; it never calls backward or step. One loop a run: a staged optimisation
        makes its stage a function of the step.

        Args:
            batches: any function of the step; being one, it needs no replay when training resumes.
            steps: how many steps in all, those before a resume included.
            state: what changes while training: whatever has a state_dict (model, optimizer, replay buffer), or a dict
                or list of tensors, arrays, numbers and text, nested as they may be, that the page changes in place.

        Raises:
            Failed: a logged value or the state became NaN or infinite; the last good checkpoint is kept.
            Interrupted: the user asked to stop; a checkpoint was saved.
            InputError: the checkpoint to resume from is damaged or of another model, or the disk is full.
            TypeError: a state is of another kind.
            Finished: this is one of several processes, and not the first.
        """
        if self.tracked:
            raise RuntimeError("one track loop a run: make the stage a function of the step")
        self.tracked = True
        kept = checkpoint.stateful(state, self.device)
        start = 0
        if self._resume:
            store.logged(self._resume)  # a damaged log is refused before anything changes
            start = self._restore(kept, self._resume)
        self._kept = kept
        self.begin()
        if distributed.rank():
            seed_everything(distributed.own_seed(self.seed, start))
        if not self._resume and not distributed.rank():
            self.teller.line(f"the run directory is {self.dir}")
        together = distributed.Together(state)
        self._steps = steps
        self._every = max(1, steps // LOGGED)
        self._drop_rows_after(start)
        last = time.monotonic()
        with (
            Stop(patient=distributed.size() > 1) as stop,
            Progress(start, steps, self.teller) as self._progress,
        ):
            for step in range(start, steps):
                self._step = step
                yield distributed.part(batches(step))
                together.stepped()
                self._progress.advance(step + 1)
                asked = distributed.anyone(stop.asked)
                due = time.monotonic() - last >= self._seconds
                if due or asked or step + 1 == steps:
                    self._save_checkpoint(step + 1, kept)
                    last = time.monotonic()
                if asked and distributed.rank():
                    raise Finished
                if asked:
                    raise Interrupted(f"stopped after step {step + 1} of {steps}; continue with: {self.again}")
        self._progress, self._kept = None, {}
        together.end()
        if distributed.rank():
            raise Finished

    def log(self, **metrics: "float | Tensor") -> None:
        """Note the values of this step: shown in the bar, and about a thousand rows kept in metrics.jsonl.

        Raises:
            Failed: a value is NaN or infinite.
        """
        kept = self._step % self._every == 0 or self._step + 1 == self._steps
        row = {}
        for name, value in metrics.items():
            # Asking a GPU for every value would stall it: there, only kept rows are looked at.
            if not kept and getattr(value, "is_cuda", False):
                continue
            number = _number(value)
            if not math.isfinite(number):
                raise Failed(f"training diverged: {name} is {number} at step {self._step + 1}")
            row[name] = number
        if kept:
            self._rows.append({"step": self._step + 1, **row})
            if len(self._rows) >= 100:
                self.write_rows()
        if self._progress:
            self._progress.show(row)

    def say(self, text: str) -> None:
        """A line for the user: on standard error unless `--quiet`, and in log.txt."""
        files.append_text(self.dir / "log.txt", text + "\n")
        if self._progress:
            self._progress.write(text)
        else:
            self.teller.line(text)

    def result(self, **metrics: "float | Tensor") -> None:
        """The metrics of the run, named as the design names them; they go to run.json and `--json`.

        Raises:
            Failed: a value is NaN or infinite.
        """
        for name, value in metrics.items():
            number = value if isinstance(value, int) else _number(value)
            if not math.isfinite(number):
                raise Failed(f"the result {name} is {number}")
            self.metrics[name] = number

    # Below: what the command line uses; not for pages.

    def told(self, error: Exception) -> Exception:
        """An error that ended training, as the user is told it: divergence by its name, and what is left of the work.

        Libraries notice numbers that are not finite in words of their own; what was tracked, or the words, tell them.
        """
        path = self.dir / "checkpoint.pt"
        if not self._kept:
            return error
        if isinstance(error, InputError):
            left = f"the last checkpoint is {path}; once that is mended, continue with: {self.again}"
            return InputError(f"{error}; {left}") if path.exists() else error
        if not isinstance(error, Failed):
            where = next(checkpoint.not_finite(self._kept), "")
            if not where and not _NOT_FINITE.search(str(error)):
                return error
            what = f"{where} is not finite" if where else "numbers are not finite"
            error = Failed(f"training diverged: {what} at step {self._step + 1}")
        good = f"the last good checkpoint is {path}" if path.exists() else "there was no checkpoint yet"
        return Failed(f"{error}; {good}")

    @property
    def again(self) -> str:
        """The command that goes on with this run."""
        return f"mpcli {spoken(self._verb)} {shlex.quote(str(self.dir))} --resume"

    def begins_with(self, begin: Callable[[], None]) -> None:
        """What is to happen before the first change to the run directory."""
        self._begin = begin

    @property
    def begun(self) -> bool:
        return self._begin is None

    def begin(self) -> None:
        """The work begins: from here on the run directory changes."""
        begin, self._begin = self._begin, None
        if begin:
            begin()

    def write_rows(self) -> None:
        """Write what was logged and is not in metrics.jsonl yet."""
        text, self._rows = "".join(json.dumps(row) + "\n" for row in self._rows), []
        if text:
            files.append_text(self.dir / "metrics.jsonl", text)

    def _drop_rows_after(self, step: int) -> None:
        path = self.dir / "metrics.jsonl"
        if path.exists():
            files.write(path, "".join(line for at, line in store.logged(self.dir) if at <= step).encode())

    def _save_checkpoint(self, step: int, state: Mapping[str, Stateful]) -> None:
        if distributed.rank():
            return  # the first process holds the same
        self.write_rows()
        try:
            checkpoint.save(self.dir / "checkpoint.pt", step, state)
        except checkpoint.NotFinite as error:
            raise Failed(f"training diverged: {error} is not finite after step {step}") from None

    def _restore(self, state: Mapping[str, Stateful], directory: Path) -> int:
        path = directory / "checkpoint.pt"
        if not path.exists():
            self.begin()
            self.say(f"{directory} holds no checkpoint: starting at step 0")
            return 0
        ends = schedules.ends(state)
        step = checkpoint.restore(path, state)
        self.begin()
        self.say(f"resuming {directory} after step {step}")
        for line in schedules.move(state, ends):
            self.say(line)
        return step


def _number(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)
