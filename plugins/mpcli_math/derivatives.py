"""Derivatives, likelihoods and divergences: the formulas that every other page leans on.

    (fg)' = f'g + fg'     (f/g)' = (f'g - fg') / g^2     (f o g)' = f'(g) g'     (f^-1)' = 1 / f'(f^-1)
    s(x) = 1 / (1 + e^-x),  s' = s (1 - s)               tanh' = 1 - tanh^2
    y = softmax(x),  dy/dx = diag(y) - y y^T             max(0, x)' = [x > 0]

    z_l = f(a_l),  a_l = W_l z_(l-1) + b_l,  d_l = dL/dz_l                                          backpropagation
    d_(l-1) = W_l^T (d_l * f'(a_l))     dL/dW_l = (d_l * f'(a_l)) z_(l-1)^T     dL/db_l = d_l * f'(a_l)

    -log N(y; m, s^2) = (y - m)^2 / 2s^2 + log s + 1/2 log 2 pi          -log Laplace(y; m, b) = |y - m| / b + log 2b
    log p(w|D) = log p(w) + sum_i log p(y_i|w) - log p(D)                Bayes; its maximum over w is the MAP
    H(p, q) = H(p) + KL(p || q)     KL >= 0     JS(p, q) = 1/2 KL(p || m) + 1/2 KL(q || m),  m = (p + q) / 2
    f(E[X]) <= E[f(X)] for convex f             det(A + u v^T) = (1 + v^T A^-1 u) det A
    X ~ N(m, S), Y ~ N(n, T) independent:       X + Y ~ N(m + n, S + T),  A X + t ~ N(A m + t, A S A^T)

There is nothing to train here: `mpcli gradcheck derivatives` compares each formula with central differences, with a
sum or an integral taken numerically, or with the same quantity got in another way.

Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, 1986. Nature 323
Lin, Divergence measures based on the Shannon entropy, 1991. IEEE Transactions on Information Theory 37
Bishop, Pattern Recognition and Machine Learning, 2006. Springer
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from mpcli.checks import Case, gradient, identity, inequality


def gradcheck() -> Iterator[Case]:
    yield from rules()
    yield from activations()
    yield from backpropagation()
    yield from likelihoods()
    yield from bayes()
    yield from divergences()
    yield from matrices()


def normal(*shapes: tuple[int, ...]) -> Callable[[Generator], tuple[Tensor, ...]]:
    """A draw of standard normal tensors of these shapes."""
    return lambda r: tuple(torch.randn(shape, generator=r, dtype=torch.float64) for shape in shapes)


ZERO, ONE = torch.tensor([0, 1], dtype=torch.float64)


# 1. Rules of differentiation, with f = sin and g = 1 + x^2


def circle(x: Tensor) -> Tensor:  # the y > 0 that x^2 + y^2 = 1 defines
    return (1 - x**2).sqrt()


def rules() -> Iterator[Case]:
    x = normal((5,))
    f, df, g, dg = torch.sin, torch.cos, lambda x: 1 + x**2, lambda x: 2 * x

    def quotient(x: Tensor) -> Tensor:
        return (df(x) * g(x) - f(x) * dg(x)) / g(x) ** 2

    yield gradient("(f g)' = f' g + f g'", lambda x: f(x) * g(x), lambda x: df(x) * g(x) + f(x) * dg(x), x)
    yield gradient("(f / g)' = (f' g - f g') / g^2", lambda x: f(x) / g(x), quotient, x)
    yield gradient("(f o g)' = f'(g) g'", lambda x: f(g(x)), lambda x: df(g(x)) * dg(x), x)
    yield gradient("(f^-1)' = 1 / f'(f^-1), f = sinh", torch.asinh, lambda x: 1 / x.asinh().cosh(), x)
    yield gradient("(log x)' = 1 / x", torch.log, torch.reciprocal, lambda r: (x(r)[0].abs() + 0.1,))
    yield gradient("x^2 + y^2 = 1: dy/dx = -x / y", circle, lambda x: -x / circle(x), lambda r: (x(r)[0].sin() * 0.9,))


# 2. Activations


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x) for x >= 0 and e^x / (1 + e^x) below: neither overflows, at no x."""
    e = torch.exp(-x.abs())
    return torch.where(x >= 0, 1 / (1 + e), e / (1 + e))


def log_sigmoid(x: Tensor) -> Tensor:
    return x.clamp(max=0) - torch.exp(-x.abs()).log1p()


def softmax(x: Tensor) -> Tensor:  # [D] -> [D]; a constant added to x cancels, so the largest is taken away
    e = torch.exp(x - x.max())
    return e / e.sum()


def softmax_jacobian(x: Tensor) -> Tensor:  # [D] -> [D, D]
    y = softmax(x)
    return torch.diag(y) - torch.outer(y, y)


