"""Regularisation: penalties, dropout, standardised inputs and batch normalisation of a multilayer perceptron.

    l2        L + lambda / 2 |W|^2      W <- (1 - alpha lambda) W - alpha dL/dW                      weight decay
    l1        L + lambda |W|            W <- soft(W - alpha dL/dW, alpha lambda)                     exact zeros
              soft(w, c) = sign(w) max(|w| - c, 0); biases are left out of both
    dropout   z r, r ~ Bernoulli(p)     p is the probability to KEEP a value (torch's is the other)
              weight scaling: p z at test time, the geometric mean of all subnetworks where the rest is a softmax
              Monte-Carlo:    the mean of the predictions of many draws of r
    standard  (x - mean) / deviation    of training rows, kept with the model and used for all others
    batch     gamma (z - m) / (v + eps)^1/2 + beta     m, v = 1/n sum (z - m)^2 of the batch; at test time of all before

Steps are of gradient descent with momentum, g <- 0.9 g + 0.1 dL/dW. The weights of the last step are kept. `render`
draws the weights, and how well a gradient predicts the next ones, with and without batch normalisation; `sample` the
predictions of single draws of r.

Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout, 2014. Journal of Machine Learning Research 15
Gal and Ghahramani, Dropout as a Bayesian Approximation, 2016. arXiv:1506.02142
Ioffe and Szegedy, Batch Normalization, 2015. arXiv:1502.03167
Santurkar, Tsipras, Ilyas and Madry, How Does Batch Normalization Help Optimization?, 2018. arXiv:1805.11604
"""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit.datasets import Split
from mpcli.kit.datasets.split import shuffled
from mpcli.run import Run, Trained
from mpcli_nets import mlp
from mpcli_nets.kit.rows import Rows
from mpcli_nets.mlp import MLP
from mpcli_nets.mlp.activations import Name
from mpcli_nets.regularization import pictures
from mpcli_nets.regularization.equations import gradcheck as gradcheck
from mpcli_nets.regularization.layers import BatchNorm, dropped, shrunk, soft

MOMENTUM = 0.9


@dataclass(frozen=True)
class Config:
    hidden: Annotated[tuple[int, ...], "units of each hidden layer (0 for no such layer)", Ge(0)] = (256, 256)
    activation: Annotated[Name, "f, between the layers"] = "relu"
    penalty: Annotated[Literal["none", "l1", "l2"], "on the weights"] = "l2"
    strength: Annotated[float, "lambda of the penalty", Ge(0)] = 1e-4
    dropout: Annotated[float, "p, the probability to KEEP a hidden value (torch's is 1 - p)", Gt(0), Le(1)] = 0.8
    batchnorm: Annotated[bool, "normalise what each hidden layer sums up"] = False
    standardize: Annotated[bool, "inputs of tables, and targets that are numbers"] = True
    steps: Annotated[int, "training steps", Ge(1)] = 3000
    batch: Annotated[int, "examples a step", Ge(2)] = 64
    lr: Annotated[float, "learning rate at the beginning; it falls to 0 in a line", Gt(0)] = 0.5


class Network(MLP):
    """eta [N, K] of examples [N, D]; a layer that is normalised has no bias of its own, as beta is one."""

    def __init__(self, cfg: Config, width: int, outputs: int, likelihood: str):
        super().__init__(mlp.Config(hidden=cfg.hidden, activation=cfg.activation), width, outputs, likelihood)
        self.keep = cfg.dropout
        self.sampled = False  # whether values are dropped outside training too
        self.norms = (
            nn.ModuleList(BatchNorm(layer.out_features) for layer in self.layers[:-1]) if cfg.batchnorm else None
        )
        if cfg.batchnorm:
            for layer in self.layers[:-1]:
                layer.register_parameter("bias", None)

    def forward(self, x: Tensor, masks: object = None) -> Tensor:
        z = self.inputs(x).to(self.layers[0].weight)
        for number, layer in enumerate(self.layers[:-1]):
            a = layer(z)
            z = self.activation.f(self.norms[number](a) if self.norms is not None else a)
            z = dropped(z, self.keep, self.training or self.sampled)
        return self.layers[-1](z)

    def weights(self) -> list[Tensor]:
        """W of every layer, what penalties are on."""
        return [layer.weight for layer in self.layers]

    @torch.no_grad()
    def penalise(self, penalty: str, by: float) -> None:
        """The step of a penalty, behind that of the loss."""
        for w in self.weights() if by else ():
            w.copy_(soft(w, torch.tensor(by)) if penalty == "l1" else shrunk(w, by))


