"""What needs no training by gradients, to be beaten: neighbours, support vectors, least squares, random units."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LinearRegression, Perceptron
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import Tensor

from mpcli.notices import notice
from mpcli_nets.kit.rows import Rows, Standard

MOST = 5000  # training examples that neighbours and support vectors are given
SEED = 0


def held_out(given: Rows, inputs: Standard) -> dict[str, float]:
    """Accuracy, or root mean square error, of scikit-learn's on the same examples, as a network sees them."""
    x, test = (inputs(part.cpu()).numpy() for part in (given.train, given.test))
    t, truth = (part.cpu().numpy() for part in (given.targets.train, given.targets.test))
    if not given.classes:
        off = LinearRegression().fit(x, t).predict(test) - truth
        found = {"linear_rmse": float(np.sqrt(np.mean(off**2)))}
        if given.name == "function":
            y = torch.from_numpy(t)
            fit = random_units(given.train, y, 32, torch.tanh)
            found["random_sup_error"] = float((fit(given.test) - given.targets.test).abs().max())
        return found
    if len(x) > MOST:
        notice(f"{given.name}: neighbours and support vectors are given {MOST} of {len(x)} training examples")
    some, known = x[:MOST], t[:MOST]
    peers = {
        "perceptron": Perceptron(random_state=SEED),
        "nearest": KNeighborsClassifier(1),
        "svc": SVC(random_state=SEED),
    }
    return {f"{name}_accuracy": float(peer.fit(some, known).score(test, truth)) for name, peer in peers.items()}


def random_units(
    x: Tensor, y: Tensor, units: int, f: Callable[[Tensor], Tensor], seed: int = SEED
) -> Callable[[Tensor], Tensor]:
    """g(x) = v_0 + sum_i v_i f(w_i (x - c_i)) with random w, c and the v of least squares, on [0, 1]. [N, 1], [N]."""
    g = torch.Generator().manual_seed(seed)
    w = (5 + units / 2) * (0.5 + torch.rand(units, generator=g).double())
    c = (torch.arange(units) + torch.rand(units, generator=g).double()) / units

    def values(x: Tensor) -> Tensor:
        inside = f(w * (x.double() - c))
        return torch.cat([inside, torch.ones_like(inside[:, :1])], 1)

    v = torch.linalg.lstsq(values(x), y.double()[:, None], driver="gelsd").solution
    return lambda x: (values(x) @ v)[:, 0]
