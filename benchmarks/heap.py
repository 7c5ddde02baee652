"""What keeping freed memory in the process brings (mpcli/heap.py): the same training loop with it and without.

The peer is the same code with glibc's malloc as it comes. glibc learns by itself to keep blocks of up to 32 MiB; larger
ones it maps and zeroes anew at every step. The peak memory of each process goes to standard error, because memory is
what the setting costs.

    python benchmarks/heap.py
"""

import resource
import sys
from collections.abc import Callable
from functools import partial

from protocol import compare, cpu_seconds


def skinning(bodies: int) -> Callable[[], None]:
    """Linear blend skinning, forward and backward: large temporaries, little arithmetic."""
    import torch

    weights = torch.rand(6890, 24).softmax(1)
    vertices = torch.randn(6890, 4)
    transforms = torch.randn(bodies, 24, 4, 4, requires_grad=True)

    def step() -> None:
        blended = torch.einsum("vj,bjkl->bvkl", weights, transforms)
        posed = (blended @ vertices[:, :, None]).squeeze(-1)
        (posed**2).mean().backward()

    return step


def convolutions() -> Callable[[], None]:
    """A small convolutional network on 64 pictures of 32 x 32."""
    import torch
    from torch import nn

    def block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

    model = nn.Sequential(
        block(3, 32), block(32, 32), nn.MaxPool2d(2), block(32, 64), nn.Flatten(), nn.Linear(16384, 10)
    )
    return training(model, torch.randn(64, 3, 32, 32))


def radiance() -> Callable[[], None]:
    """Four layers of 256 units on 65536 points, as a radiance field has them."""
    import torch
    from torch import nn

    layers = [layer for width in (63, 256, 256, 256) for layer in (nn.Linear(width, 256), nn.ReLU())]
    return training(nn.Sequential(*layers, nn.Linear(256, 4)), torch.randn(65536, 63))


def training(model, x) -> Callable[[], None]:
    import torch

    adam = torch.optim.Adam(model.parameters())

    def step() -> None:
        loss = (model(x) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step


def side(loop: Callable[[], Callable[[], None]], keep: bool) -> float:
    if keep:
        from mpcli import heap

        assert heap.keep_freed_blocks(), "this needs glibc, and MPCLI_HEAP not to be `system`"
    seconds = cpu_seconds(loop(), at_least=4)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"    {'kept' if keep else 'as it comes'}: peak memory {peak:.0f} MiB", file=sys.stderr)
    return seconds


LOOPS: dict[str, Callable[[], Callable[[], None]]] = {
    "skinning, 32 x 6890 vertices": partial(skinning, 32),
    "skinning, 256 x 6890 vertices": partial(skinning, 256),
    "convolutional network, batch 64": convolutions,
    "MLP, 65536 x 256 activations": radiance,
}

if __name__ == "__main__":
    for name, loop in LOOPS.items():
        compare(f"freed memory kept, {name}, a step", partial(side, loop, True), partial(side, loop, False))