def train(
    cfg: Config,
    run: Run,
    data: Annotated[str, "table with a target, or pictures with classes"] = "digits",
    fold: Annotated[int | None, "which of five folds is for testing (the split of the dataset)", Ge(0), Le(4)] = None,
    examples: Annotated[int | None, "use so many of the training examples (all)", Ge(2)] = None,
) -> None:
    given = fewer(mlp.examples(data, fold), examples).to(run.device)
    run.say(given.describe())
    sizes = mlp.sizes_for(given)
    model = run.place(begun(cfg, sizes, given))
    y = model.targets(given.targets.train)
    index = shuffled(len(y), min(cfg.batch, len(y)), run.seed)
    descent = torch.optim.SGD(model.parameters(), cfg.lr, momentum=MOMENTUM, dampening=MOMENTUM)
    falling = torch.optim.lr_scheduler.LinearLR(descent, 1.0, 0.0, cfg.steps)
    for i in run.track(index, cfg.steps, model=model, descent=descent, falling=falling):
        loss = model.loss(given.train[i], y[i])
        descent.zero_grad()
        loss.backward()
        descent.step()
        model.penalise(cfg.penalty, float(falling.get_last_lr()[0]) * cfg.strength if cfg.penalty != "none" else 0.0)
        falling.step()
        run.log(loss=loss)
    model.eval()
    with torch.no_grad():
        eta = model(given.validation)
        model.s.copy_(model.likelihood.scale(eta, model.targets(given.targets.validation)))
    run.save(model, cfg, **sizes)
    first = model.layers[0].weight
    run.result(
        **mlp.held_out(model, given),
        zero_weights=sum(int((w == 0).sum()) for w in model.weights()),
        unused_columns=int((first == 0).all(0).sum()),
    )


def fewer(given: Rows, count: int | None) -> Rows:
    """The same with so many training examples at most, the first of a fixed permutation."""
    if count is None:
        return given
    if count > len(given.train):
        raise InputError(
            f"--examples {count}: {given.name} has {len(given.train)} to train; right would be that or fewer"
        )
    chosen = torch.randperm(len(given.train), generator=torch.Generator().manual_seed(0))[:count]
    targets = given.targets
    return replace(
        given,
        train=given.train[chosen],
        targets=Split(targets.train[chosen], targets.validation, targets.test),
    )


def begun(cfg: Config, sizes: dict[str, Any], given: Rows) -> Network:
    """A network as it begins, that knows the units of its training examples if it is to."""
    model = Network(cfg, **sizes)
    if cfg.standardize:
        mlp.measure(model, given)
    return model


def known(trained: Trained, data: str | None) -> tuple[Network, Rows]:
    """The trained network and the examples that it is held against."""
    model = trained.load(Network, Config)
    given = mlp.held_against(trained, data, model.layers[0].in_features, model.layers[-1].out_features)
    return model, given if data else fewer(given, trained.options["examples"])


@torch.no_grad()
def draws(model: Network, x: Tensor, passes: int) -> Tensor:
    """E[y|eta] of so many draws of what is dropped: probabilities, or numbers in units of the target. [P, N, K]."""
    model.sampled = True
    found = torch.stack([model.likelihood.mean(model(x)) for _ in range(passes)])
    model.sampled = False
    return found if found.shape[2] > 1 else model.units.inverse(found)


