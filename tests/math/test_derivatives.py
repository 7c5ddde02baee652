"""The formulas of `derivatives` against PyTorch's and SciPy's own, and against hand-made figures."""

import math

import pytest
import scipy.spatial.distance
import scipy.stats
import torch
from mutants import larger, part, result
from torch.nn import functional as F

from mpcli.checks import cases, judge
from mpcli_math import derivatives
from mpcli_math.derivatives import calculus, probability

MUTANTS = {
    "sigmoid of another slope": (calculus, "sigmoid", lambda s: lambda x: s(1.1 * x)),
    "softmax that does not sum to one": (calculus, "softmax", result(larger)),
    "softmax without its off-diagonal": (calculus, "softmax_jacobian", result(lambda j: j.diag().diag())),
    "no derivative of the sigmoid": (calculus, "neuron_gradient", lambda _: lambda x, y: calculus.neuron(x, y) * y),
    "gradient of the weights transposed": (calculus, "backward", part(0, lambda dw: dw.mT)),
    "gradient of the biases": (calculus, "backward", part(1, larger)),
    "gradient of the input": (calculus, "backward", part(2, larger)),
    "loss without its half": (calculus, "loss", result(lambda value: 2 * value)),
    "variance for deviation": (probability, "gaussian_nll", lambda nll: lambda m, y, s: nll(m, y, s**2)),
    "mean in the place of the sum": (probability, "binary_cross_entropy", result(lambda value: value / 6)),
    "two priors": (probability, "log_joint", lambda joint: lambda w, x, y, priors=1: joint(w, x, y, 2)),
    "evidence forgotten": (probability, "log_evidence", result(lambda value: 0 * value)),
    "KL the other way": (probability, "kl", lambda kl: lambda p, q: kl(q, p)),
    "no constant in a normal density": (probability, "log_normal", result(lambda value: value + 1)),
}


def normal(*shapes):
    return tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


X = torch.linspace(-30, 30, 61, dtype=torch.float64)
P = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
Q = torch.tensor([0.4, 0.1, 0.25, 0.25], dtype=torch.float64)


def test_activations_equal_pytorchs():
    torch.testing.assert_close(calculus.sigmoid(X), torch.sigmoid(X), rtol=1e-15, atol=0)
    torch.testing.assert_close(calculus.log_sigmoid(X), F.logsigmoid(X), rtol=1e-15, atol=0)
    torch.testing.assert_close(calculus.softmax(X), torch.softmax(X, 0), rtol=1e-14, atol=0)


def test_activations_stay_exact_where_the_textbook_forms_overflow():
    far = torch.tensor([-1e4, -800.0, 800.0, 1e4], dtype=torch.float64)
    assert calculus.sigmoid(far).tolist() == [0, math.exp(-800), 1, 1]
    assert calculus.log_sigmoid(far).tolist() == [-1e4, -800, 0, 0]
    assert calculus.softmax(far).tolist() == [0, 0, 0, 1]


def test_softmax_jacobian_equals_autograds():
    x = torch.randn(5, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(calculus.softmax, x)
    torch.testing.assert_close(calculus.softmax_jacobian(x), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_backpropagation_equals_autograd(layers):
    w, b, x, y = normal((layers, 4, 4), (layers, 4), (4,), (4,))
    leaves = [tensor.requires_grad_() for tensor in (w, b, x)]
    expected = torch.autograd.grad(calculus.loss(w, b, x, y), leaves)
    with torch.no_grad():
        for ours, theirs in zip(calculus.backward(w, b, x, y), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)


def test_likelihoods_equal_pytorchs():
    x, y, s = (torch.randn(6, dtype=torch.float64) for _ in range(3))
    s = s.exp()
    normal, laplace = torch.distributions.Normal(x, s), torch.distributions.Laplace(x, s)
    torch.testing.assert_close(probability.gaussian_nll(x, y, s), -normal.log_prob(y), rtol=1e-12, atol=0)
    torch.testing.assert_close(probability.laplace_nll(x, y, s), -laplace.log_prob(y), rtol=1e-12, atol=0)
    target = torch.softmax(y, 0)
    torch.testing.assert_close(probability.categorical_nll(x, target), F.cross_entropy(x, target), rtol=1e-12, atol=0)
    labels = (y > 0).double()
    expected = F.binary_cross_entropy_with_logits(x, labels, reduction="sum")
    torch.testing.assert_close(probability.binary_cross_entropy(x, labels), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(probability.bernoulli_nll(x, labels), expected, rtol=1e-12, atol=0)


def test_divergences_equal_scipys():
    assert float(probability.entropy(P)) == pytest.approx(scipy.stats.entropy(P.numpy()), rel=1e-12)
    assert float(probability.kl(P, Q)) == pytest.approx(scipy.stats.entropy(P.numpy(), Q.numpy()), rel=1e-12)
    expected = scipy.spatial.distance.jensenshannon(P.numpy(), Q.numpy()) ** 2
    assert float(probability.js(P, Q)) == pytest.approx(expected, rel=1e-12)
    coin = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert float(probability.entropy(coin)) == pytest.approx(math.log(2), rel=1e-15)


def test_kl_of_two_normals_by_its_closed_form():
    s, t = (torch.tensor(value, dtype=torch.float64) for value in (0.5, 1.75))
    expected = math.log(1.75 / 0.5) + 0.5**2 / (2 * 1.75**2) - 0.5
    assert float(probability.kl_normal(s, t)) == pytest.approx(expected, rel=1e-12)
    assert abs(float(probability.kl_normal(t, s)) - expected) > 1


def test_the_normal_density_equals_scipys():
    mean, root, x = normal((3,), (3, 3), (3,))
    covariance = root @ root.T + torch.eye(3)
    expected = scipy.stats.multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(x.numpy())
    assert float(probability.log_normal(x, mean, covariance)) == pytest.approx(expected, rel=1e-12)


def test_the_map_is_the_solution_of_ridge_regression():
    x, y = normal((8, 3), (8,))
    ridge = torch.linalg.solve(x.T @ x + (probability.NOISE / probability.PRIOR) ** 2 * torch.eye(3), x.T @ y)
    best = probability.log_posterior(ridge, x, y)
    for _ in range(100):
        assert probability.log_posterior(ridge + 0.01 * torch.randn(3, dtype=torch.float64), x, y) < best


def test_the_evidence_is_the_integral_over_the_weights():
    x, y = normal((4, 1), (4,))
    w = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    joint = torch.stack([probability.log_joint(value[None], x, y) for value in w]).exp()
    assert float(torch.trapezoid(joint, w).log()) == pytest.approx(float(probability.log_evidence(x, y)), rel=1e-10)


def test_the_misprints_are_found_and_no_other_formula_is_called_one():
    off = {case.name: judge(case).misprint for case in cases(derivatives) if case.printed}
    assert len(off) == 6
    for word in ("tanh", "dL/dW_l", "dL/dw_ij", "Bernoulli", "-log of a product", "log p(w|D)"):
        (distance,) = (value for name, value in off.items() if name.startswith(word))
        assert distance > 0.1
