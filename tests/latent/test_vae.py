"""The variational autoencoder against exact answers, and that it learns."""

import csv
import math

import pytest
import torch
from mutants import arguments, nothing, result
from PIL import Image
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal, kl_divergence

from mpcli.kit import datasets
from mpcli.run import Trained
from mpcli_latent import vae
from mpcli_latent.vae import VAE, Config

SMALL = {"train": ["--hidden", "16", "--importance", "5"], "evaluate": ["--importance", "5"]}


def always_the_prior(q):
    return Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)


def without_gradient(original):
    def forward(self, x):
        q = self.posterior(x)
        return self.likelihood(q.rsample().detach()).log_prob(self.data(x)), kl_divergence(q, self.prior())

    return forward


MUTANTS = {
    "no ELBO": (VAE, "forward", result(nothing)),
    "a draw that passes no gradient": (VAE, "terms", without_gradient),
    "a posterior that does not see x": (VAE, "posterior", result(always_the_prior)),
    "no likelihood": (VAE, "log_likelihood", result(nothing)),
    "the number of samples not divided by": (VAE, "log_likelihood", result(lambda log_p: log_p + math.log(3))),
    "grey values in place of bits": (VAE, "data", lambda original: lambda self, x: x),
    "a score without its noise": (vae, "score_function", arguments(lambda f, m, s, e: (f, m, s, e.abs()))),
    "noise that the score does not follow": (vae, "reparameterised", arguments(lambda f, m, s, e: (f, m, s, 0 * e))),
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


def linear_ratio(weight: torch.Tensor, noise: float, x: torch.Tensor):
    def f(z, m, s):
        seen = Normal(z @ weight.T, noise).log_prob(x).sum(-1)
        return seen + Normal(0.0, 1.0).log_prob(z).sum(-1) - Normal(m, s).log_prob(z).sum(-1)

    return f


def test_both_gradients_are_unbiased_and_the_score_function_is_noisier():
    weight, x = torch.randn(6, 2).double(), torch.randn(6).double()
    m, s = torch.tensor([0.3, -0.2]).double(), torch.tensor([0.5, 0.2]).double()
    f = linear_ratio(weight, 0.5, x)
    residual = (weight @ m - x) / 0.25
    exact = torch.cat([-weight.T @ residual - m, -s * (weight.square().sum(0) / 0.25 + 1) + 1 / s])
    e = torch.randn(100_000, 2).double()
    deviations = []
    for estimate in (vae.reparameterised, vae.score_function):
        drawn = estimate(f, m, s, e)
        error = drawn.std(0) / math.sqrt(len(e))
        assert ((drawn.mean(0) - exact).abs() < 5 * error).all()
        deviations.append(drawn.std(0))
    assert (deviations[1] > 1.5 * deviations[0]).all()


def test_weights_of_one_are_the_elbo_and_others_weigh_its_terms():
    x = torch.rand(5, 1, 4, 4)
    values = {}
    for beta, reconstruction in ((1.0, 1.0), (4.0, 1.0), (1.0, 0.5)):
        torch.manual_seed(0)
        model = VAE(Config(latent=2, hidden=8, dropout=0, beta=beta, reconstruction=reconstruction), (1, 4, 4))
        torch.manual_seed(1)
        values[beta, reconstruction] = model(x)
        torch.manual_seed(1)
        seen, kl = model.terms(x)
        torch.testing.assert_close(values[beta, reconstruction], reconstruction * seen - beta * kl)
        torch.manual_seed(1)
        torch.testing.assert_close(model.elbo(x), seen - kl)
    assert (values[4.0, 1.0] < values[1.0, 1.0]).all()


@pytest.mark.learning
def test_reconstruction_alone_leaves_gaps_and_the_kl_alone_says_nothing(mpcli):
    spread = {}
    for option in ("--beta", "--reconstruction", "--lr"):
        value = 2e-3 if option == "--lr" else 0
        run = mpcli("train", "vae", "--latent", 2, option, value, "--steps", 600, "--importance", 5).path
        q = Trained(run).load(VAE, Config).posterior(datasets.load("digits", datasets.Images).test[:])
        spread[option] = q.mean.std().item(), q.stddev.mean().item()
    far, narrow = spread["--beta"]
    assert far > 3 and narrow < 0.5  # codes are points, far apart
    none, wide = spread["--reconstruction"]
    assert none < 0.1 and wide == pytest.approx(1, abs=0.1)  # all codes are the prior
    both, between = spread["--lr"]
    assert 0.5 < both < 1.5 and between < 0.5


def test_render_names_the_dimensions_that_say_something(mpcli):
    run = mpcli("train", "vae", "--latent", 3, "--hidden", 16, "--steps", 5, "--importance", 2).path
    result = mpcli("render", run, "--dimensions", 2, "--json")
    assert result.code == 0, result.err
    names = [path.rsplit("/", 1)[1] for path in result.json["artifacts"]]
    assert names == ["codes.png", "traversals.png", "gradients.csv", "gradients.png"]
    with open(result.json["artifacts"][2], newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("estimator", "parameter", "samples")
    noise = {tuple(row[key] for key in keys): float(row["standard_deviation"]) for row in rows}
    for of in "ms":
        for name in ("reparameterised", "score function"):
            falls = noise[name, of, "1"] / noise[name, of, "16"]
            assert falls == pytest.approx(4, rel=0.35)  # with the root of K
        assert noise["score function", of, "1"] > 3 * noise["reparameterised", of, "1"]


def test_one_picture_is_enough_to_sample(mpcli, tmp_path):
    for i in range(10):
        Image.new("L", (1, 1), 20 * i).save(tmp_path / f"{i}.png")
    run = mpcli("train", "vae", "--data", f"images:{tmp_path}", "--steps", 1, "--importance", 1).path
    result = mpcli("sample", run, "-n", 2)
    assert result.code == 0, result.err
