"""Several processes train as one: the same steps on a shared-out batch, one record, and an end for all."""

import dataclasses
import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from mutants import module_of
from safetensors.torch import load_file
from test_runs import record, weights
from torchrun import torchrun

from mpcli import distributed
from mpcli.errors import InputError
from mpcli.registry import pages

# Each step has what is hard to share out: heads in turns, two calls, a method of the module, a gradient of the input.
PAGE = '''"""Shared: two heads on one trunk.

Somebody, 1999.
"""
import os
import signal
from dataclasses import dataclass

import torch
from mpcli.run import Run, Trained
from torch import nn


@dataclass(frozen=True)
class Config:
    batch: int = 8
    steps: int = 20


class Two(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.trunk = nn.Linear(3, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(2))
        self.idle = nn.Parameter(torch.ones(2))
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x, head):
        if self.scale == 0:  # set by the first batch, as normalising layers do
            self.scale.fill_(1)
            self.idle.data.fill_(float(x.detach()[0, 0]))
        self.seen += x.detach().sum()
        return torch.distributions.Normal(torch.tanh(self.trunk(x)) @ self.heads[head].weight.T, 1.0)


def train(cfg: Config, run: Run, stop_at: int = -1, nan_at: int = -1) -> None:
    torch.manual_seed(run.seed + int(os.environ.get("RANK", 0)))  # the first process's weights must hold for all
    model = run.place(Two(cfg))
    adam = torch.optim.Adam(model.parameters(), 0.01, fused=True)
    own = torch.zeros(1, requires_grad=True)
    sgd = torch.optim.SGD([own], 0.1, momentum=0.9)

    def batches(step):
        g = torch.Generator().manual_seed(step)
        return {"x": torch.randn(cfg.batch, 3, generator=g), "more": (torch.ones(cfg.batch), torch.eye(3)), "n": step}

    for batch in run.track(batches, cfg.steps, model=model, adam=adam, own={"own": own}, sgd=sgd):
        step = batch["n"]
        assert len(batch["more"][0]) == len(batch["x"]) and len(batch["more"][1]) == 3
        x = batch["x"].requires_grad_()
        first, second = model(x, step % 2).mean, model(2 * x, step % 2).mean
        (slope,) = torch.autograd.grad(first.sum(), x, create_graph=True)
        loss = (first - x.sum(1, keepdim=True)).square().mean() + second.square().mean() + slope.square().mean()
        loss = loss + (model.trunk(x).mean(1) - own).square().mean()
        if step == stop_at and os.environ.get("RANK", "1") == "1":
            os.kill(os.getpid(), signal.SIGINT)
        if step == nan_at and os.environ.get("RANK") == "1":
            loss = loss * float("nan")
        for optimizer in (adam, sgd):
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for optimizer in (adam, sgd):
            optimizer.step()
        run.log(loss=loss)
        run.say(f"process {os.environ.get('RANK', 'alone')} of {cfg.batch // len(x)}")
    run.save(model, cfg)
    run.result(loss=loss)


def rl_run(cfg: Config, run: Run) -> None:
    for step in run.track(lambda step: step, 3):
        run.log(loss=1.0)
'''


@pytest.fixture
def site(book) -> Path:
    return book(shared=PAGE)


@pytest.mark.learning
def test_two_processes_end_where_one_does_and_go_on_after_an_interruption(site, mpcli, tmp_path):
    alone = mpcli("train", "shared", "--out", "alone").path
    both = torchrun(tmp_path, "train", "shared", "--out", "both", site=site)
    assert both.returncode == 0, both.stderr
    assert both.stdout == "both\n"
    ours, theirs = load_file(alone / "model.safetensors"), load_file(tmp_path / "both/model.safetensors")
    assert not torch.equal(ours["trunk.weight"], initial())
    for name in ours.keys() - {"seen"}:  # what each process sees is its own
        assert torch.allclose(ours[name], theirs[name], atol=1e-5, rtol=0), name
    own = [torch.load(f"{run}/checkpoint.pt", weights_only=True)["state"]["own"]["own"] for run in ("alone", "both")]
    assert torch.allclose(*own, atol=1e-5, rtol=0) and own[0].abs() > 0.01
    said = (tmp_path / "both/log.txt").read_text().split("\n")
    assert set(said) == {"process 0 of 2", ""}
    assert len((tmp_path / "both/metrics.jsonl").read_text().splitlines()) == 20
    assert record(tmp_path / "both")["status"] == "done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "both"]

    cut = torchrun(tmp_path, "train", "shared", "--out", "cut", "--stop-at", 7, site=site)
    assert cut.returncode != 0
    assert "stopped after step 8 of 20" in cut.stderr
    assert record(tmp_path / "cut")["status"] == "interrupted"
    assert torch.load("cut/checkpoint.pt", weights_only=True)["step"] == 8
    resumed = torchrun(tmp_path, "train", "cut", "--resume", site=site)
    assert resumed.returncode == 0, resumed.stderr
    assert weights(tmp_path / "cut") == weights(tmp_path / "both")


def initial() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 4).weight.detach()


def test_nan_in_one_process_ends_all(site, tmp_path):
    failed = torchrun(tmp_path, "train", "shared", "--out", "run", "--nan-at", 3, site=site)
    assert failed.returncode != 0
    assert "process 1: training diverged: loss is nan at step 4" in failed.stderr
    assert record(tmp_path / "run")["status"] == "failed"


