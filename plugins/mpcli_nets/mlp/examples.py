"""What networks learn: the rows of a dataset, or one fold of it, exclusive or, or a function of one number."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.model_selection import KFold, StratifiedKFold
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit.datasets import Split
from mpcli.run import Trained
from mpcli_nets.kit.rows import Rows, of_width, rows
from mpcli_nets.perceptron.examples import POINTS, TRUTH

FOLDS = 5
COUNT = 512  # numbers at which the function is known


def function(x: Tensor) -> Tensor:
    """What `function` learns, of numbers in [0, 1]: three waves that fade, with a kink at 0.4."""
    return (6 * torch.pi * x).sin() * (-x).exp() + (x - 0.4).abs()


def examples(data: str, fold: int | None = None, width: int | None = None) -> Rows:
    """The examples of a dataset, split as it comes or with one of five folds for testing.

    The folds are those of scikit-learn, stratified by class, shuffled by the seed 0; a tenth of the rest is for
    validation.

    Raises:
        InputError: there is no such dataset, it cannot be cut so, or has another width.
    """
    if data in TRUTH:
        x, t = torch.tensor(POINTS), torch.tensor(TRUTH[data])
        found = Rows(
            x, x, x, targets=Split(t, t, t), classes=("false", "true"), columns=("x1", "x2"), target=data, name=data
        )
    elif data == "function":
        x, fine = ((torch.arange(n)[:, None] + 0.5) / n for n in (COUNT, 4 * COUNT))
        y = Split(*(function(part[:, 0]) for part in (x, x, fine)))
        found = Rows(x, x, fine, targets=y, classes=(), columns=("x",), target="f(x)", name=data)
    else:
        return _folded(data, rows(data, width), fold)
    if fold is not None:
        raise InputError(f"--fold {fold}: {data} is not cut into folds; leave it out")
    of_width(data, found.train, width)
    return found


def held_against(trained: Trained, data: str | None, width: int | None, outputs: int) -> Rows:
    """The examples that a trained model is held against: a dataset's, or those that it was trained on, with their fold.

    A width of None takes any.

    Raises:
        InputError: they are of another width, or have a target of another kind.
    """
    of = data or trained.options["data"]
    given = examples(of, None if data else trained.options["fold"], width)
    if given.outputs != outputs:
        wants = f"{outputs} classes" if outputs > 1 else "a number"
        raise InputError(f"{of}: has a target of another kind; right would be {wants}, as the model was trained on")
    return given


def _folded(data: str, given: Rows, fold: int | None) -> Rows:
    if fold is None:
        return given
    x, t = (torch.cat(list(of.parts().values())) for of in (given, given.targets))
    least = min(np.bincount(t.numpy())) if given.classes else len(t)
    if least < FOLDS:
        raise InputError(f"{data}: has {least} examples of a class; right for folds would be {FOLDS} or more")
    cut = (StratifiedKFold if given.classes else KFold)(FOLDS, shuffle=True, random_state=0)
    learn, test = map(torch.from_numpy, list(cut.split(x, t))[fold])
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(learn)))
    learn, choose = learn[order].split([len(learn) - len(learn) // 10, len(learn) // 10])
    return replace(
        given,
        train=x[learn],
        validation=x[choose],
        test=x[test],
        targets=Split(t[learn], t[choose], t[test]),
        name=f"{given.name}, fold {fold}",
    )
