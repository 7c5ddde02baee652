"""The ten-armed testbed against the textbook's curves."""

from pathlib import Path

import numpy as np
import pytest
from mutants import arguments, larger, result
from safetensors.numpy import load_file

from mpcli.run import Run, seed_everything
from mpcli_rl import bandit
from mpcli_rl.bandit import Config

SMALL = {"rl_run": ["--tasks", "20"]}
MUTANTS = {
    "greedy with probability epsilon": (bandit, "choose", arguments(lambda q, e, *rest: (q, 1 - e, *rest))),
    "the arm that looks worst": (bandit, "choose", arguments(lambda q, *rest: (-q, *rest))),
    "N counts from two": (bandit, "improved", arguments(lambda q, n, reward: (q, n + 1, reward))),
    "means too large": (bandit, "improved", result(larger)),
}


def learn(directory: Path, steps: int = 1000, seed: int = 0, **options) -> Run:
    directory.mkdir()
    seed_everything(seed)
    run = Run(directory, seed=seed, device="cpu")
    bandit.rl_run(Config(**options), run, steps)
    return run


@pytest.fixture(scope="module")
def textbook(tmp_path_factory) -> Run:
    return learn(tmp_path_factory.mktemp("bandit") / "run")


def test_the_textbook_curves(textbook):
    """Sutton and Barto, section 2.3: greedy "achieved a reward-per-step of only about 1, compared with the best
    possible of about 1.54", "found the optimal action in only approximately one-third of the tasks"; epsilon 0.1
    "never selected it on more than 91% of the steps", and at step 1000 is on it in about 80%."""
    seen = textbook.metrics
    assert seen["return_exact"] == pytest.approx(1.5388, abs=0.04)  # the mean largest of ten normal numbers
    assert seen["reward_0"] == pytest.approx(1.04, abs=0.07) and seen["best_0"] == pytest.approx(0.36, abs=0.05)
    assert seen["reward_0.1"] == pytest.approx(1.37, abs=0.06) and seen["best_0.1"] == pytest.approx(0.79, abs=0.05)
    assert seen["best_0"] < seen["best_0.01"] < seen["best_0.1"] <= 0.91
    assert seen["reward_0"] < seen["reward_0.01"] < seen["reward_0.1"]
    rows = np.genfromtxt(textbook.dir / "rewards.csv", delimiter=",", names=True)
    assert abs(rows["reward_0"][0]) < 0.1 and rows["best_01"][0] == pytest.approx(0.1, abs=0.03)
    assert rows["reward_0"][5:20].mean() > rows["reward_01"][5:20].mean()  # at first the greedy agent earns more


def test_means_are_those_of_what_was_paid(textbook):
    tables = load_file(textbook.dir / "model.safetensors")
    true = np.random.default_rng(0).normal(size=(2000, 10))
    assert (tables["n"].sum(2) == 1000).all()
    often = tables["n"] > 30
    error = (tables["q"] - true)[often] * np.sqrt(tables["n"][often])
    assert abs(error).max() < 6 and error.std() == pytest.approx(1, abs=0.1)
    assert (tables["q"][tables["n"] == 0] == 0).all() and (tables["n"] == 0).any()


def test_the_greedy_are_stuck_and_hope_frees_them(tmp_path):
    plain = learn(tmp_path / "plain", 500, epsilons=(0.0,), tasks=500)
    hopeful = learn(tmp_path / "hopeful", 500, epsilons=(0.0,), tasks=500, initial=5.0)
    assert hopeful.metrics["best_0"] > plain.metrics["best_0"] + 0.15


def test_less_exploration_later_earns_more(tmp_path):
    constant = learn(tmp_path / "constant", 1000, epsilons=(0.5,), tasks=500)
    falling = learn(tmp_path / "falling", 1000, epsilons=(0.5,), power=0.5, tasks=500)
    assert falling.metrics["reward_0.5"] > constant.metrics["reward_0.5"] + 0.3


def test_from_the_shell(mpcli):
    result = mpcli("rl-run", "bandit", "--tasks", 50, "--steps", 20, "--epsilons", "0,0.3", "--json", "--quiet")
    assert result.code == 0, result.err
    assert [Path(path).name for path in result.json["artifacts"]] == ["rewards.csv", "rewards.png", "curves.png"]
    assert mpcli("rl-run", "bandit", "--epsilons", "0.1,1.5").code == 2
    assert mpcli("rl-run", "bandit", "--epsilons", "0.1,0.1").code == 2
