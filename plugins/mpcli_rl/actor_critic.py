"""Actor-critic: a policy that learns from single steps, because a second network says what they were worth.

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t)                      r_t - V(s_t) where the world ended the episode
    A_t = delta_t + gamma lambda A_{t+1}                           cut where an episode was over
    R_t = A_t + V(s_t)

    L = E[-A_t log pi(a_t|s_t)]                                    a2c
    L = E[-min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t)]          ppo, rho_t = pi(a_t|s_t) / pi_old(a_t|s_t)
    L + E[(R_t - V(s_t))^2] / 2 - beta E[H(pi(.|s_t))]             what is minimised

If V is the value of the policy, delta_t is in the mean the advantage of a_t, whatever comes later. V is not quite that,
and lambda trades its bias for the variance of longer sums: 0 trusts V after one step, 1 sums up rewards to the end of
the rollout (the n-step advantage, n its length). `a2c` takes one step for each rollout. `ppo` takes many, minibatches
with A brought to mean 0 and deviation 1; its clipped ratio takes away the reason to move a probability further
than a factor 1 + c from what it was. As everywhere, gamma^t before the gradient is left out. Where a step limit cut the
episode, V(s_{t+1}) still says what would have come.

Mnih et al., Asynchronous Methods for Deep Reinforcement Learning, 2016. arXiv:1602.01783
Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation, 2016. arXiv:1506.02438
Schulman et al., Proximal Policy Optimization Algorithms, 2017. arXiv:1707.06347
"""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mpcli.checks import Case, Draw, Sides, gradient, identity, inequality, uniform
from mpcli.run import Run, Trained
from mpcli_rl.kit import agents, curves, small, stepping
from mpcli_rl.kit.networks import network
from mpcli_rl.kit.policy import Policy, shapes, world


@dataclass(frozen=True)
class Config:
    objective: Annotated[Literal["a2c", "ppo"], "what the policy is made to minimise"] = "a2c"
    hidden: Annotated[tuple[int, ...], "widths of the hidden layers, of the policy and of V", Ge(1)] = (64, 64)
    gamma: Annotated[float, "discount", Interval(ge=0, le=1)] = 0.99
    lam: Annotated[float, "lambda of the advantages", Interval(ge=0, le=1)] = 0.95
    copies: Annotated[int, "environments played side by side", Ge(1)] = 8
    rollout: Annotated[int | None, "steps of each copy between updates; 8 (a2c) or 16 (ppo) if not named", Ge(1)] = None
    epochs: Annotated[int, "passes over a rollout (ppo)", Ge(1)] = 10
    batch: Annotated[int, "steps in a minibatch (ppo)", Ge(1)] = 128
    clip: Annotated[float, "c, how far the ratio counts (ppo)", Gt(0)] = 0.2
    entropy: Annotated[float, "beta, the bonus for staying undecided", Ge(0)] = 0.0
    lr: Annotated[float, "step size of Adam at the start; it falls to zero along a line", Gt(0)] = 2e-3
    most: Annotated[float, "longest gradient, longer ones are shortened", Gt(0)] = 0.5
    scale_rewards: Annotated[bool, "learn from rewards divided by the deviation of their discounted sum so far"] = False

    @property
    def length(self) -> int:
        return self.rollout or (8 if self.objective == "a2c" else 16)


class ActorCritic(nn.Module):
    def __init__(self, cfg: Config, states: int, **shapes: Any) -> None:
        super().__init__()
        self.actor = Policy(cfg.hidden, states, **shapes)
        self.critic = network(states, cfg.hidden, 1, gain=1.0)

    def value(self, s: Tensor) -> Tensor:  # [..., D] -> V [...]
        return self.critic(s).squeeze(-1)


def advantages(cfg: Config, r: Tensor, end: Tensor, over: Tensor, v: Tensor, following: Tensor) -> Tensor:
    """A [T, N] of N environments side by side.

    r: rewards. end: 1 where the world ended the episode. over: 1 where that or a step limit did.
    v, following: V(s_t) and V(s_{t+1}), that of the state reached, not of the one the next episode began in.
    """
    delta = r + cfg.gamma * (1 - end) * following - v
    keep = cfg.gamma * cfg.lam * (1 - over)
    a, ahead = torch.empty_like(delta), torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        a[t] = ahead = delta[t] + keep[t] * ahead
    return a


def actor_loss(cfg: Config, log_pi: Tensor, old: Tensor, a: Tensor) -> Tensor:  # [B] each -> []
    if cfg.objective == "a2c":
        return -(a * log_pi).mean()
    rho = (log_pi - old).exp()
    return -torch.minimum(rho * a, rho.clamp(1 - cfg.clip, 1 + cfg.clip) * a).mean()


def loss(cfg: Config, model: ActorCritic, s: Tensor, action: Tensor, old: Tensor, a: Tensor, goal: Tensor) -> Tensor:
    log_pi, entropy = model.actor(s, action)
    if cfg.objective == "ppo":
        a = (a - a.mean()) / (a.std(correction=0) + 1e-8)
    critic_loss = nn.functional.mse_loss(model.value(s), goal) / 2
    total = actor_loss(cfg, log_pi, old, a) + critic_loss
    return total - cfg.entropy * entropy.mean() if cfg.entropy else total  # the way back through 0 H costs as much as H


