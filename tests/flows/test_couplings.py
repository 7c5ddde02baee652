"""NICE, RealNVP and Glow: what their Jacobians show of their structure, and that they learn pictures."""

import math

import pytest
import torch
from torch import nn

from mpcli.kit.densities import load
from mpcli_flows import glow, nice, realnvp
from mpcli_flows.kit.bijectors import Logit, Scale


def stirred(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def dependence(f, z):  # which outputs depend on which inputs
    return torch.autograd.functional.jacobian(lambda y: f(y)[0].flatten(), z).reshape(z.numel(), -1).abs() > 1e-12


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


def test_a_checkerboard_coupling_reads_one_colour_and_moves_the_other():
    net = stirred(realnvp.ConvNet(1, 4, 1, 2))
    f = realnvp.CheckerboardCoupling(net, 4, 4, white=False).double()
    depends = dependence(f, torch.randn(1, 1, 4, 4, dtype=torch.float64))
    colour = (torch.arange(4)[:, None] + torch.arange(4)).flatten() % 2 == 1
    a = f.a.flatten() == 1
    assert torch.equal(a, colour) or torch.equal(a, ~colour)
    assert torch.equal(depends[a], torch.eye(16, dtype=torch.bool)[a])
    assert depends[~a][:, a].any() and torch.equal(depends[~a][:, ~a], torch.eye(8, dtype=torch.bool))


@pytest.mark.parametrize("layer", [glow.Conv1x1, glow.LUConv1x1])
def test_the_convolution_starts_as_a_rotation(layer):
    weight, logdet = layer(6).double().requires_grad_(False).weight()
    torch.testing.assert_close(weight @ weight.T, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-5)
    assert abs(float(logdet)) < 1e-5


def test_a_learned_mixing_reaches_every_permutation():
    f, order = glow.Conv1x1(5).double(), torch.randperm(5)
    f.matrix.data = torch.eye(5, dtype=torch.float64)[order]
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    z, logdet = f.inverse(x)
    torch.testing.assert_close(z, x[:, order])
    assert logdet.abs().max() < 1e-12


def test_actnorm_is_set_by_the_first_batch_only_and_survives_saving():
    f = glow.ActNorm(3)
    x = 5 + 3 * torch.randn(64, 3, 4, 4)
    z = f.inverse(x)[0]
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.var((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-2)
    loaded = glow.ActNorm(3)
    loaded.load_state_dict(f.state_dict())
    other = torch.randn(64, 3, 4, 4)
    assert torch.equal(loaded.train().inverse(other)[0], f.inverse(other)[0])
    assert f.inverse(other)[0].mean().abs() > 0.5


def test_actnorm_is_not_set_by_evaluation():
    f = glow.ActNorm(3).eval()
    x = 5 + torch.randn(8, 3, 2, 2)
    assert torch.equal(f.inverse(x)[0], x)


SMALL = {
    "nice": lambda: nice.NICE(nice.Config(), (1, 8, 8), 17),
    "realnvp": lambda: realnvp.RealNVP(realnvp.Config(channels=16), (1, 8, 8), 17),
    "glow": lambda: glow.Glow(glow.Config(depth=3, channels=16), (1, 8, 8), 17),
}


@pytest.mark.parametrize("name", SMALL)
def test_learns_digits_beyond_a_gaussian(name):
    """A normal distribution with full covariance, fitted in closed form to the same noisy pixels, has 2.95 bits/dim."""
    digits, model = load("digits", torch.device("cpu")), SMALL[name]()
    if name != "glow":
        model.fit_scale(digits)
    noisy = digits.continuous(digits.data.train[:].repeat(20, 1, 1, 1)).flatten(1).double()
    test = digits.continuous(digits.data.test[:]).flatten(1).double()
    known = torch.distributions.MultivariateNormal(noisy.mean(0), torch.cov(noisy.T))
    gaussian = float(-known.log_prob(test).mean()) / 64 / math.log(2) + math.log2(17)
    assert 2.8 < gaussian < 3.1
    adam = torch.optim.Adam(model.parameters(), 0.005)
    batches = digits.batches(64, 0)
    for step in range(60):
        loss = -model(batches(step)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert float(digits.held_out(model)["bits_per_dim"]) < gaussian - 0.1


def test_the_logit_counts_in_the_density_of_a_picture():
    flow = SMALL["realnvp"]().eval()
    x = torch.rand(3, 1, 8, 8)
    h, logit = Logit().inverse(x)
    with torch.no_grad():
        z, inner = type(flow.bijector)(f for f in flow.bijector if not isinstance(f, Logit)).inverse(h)
        torch.testing.assert_close(flow(x), flow.base.log_prob(z) + inner + logit)
    assert logit.abs().min() > 10


def test_glow_walks_from_one_picture_to_another(mpcli):
    small = ("--depth", 1, "--channels", 4, "--steps", 2)
    trained = mpcli("train", "glow", *small, "--quiet").path
    assert mpcli("sample", trained, "--between", "3,8", "-n", 5, "--out", "walk.gif").path.stat().st_size > 0
    refused = mpcli("sample", trained, "--between", "3,300")
    assert refused.code == 2 and "300" in refused.err
    rows = mpcli("train", "glow", "--data", "moons")
    assert rows.code == 2 and "even sides" in rows.err
    faces = mpcli("train", "glow", "--data", "faces")
    assert faces.code == 2 and "25x25" in faces.err
