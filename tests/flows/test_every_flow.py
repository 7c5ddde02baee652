"""What is true of every flow, whatever its map: one test over all of them, with weights far from where they start."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mpcli.kit import datasets
from mpcli.kit.densities import Examples, on_grid
from mpcli.run import Run
from mpcli_flows import conditional_coupling, glow, linear_flow, nice, planar, realnvp, srflow
from mpcli_flows.kit.bijectors import Chain, Logit
from mpcli_flows.kit.flow import Flow

BASES = ("normal", "uniform", "logistic", "student_t", "mixture")


@dataclass(frozen=True)
class Subject:
    name: str
    make: Callable[[str, tuple[int, ...]], Flow]  # base, shape -> flow
    shapes: tuple[tuple[int, ...], ...]
    condition: Callable[[int, tuple[int, ...]], Any] = lambda n, shape: None

    def flow(self, shape: tuple[int, ...], base: str = "normal", dtype: torch.dtype = torch.float64) -> Flow:
        """One in general position: every weight moved at random from where training would begin."""
        flow = self.make(base, shape).eval()
        with torch.no_grad():
            for parameter in flow.bijector.parameters():
                inputs = math.prod(parameter.shape[1:]) if parameter.ndim > 1 else 4
                parameter.add_(0.4 / math.sqrt(inputs) * torch.randn_like(parameter))
        return flow.to(dtype).requires_grad_(False)

    def context(self, n: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Any:
        c = self.condition(n, shape)
        if isinstance(c, tuple):
            return tuple(part.to(dtype) for part in c)
        return c.to(dtype) if isinstance(c, Tensor) and c.is_floating_point() else c


def small_and_features(n: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    c, h, w = shape
    return torch.rand(n, c, h // 4, w // 4), torch.randn(n, 8, h // 4, w // 4)


def given_features(base: str, shape: tuple[int, ...]) -> Flow:
    """The map without the network that reads the small picture: it takes that network's features."""
    whole = srflow.SRFlow(srflow.Config(depth=1, channels=8, base=base), shape, 256)
    return Flow(whole.bijector, whole.base)


SUBJECTS = [
    Subject(
        "linear_flow",
        lambda base, shape: linear_flow.LinearFlow(linear_flow.Config(base=base), shape),
        ((2,), (5,), (1, 2, 3)),
    ),
    Subject(
        "planar", lambda base, shape: planar.PlanarFlow(planar.Config(layers=4, base=base), shape[0]), ((2,), (5,))
    ),
    Subject(
        "nice",
        lambda base, shape: nice.NICE(nice.Config(hidden=(16, 16), base=base), shape),
        ((2,), (5,), (1, 2, 3)),
    ),
    Subject(
        "realnvp",
        lambda base, shape: realnvp.RealNVP(
            realnvp.Config(couplings=4, hidden=(16, 16), channels=8, scales=2, base=base), shape
        ),
        ((2,), (5,), (1, 4, 4), (3, 2, 2), (1, 6, 3)),
    ),
    *(
        Subject(
            f"glow-{form}",
            lambda base, shape, form=form: glow.Glow(
                glow.Config(depth=2, channels=8, mixing=form, base=base), shape, 17
            ),
            ((1, 4, 4), (3, 2, 2), (1, 6, 2)),
        )
        for form in glow.MIXINGS
    ),
    Subject(
        "conditional_coupling",
        lambda base, shape: conditional_coupling.ConditionalFlow(
            conditional_coupling.Config(couplings=4, hidden=(16,), base=base), shape, 3
        ),
        ((2,), (5,), (1, 2, 3)),
        lambda n, shape: torch.arange(n) % 3,
    ),
    Subject("srflow", lambda base, shape: given_features(base, shape), ((1, 8, 4), (2, 4, 4)), small_and_features),
]
ALL = [pytest.param(s, shape, id=f"{s.name}-{'x'.join(map(str, shape))}") for s in SUBJECTS for shape in s.shapes]
PLANE = [pytest.param(s, id=s.name) for s in SUBJECTS if (2,) in s.shapes]