class Scale:
    """Rewards in units of the standard deviation of sum_k gamma^k r_{t-k}, over all steps so far.

    The same steps of Adam and the same longest gradient then fit rewards of any size.
    """

    def __init__(self, gamma: float, copies: int) -> None:
        self.gamma, self.sums = gamma, torch.zeros(copies, dtype=torch.float64)
        self.moments = torch.zeros(3, dtype=torch.float64)  # how many sums, their total, that of their squares

    def __call__(self, r: Tensor, over: Tensor) -> Tensor:  # [T, N] each -> [T, N]
        for reward, last in zip(r.double().cpu(), over.cpu(), strict=True):
            self.sums = self.gamma * self.sums + reward
            self.moments += torch.stack([torch.ones_like(self.sums), self.sums, self.sums**2]).sum(1)
            self.sums *= 1 - last
        count, total, squares = self.moments.tolist()
        deviation = math.sqrt(max(squares / count - (total / count) ** 2, 0))
        return r / deviation if deviation > 0 else r

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "moments": self.moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.moments = state["sums"], state["moments"]


def play(cfg: Config, model: ActorCritic, worlds: stepping.Copies) -> list[Tensor]:
    """One rollout: s, a, r, end, over, s', each [T, N, ...]."""
    rows = []
    for _ in range(cfg.length):
        s = worlds.observation
        a = model.actor.draw(s)
        reached, r, end = worlds.step(model.actor.taken(a))
        rows.append((s, a, r, end.astype(np.float32), worlds.over.astype(np.float32), reached))
    return [torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)]


def rl_run(
    cfg: Config,
    run: Run,
    env: Annotated[str, "Gymnasium environment"] = "CartPole-v1",
    steps: Annotated[int, "steps in the environment, of all copies together", Ge(1)] = 200_000,
    trial_every: Annotated[int, "steps between trials", Ge(1)] = 10_000,
    trial_episodes: Annotated[int, "episodes of a trial; 0 keeps the last policy", Ge(0)] = 10,
    episodes: Annotated[int | None, "stop after this many episodes", Ge(1)] = None,
    eval_episodes: Annotated[int, "greedy episodes that the result is measured on", Ge(1)] = 100,
) -> None:
    make = partial(world, env)
    worlds = stepping.Copies(make, cfg.copies, run.seed)
    model = run.place(ActorCritic(cfg, **shapes(make())))
    adam = torch.optim.Adam(model.parameters(), cfg.lr, fused=True)
    size = cfg.copies * cfg.length
    iterations = taken = math.ceil(steps / size)
    best, trials = copy.deepcopy(model), curves.Series("step", "return")
    state: dict[str, Any] = {"model": model, "best": best, "adam": adam, "worlds": worlds, "trials": trials}
    scale = Scale(cfg.gamma, cfg.copies) if cfg.scale_rewards else None
    if scale:
        state["scale"] = scale
    for iteration in run.track(lambda iteration: iteration, iterations, **state):
        s, action, r, end, over, reached = (part.to(run.device) for part in play(cfg, model, worlds))
        r = scale(r, over) if scale else r
        with torch.no_grad():
            v, following = model.value(torch.stack([s, reached]))
            a = advantages(cfg, r, end, over, v, following)
            s, action, a, goal = (part.flatten(0, 1) for part in (s, action, a, a + v))
            old, _ = model.actor(s, action)
        adam.param_groups[0]["lr"] = cfg.lr * (1 - iteration / iterations)
        for rows in minibatches(cfg, size):
            error = loss(cfg, model, *(part[rows] for part in (s, action, old, a, goal)))
            adam.zero_grad()
            error.backward()
            nn.utils.clip_grad_norm_(model.parameters(), cfg.most)
            adam.step()
        run.log(**worlds.latest, loss=error)
        taken = iteration + 1
        due = taken == iterations or taken * size // trial_every > iteration * size // trial_every
        on_trial = trial_episodes and due
        if on_trial and agents.best_yet(run, env, model.actor.greedy, trial_episodes, trials, taken * size):
            best.load_state_dict(model.state_dict())
        if episodes and worlds.ended >= episodes:
            break

    kept = best if trials.rows else model
    run.save(kept, cfg, **shapes(make()))
    run.result(steps=taken * size)
    agents.report(run, env, kept.actor.greedy, eval_episodes, worlds.finished, trials)


def minibatches(cfg: Config, size: int) -> Iterator[Tensor | slice]:
    if cfg.objective == "a2c":
        yield slice(None)
        return
    for _ in range(cfg.epochs):
        yield from torch.randperm(size).split(cfg.batch)


def evaluate(trained: Trained, run: Run, eval_episodes: Annotated[int, "greedy episodes", Ge(1)] = 100) -> None:
    agents.evaluate(run, trained.options["env"], trained.load(ActorCritic, Config).actor.greedy, eval_episodes)


