"""Likelihoods, Bayes, divergences, and Gaussians under matrices."""

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from mpcli.checks import Case, Draw, Printed, Sides, gradient, identity, inequality, uniform
from mpcli_math.derivatives.calculus import ONE, ZERO, log_sigmoid, sigmoid, softmax

SCALE = uniform(0.3, 3)

# 4. Likelihoods


def categorical_nll(x: Tensor, y: Tensor) -> Tensor:  # -sum_i y_i log softmax(x)_i
    return -(y * (x - x.logsumexp(0))).sum()


def bernoulli_nll(x: Tensor, y: Tensor) -> Tensor:  # -log prod_i pi_i^y_i (1 - pi_i)^(1 - y_i), pi = s(x)
    return -(sigmoid(x) ** y * sigmoid(-x) ** (1 - y)).prod().log()


def binary_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return -(y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x)).sum()


def gaussian_nll(mean: Tensor, y: Tensor, std: Tensor) -> Tensor:  # -log N(y; mean, std^2)
    return (y - mean) ** 2 / (2 * std**2) + std.log() + 0.5 * math.log(2 * math.pi)


def laplace_nll(median: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return (y - median).abs() / scale + (2 * scale).log()


def likelihoods() -> Iterator[Case]:
    def labels(g: Generator) -> Tensor:
        return torch.randint(2, (6,), generator=g).double()

    def classes(x: Tensor, y: Tensor) -> Sides:
        return categorical_nll(x, softmax(y)), softmax(x) - softmax(y)

    def binary(x: Tensor, y: Tensor) -> Sides:
        return binary_cross_entropy(x, y), sigmoid(x) - y

    def squared(m: Tensor, y: Tensor, s: Tensor) -> Sides:
        return gaussian_nll(m, y, s), (m - y) / s**2

    def absolute(m: Tensor, off: Tensor, b: Tensor) -> Sides:
        y = m.detach().round() + 0.5 + off.round()  # half a unit from where |m - y| has its kink
        return laplace_nll(m, y, b), (m - y).sign() / b

    yield gradient("softmax, then nll: dL/dx = softmax(x) - y", classes, (5,), (5,))
    yield gradient("sigmoid, then nll: dL/dx = s(x) - y", binary, (6,), labels)
    yield gradient("Gaussian nll, fixed s: dL/dm = (m - y) / s^2, a squared error's", squared, (6,), (6,), SCALE)
    name = "Laplace nll, fixed b: dL/dm = sign(m - y) / b, an absolute error's"
    yield gradient(name, absolute, uniform(-0.4, 0.4, 6), (6,), SCALE)

    def bracket(x: Tensor, y: Tensor) -> Sides:  # without the bracket, the minus sign stops at the first term
        unbracketed = (-y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x)).sum()
        return bernoulli_nll(x, y), binary_cross_entropy(x, y), unbracketed

    printed = Printed("(10)", "-sum y log pi + (1 - y) log(1 - pi)", "-sum [y log pi + (1 - y) log(1 - pi)]")
    yield identity("Bernoulli nll = -sum [y log pi + (1 - y) log(1 - pi)]", bracket, (6,), labels, printed=printed)

    def mean(x: Tensor, y: Tensor) -> Sides:
        return bernoulli_nll(x, y), binary_cross_entropy(x, y), binary_cross_entropy(x, y) / len(x)

    printed = Printed("(9) = (10)", "-log p = -1/N sum_i ...", "-log p = -sum_i ...; their mean is -1/N log p")
    yield identity("-log of a product is a sum, not a mean", mean, (6,), labels, printed=printed)

    def best(m: Tensor, y: Tensor, s: Tensor) -> Sides:
        return gaussian_nll(y.mean(), y, y.std(correction=0)).sum(), gaussian_nll(m, y, s).sum()

    name = "Gaussian nll is least at the sample's mean and root mean square deviation"
    yield inequality(name, best, (), (6,), SCALE)


# 5. Bayes and MAP in linear regression: y = X w + noise, noise ~ N(0, NOISE^2), w ~ N(0, PRIOR^2 I)

NOISE, PRIOR = torch.tensor([0.7, 1.5], dtype=torch.float64)


