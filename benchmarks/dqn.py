"""DQN on CartPole-v1: ours against stable-baselines3 at equal hyper-parameters.

    python -m pip install stable-baselines3
    python benchmarks/dqn.py

Same network, batch, memory, discount, Huber loss, plain (not double) target, Adam with the same step size, the same
share of random actions, one environment; a minibatch every `learn_every` steps and theta- renewed every 100. Neither
side plays trial episodes. The first questions ask for environment steps a second of the training loop, the last for the
CPU seconds of training until the greedy policy earns 475 in the mean of 20 episodes: it is asked every 2000 steps, on a
clock that is stopped meanwhile; a side that gets there by no step of its budget is charged all of it, and says so.
Learning differs much between seeds, so each of the five pairs has another, 0 to 4. Two differences are left:
stable-baselines3 cuts the norm of the gradient (the bound is set to infinity, but it computes the norm all the same),
and ours writes its log and a checkpoint. What either learned goes to standard error.
"""

import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from learning import EPISODES, Clock, Reached
from protocol import compare, pair

STEPS, BUDGET = 12_000, 60_000  # to measure the speed; to learn in
ASK = 2_000  # steps between two looks at the greedy policy
COMMON: dict[str, Any] = {"gamma": 0.99, "batch": 64, "memory": 50_000, "warmup": 1000, "lr": 1e-3}


def ours(hidden: tuple[int, ...], learn_every: int, learn: bool) -> float:
    """CPU seconds a step, or until the goal is reached."""
    from mpcli import heap

    heap.keep_freed_blocks()
    import torch

    from mpcli.run import Run, seed_everything
    from mpcli_rl import dqn

    torch.set_num_threads(1)
    seed_everything(pair())
    cfg = dqn.Config(hidden=hidden, learn_every=learn_every, loss="huber", target_every=100, **COMMON)

    clock = Clock("ours")

    class Timed(Run):
        def track(self, *args: Any, **state: Any) -> Iterator[Any]:
            def trial() -> float:
                make = partial(dqn.world, "CartPole-v1")
                return playing.evaluate(make, state["q"].greedy, EPISODES, self.seed).mean()

            def look(step: int) -> None:
                if learn and step % ASK == 0:
                    clock.ask(trial, step)

            yield from clock.around(super().track(*args, **state), look)

    steps = BUDGET if learn else STEPS
    with tempfile.TemporaryDirectory() as folder:
        run = Timed(Path(folder), seed=pair(), device="cpu")
        try:
            dqn.rl_run(cfg, run, steps=steps, trial_episodes=0, eval_episodes=20)
        except Reached:
            return clock.spent
    print(f"ours: {run.metrics['return_mean']:.0f} at the end", file=sys.stderr)
    return clock.spent if learn else clock.spent / steps


def peer(hidden: tuple[int, ...], learn_every: int, learn: bool) -> float:
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    steps = BUDGET if learn else STEPS
    model = DQN(
        "MlpPolicy", "CartPole-v1", seed=pair(), device="cpu", policy_kwargs={"net_arch": list(hidden)},
        gamma=COMMON["gamma"],
        batch_size=COMMON["batch"], buffer_size=COMMON["memory"], learning_starts=COMMON["warmup"],
        learning_rate=COMMON["lr"], train_freq=learn_every, gradient_steps=1, target_update_interval=100,
        exploration_fraction=0.2, exploration_final_eps=0.04, max_grad_norm=float("inf"),
    )  # fmt: skip

    clock = Clock("peer")

    def trial() -> float:
        return evaluate_policy(model, make_vec_env("CartPole-v1", 1), EPISODES, deterministic=True)[0]

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % ASK == 0:
                clock.ask(trial, self.num_timesteps)
            return True

    clock.start()
    try:
        model.learn(steps, callback=Look() if learn else None)
    except Reached:
        return clock.spent
    clock.stop()
    print(f"peer: {evaluate_policy(model, model.get_env(), 20)[0]:.0f} at the end", file=sys.stderr)
    return clock.spent if learn else clock.spent / steps


if __name__ == "__main__":
    packages = ("gymnasium", "stable-baselines3")
    for hidden, learn_every in (((128, 128), 4), ((64, 64), 1), ((256, 256), 2)):
        question = f"{'x'.join(map(str, hidden))} units, a minibatch of 64 every {learn_every} steps"
        sides = (partial(side, hidden, learn_every, False) for side in (ours, peer))
        compare(question, *sides, rate="steps/s", repeats=3, packages=packages)
    sides = (partial(side, (128, 128), 4, True) for side in (ours, peer))
    compare("128x128 units, until 475", *sides, repeats=5, packages=packages)
