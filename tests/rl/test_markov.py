"""Markov processes against closed forms and scipy, and the test of the Markov property against its own distribution."""

import csv

import numpy as np
import pytest
import torch
from mutants import arguments, larger, result
from scipy.stats import chi2, chi2_contingency, kstest

from mpcli.errors import InputError
from mpcli_rl import markov
from mpcli_rl.kit import mdp, tabular
from mpcli_rl.markov import chains

SMALL = {"rl_run": ["--steps", "5"]}
MUTANTS = {
    "undiscounted values": (markov, "values", arguments(lambda p, r, gamma: (p, r, 0.99 * gamma))),
    "sweeps without rewards": (markov, "sweep", arguments(lambda p, r, v, gamma: (p, 0 * r, v, gamma))),
    "columns for rows": (markov, "stationary", arguments(lambda p, start: (p.T / p.T.sum(1, keepdim=True), start))),
    "shares too large": (markov, "stationary", result(larger)),
    "returns of the rewards to come": (markov, "returns", result(lambda g: g[1:] + g[:1])),
    "expected counts forgotten": (markov, "independence", result(lambda found: (1.1 * found[0], found[1]))),
    "too free": (markov, "independence", result(lambda found: (found[0], found[1] + 1))),
}


def walk(p: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    path, onward = np.zeros(length, int), p.cumsum(1)
    for t, chance in enumerate(random.random(length - 1)):
        path[t + 1] = np.searchsorted(onward[path[t]], chance * onward[path[t], -1], side="right")
    return path


def never(path: np.ndarray) -> np.ndarray:
    return np.zeros(len(path), bool)


def test_shares_of_time_of_a_chain_of_two_states():
    p = torch.tensor([[0.7, 0.3], [0.1, 0.9]]).double()
    torch.testing.assert_close(
        markov.stationary(p, torch.tensor([1.0, 0.0]).double()), torch.tensor([0.25, 0.75]).double()
    )


def test_a_chain_with_a_period_and_one_that_falls_apart():
    turning = torch.eye(3).roll(1, 1).double()
    torch.testing.assert_close(markov.stationary(turning, torch.eye(3)[0].double()), torch.full((3,), 1 / 3).double())
    apart = torch.tensor([[0.0, 0.25, 0.75], [0.0, 1, 0], [0, 0, 1]]).double()
    shares = markov.stationary(apart, torch.tensor([1.0, 0, 0]).double())
    torch.testing.assert_close(shares, torch.tensor([0, 0.25, 0.75]).double())


def test_values_are_those_of_the_uniform_policy_in_an_environment():
    chain = chains.chain("env:FrozenLake-v1")
    model = mdp.transition_table(tabular.world("FrozenLake-v1"))
    expected = mdp.policy_value(model, np.full(model.r.shape, 0.25), 0.95)
    found = markov.values(torch.from_numpy(chain.p), torch.from_numpy(chain.r), 0.95)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_far_sighted_values_are_the_mean_reward_over_the_time_that_counts():
    chain = chains.chain("weather")
    p, r = torch.from_numpy(chain.p), torch.from_numpy(chain.r)
    mean = markov.stationary(p, p[0]) @ r
    torch.testing.assert_close(markov.values(p, r, 0.0), r)  # the near-sighted see the next reward alone
    torch.testing.assert_close((1 - 0.99999) * markov.values(p, r, 0.99999), mean.expand(3), atol=1e-3, rtol=0)


def test_the_statistic_is_scipys_where_nothing_is_rare():
    counts = np.random.default_rng(0).integers(20, 90, (4, 3, 4))
    statistic, freedom = markov.independence(counts)
    each = [chi2_contingency(counts[:, now], correction=False) for now in range(3)]
    assert statistic == pytest.approx(sum(one.statistic for one in each))
    assert freedom == sum(one.dof for one in each)


def test_rare_cells_do_not_speak():
    counts = np.random.default_rng(0).integers(20, 90, (4, 1, 4))
    more = np.pad(counts, ((0, 1), (0, 0), (0, 1)))
    more[4, 0, 4] = 1  # once, and in the most telling place
    assert markov.independence(more) == pytest.approx(markov.independence(counts), rel=0.02)


def test_a_markov_chain_passes_as_often_as_it_should_and_one_with_memory_does_not():
    random = np.random.default_rng(1)
    p = chains.chain("weather").p
    chances = []
    for _ in range(60):
        path = walk(p, 3000, random)
        statistic, freedom = markov.independence(markov.triples(path, never(path), 3))
        assert freedom == 12
        chances.append(chi2.sf(statistic, freedom))
    assert kstest(chances, "uniform").pvalue > 1e-3
    showers = chains.chain("showers")
    path = walk(showers.p, 3000, random)
    for seen, markovian in ((showers.seen[path], False), (path, True)):
        statistic, freedom = markov.independence(markov.triples(seen, never(path), 3))
        assert (freedom == 0 or chi2.sf(statistic, freedom) > 1e-3) == markovian


def test_an_end_of_an_episode_parts_what_was_before():
    observed = np.array([0, 1, 0, 1, 1, 0])
    ended = np.array([False, False, True, False, False, False])
    counts = markov.triples(observed, ended, 2)
    assert counts.sum() == 2 and counts[0, 1, 0] == 1 and counts[1, 1, 0] == 1


@pytest.mark.parametrize("chain", ["weather", "env:FrozenLake-v1"])
def test_what_is_simulated_is_near_to_what_is_solved(mpcli, chain):
    result = mpcli("rl-run", "markov", "--chain", chain, "--steps", 200, "--json")
    assert result.code == 0, result.err
    metrics = result.json["metrics"]
    assert metrics["stationary_error"] < 0.02 and metrics["value_error"] < 0.4 and metrics["p_value"] > 1e-4
    with open(next(path for path in result.json["artifacts"] if path.endswith("states.csv")), newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row["stationary"]) for row in rows) == pytest.approx(1)
    assert sum(float(row["visited"]) for row in rows) == pytest.approx(1)


