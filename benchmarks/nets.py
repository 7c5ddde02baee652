"""Networks against what their users have: scikit-learn's multilayer perceptron and logistic regression.

    mlp                  an epoch of the digits, hidden layers of 256 and 256, batches of 64, Adam
    maximum_likelihood   softmax regression with a Gaussian prior, to its optimum; the -log p that each side reached
                         goes to standard error

`python benchmarks/nets.py [--only TEXT] [--mnist FOLDER] [--rows N]`; the second question is asked of the digits, and
of the first N training pictures of MNIST where its folder is given.
"""

import argparse
import sys
from functools import partial
from typing import Any

from protocol import compare, cpu_seconds

EPOCHS = 5


def arguments() -> argparse.Namespace:
    """The script's own options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", default="")
    parser.add_argument("--rows", type=int, default=5000)
    return parser.parse_known_args()[0]


def epoch_of_ours() -> float:
    import torch

    from mpcli.kit.datasets.split import shuffled
    from mpcli_nets import mlp

    given = mlp.examples("digits")
    model = mlp.MLP(mlp.Config(), 64, 10, "categorical")
    y = model.targets(given.targets.train)
    adam = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    index = shuffled(len(y), 64, 0)
    steps = -(-len(y) // 64)

    def train() -> None:
        for step in range(EPOCHS * steps):
            i = index(step)
            mlp.by_autograd(model, given.train[i], y[i], None)
            adam.step()

    return cpu_seconds(train, units=EPOCHS)


def epoch_of_theirs() -> float:
    import warnings

    from sklearn.neural_network import MLPClassifier

    from mpcli_nets import mlp

    warnings.simplefilter("ignore")  # that it has not converged
    given = mlp.examples("digits")
    peer = MLPClassifier((256, 256), batch_size=64, max_iter=EPOCHS, n_iter_no_change=1000, tol=0, alpha=0)
    x, t = given.train.numpy(), given.targets.train.numpy()
    return cpu_seconds(lambda: peer.fit(x, t), units=EPOCHS)


def rows(data: str, count: int) -> tuple[Any, Any]:
    """Examples [N, D + 1] with ones at their end, in float64, and classes [N]."""
    import torch

    from mpcli_nets.kit import rows as kit

    given = kit.rows(data)
    x = given.train[:count].double()
    return torch.cat([x, torch.ones_like(x[:, :1])], 1), given.targets.train[:count]


def height(x: Any, t: Any, w: Any) -> float:
    """-log p of all examples and of the weights."""
    import torch

    eta = x @ w
    return float(-eta.log_softmax(1)[torch.arange(len(t)), t].sum() + w[:-1].square().sum() / 2)


def optimum_of_ours(data: str, count: int) -> float:
    import torch

    from mpcli_nets.maximum_likelihood import LIKELIHOODS
    from mpcli_nets.maximum_likelihood.optimum import Posterior, begun, step

    x, t = rows(data, count)
    one, y = x.new_ones(()), torch.nn.functional.one_hot(t).double()
    at = Posterior(LIKELIHOODS["categorical"], LIKELIHOODS["gaussian"], one, x, y, one)
    found = {}

    def fit() -> None:
        memory = begun(at, x.new_zeros(x.shape[1], y.shape[1]))
        while not step(at, memory):
            pass
        found["w"] = memory["weights"]

    seconds = cpu_seconds(fit, warmup=0)
    print(f"  ours: -log p {height(x, t, found['w']):.9f}", file=sys.stderr)
    return seconds


def optimum_of_theirs(data: str, count: int) -> float:
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    x, t = rows(data, count)
    peer = LogisticRegression(C=1.0, tol=1e-7, max_iter=100_000)
    seconds = cpu_seconds(lambda: peer.fit(x[:, :-1].numpy(), t.numpy()), warmup=0)
    w = torch.from_numpy(np.vstack([peer.coef_.T, peer.intercept_]))
    print(f"  scikit-learn: -log p {height(x, t, w):.9f}", file=sys.stderr)
    return seconds


def main() -> None:
    """Ask every question."""
    asked = arguments()
    compare("an epoch of `mlp`, digits", epoch_of_ours, epoch_of_theirs, packages=("scikit-learn",))
    sources = {"digits": "digits"} | ({"mnist": f"mnist:{asked.mnist}"} if asked.mnist else {})
    for name, data in sources.items():
        sides = (partial(side, data, asked.rows) for side in (optimum_of_ours, optimum_of_theirs))
        compare(f"softmax regression to its optimum, {name}", *sides, repeats=3, packages=("scikit-learn",))


if __name__ == "__main__":
    main()
