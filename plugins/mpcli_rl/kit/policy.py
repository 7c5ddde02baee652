"""What policies are made of: a softmax over actions or a Gaussian, from a small network."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from mpcli_rl.kit import worlds
from mpcli_rl.kit.networks import by_numpy, network


class Policy(nn.Module):
    """pi(a|s): a softmax over actions 0 ... A-1, or a Gaussian over vectors of A numbers.

    A Gaussian policy works in units in which each number's range, from `low` to `high`, is -1 to 1; what falls outside
    is cut off when the environment takes it. The density stays that of the action before the cut.
    """

    def __init__(
        self, hidden: tuple[int, ...], states: int, actions: int, low: tuple[float, ...], high: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.mean = network(states, hidden, actions, gain=0.01)  # or the logits
        self.log_sigma = nn.Parameter(torch.zeros(actions)) if low else None
        self.low, self.high = np.array(low, np.float32), np.array(high, np.float32)
        bounded = np.isfinite(self.low) & np.isfinite(self.high)
        self.unit = np.where(bounded, (self.high - self.low) / 2, np.float32(1))
        self.zero = np.where(bounded, (self.high + self.low) / 2, np.float32(0))

    def forward(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:  # [B, D], [B] or [B, A] -> log pi, entropy [B]
        mean = self.mean(s)
        if self.log_sigma is None:
            log_pi = mean.log_softmax(1)
            return log_pi.gather(1, a.unsqueeze(1)).squeeze(1), -(log_pi.exp() * log_pi).sum(1)
        z = (a - mean) * (-self.log_sigma).exp()
        size = self.log_sigma + math.log(2 * math.pi) / 2
        return -(z**2 / 2 + size).sum(1), (size + 0.5).sum().expand(len(s))

    def draw(self, s: np.ndarray) -> np.ndarray:  # [N, D] -> [N] or [N, A]
        mean = by_numpy(self.mean, s)
        if self.log_sigma is None:  # the largest of the logits, each with Gumbel noise, is a draw from their softmax
            return (mean + np.random.gumbel(size=mean.shape)).argmax(1)
        sigma = np.exp(self.log_sigma.numpy(force=True))
        return (mean + sigma * np.random.standard_normal(mean.shape)).astype(np.float32)

    def greedy(self, s: np.ndarray) -> np.ndarray:
        """The likeliest action, as the environment takes it."""
        mean = by_numpy(self.mean, s)
        return mean.argmax(1) if self.log_sigma is None else self.taken(mean)

    def taken(self, a: np.ndarray) -> np.ndarray:
        """An action of this policy as the environment takes it."""
        return a if self.log_sigma is None else np.clip(self.zero + self.unit * a, self.low, self.high)


def world(env: str, render: bool = False) -> gym.Env:
    return worlds.make(env, ("vector",), ("discrete", "vector"), render)


def shapes(env: gym.Env) -> dict[str, Any]:
    """How a policy for an environment is built."""
    space: Any = env.action_space
    if isinstance(space, gym.spaces.Discrete):
        low, high, actions = (), (), int(space.n)
    else:
        low, high, actions = tuple(space.low.tolist()), tuple(space.high.tolist()), len(space.low)
    return {"states": env.observation_space.shape[0], "actions": actions, "low": low, "high": high}
