"""A distribution made on the spot: a folder on the path with metadata and pages, as an installer would leave it."""

from pathlib import Path

TRAINER = '''"""Toy: a line fitted by gradient descent.

Somebody, 1999.
"""
import os
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from mpcli.run import Run, Trained


@dataclass(frozen=True)
class Config:
    width: Annotated[int, "width", Ge(1)] = 3
    layers: tuple[int, ...] = (4, 4)
    lr: Annotated[float, Gt(0)] = 0.1
    kind: Literal["a", "b"] = "a"
    steps: int = 20


class Line(torch.nn.Module):
    def __init__(self, cfg, inputs=3):
        super().__init__()
        self.linear = torch.nn.Linear(inputs, cfg.width)

    def forward(self, x):
        return self.linear(x)


def train(cfg: Config, run: Run, nan_at: int = -1, noisy: bool = True) -> None:
    model = run.place(Line(cfg, inputs=3))
    adam = torch.optim.Adam(model.parameters(), cfg.lr)
    batches = lambda step: torch.randn(5, 3, generator=torch.Generator().manual_seed(run.seed + 7 * step))
    for step, x in enumerate(run.track(batches, cfg.steps, model=model, adam=adam)):
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
        loss = ((model(x) - x.sum() + noisy * torch.randn(())) ** 2).mean()
        if step == nan_at:
            loss = loss * float("nan")
        adam.zero_grad()
        loss.backward()
        adam.step()
        run.log(loss=loss)
    run.save(model, cfg, inputs=3)
    run.result(loss=loss)


def sample(trained: Trained, run: Run, n: int = 4) -> None:
    model = trained.load(Line, Config)
    run.image("samples.png", torch.rand(n, 1, 5, 5))
    with run.file("weights.txt") as path:
        path.write_text(str(model.linear.weight.tolist()))


def evaluate(trained: Trained, run: Run, scale: float = 1.0) -> None:
    run.result(loss=scale * trained.load(Line, Config).linear.weight.abs().sum())
'''


def distribution(folder: Path, name: str = "toybook", version: str = "1.2", **pages: str) -> Path:
    """Write a distribution whose pages are `pages` (name to source) into `folder`, which must be on the path."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    entries = [f"{page} = {name}_{page}" for page in pages]
    (info / "entry_points.txt").write_text("\n".join(["[mpcli.plugins]", *entries, ""]))
    for page, source in pages.items():
        (folder / f"{name}_{page}.py").write_text(source)
    return folder
