"""DQN on CartPole-v1, environment steps a second: ours against stable-baselines3 at equal hyper-parameters.

    python -m pip install stable-baselines3
    python benchmarks/dqn.py

Same network, batch, memory, discount, Huber loss, plain (not double) target, Adam with the same step size, the same
share of random actions, one environment; a minibatch every `learn_every` steps and theta- renewed every 100. Neither
side plays trial episodes, and the time is that of the training loop alone. Two differences are left: stable-baselines3
cuts the norm of the gradient (the bound is set to infinity, but it computes the norm all the same), and ours writes its
log and a checkpoint. What either learned in so few steps goes to standard error: both must have begun to balance.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from protocol import compare

STEPS = 12_000
COMMON: dict[str, Any] = {"gamma": 0.99, "batch": 64, "memory": 50_000, "warmup": 1000, "lr": 1e-3}


def ours(hidden: tuple[int, ...], learn_every: int) -> float:
    """CPU seconds a step."""
    from mpcli import heap

    heap.keep_freed_blocks()
    import torch

    from mpcli.run import Run, seed_everything
    from mpcli_rl import dqn

    torch.set_num_threads(1)
    seed_everything(0)
    cfg = dqn.Config(hidden=hidden, learn_every=learn_every, loss="huber", target_every=100, **COMMON)

    class Timed(Run):
        def track(self, *args: Any, **state: Any) -> Iterator[Any]:
            start = time.process_time()
            yield from super().track(*args, **state)
            self.spent = time.process_time() - start

    with tempfile.TemporaryDirectory() as folder:
        run = Timed(Path(folder), seed=0, device="cpu")
        dqn.rl_run(cfg, run, steps=STEPS, trial_episodes=0, eval_episodes=20)
    print(f"ours: greedy return {run.metrics['return_mean']:.0f}", file=sys.stderr)
    return run.spent / STEPS


def peer(hidden: tuple[int, ...], learn_every: int) -> float:
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    model = DQN(
        "MlpPolicy", "CartPole-v1", seed=0, device="cpu", policy_kwargs={"net_arch": list(hidden)},
        gamma=COMMON["gamma"],
        batch_size=COMMON["batch"], buffer_size=COMMON["memory"], learning_starts=COMMON["warmup"],
        learning_rate=COMMON["lr"], train_freq=learn_every, gradient_steps=1, target_update_interval=100,
        exploration_fraction=0.2, exploration_final_eps=0.04, max_grad_norm=float("inf"),
    )  # fmt: skip
    start = time.process_time()
    model.learn(STEPS)
    spent = time.process_time() - start
    print(f"peer: greedy return {evaluate_policy(model, model.get_env(), 20)[0]:.0f}", file=sys.stderr)
    return spent / STEPS


if __name__ == "__main__":
    for hidden, learn_every in (((128, 128), 4), ((64, 64), 1), ((256, 256), 2)):
        question = f"{'x'.join(map(str, hidden))} units, a minibatch of 64 every {learn_every} steps"
        sides = (partial(side, hidden, learn_every) for side in (ours, peer))
        compare(question, *sides, rate="steps/s", repeats=3, packages=("gymnasium", "stable-baselines3"))
