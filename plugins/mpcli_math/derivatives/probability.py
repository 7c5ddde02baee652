"""Likelihoods, Bayes, divergences, and Gaussians under matrices."""

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from mpcli.checks import Case
from mpcli.old_checks import gradient, identity, inequality
from mpcli_math.derivatives.calculus import ONE, ZERO, log_sigmoid, normal, sigmoid, softmax

# 4. Likelihoods


def categorical_nll(x: Tensor, y: Tensor) -> Tensor:  # -sum_i y_i log softmax(x)_i
    return -(y * (x - x.logsumexp(0))).sum()


def bernoulli_nll(x: Tensor, y: Tensor) -> Tensor:  # -log prod_i pi_i^y_i (1 - pi_i)^(1 - y_i), pi = s(x)
    return -(sigmoid(x) ** y * sigmoid(-x) ** (1 - y)).prod().log()


def binary_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return -(y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x)).sum()


def bracket_misprint(x: Tensor, y: Tensor) -> Tensor:  # without the bracket, the minus sign stops at the first term
    return (-y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x)).sum()


def gaussian_nll(mean: Tensor, y: Tensor, std: Tensor) -> Tensor:  # -log N(y; mean, std^2)
    return (y - mean) ** 2 / (2 * std**2) + std.log() + 0.5 * math.log(2 * math.pi)