def activations() -> Iterator[Case]:
    x = normal((6,))

    def off_zero(r: Generator) -> tuple[Tensor]:  # at 0 the step and both ReLUs have no derivative, only a convention
        return (x(r)[0] + 0.1 * x(r)[0].sign(),)

    def far(r: Generator) -> tuple[Tensor]:
        return (400 * x(r)[0],)

    yield gradient("step: [x > 0]' = 0", lambda x: (x > 0).double(), torch.zeros_like, off_zero)
    yield gradient("linear: (c x)' = c", lambda x: 3 * x, lambda x: torch.full_like(x, 3), x)
    yield gradient("sigmoid: s' = s (1 - s)", sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), x)
    yield identity("s(x) = 1 / (1 + e^-x)", sigmoid, lambda x: 1 / (1 + torch.exp(-x)), x)
    yield identity("s(x) = e^x / (1 + e^x)", sigmoid, lambda x: x.exp() / (1 + x.exp()), x)
    yield identity("s(x) + s(-x) = 1, x to a thousand", lambda x: sigmoid(x) + sigmoid(-x), torch.ones_like, far)
    yield gradient("(log s)'(x) = s(-x), x to a thousand", log_sigmoid, lambda x: sigmoid(-x), far)
    yield identity(
        "tanh: dh/dx = diag(1 - h^2)",
        lambda x: torch.autograd.functional.jacobian(torch.tanh, x),
        lambda x: torch.diag(1 - x.tanh() ** 2),
        x,
        printed=lambda x: torch.eye(len(x)) - x.tanh() ** 2,  # the identity matrix where a vector of ones belongs
    )
    yield identity("tanh(x) = 2 s(2x) - 1", torch.tanh, lambda x: 2 * sigmoid(2 * x) - 1, x)
    yield gradient("ReLU: max(0, x)' = [x > 0]", lambda x: x.clamp(min=0), lambda x: (x > 0).double(), off_zero)
    name = "leaky ReLU: max(x, x / 10)' = 1 or 1 / 10"
    yield gradient(name, lambda x: torch.maximum(x, x / 10), lambda x: torch.where(x > 0, ONE, ONE / 10), off_zero)
    name = "softmax: d(v . y)/dx = (diag(y) - y y^T) v"
    yield gradient(name, lambda x, v: v @ softmax(x), lambda x, v: softmax_jacobian(x) @ v, normal((6,), (6,)))
    yield identity("sum_i softmax(x)_i = 1, x to a thousand", lambda x: softmax(x).sum(), lambda x: ONE, far)
    yield inequality("0 <= s", torch.zeros_like, sigmoid, x)
    yield inequality("|tanh| <= 1", lambda x: x.tanh().abs(), torch.ones_like, x)


# 3. Backpropagation, first through one neuron, then through layers of them


def neuron(x: Tensor, y: Tensor) -> Tensor:
    return sigmoid(x @ y)


def neuron_gradient(x: Tensor, y: Tensor) -> Tensor:  # with respect to x: the derivatives of s and of x . y
    return neuron(x, y) * (1 - neuron(x, y)) * y


def forward(w: Tensor, b: Tensor, x: Tensor) -> list[Tensor]:  # [L, D, D], [L, D], [D] -> z_0 = x, ..., z_L
    z = [x]
    for weight, bias in zip(w, b, strict=True):
        z.append(torch.tanh(weight @ z[-1] + bias))
    return z


def loss(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * ((forward(w, b, x)[-1] - y) ** 2).sum()


def backward(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dw, dL/db and dL/dx, from the loss inwards: all that the layers above contribute is in d, computed once."""
    z, dw, db = forward(w, b, x), torch.zeros_like(w), torch.zeros_like(b)
    d = z[-1] - y
    for layer in reversed(range(len(w))):
        db[layer] = d * (1 - z[layer + 1] ** 2)  # through tanh
        dw[layer] = torch.outer(db[layer], z[layer])  # z[layer] went into the layer, z[layer + 1] came out of it
        d = w[layer].T @ db[layer]
    return dw, db, d


def backward_misprint(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """dL/dw with what came out of a layer in the place of what went in."""
    return torch.stack([torch.outer(*pair) for pair in zip(backward(w, b, x, y)[1], forward(w, b, x)[1:], strict=True)])


def backpropagation() -> Iterator[Case]:
    w, b, x = (3, 4, 4), (3, 4), (4,)  # three layers of four units
    yield gradient("n = s(x . y): dn/dx = n (1 - n) y", neuron, neuron_gradient, normal(x, x))
    name = "dL/dW_l = (d_l * f'(a_l)) z_(l-1)^T"
    yield gradient(name, loss, lambda *a: backward(*a)[0], normal(w, b, x, x), printed=backward_misprint)
    yield gradient(
        "dL/db_l = d_l * f'(a_l)",
        lambda b, w, x, y: loss(w, b, x, y),
        lambda b, w, x, y: backward(w, b, x, y)[1],
        normal(b, w, x, x),
    )
    yield gradient(
        "d_(l-1) = W_l^T (d_l * f'(a_l))",
        lambda x, w, b, y: loss(w, b, x, y),
        lambda x, w, b, y: backward(w, b, x, y)[2],
        normal(x, w, b, x),
    )


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
