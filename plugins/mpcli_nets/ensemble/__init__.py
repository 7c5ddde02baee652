"""Ensembles: the mean of several models, each taught on a bootstrap of the examples or of a class of its own.

    bagging   members f_k of one class, each on as many examples drawn with replacement: f = 1/K sum_k f_k
              an example is missing in (1 - 1/n)^n -> 1/e of the draws: those members judge it "out of bag"
    mixed     a linear model, a decision tree, a network, all on the same examples

    f = sum_k w_k f_k, the w_k at least 0 and 1 together: all equal, or stacked, those of least error on the
    validation examples
    (f - y)^2 = sum_k w_k (f_k - y)^2 - sum_k w_k (f_k - f)^2
    the error of the ensemble = the mean error of its members - their spread                      Krogh and Vedelsby

A step teaches one member; members take the classes in turns. Where there are classes to tell, f_k are probabilities, y
has a one at the class, and squares are summed over classes. For a mixed ensemble: `--classes linear,tree,network
--steps 3 --no-bootstrap --weights stacked`. `render` draws the error by the number of members.

Breiman, Bagging Predictors, 1996. Machine Learning 24
Breiman, Stacked Regressions, 1996. Machine Learning 24
Krogh and Vedelsby, Neural Network Ensembles, Cross Validation, and Active Learning, 1994. NIPS 7
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from scipy.optimize import nnls
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit.randomness import generator
from mpcli.run import Run, Trained
from mpcli_nets.ensemble import members, pictures
from mpcli_nets.ensemble.equations import gradcheck as gradcheck
from mpcli_nets.ensemble.members import CLASSES, Member, Units
from mpcli_nets.kit.rows import Rows, Standard
from mpcli_nets.mlp import examples, held_against


@dataclass(frozen=True)
class Config:
    classes: Annotated[tuple[str, ...], "classes of members, in turns: tree, linear, network"] = ("tree",)
    bootstrap: Annotated[bool, "each on a draw with replacement, not on the same examples"] = True
    weights: Annotated[Literal["equal", "stacked"], "of the members"] = "equal"
    leaf: Annotated[int, "examples in a leaf of a tree at least", Ge(1)] = 1
    steps: Annotated[int, "members", Ge(1)] = 25


class Ensemble(nn.Module):
    """Predictions [K, N, O] of K members for examples [N, D]: numbers, or probabilities of O classes.

    `shapes` says of each member what tensors it has; `weights` [K] are those of the members in the mean.
    """

    weights: Tensor

    def __init__(self, cfg: Config, width: int, shapes: list[dict[str, list[int]]]):
        super().__init__()
        self.inputs, self.numbers = Standard(width), Standard(1)
        self.kinds = [cfg.classes[number % len(cfg.classes)] for number in range(len(shapes))]
        for number, named in enumerate(shapes):
            for name, (kind, *shape) in named.items():
                whole = torch.int64 if kind else torch.float64
                self.register_buffer(key(number, name), torch.zeros(shape, dtype=whole))
        self.register_buffer("weights", torch.full((len(shapes),), 1 / len(shapes), dtype=torch.float64))
        self.names = [list(named) for named in shapes]

    def member(self, number: int) -> Member:
        return {name: self.get_buffer(key(number, name)) for name in self.names[number]}

    def truth(self, t: Tensor) -> Tensor:
        """Targets [N] in the units of predictions; classes, which are whole numbers, as they are."""
        return self.numbers(t[:, None])[:, 0] if t.is_floating_point() else t

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x)
        return torch.stack([CLASSES[kind][1](self.member(k), x) for k, kind in enumerate(self.kinds)])


def key(number: int, name: str) -> str:
    """The name of a member's tensor among all."""
    return f"member{number}_{name.replace('.', '_')}"


