"""Deep Q-network: Q-learning with a neural network, a memory, and a target that stands still.

    y = r + gamma max_a' Q(s', a'; theta-)        and y = r where the world ended the episode
    L(theta) = E over the memory of H(y - Q(s, a; theta))
    H(d) = d^2 / 2                                 squared
    H(d) = d^2 / 2 up to |d| = 1, |d| - 1/2 beyond huber

theta- is a copy of theta, renewed every so many steps, and y is a number: the gradient goes only through
Q(s, a; theta). Successive transitions are nearly the same one, and a network fitted to them as they come forgets the
rest of the world; drawn from a large memory they are nearly independent. With `--double`, theta chooses the action in
y and theta- values it, which undoes most of the overestimate that a maximum over noisy values makes.

What a network earns rises and falls while it learns. Every `--trial-every` steps it plays a few trial episodes
greedily, and the one that earned most is kept; the reported return is measured on other episodes.

Mnih et al., Human-level control through deep reinforcement learning, 2015. doi:10.1038/nature14236
van Hasselt, Guez and Silver, Deep Reinforcement Learning with Double Q-learning, 2016. arXiv:1509.06461
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from mpcli.checks import Case, Draw, Printed, Sides, gradient, identity, inequality, uniform
from mpcli.run import Run, Trained
from mpcli_rl.kit import agents, curves, stepping, worlds
from mpcli_rl.kit.networks import by_numpy


@dataclass(frozen=True)
class Config:
    hidden: Annotated[tuple[int, ...], "widths of the hidden layers", Ge(1)] = (128, 128)
    gamma: Annotated[float, "discount", Interval(ge=0, le=1)] = 0.99
    loss: Annotated[Literal["squared", "huber"], "penalty of y - Q"] = "squared"
    double: Annotated[bool, "choose the next action by theta, value it by theta-"] = False
    lr: Annotated[float, "step size of Adam", Gt(0)] = 2e-3
    batch: Annotated[int, "transitions in a minibatch", Ge(1)] = 64
    memory: Annotated[int, "transitions remembered; as few as a minibatch show what it is for", Ge(1)] = 50_000
    copies: Annotated[int, "environments played side by side", Ge(1)] = 1
    warmup: Annotated[int, "steps before learning begins", Ge(0)] = 1_000
    learn_every: Annotated[int, "steps to a minibatch", Ge(1)] = 4
    target_every: Annotated[int, "steps between copies of theta to theta-", Ge(1)] = 100
    epsilon: Annotated[float, "share of random actions at the end", Interval(ge=0, le=1)] = 0.04
    explore: Annotated[float, "share of the steps over which it falls from 1", Interval(gt=0, le=1)] = 0.2


class Q(nn.Module):
    """The values of all actions, from a vector or an image; an image goes through three convolutions first."""

    def __init__(self, cfg: Config, shape: tuple[int, ...], actions: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        width = shape[0]
        if len(shape) == 3:  # [H, W, C], halved by each convolution
            for before, after in ((shape[2], 16), (16, 32), (32, 32)):
                self.encoder.extend([nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()])
            self.encoder.append(nn.Flatten())
            width = 32 * math.ceil(shape[0] / 8) * math.ceil(shape[1] / 8)
        self.head = nn.Sequential()
        for wide in cfg.hidden:
            self.head.extend([nn.Linear(width, wide), nn.ReLU()])
            width = wide
        self.head.append(nn.Linear(width, actions))

    def forward(self, s: Tensor) -> Tensor:  # [B, D] or [B, H, W, C] -> [B, A]
        if s.ndim == 4:
            s = self.encoder(s.movedim(-1, 1) / (255 if s.dtype == torch.uint8 else 1))
        return self.head(s)

    @torch.no_grad()
    def greedy(self, s: np.ndarray) -> np.ndarray:  # [N, ...] -> [N]
        if not len(self.encoder):
            return by_numpy(self.head, s).argmax(1)
        device = next(self.parameters()).device
        return self(torch.from_numpy(s).to(device)).numpy(force=True).argmax(1)


class Memory:
    """The latest transitions (s, a, s', r, end), the oldest overwritten first."""

    def __init__(self, capacity: int, state: np.ndarray) -> None:
        def column(like: np.ndarray) -> np.ndarray:
            return np.zeros((capacity, *like.shape), like.dtype)

        number, action = np.zeros((), np.float32), np.zeros((), np.int64)
        self.columns = [column(like) for like in (state, action, state, number, number)]
        self.capacity, self.seen = capacity, 0

    def add(self, *transitions: np.ndarray) -> None:  # s, a, s', r, end: N rows each
        rows = np.arange(self.seen, self.seen + len(transitions[0])) % self.capacity
        for column, new in zip(self.columns, transitions, strict=True):
            column[rows] = new
        self.seen += len(rows)

    def sample(self, size: int, device: torch.device) -> list[Tensor]:
        rows = torch.randint(min(self.seen, self.capacity), (size,))
        return [torch.from_numpy(column).index_select(0, rows).to(device) for column in self.columns]

    def state_dict(self) -> dict[str, Any]:
        known = min(self.seen, self.capacity)
        return {"seen": self.seen, "columns": [torch.from_numpy(column[:known]) for column in self.columns]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        known = min(int(state["seen"]), self.capacity)
        for column, saved in zip(self.columns, state["columns"], strict=True):
            if saved.shape != column[:known].shape:
                raise ValueError(f"it remembers {tuple(saved.shape)}, not {column[:known].shape}")
            column[:known] = saved.numpy()
        self.seen = int(state["seen"])


@torch.no_grad()
def target(cfg: Config, q: nn.Module, frozen: nn.Module, following: Tensor, r: Tensor, end: Tensor) -> Tensor:
    """y [B]: what Q(s, a) should be, a number through which no gradient goes."""
    values = frozen(following)
    best = values.gather(1, q(following).argmax(1, keepdim=True)).squeeze(1) if cfg.double else values.amax(1)
    return r + cfg.gamma * (1 - end) * best


def loss(cfg: Config, q: nn.Module, s: Tensor, a: Tensor, y: Tensor) -> Tensor:
    chosen = q(s).gather(1, a.unsqueeze(1)).squeeze(1)
    return F.smooth_l1_loss(chosen, y) if cfg.loss == "huber" else F.mse_loss(chosen, y) / 2


def world(env: str, render: bool = False) -> gym.Env:
    return worlds.make(env, ("vector", "image"), ("discrete",), render)


def rl_run(
    cfg: Config,
    run: Run,
    env: Annotated[str, "Gymnasium environment"] = "CartPole-v1",
    steps: Annotated[int, "steps in the environment, of all copies together", Ge(1)] = 60_000,
    trial_every: Annotated[int, "steps between trials", Ge(1)] = 2_000,
    trial_episodes: Annotated[int, "episodes of a trial; 0 keeps the last network", Ge(0)] = 10,
    episodes: Annotated[int | None, "stop after this many episodes", Ge(1)] = None,
    eval_episodes: Annotated[int, "greedy episodes that the result is measured on", Ge(1)] = 100,
) -> None:
    make = partial(world, env)
    worlds = stepping.Copies(make, cfg.copies, run.seed)
    shape, actions = worlds.observation.shape[1:], int(worlds.action_space.n)
    q = run.place(Q(cfg, shape, actions))
    frozen, best = copy.deepcopy(q), copy.deepcopy(q)
    adam = torch.optim.Adam(q.parameters(), cfg.lr, fused=True)
    memory = Memory(max(cfg.memory, cfg.copies), worlds.observation[0])
    trials = curves.Series("step", "return")

    def schedule(iteration: int) -> tuple[int, float]:
        step = iteration * cfg.copies
        return step, 1 + (cfg.epsilon - 1) * min(1, step / (cfg.explore * steps))

    def due(every: int, step: int) -> int:
        """How many multiples of `every` the copies reach in their steps from `step` on."""
        return math.ceil((step + cfg.copies) / every) - math.ceil(step / every)

    state: dict[str, Any] = {
        "q": q,
        "frozen": frozen,
        "best": best,
        "adam": adam,
        "memory": memory,
        "worlds": worlds,
        "trials": trials,
    }
    iterations = math.ceil(steps / cfg.copies)
    taken = iterations * cfg.copies
    for step, epsilon in run.track(schedule, iterations, **state):
        taken, observed = step + cfg.copies, worlds.observation
        by_value = np.random.random(cfg.copies) >= epsilon
        chosen = np.random.randint(actions, size=cfg.copies)
        if by_value.any():
            chosen[by_value] = q.greedy(observed[by_value])
        memory.add(observed, chosen, *worlds.step(chosen))
        seen: dict[str, Any] = worlds.latest | {"epsilon": epsilon}

        if step >= cfg.warmup:
            for _ in range(due(cfg.learn_every, step)):
                s, a, following, r, end = memory.sample(cfg.batch, run.device)
                seen["loss"] = error = loss(cfg, q, s, a, target(cfg, q, frozen, following, r, end))
                adam.zero_grad()
                error.backward()
                adam.step()
            if due(cfg.target_every, step):
                frozen.load_state_dict(q.state_dict())
            on_trial = trial_episodes and due(trial_every, step + 1)
            if on_trial and agents.best_yet(run, env, q.greedy, trial_episodes, trials, step + cfg.copies):
                best.load_state_dict(q.state_dict())
        run.log(**seen)
        if episodes and worlds.ended >= episodes:
            break

    kept = best if trials.rows else q
    run.save(kept, cfg, shape=shape, actions=actions)
    run.result(steps=taken)
    agents.report(run, env, kept.greedy, eval_episodes, worlds.finished, trials)


def evaluate(trained: Trained, run: Run, eval_episodes: Annotated[int, "greedy episodes", Ge(1)] = 100) -> None:
    agents.evaluate(run, trained.options["env"], trained.load(Q, Config).greedy, eval_episodes)


def render(trained: Trained, run: Run) -> None:
    """One episode of the greedy policy."""
    agents.film(run, trained.options["env"], trained.load(Q, Config).greedy)


def gradcheck() -> Iterator[Case]:
    squared, huber, double = Config(gamma=0.9), Config(gamma=0.9, loss="huber"), Config(gamma=0.9, double=True)

    def network(theta: Tensor) -> Q:  # theta [21] -> Q from states of 2 numbers to 3 actions
        q = Q(Config((3,)), (2,), 3).double()
        nn.utils.vector_to_parameters(theta, q.parameters())
        return q

    def slope(value: Tensor, q: nn.Module) -> Tensor:
        return nn.utils.parameters_to_vector(torch.autograd.grad(value, list(q.parameters()), retain_graph=True))

    def actions(g: torch.Generator) -> Tensor:
        return torch.randint(3, (6,), generator=g)

    end = torch.tensor([0, 0, 0, 0, 1, 1], dtype=torch.float64)
    played: tuple[Draw, ...] = ((21,), (6, 2), actions, (6, 2), (6,))  # theta, s, a, s', r

    for cfg in (squared, huber):

        def frozen(theta: Tensor, s: Tensor, a: Tensor, *outcome: Tensor, cfg: Config = cfg) -> Sides:
            following, r, still = outcome
            q = network(theta)
            error = loss(cfg, q, s, a, target(cfg, q, network(still), following, r, end))
            return error, slope(error, q)

        name = f"backward is the slope of L in theta while theta- stands still ({cfg.loss})"
        yield gradient(name, frozen, *played, (21,))

    def half(theta: Tensor, s: Tensor, a: Tensor, following: Tensor, r: Tensor) -> Sides:
        q = network(theta)
        values = q(s).gather(1, a[:, None]).squeeze(1)
        d = r + 0.9 * (1 - end) * q(following).amax(1) - values
        error = loss(squared, q, s, a, target(squared, q, q, following, r, end))
        return slope(error, q), -slope((d.detach() * values).mean(), q), slope((d**2).mean() / 2, q)

    name = "with theta- = theta: the gradient goes only through Q(s, a), -E[d grad Q(s, a)]"
    yield identity(
        name, half, *played, printed=Printed("(271)", "through all of theta", "through Q(s, a; theta) alone")
    )

    def cut(d: Tensor) -> Sides:
        zeros = torch.zeros(9, dtype=torch.int64)
        return loss(huber, nn.Identity(), d, zeros, zeros.double()) * 9, d.clamp(-1, 1)

    yield gradient("Huber: H'(d) = d cut to [-1, 1]", cut, uniform(-3, 3, 9, 1))

    def ahead(cfg: Config, theta: Tensor, still: Tensor, following: Tensor, r: Tensor) -> Tensor:
        return target(cfg, network(theta), network(still), following, r, end)

    def doubled(*drawn: Tensor) -> Sides:
        theta, still, following, r = drawn
        best, value = network(theta)(following).argmax(1), network(still)(following)
        return ahead(double, *drawn), r + 0.9 * (1 - end) * value[torch.arange(6), best], ahead(squared, *drawn)

    fork = ((21,), (21,), (6, 2), (6,))  # theta, theta-, s', r
    yield identity("double: theta chooses, theta- values", doubled, *fork, mistake="theta- does both")

    def below(*drawn: Tensor) -> Sides:
        return ahead(double, *drawn), ahead(squared, *drawn)

    yield inequality("the double target is never above the plain one", below, *fork)

    def ended(*drawn: Tensor) -> Sides:
        r, best = drawn[3], network(drawn[1])(drawn[2]).amax(1)
        return ahead(squared, *drawn)[4:], r[4:], (r + 0.9 * best)[4:]

    yield identity("nothing follows the end: y = r", ended, *fork, mistake="a value after the end")