def unbounded(flow: Flow) -> Chain:
    """The map without the sigmoid that ends it on pictures, which leads onto all numbers."""
    assert isinstance(flow.bijector, Chain)
    return Chain(f for f in flow.bijector if not isinstance(f, Logit))


def doubled(c):
    """A condition in float64."""
    if isinstance(c, tuple):
        return tuple(map(doubled, c))
    return c.double() if c is not None and c.is_floating_point() else c


def cost_of_rounding(f, at, c, result):
    """How far each `f(at)` moves when `at` and the result are rounded to their type, the map itself being exact."""
    eps, exact, c = torch.finfo(at.dtype).eps, at.double(), doubled(c)
    last_digit = eps * exact.flatten(1).abs().amax(1).view(-1, *[1] * (at.ndim - 1))
    there = f(exact, c)[0].flatten(1)
    moved = [f(exact + last_digit * torch.randn_like(exact).sign(), c)[0].flatten(1) - there for _ in range(16)]
    return torch.stack(moved).abs().amax((0, 2)) + eps * result.flatten(1).abs().amax(1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("subject", "shape"), ALL)
def test_forward_then_inverse_gives_back_inputs_of_scale_10(subject, shape, dtype, tolerance):
    flow = subject.flow(shape, dtype=dtype)
    c = subject.context(200, shape, dtype)
    f, exact = unbounded(flow), copy.deepcopy(unbounded(flow)).double()

    def error(back, there):
        return (back - there).flatten(1).abs().amax(1)

    z = 10 * torch.randn(200, math.prod(shape), dtype=dtype)
    x, logdet = f(z, c)
    back, backwards = f.inverse(x, c)
    assert x.shape == (200, *shape)
    assert (x.flatten(1) - z).abs().mean() > 0.1
    # What is lost depends on the map, and on the processor; rounding x and z alone cost this much.
    assert (error(back, z) <= 5 * cost_of_rounding(exact.inverse, x, c, z)).all()
    torch.testing.assert_close(backwards, -logdet, rtol=0, atol=10 * tolerance)
    x = 10 * torch.randn(200, *shape, dtype=dtype)
    z = f.inverse(x, c)[0]
    assert (error(f(z, c)[0], x) <= 5 * cost_of_rounding(exact, z, c, x)).all()


@pytest.mark.parametrize(("subject", "shape"), [p for p in ALL if len(p.values[1]) == 3])
def test_pictures_come_back_through_the_logit(subject, shape):
    flow = subject.flow(shape)
    c = subject.context(50, shape)
    x = torch.rand(50, *shape, dtype=torch.float64)
    x[0], x[1] = 0, 1
    z, logdet = flow.bijector.inverse(x, c)
    back, backwards = flow.bijector(z, c)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(backwards, -logdet, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("subject", "shape"), ALL)
def test_log_determinant_is_that_of_the_whole_jacobian(subject, shape):
    flow = subject.flow(shape)
    for _ in range(3):
        c = subject.context(1, shape)
        z = torch.randn(1, math.prod(shape), dtype=torch.float64)
        x, logdet = flow.bijector(z, c)
        jacobian = torch.func.jacrev(lambda z, c=c: flow.bijector(z, c)[0].flatten())(z)[:, 0]
        torch.testing.assert_close(logdet[0], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-9)
        inverse = torch.func.jacrev(lambda x, c=c: flow.bijector.inverse(x, c)[0].flatten())(x).reshape(z.numel(), -1)
        assert logdet.abs() > 1e-3, "too near to a map that keeps volumes"
        torch.testing.assert_close(
            flow.bijector.inverse(x, c)[1][0], torch.linalg.slogdet(inverse)[1], rtol=0, atol=1e-8
        )


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("subject", PLANE)
def test_density_integrates_to_one_and_agrees_with_samples(subject, base):
    """The mean log density of own samples is minus the entropy, which the quadrature gives without any sample."""
    flow = subject.flow((2,), base)
    c = subject.context(1, (2,))

    def log_density(x: Tensor) -> Tensor:
        return flow(x, c.expand(len(x), *c.shape[1:]) if isinstance(c, Tensor) else c)

    # The plane in u = asinh(x): fine around 0, and far enough for Student's tails, |z|^-6.
    reach = math.asinh(1000.0 if base == "student_t" else 50.0)
    size = 400
    like = torch.zeros((), dtype=torch.float64)
    log_p = on_grid(lambda u: log_density(u.sinh()), (-reach, -reach), (reach, reach), size, like)
    volume = on_grid(lambda u: u.cosh().log().sum(1), (-reach, -reach), (reach, reach), size, like)
    cells = (log_p + volume).exp() * (2 * reach / size) ** 2
    assert abs(cells.sum() - 1) < 1e-4
    own = log_density(flow.sample(20_000, c=c.expand(20_000, *c.shape[1:]) if isinstance(c, Tensor) else c))
    assert abs(own.mean() - (cells * log_p).sum()) < 4 * own.std() / math.sqrt(len(own))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("subject", "shape"), ALL)
