"""Multilayer perceptron: layers of affine maps with a nonlinearity between, taught by backpropagation.

    z_0 = x    a_l = W_l z_(l-1) + b_l    z_l = f(a_l)    eta = a_L          the loss is -log p(y|eta)

    delta_L = dL/d eta    delta_l = (W_(l+1)^T delta_(l+1)) * f'(a_l)        the chain rule, from the loss inwards
    dL/dW_l = delta_l z_(l-1)^T    dL/db_l = delta_l

    with f(a) = a all layers are one:       W_L ... W_1 x + ...              a product of matrices
    with f = tanh, say, one hidden layer of N units comes as near to any continuous function on a cube as one likes:
                                            g(x) = sum_i v_i f(w_i^T x + b_i),  with some N, v, w, b

Targets that are classes have a categorical distribution, those that are numbers a Gaussian one, whose scale is that of
the residuals. `--backward written` takes gradients by the page's own backpropagation (`graph.py`) in place of autograd;
both train alike. `--keep p` leaves each hidden value with probability p in training, divided by p.

`--data` may also be `xor`, `and`, `or` (four points), or `function`: a function of one number with a kink.
`--fold K` keeps the K-th of five folds for testing; `mpcli evaluate` of the five runs gives their mean.

Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, 1986. Nature 323
Cybenko, Approximation by Superpositions of a Sigmoidal Function, 1989. Mathematics of Control, Signals and Systems 2
Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout, 2014. Journal of Machine Learning Research 15
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from mpcli.kit.datasets.split import shuffled
from mpcli.run import Run, Trained
from mpcli_nets.kit.rows import Rows, Standard
from mpcli_nets.maximum_likelihood import LIKELIHOODS
from mpcli_nets.mlp import bases, pictures
from mpcli_nets.mlp.activations import ACTIVATIONS, Activation, Name
from mpcli_nets.mlp.equations import gradcheck as gradcheck
from mpcli_nets.mlp.examples import examples, held_against
from mpcli_nets.mlp.graph import Node, activate, affine, backward, mean_nll, multiply

__all__ = ["ACTIVATIONS", "MLP", "Activation", "Config", "examples", "held_against", "held_out", "measure", "sizes_for"]

LOOK = 50  # steps from one look at the validation examples to the next
KEEP = 0.7  # of hidden values, for pictures


@dataclass(frozen=True)
class Config:
    hidden: Annotated[tuple[int, ...], "units of each hidden layer (0 for no such layer)", Ge(0)] = (256, 256)
    activation: Annotated[Name, "f, between the layers"] = "relu"
    keep: Annotated[
        float | None,
        "probability that a hidden value stays in training (0.7 for pictures, 1 for others; torch's p is 1 - keep)",
        Gt(0),
        Le(1),
    ] = None
    steps: Annotated[int, "training steps", Ge(1)] = 3000
    batch: Annotated[int, "examples a step", Ge(1)] = 64
    lr: Annotated[float, "learning rate of Adam at the beginning; it falls to 0 in a line", Gt(0)] = 3e-3


class MLP(nn.Module):
    """eta [N, K] of examples [N, D]: logits of classes, or a number in units of the standardised target."""

    s: Tensor

    def __init__(self, cfg: Config, width: int, outputs: int, likelihood: str):
        super().__init__()
        self.likelihood = LIKELIHOODS[likelihood]
        self.activation = ACTIVATIONS[cfg.activation]
        self.inputs, self.units = Standard(width), Standard(1)
        self.register_buffer("s", torch.ones(()))  # deviation of a Gaussian target, in units of `units`
        sizes = (width, *filter(None, cfg.hidden), outputs)
        self.stack = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=self.activation.gain * layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    @property
    def layers(self) -> list[nn.Linear]:
        return cast(list[nn.Linear], list(self.stack))

    def targets(self, t: Tensor) -> Tensor:  # [N] -> y [N, K], of the type of the weights
        numbers = self.likelihood == LIKELIHOODS["gaussian"]
        y = self.units(t[:, None]) if numbers else F.one_hot(t, self.layers[-1].out_features)
        return y.to(self.layers[0].weight)

    def masks(self, count: int, keep: float) -> list[Tensor]:
        """What the hidden values of so many examples are multiplied by: 1 / keep, or 0."""
        like = self.layers[0].weight
        shapes = [(count, layer.out_features) for layer in self.layers[:-1]]
        return [torch.rand(shape, device=like.device).lt(keep).to(like) / keep for shape in shapes]

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        z = self.inputs(x).to(self.layers[0].weight)
        for number, layer in enumerate(self.layers[:-1]):
            z = self.activation.f(layer(z))
            z = z * masks[number] if masks else z
        return self.layers[-1](z)

    def graph(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> tuple[Node, dict[Tensor, Node]]:
        """The same eta as a graph of primitives, and the nodes of the parameters."""
        leaves: dict[Tensor, Node] = {p: Node(p.detach()) for p in self.parameters()}
        z = Node(self.inputs(x).to(self.layers[0].weight))
        for number, layer in enumerate(self.layers[:-1]):
            z = activate(self.activation, affine(z, leaves[layer.weight], leaves[layer.bias]))
            z = multiply(z, Node(masks[number])) if masks else z
        last = self.layers[-1]
        return affine(z, leaves[last.weight], leaves[last.bias]), leaves

    def loss(self, x: Tensor, y: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        return self.likelihood.nll(self(x, masks), y, y.new_ones(())).mean()

    def collapsed(self) -> tuple[Tensor, Tensor]:
        """W [K, D] and b [K] of the one layer that linear layers are together."""
        w: Tensor = self.layers[0].weight
        b: Tensor = self.layers[0].bias
        for layer in self.layers[1:]:
            w, b = layer.weight @ w, layer.weight @ b + layer.bias
        return w, b


def written(model: MLP, x: Tensor, y: Tensor, masks: Sequence[Tensor] | None) -> Tensor:
    """The loss, with every parameter's `grad` by the page's own backpropagation."""
    eta, leaves = model.graph(x, masks)
    loss = mean_nll(model.likelihood, eta, y)
    gradients = backward(loss)
    for parameter, leaf in leaves.items():
        parameter.grad = gradients[leaf]
    return loss.value


def by_autograd(model: MLP, x: Tensor, y: Tensor, masks: Sequence[Tensor] | None) -> Tensor:
    """The same by torch."""
    model.zero_grad()
    loss = model.loss(x, y, masks)
    loss.backward()
    return loss.detach()


BACKWARD: dict[str, Callable[[MLP, Tensor, Tensor, Sequence[Tensor] | None], Tensor]] = {
    "written": written,
    "autograd": by_autograd,
}


def train(
    cfg: Config,
    run: Run,
    data: Annotated[str, "table with a target, pictures with classes, xor, or function"] = "digits",
    fold: Annotated[int | None, "which of five folds is for testing (the split of the dataset)", Ge(0), Le(4)] = None,
    backward: Annotated[Literal["autograd", "written"], "who takes the gradients"] = "autograd",
) -> None:
    given = examples(data, fold).to(run.device)
    run.say(given.describe())
    sizes = sizes_for(given)
    model = run.place(MLP(cfg, **sizes))
    measure(model, given)
    y = model.targets(given.targets.train)
    index = shuffled(len(y), min(cfg.batch, len(y)), run.seed)
    adam = torch.optim.Adam(model.parameters(), cfg.lr, fused=True)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, cfg.steps)
    gradients, keep = BACKWARD[backward], cfg.keep or (1.0 if given.shape is None else KEEP)
    best = Best(model, given)
    for i in run.track(index, cfg.steps, model=model, adam=adam, falling=falling, best=best.state):
        masks = model.masks(len(i), keep) if keep < 1 else None
        run.log(loss=gradients(model, given.train[i], y[i], masks))
        adam.step()
        falling.step()
        best.look(falling.last_epoch, cfg.steps)
    best.restore()
    run.save(model, cfg, **sizes)
    if cfg.activation == "linear":
        one_matrix(run, model, given)
    run.result(**held_out(model, given))


def sizes_for(given: Rows) -> dict[str, Any]:
    """What a network for these examples is made with, besides its configuration."""
    likelihood = "categorical" if given.classes else "gaussian"
    return {"width": given.train.shape[1], "outputs": given.outputs, "likelihood": likelihood}


class Best:
    """The weights of least loss on the validation examples, looked at every so often."""

    def __init__(self, model: MLP, given: Rows):
        self.model = model
        self.x, self.y = given.validation, model.targets(given.targets.validation)
        self.state = {"loss": torch.tensor(torch.finfo().max), **{n: v.clone() for n, v in model.state_dict().items()}}

    @torch.no_grad()
    def look(self, step: int, steps: int) -> None:
        if step != steps and step % LOOK:
            return
        loss = self.model.loss(self.x, self.y)
        if loss < self.state["loss"]:
            self.state["loss"].copy_(loss)
            for name, value in self.model.state_dict().items():
                self.state[name].copy_(value)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the model these weights, and the scale that its residuals on the examples looked at ask for."""
        self.model.load_state_dict({name: value for name, value in self.state.items() if name != "loss"})
        self.model.s.copy_(self.model.likelihood.scale(self.model(self.x), self.y))


