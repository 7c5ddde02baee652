"""Where to compute."""

from typing import TYPE_CHECKING

from mpcli.errors import InputError

if TYPE_CHECKING:
    import torch


def device(name: str) -> "torch.device":
    """The device of that name; for auto a GPU where there is one.

    Raises:
        InputError: the device is not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if not there[name]:
        have = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise InputError(f"--device {name}: this machine has {have} only")
    return torch.device(name)
