"""Training steps a second of RealNVP beside normflows, zuko and nflows, at one architecture.

Eight affine couplings between the halves of a vector, each with one network of hidden layers (512, 512) and ReLUs for
scale and shift together, a fixed normal base, Adam; a step is loss, backward and update. On 784 dimensions with batches
of 128, on 2 with 256. Two settings:

    same       every library with fused Adam, and freed memory kept in the process (mpcli/heap.py)
    shipped    ours as `mpcli train` runs it; the peer with the plain Adam of its own examples

`python benchmarks/flows_speed.py`, after `pip install normflows==1.7.3 zuko==1.6.0 nflows==0.14`.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from protocol import compare, cpu_seconds

COUPLINGS, WIDTH = 8, 512
Made = tuple[Any, Callable[[Any], Any]]  # model, and its loss on a batch


def ours(dim: int) -> Made:
    from mpcli_flows.realnvp import Config, RealNVP

    model = RealNVP(Config(couplings=COUPLINGS, hidden=(WIDTH, WIDTH)), (dim,))
    return model, lambda x: -model(x).mean()


def normflows(dim: int) -> Made:
    import normflows as nf

    flows = []
    for _ in range(COUPLINGS):
        net = nf.nets.MLP([dim // 2, WIDTH, WIDTH, dim], init_zeros=True)
        flows += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(dim, mode="swap")]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(dim, trainable=False), flows)
    return model, model.forward_kld


def zuko(dim: int) -> Made:
    import torch
    import zuko

    halves = torch.arange(dim) < dim // 2
    model = zuko.flows.RealNVP(dim, transforms=COUPLINGS, hidden_features=(WIDTH, WIDTH))
    for i, transform in enumerate(model.transform.transforms):
        transform.mask = halves ^ bool(i % 2)
    return model, lambda x: -model().log_prob(x).mean()


def nflows(dim: int) -> Made:
    import torch
    from nflows import distributions, flows, transforms
    from torch import nn

    class Net(nn.Sequential):
        def __init__(self, inputs, outputs):
            hidden = (nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
            super().__init__(*hidden, nn.Linear(WIDTH, outputs))

        def forward(self, x, context=None):
            return super().forward(x)

    halves = (torch.arange(dim) >= dim // 2).int()
    couplings = [transforms.AffineCouplingTransform((halves + i) % 2, Net) for i in range(COUPLINGS)]
    model = flows.Flow(transforms.CompositeTransform(couplings), distributions.StandardNormal([dim]))
    return model, lambda x: -model.log_prob(x).mean()


def seconds(make: Callable[[int], Made], dim: int, batch: int, tuned: bool) -> float:
    if tuned:
        from mpcli import heap

        heap.keep_freed_blocks()
    import torch

    torch.manual_seed(0)
    model, loss_of = make(dim)
    parameters = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(parameters, 1e-4, fused=True if tuned else None)
    rows = [torch.randn(batch, dim) for _ in range(4)]

    def steps() -> None:
        for x in rows:
            loss = loss_of(x)
            adam.zero_grad()
            loss.backward()
            adam.step()

    print(f"  {make.__name__}: {sum(p.numel() for p in parameters)} parameters", file=sys.stderr)
    return cpu_seconds(steps, units=len(rows))


if __name__ == "__main__":
    for setting in ("same", "shipped"):
        for dim, batch in ((784, 128), (2, 256)):
            for peer in (normflows, zuko, nflows):
                compare(
                    f"RealNVP on {dim} dimensions against {peer.__name__}, {setting}",
                    partial(seconds, ours, dim, batch, True),
                    partial(seconds, peer, dim, batch, setting == "same"),
                    rate="steps/s",
                    packages=("normflows", "zuko", "nflows"),
                )