def measure(model: MLP, given: Rows) -> None:
    """Take the units of columns, unless they are pixels, and of targets that are numbers, from the training rows."""
    if given.shape is None:
        model.inputs.measure(given.train)
    if not given.classes:
        model.units.measure(given.targets.train[:, None])


@torch.no_grad()
def held_out(model: MLP, given: Rows) -> dict[str, Tensor]:
    """How well the test examples are predicted: by class, or in units of the target."""
    eta, y = model(given.test), model.targets(given.targets.test)
    nll = model.likelihood.nll(eta, y, model.s).mean()
    if given.classes:
        return {"nll": nll, "accuracy": (eta.argmax(1) == given.targets.test).double().mean()}
    off = (eta - y).double() * model.units.scale
    return {"nll": nll + model.units.scale.log()[0], "rmse": off.square().mean().sqrt(), "sup_error": off.abs().max()}


@torch.no_grad()
def one_matrix(run: Run, model: MLP, given: Rows) -> None:
    """What linear layers are together, as a table, and that nothing else is left of them."""
    w, b = model.collapsed()
    x = model.inputs(given.test).to(w)
    off = (model(given.test) - (x @ w.T + b)).abs().max()
    names = given.classes or (given.target,)
    run.table(
        "collapsed.csv",
        ["output", "b", *given.columns],
        [(name, float(bias), *row) for name, bias, row in zip(names, b, w.tolist(), strict=True)],
    )
    run.say(f"{len(model.layers)} linear layers are one: W x + b with W [{len(w)}, {w.shape[1]}], off by {off:.1e}")
    if w.numel() <= 40:
        run.say("\n".join(" ".join(f"{value:10.4f}" for value in (*row, bias)) for row, bias in zip(w, b, strict=True)))


