"""Chains: those that come with the page, those in a file, and what an environment does under a random policy.

A file is a table with the columns `state`, `reward` and one for each state, in which a row holds the name of a state,
the reward for being in it, and the probability of each next state. What a row lacks to 1 is the probability that the
episode ends. A name such as `rain#2` is a state that is observed as `rain`.
"""

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from mpcli.errors import InputError
from mpcli.kit.datasets.files import located, read_text
from mpcli_rl.kit import mdp, tabular

MOST = 2_000  # states: matrices of their squares are kept
WEATHER = """state,reward,sun,cloud,rain
sun,2,0.7,0.2,0.1
cloud,1,0.3,0.4,0.3
rain,0,0.2,0.4,0.4
"""
# Rain lasts two days: whether it goes on depends on what was before it.
SHOWERS = """state,reward,sun,rain#1,rain#2
sun,2,0.6,0.4,0
rain#1,0,0,0,1
rain#2,0,1,0,0
"""
EMBEDDED = {"weather": WEATHER, "showers": SHOWERS}


@dataclass(frozen=True)
class Chain:
    """A Markov reward process of S states.

    Attributes:
        p: [S, S] probabilities of the next state; what a row lacks to 1 ends the episode.
        r: [S] expected reward on leaving a state.
        start: [S] distribution of the first state.
        names: of the states.
        seen: [S] the number of what is observed in a state, among `labels`.
    """

    p: Float[Array, "S S"]
    r: Float[Array, " S"]
    start: Float[Array, " S"]
    names: tuple[str, ...]
    seen: Int[Array, " S"]
    labels: tuple[str, ...]


def chain(spec: str) -> Chain:
    """`weather`, `showers`, `env:ID` or the path of a table.

    Raises:
        InputError: it is none of these, or no table of probabilities.
    """
    if spec in EMBEDDED:
        return parsed(EMBEDDED[spec], spec)
    if spec.startswith("env:"):
        model = mdp.transition_table(tabular.world(spec.removeprefix("env:")))
        if len(model.r) > MOST:
            raise InputError(f"--chain {spec}: has {len(model.r)} states; right would be {MOST} at most")
        p, r = model.under(np.full(model.r.shape, 1 / model.r.shape[1]))
        names = tuple(str(state) for state in range(len(r)))
        return Chain(p.toarray(), r, model.start, names, np.arange(len(r)), names)
    path = located("chain", spec, folder=False)
    return parsed(read_text(path), path)


def parsed(text: str, where: str | Path) -> Chain:
    """The table of a file."""
    right = "right would be the columns state, reward and one for each state"
    rows = [row for row in csv.reader(StringIO(text)) if any(row)]
    head = [name.strip() for name in rows[0]] if rows else []
    names = tuple(head[2:])
    if head[:2] != ["state", "reward"] or not names or len(set(names)) < len(names):
        raise InputError(f"{where}: has the columns {', '.join(head)[:80] or 'of an empty file'}; {right}")
    if [row[0].strip() for row in rows[1:]] != list(names):
        raise InputError(f"{where}: its rows are {', '.join(row[0] for row in rows[1:])[:80]}; {right}, in that order")
    if len(names) > MOST:
        raise InputError(f"{where}: has {len(names)} states; right would be {MOST} at most")
    try:
        numbers = np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
    except ValueError as error:
        raise InputError(
            f"{where}: {error}; right would be as many numbers in every row as there are states"
        ) from error
    p, r = numbers[:, 1:], numbers[:, 0]
    wrong = ~(np.isfinite(numbers).all(1) & (p >= 0).all(1) & (p.sum(1) <= 1 + 1e-9))
    if p.shape != (len(names), len(names)) or wrong.any():
        row = names[int(wrong.argmax())]
        raise InputError(f"{where}: row {row} is no distribution; right would be numbers from 0, together 1 at most")
    observed = [name.partition("#")[0] for name in names]
    labels = tuple(dict.fromkeys(observed))
    seen = np.array([labels.index(name) for name in observed])
    return Chain(p, r, np.eye(len(names))[0], names, seen, labels)
