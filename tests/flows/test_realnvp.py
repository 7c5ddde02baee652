"""RealNVP: what its checkerboard reads and moves, and the faults that its gradcheck must notice."""

import torch
from mutants import larger, part

from mpcli_flows import realnvp
from mpcli_flows.kit import bijectors

MUTANTS = {
    "log-determinant of a coupling": (realnvp.AffineCoupling, "inverse", part(1, larger)),
    "log-determinant on the way to data": (realnvp.AffineCoupling, "forward", part(1, larger)),
    "log-determinant of couplings on vectors": (realnvp.VectorCouplings, "inverse", part(1, larger)),
    "log-determinant of a checkerboard": (realnvp.CheckerboardCoupling, "inverse", part(1, larger)),
    "log-determinant of the logit": (bijectors.Logit, "inverse", part(1, larger)),
}


def dependence(f, z):  # which outputs depend on which inputs
    return torch.autograd.functional.jacobian(lambda y: f(y)[0].flatten(), z).reshape(z.numel(), -1).abs() > 1e-12


def test_a_checkerboard_coupling_reads_one_colour_and_moves_the_other():
    net = realnvp.ConvNet(1, 4, 1, 2).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    f = realnvp.CheckerboardCoupling(net, 4, 4, white=False).double()
    depends = dependence(f, torch.randn(1, 1, 4, 4, dtype=torch.float64))
    colour = (torch.arange(4)[:, None] + torch.arange(4)).flatten() % 2 == 1
    a = f.a.flatten() == 1
    assert torch.equal(a, colour) or torch.equal(a, ~colour)
    assert torch.equal(depends[a], torch.eye(16, dtype=torch.bool)[a])
    assert depends[~a][:, a].any() and torch.equal(depends[~a][:, ~a], torch.eye(8, dtype=torch.bool))
