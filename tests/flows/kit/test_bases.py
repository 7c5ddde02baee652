"""Every base against quadrature and SciPy; grids, integrals and pictures of densities against what is known of them."""

import math

import pytest
import scipy.stats
import torch

from mpcli_flows.kit.bases import BaseName, Logistic, Normal, StudentT, Uniform, base

NAMES: tuple[BaseName, ...] = ("normal", "uniform", "logistic", "student_t", "mixture")
LINE = torch.linspace(-60, 60, 240_001, dtype=torch.float64)[:, None]
STEP = float(LINE[1, 0] - LINE[0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_integrates_to_one(name):
    p = base(name, 1).double().requires_grad_(False)
    # The t distribution with 5 degrees of freedom leaves 2e-8 outside of the line.
    assert abs(float(p.log_prob(LINE).exp().sum()) * STEP - 1) < 1e-7


@pytest.mark.parametrize("name", ["normal", "uniform", "logistic", "student_t"])
def test_has_mean_0_and_variance_1(name):
    weights = base(name, 1).double().log_prob(LINE).exp() * STEP
    assert abs(float((weights * LINE[:, 0]).sum())) < 1e-9
    assert abs(float((weights * LINE[:, 0].square()).sum()) - 1) < 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_density(name, temperature):
    p = base(name, 1).double().requires_grad_(False)
    z = p.sample(20_000, temperature)
    if name == "mixture":  # its temperature narrows the components, not their distances
        p.log_deviations.data += math.log(temperature)  # type: ignore[operator]
        temperature = 1.0
    cumulative = (p.log_prob(LINE / temperature).exp().cumsum(0) * STEP / temperature).numpy()
    at = ((z[:, 0] - LINE[0, 0]) / STEP).round().long().clamp(0, len(LINE) - 1).numpy()
    assert scipy.stats.kstest(cumulative[at], "uniform").pvalue > 0.01


def test_known_densities():
    z = torch.randn(7, 3, dtype=torch.float64)
    for p, known in [
        (Normal(3), scipy.stats.norm()),
        (Logistic(3), scipy.stats.logistic(scale=math.sqrt(3) / math.pi)),
        (StudentT(3), scipy.stats.t(5, scale=math.sqrt(3 / 5))),
    ]:
        expected = torch.from_numpy(known.logpdf(z.numpy())).sum(1)
        torch.testing.assert_close(p.double().log_prob(z), expected, rtol=0, atol=1e-12)


def test_uniform_is_flat_within_and_falls_without():
    p = Uniform(1).double()
    inside = p.log_prob(torch.linspace(-1.3, 1.3, 50, dtype=torch.float64)[:, None])
    torch.testing.assert_close(inside, torch.full_like(inside, -math.log(2 * p.reach)), rtol=0, atol=1e-2)
    far = torch.tensor([[50.0], [1e6]], dtype=torch.float64)
    torch.testing.assert_close(
        p.log_prob(far), (p.reach - far[:, 0]) / p.edge - math.log(2 * p.reach), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("name", NAMES)
def test_dimensions_multiply_and_types_are_kept(name):
    p = base(name, 4)
    z = p.sample(6)
    assert z.shape == (6, 4) and z.dtype == torch.float32 and p.log_prob(z).dtype == torch.float32
    assert p.double().sample(2).dtype == torch.float64
    if name != "mixture":
        parts = sum(base(name, 1).log_prob(z[:, i : i + 1]) for i in range(4))
        torch.testing.assert_close(base(name, 4).log_prob(z), parts, rtol=1e-5, atol=1e-5)


def test_mixture_is_torchs():
    p = base("mixture", 3)
    z = torch.randn(5, 3)
    d = torch.distributions
    components = d.Independent(d.Normal(p.means, p.log_deviations.exp()), 1)  # type: ignore[operator]
    known = d.MixtureSameFamily(d.Categorical(logits=p.weights), components)
    torch.testing.assert_close(p.log_prob(z), known.log_prob(z))
