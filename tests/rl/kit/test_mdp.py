"""Models of environments, and what is best in them, against a linear programme, stepping and enumeration."""

import itertools
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

from mpcli.errors import InputError
from mpcli_rl.kit import mdp, playing, worlds

TABULAR = ("discrete",), ("discrete",)
VECTOR = ("vector",), ("discrete",)

ISSUE = {
    "FrozenLake-v1": 0.54203,
    'FrozenLake-v1(map_name="8x8")': 0.41464,
    "Taxi-v4": 6.32746,
    "CliffWalking-v1": -12.2479,
}


@pytest.mark.parametrize("name", ISSUE)
def test_best_value_equals_the_linear_programme(name):
    table = mdp.transition_table(worlds.make(name, *TABULAR))
    value = mdp.solve(table, 0.99)
    assert value @ table.start == pytest.approx(ISSUE[name], abs=5e-5)
    # The least v with v >= r + gamma P v for every action is the value of the best policy.
    states, actions = table.r.shape
    same = np.repeat(np.eye(states), actions, axis=0)
    found = linprog(np.ones(states), 0.99 * table.p.toarray() - same, -table.r.ravel(), bounds=(None, None))
    np.testing.assert_allclose(value, found.x, atol=1e-6)


def test_table_is_a_model():
    table = mdp.transition_table(worlds.make("FrozenLake-v1", *TABULAR))
    going_on = np.asarray(table.p.sum(1)).reshape(16, 4)
    np.testing.assert_allclose(going_on + table.terminal, 1)
    assert table.terminal[5].min() == 1 and table.terminal[0].max() == 0  # a hole; the start
    assert table.p.nnz <= 16 * 4 * 3 and table.start.sum() == 1
    assert table.r[14, 2] == pytest.approx(1 / 3)  # right, beside the goal, on ice


def test_table_agrees_with_stepping():
    env = worlds.make("FrozenLake-v1", *TABULAR)
    table = mdp.transition_table(env)
    env.reset(seed=0)
    counts = np.zeros(16)
    for _ in range(6000):
        env.unwrapped.s = 8
        counts[env.unwrapped.step(1)[0]] += 1
    np.testing.assert_allclose(
        counts / 6000, table.p[[8 * 4 + 1]].toarray()[0] + np.eye(16)[12] * table.terminal[8, 1], atol=0.02
    )


def test_a_step_limit_makes_the_optimum_depend_on_time():
    table = mdp.transition_table(worlds.make("CliffWalking-v1", *TABULAR))
    for limit, best in ((1, -1), (12, -12), (13, -13), (1000, -13)):
        assert mdp.solve(table, 1.0, limit) @ table.start == best
    lake = mdp.transition_table(worlds.make("FrozenLake-v1", *TABULAR))
    values = [mdp.solve(lake, 0.9, limit) @ lake.start for limit in (10, 100, 400)]
    assert values[0] < values[1] < values[2] + 1e-12
    assert values[2] == pytest.approx(mdp.solve(lake, 0.9) @ lake.start, rel=1e-9)


def test_policy_value_is_what_a_policy_earns():
    make = partial(worlds.make, "FrozenLake-v1(max_episode_steps=2000)", *TABULAR)
    table = mdp.transition_table(make())
    policy = table.backup(mdp.solve(table, 0.99), 0.99).argmax(1)
    value = mdp.policy_value(table, policy, 0.999999)[0]
    returns = playing.evaluate(make, lambda s: policy[s], 600, seed=0)
    assert abs(returns.mean() - value) < 4 * np.sqrt(value * (1 - value) / 600)


def test_no_value_without_discount_and_without_limit():
    table = mdp.transition_table(worlds.make("CliffWalking-v1", *TABULAR))
    with pytest.raises(ValueError, match="gamma"):
        mdp.solve(table, 1.0)


def test_environments_without_a_model():
    with pytest.raises(InputError, match="exposes no transition table"):
        mdp.transition_table(worlds.make("Blackjack-v1", *TABULAR))
    with pytest.raises(InputError, match="exposes no transition table"):
        mdp.transition_table(worlds.make("CartPole-v1", *VECTOR))