def test_gradients_are_finite_at_extreme_inputs(subject, shape, base):
    flow = subject.flow(shape, base, torch.float32).requires_grad_(True)
    c = subject.context(6, shape, torch.float32)
    x = torch.randn(6, *shape)
    x = torch.stack([x[0], 0 * x[1], 1e3 * x[2], -1e3 * x[3], 1e4 * x[4], 1e-30 * x[5]])
    x = (x > 0).float() if len(shape) == 3 else x  # pictures end at 0 and 1
    x.requires_grad_(True)
    log_p = flow(x, c)
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert x.grad is not None and x.grad.isfinite().all()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in flow.parameters())


def gaussian_nll(train: Tensor, test: Tensor) -> float:
    """Of the normal distribution that fits the training data best, which has their mean and covariance."""
    fitted = torch.distributions.MultivariateNormal(train.mean(0), torch.from_numpy(np.cov(train.numpy().T)).float())
    return -float(fitted.log_prob(test).mean())


LEARNS = {
    # A line can bend nothing: with a normal base this flow IS that Gaussian, so a base of the data's shape has to help.
    "linear_flow": ("checkerboard", "uniform", 300, 0.02),
    "planar": ("moons", "normal", 150, 0.02),
    "nice": ("moons", "normal", 200, 0.01),
    "realnvp": ("moons", "normal", 100, 0.01),
    "conditional_coupling": ("moons", "normal", 150, 0.01),
}


@pytest.mark.parametrize("subject", PLANE)
def test_training_beats_the_best_gaussian_on_held_out_data(subject):
    name, base, steps, lr = LEARNS[subject.name]
    data = datasets.load(name, datasets.Table)
    flow = subject.make(base, (2,))
    flow.fit_scale(Examples(data, 0))
    adam = torch.optim.Adam(flow.parameters(), lr)
    batches = data.batches(256, 0)
    for step in range(steps):
        loss = -flow(batches(step), subject.condition(256, (2,))).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        nll = -float(flow.eval()(data.test, subject.condition(len(data.test), (2,))).mean())
    assert nll < gaussian_nll(data.train, data.test) - 0.15


@pytest.fixture(scope="module")
def rows():
    torch.manual_seed(0)
    return torch.randn(600, 3, dtype=torch.float64)


@pytest.mark.parametrize("page", [linear_flow, nice, planar, realnvp], ids=lambda page: page.__name__.split(".")[1])
def test_rows_in_any_unit_are_learned_alike(page, rows, tmp_path, monkeypatch):
    """nll changes by the logarithm of the units' volume, and by nothing else."""
    found = []
    for origin, unit in ((0, 1.0), (1e8, 1e6), (0, 1e8), (0, 1e-8), (-3e-5, 1e-6)):
        x = (origin + unit * rows).float()
        data = datasets.Table(x[:400], x[400:500], x[500:])
        monkeypatch.setattr(page, "load", lambda spec, device, data=data: Examples(data, 0))
        folder = tmp_path / f"{origin:g}-{unit:g}"
        folder.mkdir()
        torch.manual_seed(0)
        run = Run(folder)
        page.train(page.Config(steps=15, **({"layers": 2} if page is planar else {})), run, "rows")
        found.append(run.metrics["nll"] - 3 * math.log(unit))
    assert found == pytest.approx([found[0]] * 5, abs=0.01)
    assert found[0] < 7  # the truth is 4.2