def mean(f: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k f_k. [K, ...], [K] -> [...]."""
    return torch.tensordot(weights, f, 1)


def ambiguity(f: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The squared error of the mean, the mean of the squared errors, and the spread, their difference.

    f [K, N, O], y [N, O], weights [K]; each [N], summed over O.
    """
    together = mean(f, weights)
    of_members = mean((f - y).square().sum(-1), weights)
    return (together - y).square().sum(-1), of_members, mean((f - together).square().sum(-1), weights)


def stacked(f: Tensor, y: Tensor) -> Tensor:
    """The weights [K], none below 0 and 1 together, of members f [K, N, O] that come nearest to y [N, O]."""
    found = torch.from_numpy(nnls(f.flatten(1).T.numpy(), y.flatten().numpy())[0])
    return found / found.sum() if found.sum() > 0 else torch.full_like(found, 1 / len(found))


def train(
    cfg: Config,
    run: Run,
    data: Annotated[str, "table with a target, or pictures with classes"] = "digits",
    fold: Annotated[int | None, "which of five folds is for testing (the split of the dataset)", Ge(0), Le(4)] = None,
) -> None:
    unknown = [name for name in cfg.classes if name not in CLASSES]
    if unknown or not cfg.classes:
        raise InputError(f"--classes {','.join(cfg.classes)}: right would be some of {', '.join(CLASSES)}")
    given = examples(data, fold)
    run.say(given.describe())
    units = Units(given)
    x, y = units.inputs(given.train), units.targets(given.targets.train)
    taught: list[Member] = []
    for number in run.track(lambda step: step, cfg.steps, taught=taught):
        fit, predict = CLASSES[cfg.classes[number % len(cfg.classes)]]
        chosen = drawn(cfg, len(x), run.seed, number)
        taught.append(fit(x[chosen], y[chosen], run.seed + number, cfg.leaf))
        run.log(train_error=(predict(taught[-1], x) - y).square().sum(1).mean())
    shapes = [{name: [int(not v.is_floating_point()), *v.shape] for name, v in member.items()} for member in taught]
    extras: dict[str, Any] = {"width": x.shape[1], "shapes": shapes}
    model = Ensemble(cfg, **extras)
    model.inputs.load_state_dict(units.inputs.state_dict())
    model.numbers.load_state_dict(units.numbers.state_dict())
    model.load_state_dict(
        {key(number, name): value for number, member in enumerate(taught) for name, value in member.items()},
        strict=False,
    )
    if cfg.weights == "stacked":
        model.weights.copy_(stacked(model(given.validation), units.targets(given.targets.validation)))
        shares = ", ".join(f"{kind} {share:.2f}" for kind, share in zip(model.kinds, model.weights, strict=True))
        run.say(f"weights: {shares}")
    run.save(model, cfg, **extras)
    run.result(**held_out(model, given))
    if cfg.bootstrap:
        bag = torch.zeros(cfg.steps, len(x), dtype=torch.bool)  # which member saw which example
        for number in range(cfg.steps):
            bag[number, drawn(cfg, len(x), run.seed, number)] = True
        run.result(**out_of_bag(model, given, bag))


def drawn(cfg: Config, count: int, seed: int, number: int) -> Tensor:
    """The examples that a member learns from."""
    return members.bootstrap(count, generator(seed, number)) if cfg.bootstrap else torch.arange(count)


def judged(f: Tensor, t: Tensor, given: Rows, scale: Tensor) -> Tensor:
    """Accuracy of predictions [..., N, O], or their root mean square error in units of the target. [...]."""
    if given.classes:
        return (f.argmax(-1) == t).double().mean(-1)
    return (f[..., 0] - t).square().mean(-1).sqrt() * scale


def held_out(model: Ensemble, given: Rows) -> dict[str, Tensor]:
    """The ensemble on the test examples, beside its members alone, and what its error is made of."""
    f = model(given.test)
    name = "accuracy" if given.classes else "rmse"
    t = model.truth(given.targets.test)
    y = nn.functional.one_hot(t, len(given.classes)).double() if given.classes else t[:, None]
    alone, scale = judged(f, t, given, model.numbers.scale[0]), model.numbers.scale[0]
    error, of_members, spread = (
        part.mean() * (1 if given.classes else scale**2) for part in ambiguity(f, y, model.weights)
    )
    return {
        name: judged(mean(f, model.weights), t, given, scale),
        f"member_{name}": alone.mean(),
        f"best_member_{name}": alone.max() if given.classes else alone.min(),
        "error": error,
        "member_error": of_members,
        "spread": spread,
    }


def out_of_bag(model: Ensemble, given: Rows, bag: Tensor) -> dict[str, Tensor]:
    """The training examples as those members judge them that did not see them, and how many each has of these."""
    out = ~bag
    weights = out * model.weights[:, None]
    known = weights.sum(0)
    together = ((weights / known.clamp(min=1e-300))[:, :, None] * model(given.train)).sum(0)
    t = model.truth(given.targets.train)
    name = "oob_accuracy" if given.classes else "oob_rmse"
    return {
        name: judged(together[known > 0], t[known > 0], given, model.numbers.scale[0]),
        "out_of_bag": out.double().mean(),
    }


Other = Annotated[str | None, "dataset (that of the training, with its fold)"]


def known(trained: Trained, data: str | None) -> tuple[Ensemble, Rows]:
    """The trained ensemble and the examples that it is held against."""
    model = trained.load(Ensemble, Config).cpu()  # as trees walk
    width = trained.extras["width"]
    return model, held_against(trained, data, width, model(torch.zeros(1, width)).shape[2])


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    model, given = known(trained, data)
    run.say(given.describe())
    run.result(**held_out(model, given))


def render(trained: Trained, run: Run, data: Other = None) -> None:
    model, given = known(trained, data)
    f = model(given.test)
    scale = model.numbers.scale[0]
    t = model.truth(given.targets.test)
    shares = model.weights.cumsum(0).clamp(min=1e-300)
    together = (model.weights[:, None, None] * f).cumsum(0) / shares[:, None, None]
    name = "accuracy" if given.classes else "root mean square error"
    alone, grown = judged(f, t, given, scale), judged(together, t, given, scale)
    run.figure("members.png", pictures.members(trained.heading, name, alone, grown, model.kinds))
    rows = [(k + 1, kind, alone[k], grown[k]) for k, kind in enumerate(model.kinds)]
    run.table("members.csv", ["members", "class", "alone", "together"], rows)
