"""The engine of a flow: a base distribution moved through a bijector, fitted to rows or pictures, drawn from, drawn.

The pages of this chapter differ in the bijector alone.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpcli.kit.arrays import write_npz
from mpcli.kit.densities import Examples, on_grid, quantised
from mpcli.run import Run
from mpcli_flows.kit.bases import Base
from mpcli_flows.kit.bijectors import Chain, Condition, Logit, Reshape, Scale


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
        """Give the flow's `Scale` the units of the training data, so that the maps behind it see variance 1."""
        train = examples.data.train
        x = examples.continuous(train[:: len(train) // 4096 + 1])
        for f in reversed(self.bijector):
            if isinstance(f, Scale):
                f.fit(x)
                return
            x = f.inverse(x)[0]  # type: ignore[operator]

    def pictures(self, n: int, temperature: float = 1.0, c: Condition = None) -> Tensor:  # -> [n, C, H, W] in [0, 1]
        return quantised(self.sample(n, temperature, c), self.levels)


def to_data(shape: tuple[int, ...]) -> list[nn.Module]:
    """The data's end of a flow on vectors: rows as they are; pictures flat, and through a sigmoid."""
    return [Reshape(*shape), Logit()] if len(shape) == 3 else []


def write_samples(run: Run, model: Flow, n: int | None, temperature: float) -> None:
    """Pictures as a grid; points as CSV or NPZ and, in two dimensions, with a picture of the density beside them."""
    if model.levels:
        run.image("samples.png", model.pictures(n or 64, temperature))
        return
    x = model.sample(n or 5000, temperature)
    plane = x.shape[1:] == (2,)
    if plane and run.suffix in (".png", ".jpg"):
        write_density(run, model, x)
        return
    with run.file("samples.npz" if run.suffix == ".npz" else "samples.csv") as path:
        if path.suffix == ".npz":
            write_npz(path, samples=x.cpu().numpy(), log_density=model(x).cpu().numpy())
        else:
            columns = torch.cat((x, model(x)[:, None]), 1).cpu().numpy()
            names = ",".join([*(f"x{i}" for i in range(x.shape[1])), "log_density"])
            np.savetxt(path, columns, "%.7g", ",", header=names, comments="")
    if plane:
        write_density(run, model, x)


def write_density(run: Run, model: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """The density around these points of the plane, and the points themselves."""
    # The middle 99 percent decide on the frame: one stray point of a heavy tail would shrink the rest to a dot.
    edges = torch.stack([x.quantile(0.005, 0), x.quantile(0.995, 0)])  # [2, D]
    middle, half = edges.mean(0), 0.65 * (edges[1] - edges[0]).max()
    (x0, y0), (x1, y1) = (middle - half).tolist(), (middle + half).tolist()
    panels = picture(on_grid(model, (x0, y0), (x1, y1), 256, like=x), x, (x0, y0), (x1, y1))
    run.image("density.png", panels)


def picture(
    log_density: Float[Tensor, "height width"],
    points: Float[Tensor, "n 2"],
    low: tuple[float, float],
    high: tuple[float, float],
) -> Float[Tensor, "2 3 height width"]:
    """Two panels of one box, y upwards: a density as it is on a grid (see `on_grid`), and points drawn from it."""
    import matplotlib

    height, width = log_density.shape
    density = (log_density - log_density.max()).exp().cpu()
    table = torch.tensor(matplotlib.colormaps["magma"].colors, dtype=density.dtype)  # type: ignore[attr-defined]
    # The square root shows the thin parts too, as eyes and print do not tell the darkest tenth apart.
    left = table[(density.sqrt() * 255).round().long().clamp(0, 255)]
    place = (points.cpu() - torch.tensor(low)) / (torch.tensor(high) - torch.tensor(low))
    place = place[((place >= 0) & (place < 1)).all(1)]
    right = torch.ones(height, width, 3, dtype=density.dtype)
    right[(place[:, 1] * height).long(), (place[:, 0] * width).long()] = table[80]
    return torch.stack((left, right)).flip(1).movedim(-1, 1)


def log_abs_det(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """log |det df/dz| from the whole Jacobian, by which the flows' own sums are checked."""
    return torch.linalg.slogdet(torch.autograd.functional.jacobian(f, z))[1]
