"""NICE, RealNVP and Glow: what their Jacobians show of their structure, and that they learn pictures."""

import math

import pytest
import torch

from mpcli.kit.densities import load
from mpcli_flows import glow, nice, realnvp
from mpcli_flows.kit.bijectors import Logit

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
    noisy = digits.continuous(digits.data.train.repeat(20, 1, 1, 1)).flatten(1).double()
    test = digits.continuous(digits.data.test).flatten(1).double()
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
