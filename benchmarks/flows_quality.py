"""How well flows fit: 2-D data beside zuko for the same CPU time, and digits beside what is known in closed form.

Points: held-out log-likelihood (nats, more is better) of two moons and eight Gaussians after the same CPU seconds of
training on one thread, all with the AdamW, the learning rate and the falling cosine of ours:
`realnvp` (8 couplings of 64, 64), and of zuko RealNVP (the same 8 of 64, 64) and NSF (3 transforms of 64, 64). How many
steps fit into the time is measured first, and the cosine ends with the last of them. The median of three seeds.

Pictures: bits/dim of `mpcli train realnvp` and `glow` as they come, or with so many steps, beside a mixture of 60
normals with diagonal covariances and one normal with a full covariance, which scikit-learn fits to the same noisy
pixels.

`python benchmarks/flows_quality.py [--seconds 20] [--only points|pictures]`, after `pip install zuko==1.6.0`; and
`python benchmarks/flows_quality.py --only pictures --data mnist:DIR --realnvp 250 --glow 500`.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time

from protocol import ONE_THREAD, machine

BATCH, LR = 256, 0.005
NOISY = 10_000  # few pictures are shown to the mixtures several times, with other noise between grey levels


def realnvp():
    from mpcli_flows.realnvp import Config, RealNVP

    return RealNVP(Config(), (2,))


def zuko_realnvp():
    import zuko

    return density(zuko.flows.RealNVP(2, transforms=8, hidden_features=(64, 64)))


def zuko_nsf():
    import zuko

    return density(zuko.flows.NSF(2, transforms=3, hidden_features=(64, 64)))


def density(flow):
    import torch

    class Density(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = flow

        def forward(self, x):
            return self.flow().log_prob(x)

    return Density()


def fitted(name: str, data: str, seconds: float, seed: int) -> dict[str, float]:
    import torch

    from mpcli.kit import datasets

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rows = datasets.load(data, datasets.Table)
    mean, std = rows.train.mean(0), rows.train.std(0)  # every library sees the data in these units

    def made():
        model = globals()[name]()
        return model, torch.optim.AdamW(model.parameters(), LR, weight_decay=0.01, fused=True)

    def step(model, adam, i):
        loss = -model((batches(i) - mean) / std).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    batches = rows.batches(BATCH, seed)
    model, adam = made()
    for i in range(10):
        step(model, adam, i)
    start = time.process_time()
    for i in range(50):
        step(model, adam, i)
    steps = int(seconds * 50 / (time.process_time() - start))
    model, adam = made()
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    start = time.process_time()
    for i in range(steps):
        step(model, adam, i)
        cosine.step()
    spent = time.process_time() - start
    with torch.no_grad():
        log_p = model.eval()((rows.test - mean) / std).mean() - std.log().sum()
    return {"log_p": float(log_p), "steps": steps, "seconds": spent}


def points(seconds: float) -> None:
    print("| data | model | held-out log-likelihood (median, min..max) | steps | CPU time |\n|-|-|-|-|-|")
    for data in ("moons", "eight_gaussians"):
        for name in ("realnvp", "zuko_realnvp", "zuko_nsf"):
            found = []
            for seed in range(3):
                command = [sys.executable, "-W", "ignore", __file__, "--fit", name, data, str(seconds), str(seed)]
                environment = os.environ | ONE_THREAD
                done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
            log_p, steps, spent = ([f[key] for f in found] for key in ("log_p", "steps", "seconds"))
            print(
                f"| {data} | {name} | {statistics.median(log_p):.4f} ({min(log_p):.4f}..{max(log_p):.4f}) | "
                f"{statistics.median(steps):.0f} | {statistics.median(spent):.1f} s |",
                flush=True,
            )


def pictures(data: str, steps: dict[str, int | None]) -> None:
    import torch
    from sklearn.mixture import GaussianMixture

    from mpcli.kit.densities import load

    print(f"\n| {data} | bits/dim | CPU time |\n|-|-|-|")
    for page, count in steps.items():
        before = os.times()
        command = ["-m", "mpcli", "train", page, "--quiet", "--json", "--device", "cpu", "--data", data]
        command += ["--steps", str(count)] if count else []
        done = subprocess.run(
            [sys.executable, *command], env=os.environ | ONE_THREAD, check=True, stdout=subprocess.PIPE, text=True
        )
        spent = sum(os.times()[2:4]) - sum(before[2:4])
        print(f"| `{page}` | {json.loads(done.stdout)['metrics']['bits_per_dim']:.3f} | {spent:.0f} s |", flush=True)
    torch.manual_seed(0)
    examples = load(data, torch.device("cpu"))
    many = examples.data.train[:].repeat(max(1, NOISY // len(examples.data.train)), 1, 1, 1)
    train, test = (examples.continuous(part).flatten(1).double().numpy() for part in (many, examples.data.test[:]))
    floor = 0.1 / 12 / examples.levels**2  # of a variance; that of the noise alone is ten times as much
    for components, kind in ((60, "diag"), (1, "full")):
        mixture = GaussianMixture(components, covariance_type=kind, reg_covar=floor, random_state=0).fit(train)
        bits = -mixture.score(test) / test.shape[1] / math.log(2) + math.log2(examples.levels)
        print(f"| {components} normal{'s' * (components > 1)}, {kind} covariance | {bits:.3f} | |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", choices=("points", "pictures"))
    parser.add_argument("--data", default="digits")
    parser.add_argument("--realnvp", type=int)
    parser.add_argument("--glow", type=int)
    parser.add_argument("--fit", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        name, data, seconds, seed = options.fit
        print(json.dumps(fitted(name, data, float(seconds), int(seed))))
        sys.exit()
    print(machine(("zuko",) if options.only != "pictures" else ()) + "\n")
    if options.only != "pictures":
        points(options.seconds)
    if options.only != "points":
        pictures(options.data, {"realnvp": options.realnvp, "glow": options.glow})
