"""The engine of a flow: a base distribution moved through a bijector, fitted to rows or pictures, drawn from, drawn.

The pages of this chapter differ in the bijector alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpcli.errors import InputError
from mpcli.kit.arrays import write_npz
from mpcli.kit.densities import Density, Examples, load, on_grid, quantised
from mpcli.kit.pictures import density, tiles
from mpcli.run import FIGURES, Run, Trained
from mpcli_flows.kit.bases import Base
from mpcli_flows.kit.bijectors import Chain, Condition, Logit, Reshape, Scale, Units


class Flow(nn.Module):
    """A distribution: draws of the base moved through a bijector (whose inverse leads from data to base).

    `levels` counts the grey levels of the pictures that x fills with noise, see `dequantised`; 0 for other data.
    """

    def __init__(self, bijector: Chain, base: Base, levels: int = 0):
        super().__init__()
        self.bijector = bijector
        self.base = base
        self.levels = levels

    def forward(self, x: Tensor, c: Condition = None) -> Tensor:  # [B, ...] -> log p(x | c) [B]
        z, logdet = self.bijector.inverse(x, c)
        return self.base.log_prob(z) + logdet

    def sample(self, n: int, temperature: float = 1.0, c: Condition = None) -> Tensor:  # -> [n, ...]
        return self.bijector(self.base.sample(n, temperature), c)[0]

    @torch.no_grad()
    def fit_scale(self, examples: Examples) -> None:
        """Set the flow's `Units`, and the first `Scale` from there, so that what stands before them sees variance 1."""
        train = examples.data.train
        x = examples.continuous(train[:: len(train) // 4096 + 1])
        for f in reversed(self.bijector):
            if isinstance(f, (Scale, Units)):
                f.fit(x)
            if isinstance(f, Scale):
                return
            x = f.inverse(x)[0]  # type: ignore[operator]

    def pictures(self, n: int, temperature: float = 1.0, c: Condition = None) -> Tensor:  # -> [n, C, H, W] in [0, 1]
        return quantised(self.sample(n, temperature, c), self.levels)


def to_data(shape: tuple[int, ...]) -> list[nn.Module]:
    """The data's end of a flow on vectors: rows in their units; pictures flat, and through a sigmoid."""
    return [Reshape(*shape), Logit()] if len(shape) == 3 else [Units(*shape)]


@dataclass(frozen=True)
class Target:
    """A normalised log-density of the plane that a flow is to match within [-reach, reach]^2; gap: KL(flow || it)."""

    log_density: Density
    reach: float
    gap: float


def write_samples(
    run: Run, trained: Trained, model: Flow, n: int | None, temperature: float, target: Target | None = None
) -> None:
    """Pictures as a grid; points as CSV or NPZ and, in two dimensions, the density beside them and what it is to match.

    Without a target that is the held-out data, where they can still be read.
    """
    heading = f"{trained.heading}\nsamples" + (f" at temperature {temperature:g}" if temperature != 1 else "")
    if model.levels:
        run.figure("samples.png", tiles(model.pictures(n or 64, temperature), heading))
        return
    x = model.sample(n or 5000, temperature)
    plane = x.shape[1:] == (2,)
    if not (plane and run.suffix in FIGURES):
        write_points(run, x, model(x))
    if plane:
        write_density(run, heading, model, x, target or held_out(trained.options["data"], x))


def write_points(run: Run, x: Tensor, log_density: Tensor) -> None:  # [N, D], [N]
    if run.suffix == ".npz":
        with run.file("samples.npz") as path:
            write_npz(path, samples=x.cpu().numpy(), log_density=log_density.cpu().numpy())
        return
    rows = torch.cat((x, log_density[:, None]), 1).tolist()
    names = [*(f"x{i}" for i in range(x.shape[1])), "log_density"]
    run.table("samples.csv", names, ([f"{value:.7g}" for value in row] for row in rows))


def held_out(data: str, like: Tensor) -> Tensor | None:  # -> [N, 2]
    try:
        return load(data, like.device).data.test[: len(like)]
    except InputError:  # drawing from a model takes no more than the model
        return None


def write_density(run: Run, heading: str, model: Density, x: Tensor, target: Target | Tensor | None) -> None:
    """The density around these points of the plane, the points themselves, and what they are to match."""
    shown = torch.cat((x, target)) if isinstance(target, Tensor) else x
    # The middle 99 percent decide on the frame: one stray point of a heavy tail would shrink the rest to a dot.
    edges = torch.stack([shown.quantile(0.005, 0), shown.quantile(0.995, 0)])  # [2, D]
    middle, half = edges.mean(0), 0.65 * (edges[1] - edges[0]).max()
    (x0, y0), (x1, y1) = (middle - half).tolist(), (middle + half).tolist()
    if isinstance(target, Target):
        heading += f"\nKL(model || target): {target.gap:.3g} nats"
        x0 = y0 = -target.reach
        x1 = y1 = target.reach

    def grid(log_density: Density) -> Tensor:
        return on_grid(log_density, (x0, y0), (x1, y1), 256, like=x)

    wanted = grid(target.log_density) if isinstance(target, Target) else target
    name = "target density" if isinstance(target, Target) else "held-out data"
    figure = density(grid(model), x, (x0, y0), (x1, y1), heading, target=wanted, target_name=name)
    run.figure("density.png", figure)


def log_abs_det(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """log |det df/dz| from the whole Jacobian, by which the flows' own sums are checked."""
    return torch.linalg.slogdet(torch.autograd.functional.jacobian(f, z))[1]