Other = Annotated[str | None, "dataset (that of the training, with its fold)"]
Passes = Annotated[int, "draws of what is dropped", Ge(1)]


def evaluate(trained: Trained, run: Run, data: Other = None, passes: Passes = 100) -> None:
    model, given = known(trained, data)
    given = given.to(run.device)
    run.say(given.describe())
    run.result(**mlp.held_out(model, given))
    if model.keep < 1:
        mean, t = draws(model, given.test, passes).mean(0), given.targets.test
        if given.classes:
            own = mean[torch.arange(len(t)), t]
            run.result(mc_nll=-own.log().mean(), mc_accuracy=(mean.argmax(1) == t).double().mean())
        else:
            run.result(mc_rmse=(mean[:, 0] - t).square().mean().sqrt())


def sample(
    trained: Trained,
    run: Run,
    data: Other = None,
    n: Annotated[int, "test examples", Ge(1)] = 12,
    passes: Passes = 100,
) -> None:
    model, given = known(trained, data)
    x = given.test[:n].to(run.device)
    drawn = draws(model, x, passes).cpu()
    run.figure("draws.png", pictures.predictions(trained.heading, drawn, given, model.keep))
    names = given.classes or (given.target,)
    columns = ["example", "truth", *(f"{what}_{name}" for what in ("mean", "deviation") for name in names)]
    truth = given.targets.test[:n].tolist()
    spread = torch.cat([drawn.mean(0), drawn.std(0, correction=0)], 1).tolist()
    rows = [
        (number, given.classes[int(t)] if given.classes else t, *row)
        for number, (t, row) in enumerate(zip(truth, spread, strict=True))
    ]
    run.table("draws.csv", columns, rows)


def render(
    trained: Trained,
    run: Run,
    look: Annotated[int, "steps of the two trainings in which gradients are compared", Ge(1)] = 200,
) -> None:
    model, given = known(trained, None)
    model = model.cpu()
    cfg = Config(**{field.name: trained.options[field.name] for field in fields(Config)})
    off = {
        name: unpredicted(replace(cfg, batchnorm=on), trained.extras, given, look, run.seed)
        for name, on in (("plain", False), ("batch normalisation", True))
    }
    run.figure("gradients.png", pictures.gradients(trained.heading, off, [w.detach() for w in model.weights()]))
    rows = enumerate(zip(*off.values(), strict=True), 1)
    run.table("gradients.csv", ["step", *off], [(step, *row) for step, row in rows])


def unpredicted(cfg: Config, sizes: dict[str, Any], given: Rows, steps: int, seed: int) -> list[float]:
    """The largest |g(theta - c g) - g(theta)| / |g(theta)| for c up to the step of this g alone, while training."""
    torch.manual_seed(seed)
    model = begun(replace(cfg, dropout=1.0), sizes, given)
    y = model.targets(given.targets.train)
    index = shuffled(len(y), min(cfg.batch, len(y)), seed)
    parameters = list(model.parameters())
    descent = torch.optim.SGD(parameters, cfg.lr, momentum=MOMENTUM, dampening=MOMENTUM)
    off = []
    for step in range(steps):
        x, t = given.train[index(step)], y[index(step)]
        before = [p.detach().clone() for p in parameters]
        g = torch.autograd.grad(model.loss(x, t), parameters)
        size = torch.cat([part.flatten() for part in g]).norm()
        gaps = []
        for part in (0.25, 0.5, 1.0):
            place(parameters, [p - part * (1 - MOMENTUM) * cfg.lr * slope for p, slope in zip(before, g, strict=True)])
            other = torch.autograd.grad(model.loss(x, t), parameters)
            gaps.append(torch.cat([(a - b).flatten() for a, b in zip(other, g, strict=True)]).norm() / size)
        off.append(float(max(gaps)))
        place(parameters, before)
        for parameter, slope in zip(parameters, g, strict=True):
            parameter.grad = slope
        descent.step()
    return off


@torch.no_grad()
def place(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    """Set parameters to values."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