def render(trained: Trained, run: Run) -> None:
    """One episode of the greedy policy."""
    agents.film(run, trained.options["env"], trained.load(ActorCritic, Config).actor.greedy)


def gradcheck() -> Iterator[Case]:
    a2c, ppo = Config(gamma=0.9, lam=0.7, entropy=0.3), Config("ppo", gamma=0.9, lam=0.7)
    world = ((3, 2), (3, 2, 4), (3, 2), (3,))  # logits of pi and of p, whose last state is the end, r, any V

    def advantage(pi: Tensor, p: Tensor, r: Tensor, other: Tensor) -> Sides:
        pi, p = pi.softmax(1), p.softmax(2)
        q = small.worth(p[..., :3], r, pi, 0.9)
        end = torch.tensor([0, 0, 0, 1.0]).double()

        def expected(v: Tensor) -> Tensor:
            """E[delta | s, a] over where the world goes; what the end is thought to be worth must not matter."""
            ahead, here = torch.cat([v, v.new_tensor([7.0])]).expand(1, 3, 2, 4), v[None, :, None, None]
            parts = r[None, ..., None].expand(ahead.shape), end.expand(ahead.shape), end.expand(ahead.shape)
            return (p * advantages(ppo, *parts, here.expand(ahead.shape), ahead)[0]).sum(2)

        v = (pi * q).sum(1)
        return expected(v), q - v[:, None], expected(other)

    name = "E[delta | s, a] = Q(s, a) - V(s) where V is the value of the policy"
    yield identity(name, advantage, *world, mistake="any other V")

    def averaged(r: Tensor, v: Tensor, reached: Tensor) -> Sides:
        """(1 - lambda) sum_n lambda^(n-1) (n-step advantage), the last with all the weight that is left."""
        over = torch.zeros_like(r)
        over[3, 0] = over[5, 1] = 1  # one episode ends, another is cut
        end = over * torch.tensor([1, 0])
        following, found = torch.where(over == 1, reached, v.roll(-1, 0)), torch.zeros_like(r)
        for t, n in itertools.product(range(9), range(2)):
            total, weight = -v[t, n], 1.0
            for k in range(t, 9):
                total = total + 0.9 ** (k - t) * r[k, n]
                last = bool(over[k, n]) or k == 8
                ahead = total + 0.9 ** (k - t + 1) * (1 - end[k, n]) * following[k, n]
                found[t, n] += weight * (1 if last else 0.3) * ahead
                weight *= 0.7
                if last:
                    break
        parts = over, v, following
        return advantages(ppo, r, end, *parts), found, advantages(ppo, r, over, *parts)

    name = "A_t = delta_t + gamma lambda A_{t+1} is the lambda-weighted mean of the n-step advantages"
    yield identity(name, averaged, *((9, 2),) * 3, mistake="a step limit taken for the end")

    def clipped(log_pi: Tensor, old: Tensor, a: Tensor) -> Sides:
        rho = (log_pi - old).exp()
        kept = -torch.where(torch.where(a > 0, rho < 1.2, rho > 0.8), rho * a, 0) / 40
        return actor_loss(ppo, log_pi, old, a), kept, torch.where((rho - 1).abs() < 0.2, kept, 0)

    near: tuple[Draw, ...] = (uniform(-1, 0, 40), uniform(-1, 0, 40), (40,))  # log pi, log pi_old, A
    name = "ppo: the slope is -rho A, and nothing once A has moved rho past 1 + c or 1 - c"
    yield gradient(name, clipped, *near, mistake="nothing wherever rho is out of its range")

    def same(log_pi: Tensor, a: Tensor) -> Sides:
        slopes = (torch.func.grad(partial(actor_loss, cfg))(log_pi, log_pi, a) for cfg in (ppo, a2c))
        return tuple(slopes)

    yield identity("where pi = pi_old, ppo and a2c have one gradient", same, (40,), (40,))

    def pessimistic(log_pi: Tensor, old: Tensor, a: Tensor) -> Sides:
        return -actor_loss(ppo, log_pi, old, a), ((log_pi - old).exp() * a).mean()

    yield inequality("the clipped objective is never above the plain one", pessimistic, *near)

    def whole(s: Tensor, w: Tensor, u: Tensor, a: Tensor, goal: Tensor) -> Sides:
        model = ActorCritic(Config(hidden=()), 3, actions=2, low=(), high=()).double()
        nn.utils.vector_to_parameters(torch.cat([w.ravel(), u.new_zeros(2), u, u.new_zeros(1)]), model.parameters())
        log_pi = (s @ w.T).log_softmax(1)
        entropy, action = -(log_pi.exp() * log_pi).sum(1), torch.arange(6) % 2
        right = -(a * log_pi[torch.arange(6), action]) + (goal - s @ u) ** 2 / 2 - 0.3 * entropy
        return loss(a2c, model, s, action, a, a, goal), right.mean()

    yield identity("L = E[-A log pi + (R - V)^2 / 2 - beta H(pi)]", whole, (6, 3), (2, 3), (3,), (6,), (6,))