def laplace_nll(median: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return (y - median).abs() / scale + (2 * scale).log()


def likelihoods() -> Iterator[Case]:
    def classes(r: Generator) -> tuple[Tensor, Tensor]:  # logits, and a distribution over the classes
        x, y = normal((5,), (5,))(r)
        return x, softmax(y)

    def binary(r: Generator) -> tuple[Tensor, Tensor]:  # logits and labels
        return normal((6,))(r)[0], torch.tensor([0, 1, 0, 1, 1, 0], dtype=torch.float64)

    def predictions(r: Generator) -> tuple[Tensor, ...]:  # what a model says, what was seen, a scale
        m, off, scale = normal((6,), (6,), ())(r)
        return m, m + off + 0.1 * off.sign(), scale.exp()

    yield gradient("softmax, then nll: dL/dx = softmax(x) - y", categorical_nll, lambda x, y: softmax(x) - y, classes)
    yield gradient("sigmoid, then nll: dL/dx = s(x) - y", binary_cross_entropy, lambda x, y: sigmoid(x) - y, binary)
    name = "Bernoulli nll = -sum [y log pi + (1 - y) log(1 - pi)]"
    yield identity(name, bernoulli_nll, binary_cross_entropy, binary, printed=bracket_misprint)
    name = "Gaussian nll, fixed s: dL/dm = (m - y) / s^2, a squared error's"
    yield gradient(name, gaussian_nll, lambda m, y, s: (m - y) / s**2, predictions)
    name = "Laplace nll, fixed b: dL/dm = sign(m - y) / b, an absolute error's"
    yield gradient(name, laplace_nll, lambda m, y, b: (m - y).sign() / b, predictions)
    yield inequality(
        "Gaussian nll is least at the sample's mean and root mean square deviation",
        lambda m, y, s: gaussian_nll(y.mean(), y, y.std(correction=0)).sum(),
        lambda m, y, s: gaussian_nll(m[0], y, s).sum(),
        predictions,
    )


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
    regression = normal((3,), (8, 3), (8,))  # w, X, y
    yield identity(
        "log p(w|D) = log p(w) + log p(D|w) - log p(D)",
        log_posterior,
        lambda w, x, y: log_joint(w, x, y) - log_evidence(x, y),
        regression,
        printed=lambda w, x, y: log_joint(w, x, y, priors=2) - log_evidence(x, y),  # p(w) a second time
    )
    yield gradient(
        "MAP is ridge regression: -d log p(w|D)/dw = X^T (X w - y) / s^2 + w / t^2",
        lambda w, x, y: -log_posterior(w, x, y),
        lambda w, x, y: x.T @ (x @ w - y) / NOISE**2 + w / PRIOR**2,
        regression,
    )


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
    def pair(r: Generator) -> tuple[Tensor, ...]:  # two distributions
        return tuple(softmax(x) for x in normal((5,), (5,))(r))

    def variable(r: Generator) -> tuple[Tensor, Tensor]:  # the values of X and their probabilities
        x, logits = normal((6,), (6,))(r)
        return x.exp(), softmax(logits)

    yield identity("H(p, q) = H(p) + KL(p || q)", cross_entropy, lambda p, q: entropy(p) + kl(p, q), pair)
    yield inequality("-KL = sum p log(q / p) <= log sum q = 0", lambda p, q: -kl(p, q), lambda p, q: ZERO, pair)
    yield identity(
        "KL is not symmetric: N(0, s^2) and N(0, 1) differ by (s^2 - s^-2) / 2 - 2 log s",
        lambda s: kl_normal(s, ONE) - kl_normal(ONE, s),
        lambda s: (s**2 - s**-2) / 2 - 2 * s.log(),
        lambda r: (normal(())(r)[0].exp(),),
    )
    yield identity("JS(p, q) = JS(q, p)", js, lambda p, q: js(q, p), pair)
    yield inequality("0 <= JS", lambda p, q: ZERO, js, pair)
    yield inequality("JS <= log 2", js, lambda p, q: (2 * ONE).log(), pair)
    yield inequality("exp(E[X]) <= E[exp(X)]", lambda x, p: (p @ x).exp(), lambda x, p: p @ x.exp(), variable)
    yield inequality("E[log X] <= log E[X]", lambda x, p: p @ x.log(), lambda x, p: (p @ x).log(), variable)


# 7. Matrices and Gaussians


def homogeneous(a: Tensor, x: Tensor, t: Tensor) -> Tensor:  # the upper part of [A t; 0 1] [x; 1]
    last = torch.eye(len(t) + 1)[-1].double()
    return (torch.vstack([torch.column_stack([a, t]), last]) @ torch.cat([x, last[-1:]]))[:-1]


def sum_density(m: Tensor, s: Tensor, n: Tensor, t: Tensor, x: Tensor) -> Tensor:  # p(X + Y = x), an integral over X
    u = m + s * torch.linspace(-14, 14, 8001, dtype=torch.float64)
    return torch.trapezoid((-gaussian_nll(m, u, s) - gaussian_nll(n, x - u, t)).exp(), u)


def matrices() -> Iterator[Case]:
    def matrix(r: Generator) -> tuple[Tensor, ...]:  # one far from singular, and two vectors
        a, u, v = normal((4, 4), (4,), (4,))(r)
        return a + 5 * torch.eye(4), u, v

    def scalars(r: Generator) -> tuple[Tensor, ...]:  # mean and standard deviation of X, those of Y, a point
        m, s, n, t, x = normal((), (), (), (), ())(r)
        return m, 0.3 + s.abs(), n, 0.3 + t.abs(), x

    def vectors(r: Generator) -> tuple[Tensor, ...]:  # A and t, mean and covariance of X, a point
        a, t, m, root, x = normal((3, 3), (3,), (3,), (3, 3), (3,))(r)
        return a + 4 * torch.eye(3), t, m, root @ root.T + torch.eye(3), x

    yield identity(
        "det(A + u v^T) = (1 + v^T A^-1 u) det A",
        lambda a, u, v: (a + torch.outer(u, v)).det(),
        lambda a, u, v: (1 + v @ torch.linalg.solve(a, u)) * a.det(),
        matrix,
    )
    yield gradient("d log|det A|/dA = A^-T", lambda a, u, v: a.det().abs().log(), lambda a, u, v: a.inverse().T, matrix)
    yield identity("A x + t = [A t; 0 1] [x; 1]", lambda a, x, t: a @ x + t, homogeneous, matrix)
    yield identity(
        "X + Y ~ N(m + n, s^2 + t^2), X and Y independent",
        sum_density,
        lambda m, s, n, t, x: (-gaussian_nll(m + n, x, (s**2 + t**2).sqrt())).exp(),
        scalars,
    )
    yield identity(
        "A X + t ~ N(A m + t, A S A^T)",
        lambda a, t, m, s, x: log_normal(x, m, s) - a.det().abs().log(),
        lambda a, t, m, s, x: log_normal(a @ x + t, a @ m + t, a @ s @ a.T),
        vectors,
    )
