"""The equations of the page, checked on a model so small that its likelihood is known."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, Normal, kl_divergence
from torch.nn.functional import logsigmoid, softplus

from mpcli.checks import Case, Printed, Sides, gradient, identity, inequality, uniform
from mpcli_latent import vae


def gradcheck() -> Iterator[Case]:
    half_log, noise = 0.5 * math.log(2 * math.pi), math.exp(-1)

    def linear(weight: Tensor, bias: Tensor | float = 0.0) -> nn.Sequential:
        layer = nn.Linear(*weight.T.shape).double().requires_grad_(False)
        layer.weight.data, layer.bias.data = weight, weight.new_zeros(len(weight)) + bias
        return nn.Sequential(layer)

    class Linear(vae.VAE):  # x = w z + noise with one z, so that p(x) is known
        def __init__(self, w: Tensor, v: Tensor, bias: Tensor | float = 0.0):
            super().__init__(vae.Config(latent=1, hidden=1, decoder="gaussian"), (2,))
            self.double().requires_grad_(False)
            self.encoder, self.decoder = linear(v, bias), linear(w[:, None])

        def posterior(self, x: Tensor) -> Distribution:
            q = super().posterior(x)
            e = x.new_tensor([[-1.0], [1.0]])  # over these two, all that is quadratic in e has its exact mean
            q.rsample = lambda: q.mean + q.stddev * e  # type: ignore[method-assign, assignment, misc]
            return q

    def moments(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # m, s of q(z|x)
        m, s = v @ x
        return m, softplus(s) + 1e-4

    def expected(x: Tensor, w: Tensor, v: Tensor) -> Tensor:  # E_q log p(x|z)
        m, s = moments(x, v)
        return Normal(w * m, noise).log_prob(x).sum() - 0.5 * (s / noise) ** 2 * (w @ w)

    def evidence(x: Tensor, w: Tensor) -> Tensor:
        covariance = torch.outer(w, w) + noise**2 * torch.eye(2).to(w)
        return MultivariateNormal(0 * x, covariance).log_prob(x)

    def exact(w: Tensor) -> tuple[Tensor, Tensor]:  # p(z|x) = N(a x, s^2)
        precision = 1 + w @ w / noise**2
        return w / noise**2 / precision, precision.rsqrt()

    def density(x: Tensor, v: Tensor, z: Tensor) -> Sides:
        m, s = moments(x, v)
        right, wrong = (-0.5 * (z - m) ** 2 / s2 - 0.5 * s2.log() - half_log for s2 in (s**2, s))
        return Linear(x, v).posterior(x[None]).log_prob(z[:, None]), right, wrong

    printed = Printed("001 section 8", "q = N(m, s I)", "q = N(m, s^2 I)")
    yield identity("q(z|x) = N(m(x), s(x)^2)", density, (2,), (2, 2), (1,), printed=printed)

    def bound(x: Tensor, w: Tensor, v: Tensor) -> Sides:
        (m, s), seen = moments(x, v), expected(x, w, v)
        right, wrong = (seen + 0.5 * (1 + (s**2).log() - square - s**2) for square in (m**2, m))
        return Linear(w, v)(x[None]).mean(), right, wrong

    printed = Printed(
        "(85)", "-KL = 1/2 (1 + log s_j^2 - m_j - s_j^2)", "-KL = 1/2 sum_j (1 + log s_j^2 - m_j^2 - s_j^2)"
    )
    name = "ELBO = E_q log p(x|z) + 1/2 sum_j (1 + log s_j^2 - m_j^2 - s_j^2)"
    yield identity(name, bound, (2,), (2,), (2, 2), printed=printed)

    def gap(x: Tensor, w: Tensor, v: Tensor) -> Sides:
        (m, s), (a, exact_s) = moments(x, v), exact(w)
        return Linear(w, v)(x[None]).mean() + kl_divergence(Normal(m, s), Normal(a @ x, exact_s)), evidence(x, w)

    yield identity("log p(x) = ELBO + KL(q || p(z|x)), linear-Gaussian model", gap, (2,), (2,), (2, 2))

    def below(x: Tensor, w: Tensor, v: Tensor) -> Sides:
        return Linear(w, v)(x[None]).mean(), evidence(x, w)

    yield inequality("ELBO <= log p(x), linear-Gaussian model", below, (2,), (2,), (2, 2))

    def weighted(x: Tensor, w: Tensor) -> Sides:
        a, s = exact(w)
        bias = torch.stack((0 * s, torch.expm1(s - 1e-4).log()))
        return Linear(w, torch.stack((a, 0 * a)), bias).log_likelihood(x[None], 3)[0], evidence(x, w)

    yield identity("log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) = log p(x) where q = p(z|x)", weighted, (2,), (2,))

    def entropy(x: Tensor, v: Tensor) -> Sides:
        q, (_, s) = Linear(x, v).posterior(x[None]), moments(x, v)
        right, wrong = (-half_log - 0.5 * (term + 1) for term in ((s**2).log(), s**2))
        return q.log_prob(q.rsample()).mean(), right, wrong

    printed = Printed(
        "(84)", "-J/2 log 2 pi - 1/2 sum_j (s_j^2 + 1), added", "-J/2 log 2 pi - 1/2 sum_j (log s_j^2 + 1), subtracted"
    )
    yield identity("E_q log q(z) = -J/2 log 2 pi - 1/2 sum_j (log s_j^2 + 1)", entropy, (2,), (2, 2), printed=printed)

    def difference(x: Tensor, v: Tensor) -> Sides:
        model, (m, s) = Linear(x, v), moments(x, v)
        of_prior, of_q = -half_log - 0.5 * (s**2 + m**2), -0.5 * ((s**2).log() + 1)
        kl = kl_divergence(model.posterior(x[None]), model.prior())[0]
        return kl, of_q - half_log - of_prior, of_q + half_log - of_prior

    printed = Printed("002 appendix", "E_q log q = J/2 log 2 pi - ...", "E_q log q = -J/2 log 2 pi - ...")
    yield identity("KL(q || p) = E_q log q - E_q log p", difference, (2,), (2, 2), printed=printed)

    def crossed(x: Tensor, y: Tensor, v: Tensor) -> Sides:
        model, (m, s), (n, t) = Linear(x, v), moments(x, v), moments(y, v)
        right, wrong = (-half_log - 0.5 * (term + (s**2 + (m - n) ** 2) / t**2) for term in ((t**2).log(), s.log()))
        return model.posterior(y[None]).log_prob(model.posterior(x[None]).rsample()).mean(), right, wrong

    printed = Printed("001 section 8", "E_p log q = ... - 1/2 sum log s_p,j", "E_p log q = ... - 1/2 sum log s_q,j^2")
    name = "E_p log q = -J/2 log 2 pi - 1/2 sum (log s_q^2 + (s_p^2 + (m_p - m_q)^2) / s_q^2)"
    yield identity(name, crossed, (2,), (2,), (2, 2), printed=printed)

    def pathwise(v: Tensor, x: Tensor, w: Tensor) -> Sides:
        model, (m, s) = Linear(w, v), moments(x, v)
        weight = next(model.encoder.parameters()).requires_grad_()
        (slope,) = torch.autograd.grad(model(x[None]).mean(), weight)
        exactly = expected(x, w, v) + 0.5 * (1 + (s**2).log() - m**2 - s**2)
        return exactly, slope, slope / s  # p(z) = p(e) / s

    printed = Printed("002 appendix", "grad E f = int p(z) grad f(g(e)) de", "grad E f = int p(e) grad f(g(e)) de")
    yield gradient(
        "grad ELBO = E_e[grad of log p(x, z) / q(z|x) at z = m + s e]", pathwise, (2, 2), (2,), (2,), printed=printed
    )

    def estimates(x: Tensor, w: Tensor, v: Tensor) -> Sides:
        m, s = (part.clone().requires_grad_() for part in moments(x, v))
        nodes = x.new_tensor([[-math.sqrt(3)], [0.0], [math.sqrt(3)]])  # Gauss and Hermite's rule, exact to degree 5
        shares = x.new_tensor([1 / 6, 2 / 3, 1 / 6])
        model = Linear(w, v)

        def f(z: Tensor, m: Tensor, s: Tensor) -> Tensor:
            seen = Normal(z * w, noise).log_prob(x).sum(-1)
            return seen + model.prior().log_prob(z) - Normal(m, s).log_prob(z).sum(-1)

        with torch.enable_grad():
            path, score = (of(f, m[None], s[None], nodes) for of in (vae.reparameterised, vae.score_function))
        return shares @ path, shares @ score, shares @ score * s.detach()

    name = "E_e grad f(m + s e) = E_q f grad log q(z|x): reparameterised and score-function gradients"
    yield identity(name, estimates, (2,), (2,), (2, 2), mistake="a score that is not divided by s")

    def bits(x: Tensor, z: Tensor, w: Tensor) -> Sides:
        model = vae.VAE(vae.Config(latent=2, hidden=1), (3,))
        model.decoder = linear(w)
        out = w @ z
        left = model.likelihood(z).log_prob(model.data(x))
        return left, logsigmoid(torch.where(x > 0.5, out, -out)).sum(), (x * out - softplus(out)).sum()

    name = "Bernoulli decoder: log p(x|z) = sum log s(o) where a pixel is above 1/2, log s(-o) elsewhere"
    yield identity(name, bits, uniform(0, 1, 3), (2,), (3, 2), mistake="grey values in place of bits")
