"""REINFORCE: the gradient of what a policy earns, from whole episodes, and baselines that take the noise out of it.

    pi(a|s) = softmax(f(s))_a    or    N(a; f(s), diag sigma^2)

    J(theta) = E[sum_t gamma^t r_t]            G_t = r_t + gamma G_{t+1}, backwards from the end of the episode
    grad J = E[(sum_t grad log pi(a_t|s_t)) (G_0 - b(s_0))]
           = E[sum_t gamma^t grad log pi(a_t|s_t) (G_t - b(s_t))]      what came before a_t is not its doing

The model of the world is not in it: its gradient in theta is zero. A baseline b may be anything that does not depend on
the action, for E[grad log pi(a|s)] = 0: it leaves the expectation alone and takes variance away. Here it is nothing,
the mean of the returns of earlier episodes, or a network V(s) fitted to G by least squares. In practice gamma^t is left
out, which lets late steps count as much as early ones and is no longer the gradient of J; `--discount-late` puts it in.

Ten times while training, the variance of the gradient that one episode gives is measured with each baseline. Where a
step limit cuts an episode, G_t lacks what would have come.

Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, Machine Learning 8,
1992. doi:10.1007/BF00992696
Sutton, McAllester, Singh and Mansour, Policy Gradient Methods for Reinforcement Learning with Function Approximation,
NeurIPS 1999.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mpcli.kit import pictures
from mpcli.run import Run, Trained
from mpcli_rl import markov
from mpcli_rl.kit import agents, curves, stepping
from mpcli_rl.kit.networks import network
from mpcli_rl.kit.policy import Policy, shapes, world

BASELINES = ("none", "mean", "learned")


@dataclass(frozen=True)
class Config:
    hidden: Annotated[tuple[int, ...], "widths of the hidden layers, of the policy and of V", Ge(1)] = (64, 64)
    gamma: Annotated[float, "discount", Interval(ge=0, le=1)] = 0.99
    baseline: Annotated[Literal["none", "mean", "learned"], "what is taken off the return"] = "learned"
    to_go: Annotated[bool, "count what follows an action only; else the return of the whole episode"] = True
    discount_late: Annotated[bool, "weigh step t by gamma^t, as the gradient of J does"] = False
    batch: Annotated[int, "episodes of a gradient", Ge(1)] = 8
    lr: Annotated[float, "step size of Adam at the start; it falls to zero along a line", Gt(0)] = 5e-3
    fits: Annotated[int, "steps that V makes towards the returns of a batch", Ge(0)] = 10


class Agent(nn.Module):
    """A policy, and what the baselines know."""

    mean_return: Tensor

    def __init__(self, cfg: Config, states: int, **shapes: Any) -> None:
        super().__init__()
        self.policy = Policy(cfg.hidden, states, **shapes)
        self.value = network(states, cfg.hidden, 1, gain=1.0)
        self.register_buffer("mean_return", torch.zeros(()))

    @torch.no_grad()
    def baseline(self, kind: str, s: Tensor) -> Tensor:  # [T, D] -> [T]
        if kind == "learned":
            return self.value(s).squeeze(1)
        return self.mean_return.expand(len(s)) if kind == "mean" else torch.zeros_like(s[:, 0])


def returns(r: Tensor, gamma: float) -> Tensor:  # rewards of an episode [T] -> G [T]
    return torch.tensor(markov.returns(r.tolist(), gamma), dtype=r.dtype, device=r.device)


def weights(cfg: Config, r: Tensor, b: Tensor) -> Tensor:  # rewards, baseline [T] -> the factor of each grad log pi [T]
    g = returns(r, cfg.gamma)
    if not cfg.to_go:
        return (g[0] - b[0]).expand(len(g))
    return (g - b) * cfg.gamma ** torch.arange(len(g), dtype=g.dtype, device=g.device) if cfg.discount_late else g - b


Episode = tuple[Tensor, Tensor, Tensor]  # s [T, D], a [T] or [T, A], r [T]


def loss(cfg: Config, agent: Agent, episodes: list[Episode]) -> Tensor:
    """Its gradient is minus the estimate of grad J, the mean over the episodes."""
    w = torch.cat([weights(cfg, r, agent.baseline(cfg.baseline, s)) for s, _, r in episodes])
    log_pi, _ = agent.policy(*(torch.cat(parts) for parts in list(zip(*episodes, strict=True))[:2]))
    return -(w * log_pi).sum() / len(episodes)


def variances(cfg: Config, agent: Agent, episodes: list[Episode]) -> list[float]:
    """Of the gradient that one episode gives, summed over the parameters: with each baseline."""
    theta, found = list(agent.policy.parameters()), []
    for s, a, r in episodes:
        log_pi, _ = agent.policy(s, a)
        by_baseline = [
            torch.autograd.grad(log_pi, theta, weights(cfg, r, agent.baseline(kind, s)), retain_graph=True)
            for kind in BASELINES
        ]
        found.append(torch.stack([torch.cat([part.ravel() for part in g]) for g in by_baseline]))
    return torch.stack(found).var(0).sum(1).tolist()


def whole(steps: list[Any], device: torch.device) -> list[Episode]:
    """The episodes of these steps, each s, a, r, and whether the episode was over."""
    *columns, over = (torch.from_numpy(np.concatenate(column)).to(device) for column in zip(*steps, strict=True))
    lengths = (over.nonzero().squeeze(1) + 1).diff(prepend=over.new_zeros(1, dtype=torch.int64)).tolist()
    return list(zip(*(column.split(lengths) for column in columns), strict=True))


def learn(cfg: Config, agent: Agent, adam: torch.optim.Optimizer, batch: list[Episode]) -> None:
    """One step of the policy; then the baselines are fitted, so that they never know the episodes they judge."""
    error = loss(cfg, agent, batch)
    adam.zero_grad()
    error.backward()
    adam.step()
    s, g = torch.cat([s for s, _, _ in batch]), [returns(r, cfg.gamma) for _, _, r in batch]
    for _ in range(cfg.fits):
        error = nn.functional.mse_loss(agent.value(s).squeeze(1), torch.cat(g))
        adam.zero_grad()
        error.backward()
        adam.step()
    mean = torch.cat(g).mean() if cfg.to_go else torch.stack([whole[0] for whole in g]).mean()
    agent.mean_return += (mean - agent.mean_return) / 2


def rl_run(
    cfg: Config,
    run: Run,
    env: Annotated[str, "Gymnasium environment"] = "CartPole-v1",
    steps: Annotated[int, "steps in the environment", Ge(1)] = 200_000,
    episodes: Annotated[int | None, "stop after this many episodes", Ge(1)] = None,
    eval_episodes: Annotated[int, "greedy episodes that the result is measured on", Ge(1)] = 100,
) -> None:
    make = partial(world, env)
    agent = run.place(Agent(cfg, **shapes(make())))
    adam = torch.optim.Adam(agent.parameters(), cfg.lr)
    worlds = stepping.Copies(make, 1, run.seed)
    played: list[Any] = []  # since the policy last changed
    noise = curves.Series("step", *BASELINES)
    state: dict[str, Any] = {"agent": agent, "adam": adam, "worlds": worlds, "played": played, "noise": noise}
    taken = steps
    for step in run.track(lambda step: step, steps, **state):
        taken, s = step + 1, worlds.observation
        a = agent.policy.draw(s)
        _, r, _ = worlds.step(agent.policy.taken(a))
        played.append([s, a, r, worlds.over])
        if worlds.over[0] and worlds.ended % cfg.batch == 0:
            batch = whole(played, run.device)
            played.clear()
            if cfg.batch > 1 and step >= len(noise.rows) * steps / 10:
                noise.add(step + 1, *variances(cfg, agent, batch))
            adam.param_groups[0]["lr"] = cfg.lr * (1 - step / steps)
            learn(cfg, agent, adam, batch)
        run.log(**worlds.latest)
        if episodes and worlds.ended >= episodes:
            break

    run.save(agent, cfg, **shapes(make()))
    run.result(steps=taken)
    agents.report(run, env, agent.policy.greedy, eval_episodes, worlds.finished)
    if noise.rows:
        tell(run, noise)


def tell(run: Run, noise: curves.Series) -> None:
    """Tell the variances, as a table on the terminal, as variance.csv and as variance.png."""
    run.say("variance of the gradient of one episode, " + ", ".join(f"baseline {kind}" for kind in BASELINES))
    for step, *found in noise.rows:
        run.say(f"after {step:>9,.0f} steps: " + "  ".join(f"{value:>10.3g}" for value in found))
    run.table("variance.csv", noise.columns, noise.rows)
    figure = pictures.figure(f"{run.heading}\nvariance of the gradient that one episode gives")
    axes = figure.subplots()
    for name, kind in zip(noise.columns[1:], BASELINES, strict=True):
        axes.plot(noise.column("step"), noise.column(name), "o-", markersize=3, label=f"baseline: {kind}")
    axes.set(xlabel="steps in the environment", ylabel="summed over the parameters", yscale="log")
    figure.legend(loc="outside lower center", ncols=len(BASELINES), fontsize=pictures.NAME)
    run.figure("variance.png", figure)


def evaluate(trained: Trained, run: Run, eval_episodes: Annotated[int, "greedy episodes", Ge(1)] = 100) -> None:
    agents.evaluate(run, trained.options["env"], trained.load(Agent, Config).policy.greedy, eval_episodes)


def render(trained: Trained, run: Run) -> None:
    """One episode of the greedy policy."""
    agents.film(run, trained.options["env"], trained.load(Agent, Config).policy.greedy)


from mpcli_rl.reinforce.equations import gradcheck as gradcheck  # noqa: E402, which needs the page itself
