"""What training would lose: states and random numbers, saved to one file and brought back from it."""

import io
import random
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from mpcli import files, store
from mpcli.errors import InputError


class Stateful(Protocol):
    """What a checkpoint can hold: anything with PyTorch's state_dict and load_state_dict."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> object: ...


class NotFinite(Exception):
    """A state holds NaN or infinity; the message names it."""


class Plain:
    """A dict or list as a state: what it holds is saved, and brought back into the very same object."""

    def __init__(self, thing: dict | list, device: Any) -> None:
        self._thing = thing
        self._device = device

    def state_dict(self) -> Any:
        return _packed(self._thing)

    def load_state_dict(self, state: Any) -> None:
        if not isinstance(state, type(self._thing)):
            raise ValueError(f"the checkpoint holds a {type(state).__name__}, the page a {type(self._thing).__name__}")
        found = _unpacked(state, self._thing, self._device)
        self._thing.clear()
        self._thing.update(found) if isinstance(self._thing, dict) else self._thing.extend(found)


def stateful(state: Mapping[str, Any], device: Any) -> dict[str, Stateful]:
    """Every state as something with a state_dict.

    Raises:
        TypeError: a state can be neither saved nor brought back.
    """
    found: dict[str, Stateful] = {}
    for name, thing in state.items():
        if hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"):
            found[name] = thing
        elif type(thing) in (dict, list):
            found[name] = Plain(thing, device)
            found[name].state_dict()  # refuses what it cannot keep before any work is done
        else:
            raise TypeError(
                f"track({name}=...): a {type(thing).__name__} has no state_dict and load_state_dict; "
                "keep what changes in a dict or a list, which is saved and restored in place"
            )
    return found


_ARRAY, _PLACED = "__array__", "__placed__"  # a numpy array; a tensor that was not on the CPU


def _packed(value: Any) -> Any:
    """The value in the few types that a checkpoint is read back from."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        return value if value.device.type == "cpu" else {_PLACED: value}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return {_ARRAY: torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))}
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {key: _packed(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_packed, value))
    if value is None or type(value) in (bool, int, float, complex, str):
        return value
    raise TypeError(f"track keeps tensors, arrays, numbers, text, and dicts and lists of these, no {type(value)}")


def _unpacked(value: Any, current: Any, device: Any) -> Any:
    """The value that was packed; `current` is what stands in its place in the page."""
    import torch

    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return value[_ARRAY].numpy()
        if set(value) == {_PLACED}:
            return _unpacked(value[_PLACED].to(device), current, device)
        known = current if isinstance(current, dict) else {}
        return {key: _unpacked(item, known.get(key), device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        beside = (
            list(current) if isinstance(current, (list, tuple)) and len(current) == len(value) else [None] * len(value)
        )
        return type(value)(_unpacked(item, other, device) for item, other in zip(value, beside, strict=True))
    if isinstance(value, torch.Tensor) and isinstance(current, torch.Tensor) and current.requires_grad:
        with torch.no_grad():  # an optimizer holds this very tensor
            return current.copy_(value)
    return value


def save(path: Path, step: int, state: Mapping[str, Stateful]) -> None:
    """Write the states after `step` steps, and every random generator's.

    Raises:
        NotFinite: a state is not finite; the file stays as it was.
        InputError: the file cannot be written.
    """
    import torch

    for name in not_finite(state):
        raise NotFinite(name)
    states = {name: thing.state_dict() for name, thing in state.items()}
    buffer = io.BytesIO()
    torch.save({"format": store.FORMAT, "step": step, "state": states, "random": _random_state()}, buffer)
    files.write(path, buffer.getbuffer())


def restore(path: Path, state: Mapping[str, Stateful]) -> int:
    """Bring the states and random generators back; how many steps were done.

    Raises:
        InputError: the file is damaged, or its states do not fit.
    """
    saved = _read(path, set(state))
    for name, thing in state.items():
        try:
            thing.load_state_dict(saved["state"][name])
        except (RuntimeError, ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(
                f"{path}: its {name} does not fit these options ({first}); resume with those of config.json"
            ) from error
    _restore_random(saved["random"])
    return int(saved["step"])


def _read(path: Path, names: set[str]) -> dict[str, Any]:
    import torch

    damaged = InputError(f"{path}: is damaged, so this run cannot be resumed; train it anew with another --out")
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not check the sums of what it reads
            if archive.testzip() is not None:
                raise damaged
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if set(saved["state"]) != names:
            raise ValueError(f"it holds {sorted(saved['state'])}, the page has {sorted(names)}")
        int(saved["step"])
    except InputError:
        raise
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{damaged} ({error})") from error
    except Exception as error:  # weights_only raises its own kinds, whose base is pickle's
        raise damaged from error
    return saved


def not_finite(state: Mapping[str, Stateful]) -> Iterator[str]:
    """The names of the tensors in these states that hold NaN or infinity."""
    return _not_finite({name: thing.state_dict() for name, thing in state.items()})


def _not_finite(states: Mapping[str, Any], where: str = "") -> Iterator[str]:
    import torch

    for name, value in states.items():
        path = f"{where}.{name}" if where else str(name)
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() and not torch.isfinite(value).all():
                yield path
        elif isinstance(value, Mapping):
            yield from _not_finite(value, path)


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
