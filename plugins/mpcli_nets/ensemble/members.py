"""Members of an ensemble: each learns alone, and is kept as named tensors."""

from collections.abc import Callable

import torch
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from torch import Tensor

from mpcli.kit.datasets.split import shuffled
from mpcli_nets import mlp
from mpcli_nets.kit.rows import Rows, Standard
from mpcli_nets.maximum_likelihood.likelihoods import LIKELIHOODS
from mpcli_nets.maximum_likelihood.optimum import Posterior, begun, step

Member = dict[str, Tensor]  # what a member is, by name
HIDDEN = (128,)  # units of a network
STEPS = 600  # of a network
BATCH = 64


def tree(x: Tensor, y: Tensor, seed: int, leaf: int = 1) -> Member:
    """A decision tree of scikit-learn, grown until its leaves are pure, or small: nodes, -1 as the feature of a leaf.

    x [N, D]; y [N, K] with a one at the class, or [N, 1] of numbers.
    """
    kind, t = (DecisionTreeClassifier, y.argmax(1)) if y.shape[1] > 1 else (DecisionTreeRegressor, y[:, 0])
    grown = kind(random_state=seed, min_samples_leaf=leaf).fit(x.float().numpy(), t.numpy())
    nodes = grown.tree_
    value = torch.zeros(nodes.node_count, y.shape[1], dtype=torch.float64)
    # A bootstrap may lack a class, which its tree then does not know.
    known = torch.from_numpy(grown.classes_) if y.shape[1] > 1 else torch.zeros(1, dtype=torch.int64)
    value[:, known] = torch.from_numpy(nodes.value[:, 0].copy()).double()
    return {
        "feature": torch.from_numpy(nodes.feature.copy()).long().clamp(min=-1),
        "threshold": torch.from_numpy(nodes.threshold.copy()).double(),
        "left": torch.from_numpy(nodes.children_left.copy()).long(),
        "right": torch.from_numpy(nodes.children_right.copy()).long(),
        "value": value,
    }


def walk(member: Member, x: Tensor) -> Tensor:
    """What the leaf says that each example comes to. [N, D] -> [N, K]."""
    x = x.float().double()  # as scikit-learn compares them
    node = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    while True:
        feature = member["feature"][node]
        if (feature < 0).all():
            return member["value"][node]
        at = x.gather(1, feature.clamp(min=0)[:, None])[:, 0]
        below = torch.where(at <= member["threshold"][node], member["left"][node], member["right"][node])
        node = torch.where(feature < 0, node, below)


def linear(x: Tensor, y: Tensor, seed: int, leaf: int = 1) -> Member:
    """Weights [D + 1, K]: least squares for numbers, softmax regression with a Gaussian prior for classes."""
    inside = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    if y.shape[1] == 1:
        return {"w": torch.linalg.lstsq(inside, y, driver="gelsd").solution}
    one = x.new_ones(())
    at = Posterior(LIKELIHOODS["categorical"], LIKELIHOODS["gaussian"], one, inside, y, one)
    memory = begun(at, x.new_zeros(inside.shape[1], y.shape[1]))
    for _ in range(50):
        if step(at, memory):
            break
    return {"w": memory["weights"]}


def straight(member: Member, x: Tensor) -> Tensor:
    """[N, D] -> [N, K]: numbers, or probabilities."""
    eta = x @ member["w"][:-1] + member["w"][-1]
    return eta.softmax(1) if eta.shape[1] > 1 else eta


def network(x: Tensor, y: Tensor, seed: int, leaf: int = 1) -> Member:
    """A multilayer perceptron, taught by Adam."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = mlp.MLP(mlp.Config(hidden=HIDDEN), x.shape[1], y.shape[1], likelihood(y)).double()
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    index = shuffled(len(x), min(BATCH, len(x)), seed)
    for number in range(STEPS):
        for group in adam.param_groups:
            group["lr"] = 3e-3 * (1 - number / STEPS)
        i = index(number)
        loss = model.loss(x[i], y[i])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def likelihood(y: Tensor) -> str:
    """The name of the distribution of targets [N, K]."""
    return "categorical" if y.shape[1] > 1 else "gaussian"


@torch.no_grad()
def through(member: Member, x: Tensor) -> Tensor:
    """[N, D] -> [N, K]: numbers, or probabilities."""
    z, last = x, len(member) // 2 - 1
    for number in range(last + 1):
        a = z @ member[f"stack.{number}.weight"].T + member[f"stack.{number}.bias"]
        z = a.relu() if number < last else a
    return z.softmax(1) if z.shape[1] > 1 else z


Fit = Callable[[Tensor, Tensor, int, int], Member]  # examples, targets, seed, examples in a leaf at least
Predict = Callable[[Member, Tensor], Tensor]
CLASSES: dict[str, tuple[Fit, Predict]] = {
    "tree": (tree, walk),
    "linear": (linear, straight),
    "network": (network, through),
}


def bootstrap(count: int, generator: torch.Generator) -> Tensor:
    """As many numbers as there are examples, drawn with replacement. [count]."""
    return torch.randint(count, (count,), generator=generator)


class Units:
    """Rows and targets as members see them: columns of a table standardised, numbers too, classes as ones."""

    def __init__(self, given: Rows):
        self.inputs, self.numbers, self.classes = Standard(given.train.shape[1]), Standard(1), len(given.classes)
        if given.shape is None:
            self.inputs.measure(given.train)
        if not self.classes:
            self.numbers.measure(given.targets.train[:, None])

    def targets(self, t: Tensor) -> Tensor:  # [N] -> [N, K]
        if self.classes:
            return torch.nn.functional.one_hot(t, self.classes).double()
        return self.numbers(t[:, None])
