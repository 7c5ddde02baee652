"""What every page reaches with its defaults, on the data that comes with it and on real data beside the checkout.

    python benchmarks/defaults.py [PAGE]... [--real FOLDER]

Each page's own command runs with no option but the seed and, for real data, `--data` or `--env`; the metrics that it
prints go to data/mpcli_data/defaults.json, from which `mpcli list --markdown` writes docs/pages.md. Pages that are not
named keep what stands there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mpcli.registry import pages, spoken

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "data" / "mpcli_data" / "defaults.json"
WORK = ("train", "rl_run", "fit_smpl", "marching_cubes")  # the verb of a page whose figure is asked for
REAL = {
    "perceptron": ("--data", "mnist:{}/mnist"),
    "optimizers": ("--data", "rosenbrock"),
    "maximum_likelihood": ("--prior", "gaussian", "--data", "breast_cancer"),
    **{page: ("--data", "mnist:{}/mnist") for page in ("mlp", "regularization", "ensemble", "hmax", "cnn")},
    **{page: ("--data", "cifar10:{}/cifar-layout", "--fold", "0") for page in ("vgg", "googlenet", "resnet")},
    "heads": ("--data", "digit_scenes:mnist:{}/mnist"),
    **{page: ("--data", "segmentation:{}/nuclei-dsb2018") for page in ("fcn", "unet")},
    "vae": ("--data", "mnist:{}/mnist"),
    **{page: ("--data", "mnist:{}/mnist") for page in ("nice", "realnvp", "glow", "conditional_coupling", "cflow")},
    "igr": ("--data", "points:{}/pointclouds/spot_20k_noise0.01.npz"),
    "nerf": ("--data", "blender:{}/nerf-spot"),
    **{page: ("--env", "Acrobot-v1") for page in ("dqn", "reinforce", "actor_critic")},
    **{page: ("--env", "Taxi-v4") for page in ("q_learning", "sarsa", "value_iteration", "policy_iteration")},
}


def measured(page: str, *options: str) -> dict[str, object]:
    """The command of a page and what it reports."""
    verb = next(verb for verb in WORK if verb in pages()[page].verbs)
    command = ["mpcli", spoken(verb), page, *options]
    with tempfile.TemporaryDirectory() as folder:
        full = [sys.executable, "-m", *command, "--json", "--quiet"]
        before = os.times()
        done = subprocess.run(full, cwd=folder, capture_output=True, text=True, check=False)
        after = os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    shown = [Path(part).name if part.startswith("/") else part for part in command]
    shown = [f"{part.partition(':')[0]}:{Path(part).name}" if ":" in part else part for part in shown]
    return {"command": " ".join(shown), "metrics": json.loads(done.stdout)["metrics"], "cpu_seconds": round(cpu)}


def main() -> None:
    """Measure the named pages, or all, one after the other, and keep what they report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--real", help="folder of real data")
    asked = parser.parse_args()
    for page in asked.pages or [name for name, p in pages().items() if set(WORK) & set(p.verbs)]:
        entry = {"embedded": measured(page)}
        if asked.real and page in REAL:
            folder = Path(asked.real).resolve()
            entry["real"] = measured(page, *(option.format(folder) for option in REAL[page]))
        known = json.loads(TARGET.read_text()) if TARGET.exists() else {}
        known[page] = known.get(page, {}) | entry
        order = [name for name in pages() if name in known]
        TARGET.write_text(json.dumps({name: known[name] for name in order}, indent=1) + "\n")
        print(page, {kind: found["metrics"] for kind, found in entry.items()}, flush=True)


if __name__ == "__main__":
    main()