Other = Annotated[str | None, "dataset (that of the training, with its fold)"]


def known(trained: Trained, data: str | None) -> tuple[MLP, Rows]:
    """The trained network and the examples that it is held against."""
    model = trained.load(MLP, Config)
    return model, held_against(trained, data, model.layers[0].in_features, model.layers[-1].out_features)


def evaluate(trained: Trained, run: Run, data: Other = None) -> None:
    model, given = known(trained, data)
    run.say(given.describe())
    run.result(**held_out(model, given.to(run.device)), **bases.held_out(given, model.inputs.cpu()))


def render(trained: Trained, run: Run) -> None:
    model, given = known(trained, None)
    model = model.cpu()
    cfg = Config(**{field.name: trained.options[field.name] for field in fields(Config)})
    norms = {
        name: norms_at_start(replace(cfg, activation=name), trained.extras, given, run.seed) for name in ACTIVATIONS
    }
    now = norms_by_layer(model, given)
    if given.classes and given.train.shape[1] == 2:
        run.figure("regions.png", pictures.regions(trained.heading, model, given))
    elif not given.classes and given.train.shape[1] == 1:
        run.figure("approximation.png", pictures.approximation(trained.heading, model, given))
    run.figure("layers.png", pictures.layers(trained.heading, norms, now, cfg.activation))
    names = [f"norm_{number}" for number in range(1, len(now) + 1)]
    run.table(
        "layers.csv",
        ["activation", "f", "slope", "range", *names],
        [(name, a.formula, a.slope, a.range, *norms[name]) for name, a in ACTIVATIONS.items()],
    )


def norms_at_start(cfg: Config, sizes: dict[str, Any], given: Rows, seed: int) -> list[float]:
    """`norms_by_layer` of a network as it begins."""
    torch.manual_seed(seed)
    model = MLP(cfg, **sizes)
    measure(model, given)
    return norms_by_layer(model, given)


def norms_by_layer(model: MLP, given: Rows) -> list[float]:
    """|dL/dW_l| of each layer, on a thousand training examples at most."""
    x, t = given.train[:1000], given.targets.train[:1000]
    written(model, x, model.targets(t), None)
    return [float(torch.as_tensor(layer.weight.grad).norm()) for layer in model.layers]