def test_what_cannot_be_shared_out_is_refused(site, mpcli, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for command in (["rl-run", "shared"], ["gradcheck", "shared"], ["evaluate", "vae"]):
        refused = mpcli(*command)
        assert refused.code == 2
        assert "--seeds" in refused.err and refused.err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.learning
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are not listed here")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """One that is alive while the interpreter ends may abort the process, after all was done and saved."""
    script = tmp_path / "threads.py"
    script.write_text(
        "import os, torch\n"
        "from pathlib import Path\n"
        "from mpcli import distributed\n"
        "with distributed.group():\n"
        "    layer = torch.nn.Linear(2, 2)\n"
        "    optimizer = torch.optim.Adam(layer.parameters())\n"
        "    together = distributed.Together({'layer': layer, 'optimizer': optimizer})\n"
        "    layer(torch.ones(1, 2)).sum().backward()\n"
        "    optimizer.step()\n"
        "    together.stepped()\n"
        "    together.end()\n"
        "names = [(task / 'comm').read_text().strip() for task in Path('/proc/self/task').iterdir()]\n"
        "Path(f'threads{os.environ[\"RANK\"]}').write_text(' '.join(names))\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(launcher, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert all("gloo" not in (tmp_path / f"threads{rank}").read_text() for rank in (0, 1))


@dataclasses.dataclass(frozen=True)
class Rays:
    origin: torch.Tensor
    name: str = "rays"


Pair = namedtuple("Pair", "x y")


def test_each_process_gets_its_share_of_every_tensor_of_the_batch(monkeypatch):
    x = torch.arange(6)
    assert distributed.part(x) is x
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        batch = {
            "pair": Pair(x, torch.eye(2)),
            "rays": Rays(2 * x),
            "scalar": torch.tensor(6),
            "text": "a",
            "list": [x],
        }
        shares.append(distributed.part(batch))
    assert torch.equal(torch.cat([share["pair"].x for share in shares]), x)
    assert torch.equal(torch.cat([share["rays"].origin for share in shares]), 2 * x)
    assert torch.equal(torch.cat([share["list"][0] for share in shares]), x)
    assert isinstance(shares[0]["pair"], Pair) and shares[0]["rays"].name == "rays"
    assert torch.equal(shares[1]["pair"].y, torch.eye(2)) and shares[1]["scalar"] == 6 and shares[1]["text"] == "a"
    for wrong, words in ((torch.zeros(7, 2), "--batch: 7"), (torch.zeros(2), "--batch: 2"), (3, "no tensors")):
        with pytest.raises(InputError, match=words):
            distributed.part(wrong)


def test_each_process_has_random_numbers_of_its_own(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    seeds = set()
    for rank in range(1, 4):
        monkeypatch.setenv("RANK", str(rank))
        seeds |= {distributed.own_seed(seed, step) for seed in (0, 1) for step in (0, 8)}
    assert len(seeds) == 12


# The book -------------------------------------------------------------------------------------------------------------

# Both processes train page after page, and each training ends when its model is saved: what follows is evaluation.
PAIR = """
import contextlib, json, sys
from mpcli import artifacts, cli, distributed
from mpcli.errors import Finished

save = artifacts.Artifacts.save

def save_and_end(self, *args, **options):
    save(self, *args, **options)
    raise Finished

artifacts.Artifacts.save = save_and_end
if distributed.size() > 1:
    group = distributed.group()
    group.__enter__()
    distributed.group, distributed._part_ways = contextlib.nullcontext, lambda: None
for line in json.loads(sys.argv[1]):
    code = cli.run(line)
    assert code == 0, (line, code)
"""
# Learns from one example after the other, from all of them in each step, or member by member: no batch to share out.
UNSHARED = {"perceptron", "maximum_likelihood", "ensemble", "optimizers", "hmax"}
BATCH_TRAINED = [
    name
    for name, page in pages().items()
    if page.distribution == "mpcli" and "train" in page.verbs and name not in UNSHARED
]
SAME = {
    "realnvp": ["--data", "moons"],
    "nerf": [],
    "igr": [],
}  # a loss that is a mean, noise that goes with the example


def lines(out: str) -> str:
    found = []
    for name in BATCH_TRAINED:
        steps = ["--steps", "20" if name in SAME else "2"]
        small = [*getattr(module_of(name), "SMALL", {}).get("train", []), *SAME.get(name, [])]
        found.append(["train", name, *small, *steps, "--out", f"{out}-{name}", "--quiet"])
    return json.dumps(found)


@pytest.mark.learning
def test_a_pair_of_processes_trains_every_page_and_ends_where_one_process_does(tmp_path):
    script = tmp_path / "pair.py"
    script.write_text(PAIR)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for out, start in (("pair", launcher), ("one", [])):
        command = [sys.executable, *start, str(script), lines(out)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    for name in BATCH_TRAINED:
        pair, one = (load_file(tmp_path / f"{out}-{name}" / "model.safetensors") for out in ("pair", "one"))
        assert all(value.isfinite().all() for value in pair.values()), name
        if name in SAME:
            apart = max(float((pair[key].double() - one[key].double()).abs().max()) for key in one)
            assert apart < 1e-5, f"{name}: {apart}"
