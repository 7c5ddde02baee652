"""What `track` keeps of a page's own state: dicts and lists come back in place."""

import random

import numpy as np
import pytest
import torch

from mpcli.errors import Failed, InputError
from mpcli.run import Run, seed_everything


class Killed(BaseException):
    pass


def train(folder, steps: int, resume: bool = False, die_at: int = -1) -> tuple[dict, list]:
    table = {"q": np.zeros(3, np.float32), "seen": {}, "best": None, "flags": np.zeros(2, bool)}
    memory: list = []
    theta = torch.zeros(2, requires_grad=True)
    adam = torch.optim.SGD([theta], 0.1, momentum=0.9)
    own = {"theta": theta}
    run = Run(folder, resume=folder if resume else None, checkpoint=0.0)
    for step in run.track(lambda step: step, steps, table=table, memory=memory, own=own, adam=adam):
        if step == die_at:
            raise Killed
        table["q"][step % 3] += random.random()
        table["seen"][str(step)] = (step, float(np.random.rand()))
        table["best"] = np.float64(table["q"].max())
        table["flags"][step % 2] = True
        memory.append(torch.full((2,), float(step)))
        (theta - 1).square().sum().backward()
        adam.step()
        adam.zero_grad()
        run.log(loss=1.0)
    return table | {"theta": theta.detach()}, memory


def test_a_dict_and_a_list_come_back_as_they_were(tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    seed_everything(0)
    table, memory = train(tmp_path / "whole", 7)
    seed_everything(0)
    with pytest.raises(Killed):
        train(tmp_path / "cut", 7, die_at=4)
    seed_everything(99)
    again, memories = train(tmp_path / "cut", 7, resume=True)
    assert isinstance(again["q"], np.ndarray) and again["q"].dtype == np.float32
    assert again["flags"].dtype == bool
    assert np.array_equal(again["q"], table["q"]) and np.array_equal(again["flags"], table["flags"])
    assert again["seen"] == table["seen"] and isinstance(again["seen"]["0"], tuple)
    assert again["best"] == table["best"]
    assert torch.equal(torch.stack(memories), torch.stack(memory))
    assert torch.equal(again["theta"], table["theta"])  # the very tensor that the optimizer steps


def test_an_object_that_a_page_holds_on_to_is_the_one_restored(tmp_path):
    run = Run(tmp_path, checkpoint=0.0)
    for _ in run.track(lambda step: step, 2, counts=(counts := {"n": 0})):
        counts["n"] += 1
    counts = {"n": 0}
    alias = counts
    list(Run(tmp_path, resume=tmp_path).track(lambda step: step, 2, counts=counts))
    assert alias["n"] == 2 and alias is counts


@pytest.mark.parametrize(("state", "words"), [(3, "int"), ({"a": object()}, "object"), ({"a": {1, 2}}, "set")])
def test_what_cannot_be_kept_is_told_before_any_work(tmp_path, state, words):
    with pytest.raises(TypeError, match=words):
        next(Run(tmp_path).track(lambda step: step, 2, state=state))


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    list(Run(tmp_path).track(lambda step: step, 2, state={"a": 1}))
    with pytest.raises(InputError, match="does not fit"):
        list(Run(tmp_path, resume=tmp_path).track(lambda step: step, 2, state=[1]))


def fails(folder, fault) -> Exception:
    """How a run tells an error of its third step, a checkpoint behind it."""
    run, theta = Run(folder, checkpoint=0.0), torch.zeros(2)
    try:
        for step in run.track(lambda step: step, 5, own={"theta": theta}):
            if step == 2:
                fault(theta)
    except Exception as error:
        return run.told(error)
    raise AssertionError("nothing failed")


def spoils(theta):
    theta[1] = float("inf")
    raise IndexError("no such bin")


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (lambda theta: torch.distributions.Normal(theta / 0, 1.0), "numbers are not finite"),
        (lambda theta: torch.multinomial(theta / 0, 1), "numbers are not finite"),
        (lambda theta: np.histogram([np.nan, 1.0]), "numbers are not finite"),
        (spoils, "own.theta is not finite"),
    ],
)
def test_divergence_is_one_sentence_whoever_notices_it(tmp_path, fault, what):
    told = fails(tmp_path, fault)
    good = tmp_path / "checkpoint.pt"
    assert str(told) == f"training diverged: {what} at step 3; the last good checkpoint is {good}"
    assert isinstance(told, Failed)


def test_other_errors_of_training_stay_what_they_are(tmp_path):
    def wrong(theta):
        raise ValueError("an infinite number of canals and a nanny")

    def refused(theta):
        raise InputError("x.txt: holds nan")

    assert type(fails(tmp_path, wrong)) is ValueError
    assert str(fails(tmp_path, refused)).startswith("x.txt: holds nan; the last checkpoint is ")
    run = Run(tmp_path)
    for _ in run.track(lambda step: step, 2):
        pass
    late = ValueError("after training: nan")
    assert run.told(late) is late
