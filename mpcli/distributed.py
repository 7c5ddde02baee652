"""Training by several processes, started by torchrun: each works on its part of every batch.

The gradients that a backward pass leaves are averaged over the processes before it returns, so that each takes the step
that one process would take on the whole batch. That asks nothing of a page: it may call its module's methods, call it
twice, or take gradients of gradients.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpcli.errors import Failed, InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def size() -> int:
    """How many processes train together, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Which of the processes this is; the first, 0, alone writes."""
    return int(os.environ.get("RANK") or 0) if size() > 1 else 0


def refuse(what: str) -> None:
    """Raise an InputError if there are several processes, which `what` has no use for."""
    if size() > 1:
        raise InputError(
            f"{what} is not shared out over processes; run it without torchrun, "
            "and with --seeds N for several trainings side by side"
        )


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Hold the processes together; alone, nothing happens.

    Raises:
        InputError: the environment does not tell how the processes find each other.
    """
    if size() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    # Its functions have the group that there is when it is imported as a default argument. Imported later, as by the
    # first optimizer, it would keep the group, whose threads abort a process that ends while they run.
    import torch.distributed.nn

    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"WORLD_SIZE={size()}: the processes cannot be joined ({error}); start them by torchrun"
        ) from error
    try:
        yield
    finally:
        _part_ways()


def _part_ways() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def told(value: Any) -> Any:
    """What the first process holds, on every process."""
    import torch.distributed as dist

    if size() == 1:
        return value
    box = [value]
    with _together():
        dist.broadcast_object_list(box, 0)
    return box[0]


def anyone(wish: bool) -> bool:
    """Whether any process has the wish."""
    import torch
    import torch.distributed as dist

    if size() == 1:
        return wish
    flag = torch.tensor([wish], dtype=torch.uint8)
    with _together():
        dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def own_seed(seed: int, step: int) -> int:
    """The seed of a process beside the first for the random numbers that it draws from `step` on."""
    digest = hashlib.sha256(f"{seed} {rank()} {step}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def part(batch: Any) -> Any:
    """This process's part of a batch: of every tensor as long as the first one, the same share of its first dimension.

    Raises:
        InputError: the batch holds no tensor, or its length is no multiple of the number of processes.
    """
    if size() == 1:
        return batch
    length = next((tensor.shape[0] for tensor in _tensors(batch) if tensor.ndim), 0)
    if not length:
        refuse("a training whose batches hold no tensors")
    share, rest = divmod(length, size())
    if rest or not share:
        raise InputError(f"--batch: {length} cannot be shared out evenly by {size()} processes; give a multiple of it")
    return _cut(batch, length, slice(rank() * share, (rank() + 1) * share))


def _tensors(value: Any) -> "Iterator[Tensor]":
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))


def _cut(value: Any, length: int, share: slice) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value[share] if value.ndim and value.shape[0] == length else value
    if isinstance(value, dict):
        return {name: _cut(item, length, share) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_cut(item, length, share) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{name: _cut(getattr(value, name), length, share) for name in fields})
    return value


class Together:
    """What keeps the models of the processes one model while they train; alone, nothing happens.

    Args:
        state: what the page tracks. Its modules start as the first process has them, and keep that one's buffers; the
            gradients of their parameters, and of what its optimizers step, are averaged.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        import torch

        self._modules: list[nn.Module] = []
        self._parameters: list[Tensor] = []
        self._hooks: list[Any] = []
        self._steps = 0
        self._queued = False
        if size() == 1:
            return
        self._modules = [thing for thing in state.values() if isinstance(thing, torch.nn.Module)]
        optimizers = [thing for thing in state.values() if isinstance(thing, torch.optim.Optimizer)]
        learnt = [p for module in self._modules for p in module.parameters()]
        learnt += [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        self._parameters = list({id(p): p for p in learnt if p.requires_grad}.values())
        if not self._parameters:
            refuse("a training that tracks no module and no optimizer")
        self._follow_first(self._everything())
        self._hooks = [p.register_post_accumulate_grad_hook(self._noticed) for p in self._parameters]

    def _everything(self) -> "list[Tensor]":
        return [*self._parameters, *(buffer for module in self._modules for buffer in module.buffers())]

    def _noticed(self, parameter: "Tensor") -> None:
        import torch

        if not self._queued:
            self._queued = True
            torch.autograd.Variable._execution_engine.queue_callback(self._average)

    def _average(self) -> None:
        """Replace the gradient of every parameter that any process has one of by the mean over all."""
        import torch
        import torch.distributed as dist

        self._queued = False
        there = torch.tensor([p.grad is not None for p in self._parameters], dtype=torch.uint8)
        with _together():
            dist.all_reduce(there, dist.ReduceOp.MAX)
            chosen = [p for p, used in zip(self._parameters, there.tolist(), strict=True) if used]
            for p in chosen:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            for grads in _alike([p.grad for p in chosen if p.grad is not None]):
                flat = torch.cat([grad.reshape(-1) for grad in grads])
                dist.all_reduce(flat)
                _fill(grads, flat / size())

    def stepped(self) -> None:
        """A step is done: the first process's buffers hold for all.

        After the first step its parameters do as well, as a layer may have set them by the batch that it saw first.

        Raises:
            Failed: after the second step the models differ, so the page changes them by more than gradients.
        """
        if size() == 1:
            return
        self._steps += 1
        self._follow_first([buffer for module in self._modules for buffer in module.buffers()])
        if self._steps == 1:
            self._follow_first(self._everything())
        elif self._steps == 2:
            self._compare()

    def end(self) -> None:
        """The loop is done on every process; from here on they have nothing to do with each other."""
        for hook in self._hooks:
            hook.remove()
        _part_ways()

    def _follow_first(self, tensors: "Sequence[Tensor]") -> None:
        import torch
        import torch.distributed as dist

        for group in _alike(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in group])
            with _together():
                dist.broadcast(flat, 0)
            if rank():
                _fill(group, flat)

    def _compare(self) -> None:
        import torch
        import torch.distributed as dist

        apart = False
        for group in _alike(self._parameters):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in group])
            first = flat.clone()
            with _together():
                dist.broadcast(first, 0)
            apart |= not torch.allclose(flat, first, rtol=1e-5, atol=1e-7, equal_nan=True)
        if anyone(apart):
            raise Failed("the processes' models have drifted apart: this page cannot be trained by several of them")


def _alike(tensors: "Sequence[Tensor]") -> "list[list[Tensor]]":
    """The tensors in groups of one type and device, which can be sent as one."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(groups.values())


def _fill(tensors: "Sequence[Tensor]", flat: "Tensor") -> None:
    import torch

    parts = flat.split([tensor.numel() for tensor in tensors])
    with torch.no_grad():
        for tensor, values in zip(tensors, parts, strict=True):
            tensor.copy_(values.view(tensor.shape))


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """What all processes do at once fails where one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        raise Failed(f"another process of this training has ended ({str(error).strip().splitlines()[0]})") from error