def test_what_is_observed_of_showers_is_not_markov(mpcli):
    result = mpcli("rl-run", "markov", "--chain", "showers", "--steps", 20, "--json")
    assert result.code == 0 and "not Markov" in result.err, result.err
    assert result.json["metrics"]["p_value"] < 1e-6


TABLE = "state,reward,a,b\na,1,0.5,0.5\nb,0,0.25,0.5\n"


def test_a_table_is_read(tmp_path):
    (tmp_path / "c.csv").write_text(TABLE)
    chain = chains.chain(str(tmp_path / "c.csv"))
    assert chain.names == chain.labels == ("a", "b") and chain.r.tolist() == [1, 0]
    np.testing.assert_array_equal(chain.p, [[0.5, 0.5], [0.25, 0.5]])
    assert markov.again(torch.from_numpy(chain.p), torch.eye(2)[0].double()).sum(1).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("0.25", "0.75"), "row b is no distribution"),
        (("0.25", "-0.25"), "row b is no distribution"),
        (("0.25", "nan"), "row b is no distribution"),
        (("0.25", "x"), "could not convert"),
        (("b,0,0.25,0.5", "b,0,0.25"), "as many numbers in every row"),
        (("reward", "rewards"), "has the columns state, rewards"),
        (("b,0", "c,0"), "its rows are a, c"),
        (("a,b\n", "a,a\n"), "has the columns"),
    ],
)
def test_a_table_that_is_none_is_refused(mpcli, tmp_path, change, says):
    path = tmp_path / "c.csv"
    path.write_text(TABLE.replace(*change))
    result = mpcli("rl-run", "markov", "--chain", path)
    assert result.code == 2 and "c.csv" in result.err and says in result.err, result.err


def test_what_is_no_chain_is_refused(mpcli, tmp_path):
    assert "needs discrete observations" in mpcli("rl-run", "markov", "--chain", "env:CartPole-v1").err
    missing = mpcli("rl-run", "markov", "--chain", tmp_path / "none.csv")
    assert missing.code == 2 and "none.csv" in missing.err
    with pytest.raises(InputError, match="of an empty file"):
        chains.parsed("", "empty.csv")
