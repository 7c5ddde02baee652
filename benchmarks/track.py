"""What `run.track` and `run.log` cost: the `vae` page's training loop against the same loop in bare PyTorch.

Same network, same batches, same arithmetic; both sides end in the same loss, which goes to standard error. Ours checks
every logged value, writes metrics.jsonl and a checkpoint, watches for Ctrl-C and shows progress; the peer does not.
A ratio of 0.97 is a cost of 3%. What is looked for is small beside what a busy machine adds, so a second row takes the
loop with no training in it, and compares a step of that with a step of training: 100 there is a cost of 1%.

    python benchmarks/track.py
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from protocol import compare

STEPS, BATCH = 1000, 128


def steps(tracked: bool, training: bool) -> float:
    """CPU seconds a step."""
    from mpcli import heap

    heap.keep_freed_blocks()
    import torch

    from mpcli.kit import datasets
    from mpcli.run import Run
    from mpcli_latent.vae import VAE, Config

    torch.manual_seed(0)
    images = datasets.load("digits", datasets.Images)
    batches = images.batches(BATCH, 0)
    model = VAE(Config(), images.shape)
    adam = torch.optim.Adam(model.parameters(), 2e-3)
    anneal = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
    loss = -model(batches(0)).mean()
    loss.backward()
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        run = Run(Path(folder), quiet=False)
        with contextlib.redirect_stderr(nowhere):
            start = time.process_time()
            loop: Iterable[torch.Tensor] = (batches(step) for step in range(STEPS))
            if tracked:
                loop = run.track(
                    batches if training else lambda step: loss, STEPS, model=model, adam=adam, anneal=anneal
                )
            for x in loop:
                if training:
                    loss = -model(x).mean()
                    adam.zero_grad()
                    loss.backward()
                    adam.step()
                    anneal.step()
                if tracked:
                    run.log(elbo=-loss)
            spent = time.process_time() - start
    if training:
        print(f"    {'tracked' if tracked else 'bare'}: last loss {loss.item():.6f}", file=sys.stderr)
    return spent / STEPS


if __name__ == "__main__":
    peer = partial(steps, tracked=False, training=True)
    compare(f"a training step of `vae`, batch {BATCH}", partial(steps, True, True), peer, repeats=7)
    compare("`run.track` and `run.log` alone, against that training step", partial(steps, True, False), peer)
