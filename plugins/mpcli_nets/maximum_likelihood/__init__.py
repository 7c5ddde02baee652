"""Maximum likelihood: a distribution for the target, its parameters a linear map of the inputs, -log p as the loss.

    1. a distribution p(y|eta) and its parameter eta = W x + b
    2. of every example -log p(y|eta):
         gaussian      (y - eta)^2 / 2 s^2 + log s + 1/2 log 2 pi     d/d eta = (eta - y) / s^2         squared error
         laplace       |y - eta| / s + log 2 s                        d/d eta = sign(eta - y) / s       absolute error
         bernoulli     -[y log pi + (1 - y) log(1 - pi)]              d/d eta = pi - y,  pi = sigma(eta)
         categorical   -sum_k y_k log q_k                             d/d eta = q - y,   q = softmax(eta)
    3. minimise the sum, and -log p(W) with it where W has a prior:   maximum a posteriori
         none          uniform                                        maximum likelihood
         gaussian      N(0, tau^2)                                    ridge regression, lambda = s^2 / tau^2
         laplace       Laplace(0, tau)                                the lasso, lambda = s^2 / tau

    n Var(estimate) -> 1 / I(theta),   I = E[(d log p / d theta)^2]   the bound of Cramer and Rao, that maximum
                                                                      likelihood reaches as n grows

b has no prior, and the scale s is estimated with W. The columns of a table are standardised first, by mean and
deviation of the training rows. The optimum is reached by Newton steps, or by proximal steps under a Laplace prior.
`render` draws how far the estimate of a constant is off, by the number of examples, from draws of the fitted
distribution, and what the model says beside what is seen.

Fisher, On the Mathematical Foundations of Theoretical Statistics, 1922. Philosophical Transactions A 222
Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996. Journal of the Royal Statistical Society B 58
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mpcli.errors import Failed, InputError
from mpcli.kit.randomness import generator
from mpcli.run import Run, Trained
from mpcli_nets.kit.rows import Rows, Standard, classified, rows
from mpcli_nets.maximum_likelihood import information
from mpcli_nets.maximum_likelihood.equations import gradcheck as gradcheck
from mpcli_nets.maximum_likelihood.likelihoods import LIKELIHOODS, errors
from mpcli_nets.maximum_likelihood.optimum import Posterior, begun, step
from mpcli_nets.maximum_likelihood.pictures import calibrated, drawn, fitted

__all__ = ["LIKELIHOODS", "information"]

SIZES = [10, 20, 50, 100, 200, 500, 1000]  # of the samples that `render` estimates from
BINS = 10  # of a target that is a number, each with as many training examples


@dataclass(frozen=True)
class Config:
    likelihood: Annotated[
        Literal["gaussian", "laplace", "bernoulli", "categorical"] | None,
        "distribution of the target (gaussian for numbers, bernoulli for two classes, categorical for more)",
    ] = None
    prior: Annotated[Literal["none", "gaussian", "laplace"], "distribution of the weights"] = "none"
    tau: Annotated[
        float, "deviation or scale of the prior; of a target that is a number in units of its deviation", Gt(0)
    ] = 1.0
    steps: Annotated[int, "Newton or proximal steps at most", Ge(1)] = 5000


class Linear(nn.Module):
    """eta [N, K] of examples [N, D], in float64."""

    w: Tensor
    s: Tensor
    tau: Tensor

    def __init__(self, cfg: Config, width: int, outputs: int, likelihood: str):
        super().__init__()
        self.likelihood = LIKELIHOODS[likelihood]
        self.prior = None if cfg.prior == "none" else LIKELIHOODS[cfg.prior]
        self.standard = Standard(width)
        self.register_buffer("w", torch.zeros(width + 1, outputs, dtype=torch.float64))
        self.register_buffer("tau", torch.tensor(cfg.tau, dtype=torch.float64))
        self.register_buffer("s", torch.ones((), dtype=torch.float64))

    def inputs(self, x: Tensor) -> Tensor:  # [N, D] -> [N, D + 1], standardised, with a column of ones
        x = self.standard(x)
        return torch.cat([x, torch.ones_like(x[:, :1])], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inputs(x) @ self.w

    def targets(self, t: Tensor) -> Tensor:  # [N] -> y [N, K]
        many = self.w.shape[1] > 1
        return F.one_hot(t, self.w.shape[1]).double() if many else t.double()[:, None]

    def posterior(self, x: Tensor, y: Tensor) -> Posterior:
        return Posterior(self.likelihood, self.prior, self.tau, x, y, self.s.clone())


def suited(data: str, given: Rows, likelihood: str | None) -> tuple[Rows, str]:
    """The examples with targets as the likelihood has them, and its name where none was asked for."""
    if likelihood in ("bernoulli", "categorical"):
        given = classified(data, given)
    count = len(given.classes)
    fits = ("gaussian", "laplace") if not count else ("bernoulli", "categorical")[count > 2 :]
    if (likelihood or fits[0]) not in fits:
        kind = f"one of {count} classes" if count else "a number"
        right = " or ".join(f"--likelihood {name}" for name in fits)
        raise InputError(f"--likelihood {likelihood}: the target of {data} is {kind}; right would be {right}")
    return given, likelihood or fits[0]


def train(
    cfg: Config, run: Run, data: Annotated[str, "table with a target, or pictures with classes"] = "diabetes"
) -> None:
    examples, name = suited(data, rows(data), cfg.likelihood)
    examples = examples.to(run.device)
    run.say(f"{examples.describe()}; {name} likelihood")
    width, outputs = examples.train.shape[1], len(examples.classes) if name == "categorical" else 1
    model = Linear(cfg, width, outputs, name).to(run.device)
    if examples.shape is None:
        model.standard.measure(examples.train)
    x, y = model.inputs(examples.train), model.targets(examples.targets.train)
    if model.likelihood.scaled:
        model.w[-1] = model.likelihood.estimate(y)
        model.s.copy_(model.likelihood.scale(x @ model.w, y))
        model.tau.copy_(cfg.tau * y.std(correction=0))
    if not (least := 1e-9 * y.abs().max()) <= model.s:
        raise InputError(f"{data}: its target {examples.target} is the same everywhere; right would be one that varies")
    memory, told = begun(model.posterior(x, y), model.w), {"done": 0, "taken": 0, "separable": 0}
    for _ in run.track(lambda step: step, cfg.steps, model=model, memory=memory, told=told):
        if told["done"]:
            continue
        at = model.posterior(x, y)
        still = step(at, memory)
        model.w.copy_(memory["weights"])
        eta = x @ model.w
        model.s.copy_(model.likelihood.scale(eta, y))
        if model.likelihood.scaled and model.s < least:
            raise Failed("the target is a linear map of the columns: the likelihood grows without end as s goes to 0")
        told["separable"] = int(model.prior is None and examples.classes != () and separated(eta, y))
        told["done"] = int(told["separable"] or (still and (model.s - at.s).abs() <= 1e-12 * at.s))
        told["taken"] += 1
        run.log(loss=at.value(model.w) / len(x))
    verdict(run, model, told)
    run.save(model, cfg, width=width, outputs=outputs, likelihood=name)
    run.result(**held_out(model, examples))


def separated(eta: Tensor, y: Tensor) -> bool:
    """Whether every example is on its right side: larger and larger weights are likelier then without end."""
    if y.shape[1] == 1:
        return bool((eta * (2 * y - 1) > 0).all())
    own = eta[y > 0]
    return bool((own > eta.masked_fill(y > 0, -torch.inf).amax(1)).all())


def verdict(run: Run, model: Linear, told: dict[str, int]) -> None:
    """What the search found."""
    run.result(steps_taken=told["taken"], separable=told["separable"])
    if told["separable"]:
        run.say(
            "hyperplanes separate the training examples: the likelihood grows without end with the weights and has "
            "no maximum; --prior gaussian gives it one"
        )
    elif not told["done"]:
        run.say("the optimum was not reached yet; more --steps reach it")
    if model.likelihood.scaled:
        run.result(scale=model.s)
    if model.prior is not None:
        run.result(zero_weights=int((model.w[:-1] == 0).sum()), weights=model.w[:-1].numel())


def held_out(model: Linear, examples: Rows) -> dict[str, float | Tensor]:
    """How well the test examples are predicted, beside a constant, and how the frequencies of their targets are met."""
    y, known = (model.targets(part) for part in (examples.targets.test, examples.targets.train))
    eta, one = model(examples.test), model.likelihood
    metrics: dict[str, float | Tensor] = {"nll": one.nll(eta, y, model.s).mean()}
    if examples.classes:
        count = len(examples.classes)
        labels, seen = examples.targets.test, F.one_hot(examples.targets.train, count).double().sum(0)
        constant = (seen + 1) / (seen.sum() + count)  # Laplace's rule: a class that was not seen is possible
        metrics["base_nll"] = -constant[labels].log().mean()
        named = eta.argmax(1) if eta.shape[1] > 1 else (eta[:, 0] > 0).long()
        metrics["accuracy"] = (named == labels).double().mean()
        metrics["base_accuracy"] = (labels == seen.argmax()).double().mean()
        q = one.mean(eta) if eta.shape[1] > 1 else torch.cat([1 - one.mean(eta), one.mean(eta)], 1)
        p = F.one_hot(labels, count).double()
    else:
        constant = one.estimate(known).expand_as(y)
        metrics["base_nll"] = one.nll(constant, y, one.scale(one.estimate(known), known)).mean()
        metrics["rmse"] = (y - eta).square().mean().sqrt()
        metrics["base_rmse"] = (y - constant).square().mean().sqrt()
        edges = known.flatten().quantile(torch.linspace(0, 1, BINS + 1).to(y)[1:-1]).unique()
        below = torch.cat([torch.zeros_like(y), one_cdf(model, edges, eta), torch.ones_like(y)], 1)
        q, p = below.diff(dim=1), F.one_hot(torch.bucketize(y[:, 0], edges), len(edges) + 1).double()
    p, q = p.mean(0), q.mean(0)
    metrics["entropy"], metrics["cross_entropy"] = information.entropy(p), information.cross_entropy(p, q)
    metrics["kl"], metrics["js"] = information.kl(p, q), information.js(p, q)
    return metrics


def one_cdf(model: Linear, edges: Tensor, eta: Tensor) -> Tensor:
    """P(y <= edge) of each example. [E], [N, 1] -> [N, E]."""
    of = torch.distributions.Laplace if model.likelihood == LIKELIHOODS["laplace"] else torch.distributions.Normal
    return of(eta, model.s).cdf(edges)


def known(trained: Trained, data: str | None) -> tuple[Linear, Rows]:
    """The trained model and the examples that it is held against."""
    model = trained.load(Linear, Config)
    of = data or trained.options["data"]
    examples, _ = suited(of, rows(of, model.w.shape[0] - 1), trained.extras["likelihood"])
    if model.w.shape[1] not in (1, len(examples.classes)):
        has = len(examples.classes)
        raise InputError(f"{of}: has {has} classes, but the model was trained on {model.w.shape[1]}")
    return model, examples


Other = Annotated[str | None, "dataset (that of the training)"]


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    model, examples = known(trained, data)
    run.say(examples.describe())
    run.result(**held_out(model, examples.to(run.device)))


def render(
    trained: Trained,
    run: Run,
    data: Other = None,
    draws: Annotated[int, "samples of each size that are drawn and estimated from", Ge(2)] = 1000,
) -> None:
    model, examples = known(trained, data)
    model, one = model.cpu(), model.likelihood
    seen = model.targets(examples.targets.train)
    mean = one.estimate(seen)
    s = one.scale(mean, seen)
    off = errors(one, mean, s, SIZES, draws, generator(run.seed))
    bound = (one.variance(mean, s) / torch.tensor(SIZES)).sqrt()
    what = "the constant" if one.scaled else "the frequencies" if len(mean) > 1 else "the frequency"
    figure, axes = drawn(trained.heading, SIZES, off, bound, what)
    eta, y = model(examples.test), model.targets(examples.targets.test)
    if one.scaled:
        reach = float(model.s) * (1.96 if one == LIKELIHOODS["gaussian"] else -math.log(0.05))
        fitted(axes, eta[:, 0], y[:, 0], reach, examples.target)
    else:
        calibrated(axes, one.mean(eta), y)
    run.figure("errors.png", figure)
    run.table("errors.csv", ["examples", "error", "cramer_rao"], zip(SIZES, off, bound, strict=True))
    run.table(
        "weights.csv",
        ["column", *(examples.classes if model.w.shape[1] > 1 else [examples.target or "target"])],
        [(name, *row) for name, row in zip([*examples.columns, "b"], model.w.tolist(), strict=True)],
    )