class Copied(gym.Wrapper):
    """Speaks of its own numbers, not of those of the model inside."""

    observation_space = gym.spaces.Discrete(17)


def test_a_wrapper_that_numbers_states_anew_hides_the_model():
    lake = worlds.make("FrozenLake-v1", *TABULAR)
    assert mdp.has_table(lake) and not mdp.has_table(Copied(lake))


def some(seed=0, states=6, actions=3, ending=0.1):
    """A model with random transitions, of which a share ends the episode."""
    rng = np.random.default_rng(seed)
    p = rng.random((states * actions, states)) ** 4
    p *= (1 - ending * rng.random((states * actions, 1))) / p.sum(1, keepdims=True)
    return mdp.Table(sparse.csr_array(p), rng.normal(size=(states, actions)), np.full(states, 1 / states)), rng


def test_under_a_stochastic_policy_the_model_is_the_mean_over_actions():
    table, rng = some()
    policy = rng.dirichlet(np.ones(3), 6)
    p, r = table.under(policy)
    dense = table.p.toarray().reshape(6, 3, 6)
    np.testing.assert_allclose(p.toarray(), np.einsum("sa,sat->st", policy, dense))
    np.testing.assert_allclose(r, (policy * table.r).sum(1))
    certain = rng.integers(3, size=6)
    one, other = table.under(certain), table.under(np.eye(3)[certain])
    np.testing.assert_allclose(one[0].toarray(), other[0].toarray())
    np.testing.assert_allclose(one[1], other[1])
    np.testing.assert_allclose(
        mdp.policy_value(table, policy, 0.9),
        np.linalg.solve(np.eye(6) - 0.9 * p.toarray(), r),
    )


def test_without_discount_a_policy_has_a_value_where_every_episode_ends():
    table, rng = some()
    policy = rng.dirichlet(np.ones(3), 6)
    value = mdp.policy_value(table, policy, 1.0)
    np.testing.assert_allclose(value, mdp.policy_value(table, policy, 1.0, limit=5000), rtol=1e-9)
    cliff = mdp.transition_table(worlds.make("CliffWalking-v1", *TABULAR))
    mdp.policy_value(cliff, np.full((48, 4), 0.25), 1.0)  # chance finds the goal
    with pytest.raises(ValueError, match="where every episode ends"):
        mdp.policy_value(cliff, np.zeros(48, int), 1.0)


def test_the_best_soft_policy_is_the_best_of_all_epsilon_greedy_ones():
    table, _ = some(states=4)
    best = mdp.solve(table.soft(0.3), 0.9)
    worth = [
        mdp.policy_value(table, 0.7 * np.eye(3)[list(policy)] + 0.1, 0.9)
        for policy in itertools.product(range(3), repeat=4)
    ]
    np.testing.assert_allclose(best, np.max(worth, 0), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_value_is_that_of_the_best_of_all_policies(seed):
    table, rng = some(seed, states=4)
    worth = [mdp.policy_value(table, np.array(policy), 0.95) for policy in itertools.product(range(3), repeat=4)]
    np.testing.assert_allclose(mdp.solve(table, 0.95), np.max(worth, 0), rtol=1e-9)
    np.testing.assert_allclose(mdp.solve(table, 0.95, policy=rng.integers(3, size=4)), np.max(worth, 0), rtol=1e-9)


def test_reachable_states_are_those_an_agent_can_act_in():
    cliff = mdp.transition_table(worlds.make("CliffWalking-v1", *TABULAR)).reachable()
    assert np.flatnonzero(~cliff).tolist() == [*range(37, 47), 47]  # the cliff throws back at once, the goal ends
    lake = mdp.transition_table(worlds.make("FrozenLake-v1", *TABULAR)).reachable()
    assert np.flatnonzero(~lake).tolist() == [5, 7, 11, 12, 15]
