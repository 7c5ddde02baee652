"""NICE: what one coupling leaves, and what changes volumes."""

import torch
from mutants import larger, part
from torch import nn

from mpcli_flows import nice
from mpcli_flows.kit.bijectors import Chain, Scale

MUTANTS = {
    "log-determinant": (Chain, "inverse", part(1, larger)),
    "log-determinant of the scale": (Scale, "inverse", part(1, larger)),
    "a shift of the wrong size": (nice.AdditiveCoupling, "forward", part(0, larger)),
    "an inverse that adds": (
        nice.AdditiveCoupling,
        "inverse",
        lambda original: lambda self, x, c=None: self.shifted(x, 1),
    ),
    "a coupling that claims a volume": (nice.AdditiveCoupling, "inverse", part(1, lambda logdet: logdet + 0.1)),
}


def stirred(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def test_one_coupling_leaves_half_as_it_was_and_two_leave_nothing():
    first, second = (stirred(nice.AdditiveCoupling(6, swap, (8,), 0.0)) for swap in (False, True))
    z = torch.randn(1, 6, dtype=torch.float64)
    x = first(z)[0]
    assert torch.equal(x[:, :3], z[:, :3]) and (x[:, 3:] != z[:, 3:]).all()
    assert (second(x)[0] != z).all()


def test_only_the_scale_of_nice_changes_volumes():
    flow = stirred(nice.NICE(nice.Config(hidden=(8,), split="random"), (6,)))
    z = torch.randn(4, 6, dtype=torch.float64)
    scale = next(f for f in flow.bijector if isinstance(f, Scale))
    torch.testing.assert_close(flow.bijector(z)[1], scale.log_scale.sum().expand(4))
