"""One execution of a verb and the directory that holds all it wrote: the public interface of pages.

A page is handed a `Run` and, for verbs that read a trained model, a `Trained`. What pages may rely on:

    Run      dir, seed, device, suffix; place, track, log, say, save, result, image, mesh, file
    Trained  dir, options, extras; load

torch is imported when a method needs it, so that this module costs nothing at start-up.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import math
import os
import random
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from mpcli.errors import Failed, InputError, Interrupted
from mpcli.progress import Progress

if TYPE_CHECKING:
    import torch
    import trimesh
    from torch import Tensor, nn

    M = TypeVar("M", bound=nn.Module)

FORMAT = 1  # of the run directory; a reader refuses a newer one
LOGGED = 1000  # a run writes about this many rows to metrics.jsonl, however many steps it takes
IMAGES = (".png", ".jpg", ".gif", ".mp4")
MESHES = (".ply", ".obj", ".glb", ".stl")

T = TypeVar("T")


class Stateful(Protocol):
    """What a checkpoint can hold: anything with PyTorch's state_dict and load_state_dict."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> object: ...


class Run:
    """What a verb writes to.

    Attributes:
        dir: the run directory.
        seed: the seed of this run; torch's, numpy's and random's global generators are seeded with it already.
        suffix: the suffix that `--out` asks for (".png"), or "".
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int = 0,
        device: str = "auto",
        out: Path | None = None,
        quiet: bool = True,
        resume: bool = False,
        checkpoint: float = 60.0,
    ) -> None:
        self.dir = directory
        self.seed = seed
        self.artifacts: list[Path] = []
        self.metrics: dict[str, float] = {}
        self._device = device
        self._out = out
        self._quiet = quiet
        self._resume = resume
        self._seconds = checkpoint
        self._tracked = False
        self._step = 0
        self._steps = 0
        self._every = 1
        self._rows: list[dict[str, float]] = []
        self._progress: Progress | None = None

    @property
    def suffix(self) -> str:
        return self._out.suffix.lower() if self._out else ""

    @property
    def device(self) -> "torch.device":
        """Where to compute: as `--device` says; for auto a GPU where there is one.

        Raises:
            InputError: the device is not there.
        """
        import torch

        there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if self._device == "auto":
            return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
        if not there[self._device]:
            have = ", ".join(name for name, is_there in there.items() if is_there)
            raise InputError(f"--device {self._device}: this machine has {have} only")
        return torch.device(self._device)

    def place(self, module: "M") -> "M":
        """The module on the run's device, ready to be called in training."""
        return module.to(self.device)

    def track(self, batches: Callable[[int], T], steps: int, **state: Stateful) -> Iterator[T]:
        """Yield `batches(step)` for every step still to do, and keep what training would lose.

        It owns the progress bar, the step count, checkpoints (every `--checkpoint` seconds, at the end, and on the
        first Ctrl-C), resuming and the log; it never calls backward or step. One loop a run: a staged optimisation
        makes its stage a function of the step.

        Args:
            batches: any function of the step; being one, it needs no replay when training resumes.
            steps: how many steps in all, those before a resume included.
            state: what changes while training and has a state_dict: model, optimizer, replay buffer, environment.

        Raises:
            Failed: a logged value or the state became NaN or infinite; the last good checkpoint is kept.
            Interrupted: the user asked to stop; a checkpoint was saved.
            InputError: the checkpoint to resume from is damaged or of another model, or the disk is full.
        """
        if self._tracked:
            raise RuntimeError("one track loop a run: make the stage a function of the step")
        self._tracked = True
        start = self._restore(state) if self._resume else 0
        self._steps = steps
        self._every = max(1, steps // LOGGED)
        self._drop_rows_after(start)
        last = time.monotonic()
        with Stop() as stop, Progress(start, steps, quiet=self._quiet) as self._progress:
            for step in range(start, steps):
                self._step = step
                yield batches(step)
                self._progress.advance(step + 1)
                due = time.monotonic() - last >= self._seconds
                if due or stop.asked or step + 1 == steps:
                    self._save_checkpoint(step + 1, state)
                    last = time.monotonic()
                if stop.asked:
                    raise Interrupted(f"stopped after step {step + 1} of {steps}; continue with --resume on {self.dir}")
        self._progress = None

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
                raise Failed(f"training diverged: {name} is {number} at step {self._step + 1}; {self._last_good()}")
            row[name] = number
        if kept:
            self._rows.append({"step": self._step + 1, **row})
            if len(self._rows) >= 100:
                self._write_rows()
        if self._progress:
            self._progress.show(row)

    def say(self, text: str) -> None:
        """A line for the user: on standard error unless `--quiet`, and in log.txt."""
        with (self.dir / "log.txt").open("a", encoding="utf-8") as log:
            log.write(text + "\n")
        if not self._quiet:
            if self._progress:
                self._progress.write(text)
            else:
                print(text, file=sys.stderr)

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

    def save(self, model: "nn.Module", config: Any, **extras: Any) -> None:
        """Keep a trained model: its weights as safetensors, and what `Trained.load` needs to build it again.

        Args:
            model: the module whose state_dict is kept.
            config: the dataclass that is the model's first argument.
            extras: the model's further arguments by name; JSON values (a shape, a number of classes).
        """
        from safetensors.torch import save

        # Cloned because safetensors refuses tensors that share memory, as tied weights do.
        weights = save({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()})
        about = {
            "model": type(model).__name__,
            "config": dataclasses.asdict(config),
            "extras": extras,
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        _write(self.dir / "model.safetensors", weights)
        write_json(self.dir / "model.json", about)

    def image(self, name: str, images: "Tensor", fps: float = 25.0) -> Path:
        """Write images: a picture, a grid of pictures, or the frames of an animation.

        Args:
            name: file name in the run; a suffix in `--out` takes the place of its suffix for the main artifact.
            images: [C, H, W], [N, C, H, W] laid out as a grid (frames for .gif and .mp4), or [R, K, C, H, W] as R
                rows of K; C is 1, 3 or 4; values in [0, 1], those outside clipped.
            fps: frames a second of an animation.

        Raises:
            InputError: `--out` names a format that cannot be written.
        """
        from mpcli import pictures

        path = self._target(name, IMAGES)
        with self._whole(path) as partial:
            pictures.write(partial, images.detach().cpu().numpy(), fps)
        return path

    def mesh(self, name: str, mesh: "trimesh.Trimesh") -> Path:
        """Write a mesh as PLY, OBJ, GLB or STL.

        Raises:
            InputError: `--out` names a format that cannot be written.
        """
        path = self._target(name, MESHES)
        with self._whole(path) as partial:
            mesh.export(partial)
        return path

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A temporary path to write any other file to; it takes its name when the block ends without an error.

        Raises:
            InputError: `--out` asks for another format than the one of `name`.
        """
        path = self._target(name, (Path(name).suffix,))
        with self._whole(path) as partial:
            yield partial

    # Below: what the command line uses; not for pages.

    def _target(self, name: str, suffixes: tuple[str, ...]) -> Path:
        inside = self.dir / name
        if self._out is None or self.artifacts:
            return inside
        if self.suffix not in suffixes:
            raise InputError(f"--out {self._out}: this result can be written as {', '.join(suffixes)}")
        return self._out

    @contextlib.contextmanager
    def _whole(self, path: Path) -> Iterator[Path]:
        """A kill or an error while writing leaves no half file under the real name."""
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
            try:
                yield partial
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        if path not in self.artifacts:
            self.artifacts.append(path)

    def _last_good(self) -> str:
        path = self.dir / "checkpoint.pt"
        return f"the last good checkpoint is {path}" if path.exists() else "there was no checkpoint yet"

    def _write_rows(self) -> None:
        if not self._rows:
            return
        with (self.dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in self._rows)
        self._rows.clear()

    def _drop_rows_after(self, step: int) -> None:
        path = self.dir / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            _write(path, "".join(kept).encode())

    def _save_checkpoint(self, step: int, state: Mapping[str, Stateful]) -> None:
        import torch

        self._write_rows()
        states = {name: thing.state_dict() for name, thing in state.items()}
        for name in _not_finite(states):
            raise Failed(f"training diverged: {name} is not finite after step {step}; {self._last_good()}")
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "step": step, "state": states, "random": _random_state()}, buffer)
        _write(self.dir / "checkpoint.pt", buffer.getbuffer())

    def _restore(self, state: Mapping[str, Stateful]) -> int:
        import torch

        path = self.dir / "checkpoint.pt"
        if not path.exists():
            self.say(f"{self.dir} holds no checkpoint: starting at step 0")
            return 0
        damaged = InputError(f"{path}: is damaged, so this run cannot be resumed; train it anew with another --out")
        try:
            with zipfile.ZipFile(path) as archive:  # torch itself does not check the sums of what it reads
                if archive.testzip() is not None:
                    raise damaged
            saved = torch.load(path, map_location="cpu", weights_only=True)
            if set(saved["state"]) != set(state):
                raise ValueError(f"it holds {sorted(saved['state'])}, the page now has {sorted(state)}")
            step = int(saved["step"])
        except InputError:
            raise
        except (zipfile.BadZipFile, EOFError, KeyError, TypeError, RuntimeError, ValueError, OSError) as error:
            raise InputError(f"{damaged} ({error})") from error
        except Exception as error:  # weights_only raises its own kinds, whose base is pickle's
            raise damaged from error
        for name, thing in state.items():
            try:
                thing.load_state_dict(saved["state"][name])
            except (RuntimeError, ValueError, KeyError) as error:
                first = str(error).strip().splitlines()[0]
                raise InputError(
                    f"{path}: its {name} does not fit these options ({first}); resume with those of config.json"
                ) from error
        _restore_random(saved["random"])
        self.say(f"resuming {self.dir} after step {step}")
        return step


class Trained:
    """A finished training run that another verb reads.

    Attributes:
        dir: its directory.
        options: every option of that run, by name.
        extras: what the page gave to `Run.save` beside model and configuration.
    """

    def __init__(self, directory: Path, device: str = "auto") -> None:
        self.dir = directory
        self.options: dict[str, Any] = _tuples(read_json(directory / "config.json"))
        path = directory / "model.json"
        if not path.exists():
            if seeds := sorted(directory.glob("seed-*")):
                raise InputError(f"{directory}: holds a run of each seed; name one of them, such as {seeds[0]}")
            raise InputError(
                f"{directory}: holds no trained model (its training did not finish); continue it with --resume"
            )
        self._about = _tuples(read_json(path))
        self._run = Run(directory, device=device)

    @property
    def extras(self) -> dict[str, Any]:
        return self._about["extras"]

    def load(self, model: "Callable[..., M]", config: Callable[..., Any]) -> "M":
        """The trained model, on the run's device and in eval mode: `model(config(**saved), **extras)`.

        Raises:
            InputError: the weights are missing, damaged, or of another version of the page.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self.dir / "model.safetensors"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); train the page again") from error
        if hashlib.sha256(data).hexdigest() != self._about["sha256"]:
            raise InputError(f"{path}: is damaged (its checksum is not the one in model.json); train the page again")
        try:
            built = model(config(**self._about["config"]), **self.extras)
            built.load_state_dict(load(data))
        except (SafetensorError, TypeError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: does not fit this page's version ({first}); train the page again") from error
        return self._run.place(built).eval()


class Stop:
    """Turns the first SIGINT or SIGTERM into a wish to stop at the next step; the second stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        # Only the main thread may handle signals; elsewhere (a test, a notebook) they stay as they are.
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def seed_everything(seed: int) -> None:
    """Seed the global generators of random, numpy and torch."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _random_state() -> dict[str, Any]:
    import numpy as np
    import torch

    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, normal = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "random": [version, torch.tensor(words), normal],
    }


def _restore_random(saved: dict[str, Any]) -> None:
    import numpy as np
    import torch

    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda"])
    kind, keys, position, has_gauss, gauss = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, words, normal = saved["random"]
    random.setstate((version, tuple(words.tolist()), normal))


def _number(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)


def _not_finite(states: Mapping[str, Any], where: str = "") -> Iterator[str]:
    import torch

    for name, value in states.items():
        path = f"{where}.{name}" if where else str(name)
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() and not torch.isfinite(value).all():
                yield path
        elif isinstance(value, Mapping):
            yield from _not_finite(value, path)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        why = f"cannot be written ({error.strerror}); choose another --out or free some space"
        raise InputError(f"{path}: {why}") from error


def _write(path: Path, data: bytes | memoryview) -> None:
    """Write under a temporary name, make it durable, then rename: a kill leaves the old file or the new one."""
    with _naming(path):
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    _write(path, (json.dumps(value, indent=1, default=_plain) + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is no JSON value")


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were in Python."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {name: _tuples(item) for name, item in value.items()} if isinstance(value, dict) else value


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of a run directory.

    Raises:
        InputError: it cannot be read or is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it belongs to every run directory") from error
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); it should hold a JSON object") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: is damaged; it should hold a JSON object")
    return value


def read_record(directory: Path) -> dict[str, Any]:
    """run.json of a run directory.

    Raises:
        InputError: it is missing, damaged, or written by a newer version.
    """
    record = read_json(directory / "run.json")
    if not isinstance(record.get("format"), int) or not isinstance(record.get("page"), str):
        raise InputError(f"{directory / 'run.json'}: is damaged; it should name format and page")
    if record["format"] > FORMAT:
        raise InputError(
            f"{directory}: was written by a newer mpcli (run format {record['format']}, this one reads {FORMAT}); "
            "update mpcli"
        )
    return record


def runs_root() -> Path:
    """Where runs are kept: $MPCLI_RUNS, else ./runs."""
    return Path(os.environ.get("MPCLI_RUNS") or "runs")


def new_directory(page: str, verb: str, seed: int, out: Path | None) -> Path:
    """Make a run directory that no other process has.

    Args:
        out: the directory that the user asked for, or None for `PAGE/TIMESTAMP-VERB-sSEED` below the runs.

    Raises:
        InputError: it cannot be made, or holds something already.
    """
    if out is not None:
        with _naming(out):
            out.mkdir(parents=True, exist_ok=True)
            try:
                (out / "run.json").touch(exist_ok=False)  # the claim: a second process fails here
            except FileExistsError:
                raise InputError(f"--out {out}: holds a run already; add --resume or choose another") from None
        if len(os.listdir(out)) > 1:
            (out / "run.json").unlink()
            raise InputError(f"--out {out}: is not empty and holds no run; choose a new directory")
        return out
    base = runs_root() / page
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    with _naming(base):
        base.mkdir(parents=True, exist_ok=True)
        for count in range(1, 1000):
            directory = base / (f"{stamp}-{verb.replace('_', '-')}-s{seed}" + (f"-{count}" if count > 1 else ""))
            try:
                directory.mkdir()
                return directory
            except FileExistsError:
                continue
    raise InputError(f"{base}: a thousand runs began in one second")


def lock(directory: Path) -> IO[bytes]:
    """Hold the run against other processes until the returned file is closed (a kill closes it).

    Raises:
        InputError: another process is at work on it.
    """
    with _naming(directory):
        file = (directory / "command.txt").open("ab")  # a file that is never renamed: a lock follows the file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{directory}: another process is at work on this run; wait for it or stop it") from None
    return file


def newest(page: str, verbs: tuple[str, ...], finished: bool) -> Path | None:
    """The newest run of a page by one of the verbs; `finished` asks for one that holds a model."""
    found: list[tuple[str, Path]] = []
    root = runs_root() / page
    for path in (*root.glob("*/run.json"), *root.glob("*/seed-*/run.json")):
        try:
            record = read_record(path.parent)
        except InputError:
            continue  # one damaged run must not hide the others
        if record.get("verb") in verbs and (not finished or (path.parent / "model.json").exists()):
            found.append((str(record.get("started", "")), path.parent))
    return max(found)[1] if found else None


def now() -> str:
    """The time in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat()
