"""The variational autoencoder against exact answers, and that it learns."""

import math

import pytest
import torch
from mutants import nothing, result
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal, kl_divergence

from mpcli.kit import datasets
from mpcli_latent.vae import VAE, Config

SMALL = {"train": ["--hidden", "16", "--importance", "5"], "evaluate": ["--importance", "5"]}


def always_the_prior(q):
    return Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)


def without_gradient(original):
    def forward(self, x):
        q = self.posterior(x)
        return self.likelihood(q.rsample().detach()).log_prob(self.data(x)) - kl_divergence(q, self.prior())

    return forward


MUTANTS = {
    "no ELBO": (VAE, "forward", result(nothing)),
    "a draw that passes no gradient": (VAE, "forward", without_gradient),
    "a posterior that does not see x": (VAE, "posterior", result(always_the_prior)),
    "no likelihood": (VAE, "log_likelihood", result(nothing)),
    "the number of samples not divided by": (VAE, "log_likelihood", result(lambda log_p: log_p + math.log(3))),
    "grey values in place of bits": (VAE, "data", lambda original: lambda self, x: x),
    "a wider prior": (VAE, "prior", result(lambda p: Independent(Normal(p.mean, 2.0), 1))),
}


def linear_gaussian(noise: float = 0.5) -> tuple[VAE, MultivariateNormal]:
    """A VAE whose decoder is linear and Gaussian, so that p(x) is known: N(b, W W' + s^2 I)."""
    model = VAE(Config(latent=2, hidden=4, decoder="gaussian", dropout=0.0), (1, 1, 5)).double().eval()
    weight, bias = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    model.decoder = torch.nn.Linear(2, 5).double()
    model.decoder.weight.data, model.decoder.bias.data = weight, bias
    model.log_noise.data = torch.tensor(math.log(noise), dtype=torch.float64)
    covariance = weight @ weight.T + noise**2 * torch.eye(5, dtype=torch.float64)
    return model, MultivariateNormal(bias, covariance)


@torch.no_grad()
def test_importance_weighting_approaches_the_exact_likelihood_from_below():
    model, exact = linear_gaussian()
    model.encoder[-1].bias.data[2:] = 2.0  # a proposal wide enough to cover the posterior of every x
    x = exact.sample((20,)).reshape(20, 1, 1, 5)
    true = exact.log_prob(x.flatten(1))
    elbo = torch.stack([model(x) for _ in range(100)]).mean(0)
    tight = torch.stack([model.log_likelihood(x, 50) for _ in range(100)]).mean(0)
    assert (elbo < tight).all()
    assert (tight < true + 0.2).all()
    assert torch.allclose(model.log_likelihood(x, 50_000), true, atol=0.1)


@torch.no_grad()
def test_the_elbo_is_exact_where_the_posterior_is():
    model, exact = linear_gaussian()
    weight, noise2 = model.decoder.weight, float((2 * model.log_noise).exp())
    covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + weight.T @ weight / noise2)
    chol = torch.linalg.cholesky(covariance)

    class Exact(VAE):
        def posterior(self, x):
            mean = (x.flatten(1) - self.decoder.bias) @ weight / noise2 @ covariance
            return MultivariateNormal(mean, scale_tril=chol)

        def prior(self):
            return MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())

    model.__class__ = Exact
    x = exact.sample((4,)).reshape(4, 1, 1, 5)
    true = exact.log_prob(x.flatten(1))
    assert torch.allclose(model.log_likelihood(x, 3), true, atol=1e-9)  # every importance weight is p(x)
    elbo = torch.stack([model(x) for _ in range(1000)])
    assert ((elbo.mean(0) - true).abs() < 5 * elbo.std(0) / 1000**0.5).all()


def test_the_reparameterised_gradient_is_that_of_the_expected_elbo():
    model, _ = linear_gaussian()
    x = torch.randn(1, 1, 1, 5, dtype=torch.float64)
    bias = model.encoder[-1].bias

    def mean_and_error(shift: float) -> tuple[float, float]:
        with torch.no_grad():
            bias[0] += shift
            torch.manual_seed(1)  # common random numbers
            values = model(x.expand(20_000, -1, -1, -1))
            bias[0] -= shift
        return float(values.mean()), float(values.std()) / 20_000**0.5

    numeric = (mean_and_error(1e-3)[0] - mean_and_error(-1e-3)[0]) / 2e-3
    torch.manual_seed(1)
    (slope,) = torch.autograd.grad(model(x.expand(20_000, -1, -1, -1)).mean(), bias)
    assert float(slope[0]) == pytest.approx(numeric, rel=1e-4)


def test_bernoulli_pixels_are_binarised_at_a_half():
    model = VAE(Config(latent=2, hidden=4), (1, 2, 2))
    x = torch.tensor([[[[0.0, 0.5], [0.51, 1.0]]]])
    assert model.data(x).flatten().tolist() == [0, 0, 1, 1]
    torch.manual_seed(0)
    first = model.eval()(x)
    torch.manual_seed(0)
    assert torch.equal(first, model(model.data(x)))


def independent_pixels(decoder: str) -> float:
    """Test nll, in nats, of a model without z: the mean image, with one noise level for the Gaussian."""
    images = datasets.load("digits", datasets.Images)
    train, test = images.train[:], images.test[:]
    if decoder == "gaussian":
        mean = train.mean(0)
        noise = (train - mean).square().mean().sqrt()
        return -float(Normal(mean, noise).log_prob(test).flatten(1).sum(1).mean())
    share = ((train > 0.5).float().sum(0) + 0.5) / (len(train) + 1)
    return -float(Bernoulli(share).log_prob((test > 0.5).float()).flatten(1).sum(1).mean())


@pytest.mark.parametrize("decoder", ["bernoulli", "gaussian"])
def test_it_learns_more_than_independent_pixels(mpcli, decoder):
    small = ["--hidden", 96, "--steps", 700, "--lr", 5e-3, "--dropout", 0, "--importance", 50]
    result = mpcli("train", "vae", "--decoder", decoder, *small, "--quiet", "--json")
    assert result.code == 0, result.err
    assert result.json["metrics"]["nll"] < independent_pixels(decoder) - 4
    assert result.json["metrics"]["elbo"] <= -result.json["metrics"]["nll"]


def test_evaluate_draws_as_many_samples_as_asked_and_refuses_other_shapes(mpcli):
    run = mpcli("train", "vae", "--steps", 30, "--importance", 5, "--quiet").path
    one, many = (mpcli("evaluate", run, "--importance", k, "--json").json["metrics"]["nll"] for k in (1, 200))
    assert many < one
    refused = mpcli("evaluate", run, "--data", "faces")
    assert refused.code == 2
    assert "1x8x8" in refused.err


def test_it_reads_mnist(mpcli, shared_data):
    result = mpcli(
        "train", "vae", "--data", f"mnist:{shared_data / 'mnist'}", "--steps", 3, "--importance", 2, "--quiet"
    )
    assert result.code == 0, result.err
    assert mpcli("sample", result.path, "--quiet").code == 0
