"""What `mpcli new` writes: a plugin package with one page that trains and samples."""

from datetime import datetime
from importlib.metadata import version
from pathlib import Path

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "mpcli-{dashed}"
version = "0.1.0"
description = "{title}, a page for mpcli"
readme = "README.md"
license = "MIT"
license-files = ["LICENSE"]
requires-python = ">=3.11"
dependencies = ["mpcli{bound}"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points."mpcli.plugins"]
{name} = "mpcli_{name}"

[tool.hatch.build.targets.wheel]
only-include = ["mpcli_{name}.py"]
"""

README = """\
# mpcli-{dashed}

A page for [mpcli](https://pypi.org/project/mpcli/), a textbook of machine perception that runs.

```sh
pip install -e .[test]
mpcli info {name}
mpcli train {name}
mpcli sample {name} --out samples.png
mpcli gradcheck {name}
pytest
```
"""

LICENSE = """\
MIT License

Copyright (c) {year} the authors of mpcli-{dashed}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

IGNORED = "__pycache__/\n*.egg-info/\nbuild/\ndist/\nruns/\n.venv/\n"

NEXT = """\
next:
  cd {directory}
  pip install -e .[test]
  mpcli train {name}
  mpcli sample {name} --out samples.png
  pytest"""

PAGE = '''\
"""{title}: a Gaussian for every pixel, fitted by gradient descent.

    p(x) = prod_i N(x_i; m_i, s_i^2)

Replace this page by your method; name its paper here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mpcli.checks import Case, Sides, identity
from mpcli.kit import datasets
from mpcli.kit.datasets import Images
from mpcli.run import Run, Trained


@dataclass(frozen=True)
class Config:
    steps: Annotated[int, "training steps", Ge(1)] = 500
    batch: Annotated[int, "images a step", Ge(1)] = 64
    lr: Annotated[float, "learning rate", Gt(0)] = 0.02


class Model(nn.Module):
    def __init__(self, cfg: Config, shape: tuple[int, ...]):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shape))
        self.log_std = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> log p(x) [B]
        z = (x - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def train(cfg: Config, run: Run, data: Annotated[str, "dataset of images"] = "digits") -> None:
    images = datasets.load(data, Images).to(run.device)
    model = run.place(Model(cfg, images.shape))
    adam = torch.optim.Adam(model.parameters(), cfg.lr)
    for x in run.track(images.batches(cfg.batch, run.seed), cfg.steps, model=model, adam=adam):
        nll = -model(x).mean()
        adam.zero_grad()
        nll.backward()
        adam.step()
        run.log(nll=nll)
    run.save(model, cfg, shape=images.shape)
    run.result(nll=-model(images.test[:]).mean())


@torch.no_grad()
def sample(trained: Trained, run: Run, n: Annotated[int, "how many", Ge(1)] = 64) -> None:
    model = trained.load(Model, Config)
    noise = torch.randn(n, *model.mean.shape, device=run.device)
    run.image("samples.png", model.mean + model.log_std.exp() * noise)


def gradcheck() -> Iterator[Case]:
    def density(x: Tensor, mean: Tensor, log_std: Tensor) -> Sides:
        model = Model(Config(), (3,)).double()
        model.mean.data, model.log_std.data = mean, log_std
        return model(x[None])[0], torch.distributions.Normal(mean, log_std.exp()).log_prob(x).sum()

    yield identity("log p(x) is a sum of normal log densities", density, (3,), (3,), (3,))
'''

TEST = """\
from mpcli.cli import run


def test_it_trains_and_samples(tmp_path):
    assert run(["train", "{name}", "--steps", "20", "--out", str(tmp_path / "run")]) == 0
    picture = tmp_path / "samples.png"
    assert run(["sample", str(tmp_path / "run"), "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\\x89PNG")


def test_its_equations_hold(tmp_path):
    assert run(["gradcheck", "{name}", "--out", str(tmp_path / "report.json")]) == 0
"""


def _bound() -> str:
    """The versions of mpcli that promise what this one does: those of its minor version, before 1.0."""
    major, minor = map(int, version("mpcli").split(".")[:2])
    return f">={major}.{minor},<{f'0.{minor + 1}' if major == 0 else major + 1}"


def write(directory: Path, name: str) -> Path:
    """Write the package of a page called `name` into a new directory; the directory."""
    fields = {"name": name, "dashed": name.replace("_", "-"), "title": name.replace("_", " ").capitalize()}
    fields |= {"year": str(datetime.now().year), "bound": _bound()}
    files = {"pyproject.toml": PYPROJECT, f"mpcli_{name}.py": PAGE, f"test_{name}.py": TEST}
    files |= {"README.md": README, "LICENSE": LICENSE, ".gitignore": IGNORED}
    directory.mkdir(parents=True)
    for file, text in files.items():
        for key, value in fields.items():
            text = text.replace("{" + key + "}", value)
        (directory / file).write_text(text, encoding="utf-8")
    return directory