def log_normal(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:  # [D], [D], [D, D] -> log N(x; mean, covariance)
    mahalanobis = (x - mean) @ torch.linalg.solve(covariance, x - mean)
    return -0.5 * (mahalanobis + covariance.logdet() + len(x) * math.log(2 * math.pi))


def log_joint(w: Tensor, x: Tensor, y: Tensor, priors: int = 1) -> Tensor:  # log p(D|w) + log p(w)
    return -gaussian_nll(x @ w, y, NOISE).sum() - priors * gaussian_nll(ZERO, w, PRIOR).sum()


def log_evidence(x: Tensor, y: Tensor) -> Tensor:  # w integrated out: y ~ N(0, NOISE^2 I + PRIOR^2 X X^T)
    return log_normal(y, torch.zeros_like(y), NOISE**2 * torch.eye(len(y)).double() + PRIOR**2 * x @ x.T)


def log_posterior(w: Tensor, x: Tensor, y: Tensor) -> Tensor:  # its mean is the solution of ridge regression
    covariance = (x.T @ x / NOISE**2 + torch.eye(len(w)).double() / PRIOR**2).inverse()
    return log_normal(w, covariance @ x.T @ y / NOISE**2, covariance)


def bayes() -> Iterator[Case]:
    regression = (3,), (8, 3), (8,)  # w, X, y

    def posterior(w: Tensor, x: Tensor, y: Tensor) -> Sides:
        right, twice = (log_joint(w, x, y, priors) - log_evidence(x, y) for priors in (1, 2))
        return log_posterior(w, x, y), right, twice

    printed = Printed("004 1.2", "p(theta) prod_i p(y_i|theta) p(theta)", "p(theta) prod_i p(y_i|theta)")
    yield identity("log p(w|D) = log p(w) + log p(D|w) - log p(D)", posterior, *regression, printed=printed)

    def ridge(w: Tensor, x: Tensor, y: Tensor) -> Sides:
        return -log_posterior(w, x, y), x.T @ (x @ w - y) / NOISE**2 + w / PRIOR**2

    name = "MAP is ridge regression: -d log p(w|D)/dw = X^T (X w - y) / s^2 + w / t^2"
    yield gradient(name, ridge, *regression)


# 6. Entropy, divergence, Jensen


def entropy(p: Tensor) -> Tensor:  # [D] -> nats
    return -(p * p.log()).sum()


def cross_entropy(p: Tensor, q: Tensor) -> Tensor:
    return -(p * q.log()).sum()


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


def js(p: Tensor, q: Tensor) -> Tensor:
    m = (p + q) / 2
    return 0.5 * kl(p, m) + 0.5 * kl(q, m)


def kl_normal(s: Tensor, t: Tensor) -> Tensor:  # KL(N(0, s^2) || N(0, t^2)), the integral by the trapezoidal rule
    x = s * torch.linspace(-14, 14, 4001, dtype=torch.float64)
    nll, other = gaussian_nll(ZERO, x, s), gaussian_nll(ZERO, x, t)
    return torch.trapezoid((-nll).exp() * (other - nll), x)


def divergences() -> Iterator[Case]:
    def distribution(g: Generator) -> Tensor:
        return softmax(torch.randn(5, dtype=torch.float64, generator=g))

    pair = distribution, distribution

    def asymmetry(s: Tensor) -> Sides:
        return kl_normal(s, ONE) - kl_normal(ONE, s), (s**2 - s**-2) / 2 - 2 * s.log(), ZERO

    yield identity("H(p, q) = H(p) + KL(p || q)", lambda p, q: (cross_entropy(p, q), entropy(p) + kl(p, q)), *pair)
    yield inequality("-KL = sum p log(q / p) <= log sum q = 0", lambda p, q: (-kl(p, q), ZERO), *pair)
    name = "KL of N(0, s^2) and N(0, 1), less KL the other way: (s^2 - s^-2) / 2 - 2 log s"
    yield identity(name, asymmetry, SCALE, mistake="KL taken for symmetric")
    yield identity("JS(p, q) = JS(q, p)", lambda p, q: (js(p, q), js(q, p)), *pair)
    yield inequality("0 <= JS", lambda p, q: (ZERO, js(p, q)), *pair)
    yield inequality("JS <= log 2", lambda p, q: (js(p, q), (2 * ONE).log()), *pair)
    variable = uniform(0.1, 3, 5), distribution  # the values of X and their probabilities
    yield inequality("exp(E[X]) <= E[exp(X)]", lambda x, p: ((p @ x).exp(), p @ x.exp()), *variable)
    yield inequality("E[log X] <= log E[X]", lambda x, p: (p @ x.log(), (p @ x).log()), *variable)


# 7. Matrices and Gaussians


def homogeneous(a: Tensor, x: Tensor, t: Tensor) -> Tensor:  # the upper part of [A t; 0 1] [x; 1]
    last = torch.eye(len(t) + 1)[-1].double()
    return (torch.vstack([torch.column_stack([a, t]), last]) @ torch.cat([x, last[-1:]]))[:-1]


def sum_density(m: Tensor, s: Tensor, n: Tensor, t: Tensor, x: Tensor) -> Tensor:  # p(X + Y = x), an integral over X
    u = m + s * torch.linspace(-14, 14, 8001, dtype=torch.float64)
    return torch.trapezoid((-gaussian_nll(m, u, s) - gaussian_nll(n, x - u, t)).exp(), u)


def matrices() -> Iterator[Case]:
    def regular(n: int) -> Draw:  # a matrix far from singular
        return lambda g: torch.randn(n, n, dtype=torch.float64, generator=g) + 5 * torch.eye(n)

    def lemma(a: Tensor, u: Tensor, v: Tensor) -> Sides:
        return (a + torch.outer(u, v)).det(), (1 + v @ torch.linalg.solve(a, u)) * a.det()

    yield identity("det(A + u v^T) = (1 + v^T A^-1 u) det A", lemma, regular(4), (4,), (4,))
    yield gradient("d log|det A|/dA = A^-T", lambda a: (a.det().abs().log(), a.inverse().T), regular(4))
    affine = "A x + t = [A t; 0 1] [x; 1]"
    yield identity(affine, lambda a, x, t: (homogeneous(a, x, t), a @ x + t), regular(4), (4,), (4,))

    def total(m: Tensor, s: Tensor, n: Tensor, t: Tensor, x: Tensor) -> Sides:
        right, wrong = ((-gaussian_nll(m + n, x, scale)).exp() for scale in ((s**2 + t**2).sqrt(), s + t))
        return sum_density(m, s, n, t, x), right, wrong

    name = "X + Y ~ N(m + n, s^2 + t^2), X and Y independent"
    yield identity(name, total, (), SCALE, (), SCALE, (), mistake="deviations that add")

    def moved(a: Tensor, t: Tensor, m: Tensor, root: Tensor, x: Tensor) -> Sides:
        s = root @ root.T + torch.eye(3)
        return log_normal(a @ x + t, a @ m + t, a @ s @ a.T), log_normal(x, m, s) - a.det().abs().log()

    yield identity("A X + t ~ N(A m + t, A S A^T)", moved, regular(3), (3,), (3,), (3, 3), (3,))
