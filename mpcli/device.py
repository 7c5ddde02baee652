"""Where to compute."""

import os
from typing import TYPE_CHECKING

from mpcli import distributed
from mpcli.errors import InputError

if TYPE_CHECKING:
    import torch


def device(name: str) -> "torch.device":
    """The device of that name; for auto a GPU where there is one, of several processes each its own.

    Raises:
        InputError: the device is not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    if not there[name]:
        kinds = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise InputError(f"--device {name}: this machine has {kinds} only")
    if name != "cuda" or distributed.size() == 1:
        return torch.device(name)
    number, have = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= have:
        raise InputError(f"--device cuda: this machine has {have} GPUs; start as many processes (--nproc-per-node)")
    torch.cuda.set_device(number)  # where nccl works
    return torch.device("cuda", number)
