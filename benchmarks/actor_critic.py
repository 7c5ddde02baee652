"""Actor-critic and PPO on CartPole-v1: ours against stable-baselines3 at equal hyper-parameters.

    python -m pip install stable-baselines3
    python benchmarks/actor_critic.py

Same networks (two of 64 + 64 tanh units, orthogonal weights), environments, rollout, discount, lambda, passes and
minibatches, clip, bound of the gradient, normalised advantages (ppo), and Adam whose step falls along a line; the first
questions ask for environment steps a second of the training loop, the others for the CPU seconds of training until the
greedy policy earns 475 in the mean of 20 episodes. It is asked after every 10 rollouts of PPO and 150 of A2C, on a
clock that is stopped meanwhile; a side that gets there by no step of its budget is charged all of it, and says so.
Learning differs much between seeds, so each of the five pairs has another, 0 to 4. Differences left: ours asks the
critic once for the whole rollout where stable-baselines3 asks it at every step, and ours writes its log and a
checkpoint.
"""

import itertools
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from learning import EPISODES, Clock, Reached
from protocol import compare, pair

SETTINGS: dict[str, dict[str, Any]] = {
    "a2c": {"rollout": 8, "lr": 2e-3, "gamma": 0.99, "lam": 0.95},
    "ppo": {"rollout": 16, "lr": 2e-3, "gamma": 0.99, "lam": 0.95, "epochs": 10, "batch": 128, "clip": 0.2},
}
COPIES, MOST = 8, 0.5
STEPS = {"a2c": 20_000, "ppo": 12_000}  # to measure the speed
BUDGET = {"a2c": 200_000, "ppo": 60_000}  # to learn in
ASK = {"a2c": 150, "ppo": 10}  # rollouts between two looks at the greedy policy


def ours(objective: str, learn: bool) -> float:
    """CPU seconds a step, or until the goal is reached."""
    from mpcli import heap

    heap.keep_freed_blocks()
    import torch

    from mpcli.run import Run, seed_everything
    from mpcli_rl import actor_critic
    from mpcli_rl.kit.policy import world

    torch.set_num_threads(1)
    seed_everything(pair())
    cfg = actor_critic.Config(objective=objective, copies=COPIES, most=MOST, **SETTINGS[objective])

    clock = Clock("ours")

    class Timed(Run):
        def track(self, *args: Any, **state: Any) -> Iterator[Any]:
            def trial() -> float:
                greedy = state["model"].actor.greedy
                return playing.evaluate(partial(world, "CartPole-v1"), greedy, EPISODES, self.seed).mean()

            def look(iteration: int) -> None:
                if learn and iteration % ASK[objective] == 0:
                    clock.ask(trial, iteration * cfg.length * COPIES)

            yield from clock.around(super().track(*args, **state), look)

    with tempfile.TemporaryDirectory() as folder:
        run = Timed(Path(folder), seed=pair(), device="cpu")
        try:
            actor_critic.rl_run(cfg, run, steps=BUDGET[objective] if learn else STEPS[objective], eval_episodes=20)
        except Reached:
            return clock.spent
    print(f"ours: {run.metrics['return_mean']:.0f} at the end", file=sys.stderr)
    return clock.spent if learn else clock.spent / run.metrics["steps"]


def peer(objective: str, learn: bool) -> float:
    import torch
    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    s = SETTINGS[objective]
    shared: dict[str, Any] = {
        "learning_rate": lambda left: s["lr"] * left, "n_steps": s["rollout"], "gamma": s["gamma"],
        "gae_lambda": s["lam"], "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": MOST,
        "normalize_advantage": objective == "ppo",
        "policy_kwargs": {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}, "seed": pair(), "device": "cpu",
    }  # fmt: skip
    worlds = make_vec_env("CartPole-v1", COPIES, seed=pair())
    if objective == "a2c":
        model: Any = A2C("MlpPolicy", worlds, use_rms_prop=False, **shared)
    else:
        model = PPO(
            "MlpPolicy", worlds, batch_size=s["batch"], n_epochs=s["epochs"], clip_range=s["clip"], **shared
        )  # fmt: skip

    clock = Clock("peer")

    def trial() -> float:
        return evaluate_policy(model, make_vec_env("CartPole-v1", COPIES), EPISODES, deterministic=True)[0]

    class Look(BaseCallback):
        rollouts = itertools.count()

        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:  # the update of the rollout before is done
            rollout = next(self.rollouts)
            if learn and rollout and rollout % ASK[objective] == 0:
                clock.ask(trial, self.num_timesteps)

    steps = BUDGET[objective] if learn else STEPS[objective]
    clock.start()
    try:
        model.learn(steps, callback=Look())
    except Reached:
        return clock.spent
    clock.stop()
    print(f"peer: {evaluate_policy(model, worlds, 20)[0]:.0f} at the end", file=sys.stderr)
    return clock.spent if learn else clock.spent / model.num_timesteps


if __name__ == "__main__":
    packages = ("gymnasium", "stable-baselines3")
    for name in ("a2c", "ppo"):
        compare(f"{name}, steps", partial(ours, name, False), partial(peer, name, False), rate="steps/s", repeats=3,
                packages=packages)  # fmt: skip
    for name in ("a2c", "ppo"):
        compare(f"{name}, until 475", partial(ours, name, True), partial(peer, name, True), repeats=5,
                packages=packages)  # fmt: skip
