"""Markov decision processes whose model is known: read from an environment, and solved exactly.

    v_pi = r_pi + gamma P_pi v_pi                what a policy is worth, a linear system
    v* = max_a (r(., a) + gamma P_a v*)          what the best policy is worth

P holds the probability of going on only: where the world ends the episode nothing follows. So a row of P sums to less
than 1 where the episode can end, and no value of a terminal state is ever needed.

Puterman, Markov Decision Processes, 1994.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray as Array
from scipy import sparse
from scipy.sparse.linalg import spsolve

from mpcli.errors import InputError
from mpcli_rl.kit import worlds

EXACT = 40_000  # states up to which a linear system is solved for a picture's sake: on a map of 200^2, some seconds

Policy = Int[Array, " S"] | Float[Array, "S A"]  # an action a state, or the probabilities of all of them


@dataclass(frozen=True)
class Table:
    """The whole model of an environment with S states and A actions, in memory linear in its transitions.

    Attributes:
        p: [S * A, S] sparse, row s * A + a: the probability that the episode goes on in each state. What a row lacks
            to 1 is the probability that the episode ends.
        r: [S, A] expected rewards.
        start: [S] distribution of the first state.
    """

    p: sparse.csr_array
    r: Float[Array, "S A"]
    start: Float[Array, " S"]

    @property
    def terminal(self) -> Float[Array, "S A"]:
        """[S, A], the probability that the episode ends."""
        return (1 - np.asarray(self.p.sum(1))).reshape(self.r.shape)

    def backup(self, value: Float[Array, " S"], gamma: float) -> Float[Array, "S A"]:
        """r + gamma P v: from values [S] of states to values [S, A] of actions."""
        return self.r + gamma * (self.p @ value).reshape(self.r.shape)

    def under(self, policy: Policy) -> tuple[sparse.csr_array, Float[Array, " S"]]:
        """P_pi [S, S] and r_pi [S]: the model when a policy acts."""
        states, actions = self.r.shape
        if policy.ndim == 1:
            return self.p[np.arange(states) * actions + policy], self.r[np.arange(states), policy]
        rows = np.arange(0, states * actions + 1, actions)
        chosen = sparse.csr_array((policy.ravel(), np.arange(states * actions), rows), shape=(states, states * actions))
        return (chosen @ self.p).tocsr(), (policy * self.r).sum(1)

    def reachable(self, policy: "Policy | None" = None) -> Bool[Array, " S"]:
        """The states in which an agent can ever have to act, by a policy or whatever it does before."""
        p = self.under(np.full(self.r.shape, 1 / self.r.shape[1]) if policy is None else policy)[0]
        seen, before = self.start > 0, -1
        while seen.sum() > before:
            before = seen.sum()
            seen = seen | (p.T @ seen.astype(float) > 0)
        return seen

    def soft(self, epsilon: float) -> "Table":
        """The model for an agent whose every action is replaced by a uniform one with probability epsilon.

        Its best policy is the best of the epsilon-greedy policies of this model.
        """
        states, actions = self.r.shape
        mix = (1 - epsilon) * np.eye(actions) + epsilon / actions
        p = sparse.kron(sparse.eye_array(states), mix, format="csr") @ self.p
        return Table(p.tocsr(), self.r @ mix, self.start)


def has_table(env: gym.Env) -> bool:
    """Whether an environment exposes its model; see `transition_table`."""
    world: Any = env.unwrapped
    as_dictionary = isinstance(getattr(world, "P", None), dict) and hasattr(world, "initial_state_distrib")
    # A wrapper that numbers states or actions anew would not speak of those of the model.
    same = env.observation_space == world.observation_space and env.action_space == world.action_space
    return bool(same) and (as_dictionary or callable(getattr(world, "transition_table", None)))


def transition_table(env: gym.Env) -> Table:
    """The model of an environment that exposes it: by a method of this name that gives a `Table`, or, as Gymnasium's
    tabular ones do, as `P[s][a] = [(probability, next state, reward, terminated), ...]` and `initial_state_distrib`.

    Raises:
        InputError: it exposes none.
    """
    if not has_table(env):
        raise InputError(
            f"--env {env.spec.id if env.spec else env}: exposes no transition table; FrozenLake-v1, CliffWalking-v1, "
            "Taxi-v4 and mpcli/Gridworld-v0 do"
        )
    world: Any = env.unwrapped
    if hasattr(world, "transition_table"):
        return world.transition_table()
    model: dict[int, dict[int, list[tuple[float, int, float, bool]]]] = world.P
    states, actions = worlds.count_states(env)
    entries = np.array(
        [(s * actions + a, q, t, r, over) for s in model for a in model[s] for q, t, r, over in model[s][a]], np.float64
    ).T
    row, target, over = entries[0].astype(int), entries[2].astype(int), entries[4].astype(bool)
    shape = (states * actions, states)
    p = sparse.csr_array((entries[1][~over], (row[~over], target[~over])), shape=shape)
    r = np.bincount(row, entries[1] * entries[3], states * actions).reshape(states, actions)
    return Table(p, r, np.asarray(world.initial_state_distrib, np.float64))


def policy_value(table: Table, policy: Policy, gamma: float, limit: int | None = None) -> Float[Array, " S"]:
    """The value [S] of a policy: the solution of v = r + gamma P v, as a sparse linear system.

    Args:
        policy: [S] actions, or [S, A] their probabilities.
        limit: None for episodes without a step limit; else how many steps are left.

    Raises:
        ValueError: there is no limit, gamma is 1 and an episode may go on for ever, or gamma is outside [0, 1].
    """
    p, r = table.under(policy)
    if limit is not None:
        value = np.zeros(len(r))
        for _ in range(limit):
            value = r + gamma * (p @ value)
        return value
    if not 0 <= gamma <= 1 or (gamma == 1 and not _ends(p)):
        raise ValueError(f"gamma is {gamma}: it must be in [0, 1), or 1 where every episode ends")
    return spsolve((sparse.eye_array(len(r)) - gamma * p).tocsc(), r)


def _ends(p: sparse.csr_array) -> bool:
    """Whether from every state an end can be reached, so that every episode ends with probability 1."""
    ending, before = np.asarray(p.sum(1)) < 1 - 1e-12, -1
    while ending.sum() > before:
        before = ending.sum()
        ending |= p @ ending.astype(float) > 0
    return bool(ending.all())


def solve(
    table: Table, gamma: float, limit: int | None = None, policy: Int[Array, " S"] | None = None
) -> Float[Array, " S"]:
    """The value [S] of the best policy: exact, up to rounding.

    Args:
        limit: None for episodes without a step limit, by policy iteration; else how many steps are left, by
            backward induction, and gamma may be 1. With a limit the best action depends on the time left.
        policy: where policy iteration begins; None for a policy from a number of cheap sweeps.

    Raises:
        ValueError: gamma is not below 1 and there is no limit.

    Howard, Dynamic Programming and Markov Processes, 1960.
    """
    value = np.zeros(len(table.r))
    if limit is not None:
        for _ in range(limit):
            value = table.backup(value, gamma).max(1)
        return value
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma must be in [0, 1), not {gamma}")
    if policy is None:
        # Policy iteration alone carries news one cell an iteration over a wide map, each a linear system.
        for _ in range(2000):
            value, before = table.backup(value, gamma).max(1), value
            if np.abs(value - before).max() <= 1e-9 * (1 + np.abs(value).max()):
                break
        policy = table.backup(value, gamma).argmax(1)
    while True:
        value = policy_value(table, policy, gamma)
        actions = table.backup(value, gamma)
        # Rounding must not make two equal actions take turns for ever.
        better = actions.max(1) > actions[np.arange(len(policy)), policy] + 1e-10 * (1 + np.abs(value))
        if not better.any():
            return value
        policy = np.where(better, actions.argmax(1), policy)
