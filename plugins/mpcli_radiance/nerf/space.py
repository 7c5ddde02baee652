"""Where a scene may hold something: the visual hull, which the silhouettes of its views leave of space.

Laurentini, The Visual Hull Concept for Silhouette-Based Image Understanding, 1994. doi:10.1109/34.273735
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, max_pool3d

from mpcli.kit import rays
from mpcli.kit.cameras import Cameras
from mpcli.kit.datasets import Scene
from mpcli.run import watched

CELLS = 64  # along each side of the box
PARTS = 128  # of a ray, each open or closed as the cell in its middle is
VIEWS = 60  # silhouettes at most
PASSES = (32, 32, CELLS)  # cells along boxes, each box around what is left of the one before
SEEN = 0.5  # share of the views that must have a place in the picture
INSIDE = 0.95  # share of those that must see it within the silhouette
ASKED = 500  # pixels of a silhouette whose rays are followed into the hull
LOST = 0.01  # share of what the silhouettes show that the hull may miss
SAME = 4 / 255  # colours that differ by less are one, as are opacities


class Openings(NamedTuple):
    """The parts of rays that may hold something, as one length s after the other: [R], [R], and [R, P] cumulated."""

    near: Tensor
    part: Tensor
    covered: Tensor

    @property
    def length(self) -> Tensor:
        """How long all open parts of each ray are together [R]."""
        return self.covered[:, -1]

    def of(self, rays: Tensor) -> "Openings":
        """Those of some of the rays."""
        return Openings(*(x[rays] for x in self))

    def at(self, s: Tensor) -> Tensor:
        """Distances t [R, N] from the origins where that length [R, N] of open parts has been passed."""
        i = torch.searchsorted(self.covered, s.contiguous()).clamp(max=self.covered.shape[1] - 1)
        return self.near[:, None] + self.part[:, None] * (i + 1) - (self.covered.gather(1, i) - s)


class Space(nn.Module):
    """A box of cells, open where there may be something, and between which distances along a ray it is looked for."""

    low: Tensor
    high: Tensor
    bounds: Tensor
    cells: Tensor

    def __init__(self, low: Sequence[float] = (-1, -1, -1), high: Sequence[float] = (1, 1, 1)):
        super().__init__()
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(high, dtype=torch.float32))
        self.register_buffer("bounds", torch.tensor([0.0, torch.finfo(torch.float32).max]))
        self.register_buffer("cells", torch.ones(CELLS, CELLS, CELLS, dtype=torch.bool))

    @property
    def middle(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def reach(self) -> Tensor:
        """Half the longest side of the box."""
        return (self.high - self.low).max() / 2

    def holds(self, x: Tensor) -> Tensor:  # places [..., 3] -> [...]
        cell = ((x - self.low) / (self.high - self.low) * CELLS).floor()
        inside = ((cell >= 0) & (cell < CELLS)).all(-1)
        i, j, k = cell.clamp(0, CELLS - 1).long().unbind(-1)
        return inside & self.cells[i, j, k]

    def open(self, origins: Tensor, directions: Tensor) -> Openings:  # rays [R, 3]
        enter, leave = rays.intersect_box(origins, directions, self.low, self.high)
        near = torch.maximum(enter, self.bounds[0])
        part = (torch.minimum(leave, self.bounds[1]) - near).clamp(min=0) / PARTS
        t = near[:, None] + part[:, None] * (torch.arange(PARTS, device=part.device) + 0.5)
        held = self.holds(origins[:, None] + t[..., None] * directions[:, None])
        return Openings(near, part, (held * part[:, None]).cumsum(-1))


def measured(scene: Scene, background: Tensor | None) -> tuple[Space, Tensor, str]:
    """The space of a scene, the colour [3] behind it, and a sentence on what was found.

    `background` is the colour where it is known. Otherwise pictures with opacity are laid on white, and others have the
    median of what is at their borders behind them. Where a background can be told from the scene, the hull of the
    silhouettes is the space; else all that the training views see within the scene's bounds.
    """
    index = scene.split.train
    some = index[:: -(-len(index) // VIEWS)]
    images, shapes = scene.images[some], None
    if images.shape[1] == 4:
        colour = torch.ones(3, device=images.device) if background is None else background
        shapes = images[:, 3] > SAME
    else:
        sides = [images[:, :, 0], images[:, :, -1], images[..., 0], images[..., -1]]
        ends = torch.cat(sides, -1)  # [N, C, 2 H + 2 W]
        colour = ends.movedim(1, 0).flatten(1).median(1).values if background is None else background
        if (ends - colour[:, None]).abs().amax(1).lt(SAME).float().mean() > INSIDE:
            shapes = silhouettes(images, colour)
    whole = frusta(scene)
    if shapes is not None and shapes.any():
        hull = carved(shapes, scene.cameras[some], whole)
        if hull is not None:
            share = float((hull.high - hull.low).prod() * hull.cells.float().mean() / (whole.high - whole.low).prod())
            return hull, colour, f"its silhouettes leave {share:.2%} of the space before the cameras"
        none = "its silhouettes agree on no shape: if it stands before a plain ground, its cameras are wrong"
        return whole, colour, none
    return whole, colour, "it has no plain background, and is looked for between its bounds"


def frusta(scene: Scene) -> Space:
    """The box of what the training views see between the scene's bounds."""
    origins, directions = scene.cameras[scene.split.train].rays()
    corners = (slice(None), slice(None, None, scene.cameras.height - 1), slice(None, None, scene.cameras.width - 1))
    ends = torch.cat([(origins + t * directions)[corners].flatten(0, 2) for t in scene.bounds])
    space = Space(ends.amin(0).tolist(), ends.amax(0).tolist()).to(ends.device)
    space.bounds.copy_(torch.tensor(scene.bounds))
    return space


def silhouettes(images: Tensor, colour: Tensor) -> Tensor:
    """Where pictures [N, 3, H, W] show something [N, H, W]: all that their borders' background does not reach.

    What has the background's colour and is enclosed, such as a highlight, is not background.
    """
    same = (images - colour[:, None, None]).abs().amax(1) < SAME
    shapes = []
    for picture in same.cpu().numpy():
        regions, _ = ndimage.label(picture)
        outside = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
        shapes.append(torch.from_numpy(~np.isin(regions, outside[outside > 0])))
    return torch.stack(shapes).to(images.device)


def carved(shapes: Tensor, cameras: Cameras, space: Space) -> Space | None:
    """The hull of silhouettes [N, H, W] within a space, or None where it does not explain them."""
    low, high = space.low, space.high
    for cells in watched(PASSES, "carving the space"):
        size = (high - low) / cells
        axes = [low[i] + size[i] * (torch.arange(cells, device=low.device) + 0.5) for i in range(3)]
        x = torch.cartesian_prod(*axes)
        kept = within(x, float(size.norm()), shapes, cameras)
        if not kept.any():
            return None
        box = low, high
        low, high = x[kept].amin(0) - 1.5 * size, x[kept].amax(0) + 1.5 * size
    hull = Space(*(corner.tolist() for corner in box)).to(x.device)
    hull.cells.copy_(max_pool3d(kept.view(1, CELLS, CELLS, CELLS).float(), 3, 1, 1)[0] > 0)
    lost = shown = 0
    for i, shape in enumerate(shapes):
        origins, directions = cameras[i].rays()
        chosen = shape.flatten().nonzero()[:, 0]
        chosen = chosen[:: -(-len(chosen) // ASKED) or 1]
        length = hull.open(origins.flatten(0, 2)[chosen], directions.flatten(0, 2)[chosen]).length
        lost, shown = lost + int((length == 0).sum()), shown + len(chosen)
    return hull if lost <= LOST * shown else None


def within(x: Tensor, size: float, shapes: Tensor, cameras: Cameras) -> Tensor:
    """Whether cells of a diagonal `size` about places [P, 3] are in the pictures, and within the silhouettes there."""
    left, seen, missed = torch.arange(len(x), device=x.device), x.new_zeros(len(x)), x.new_zeros(len(x))
    middle = (x[0] + x[-1]) / 2
    for i, shape in enumerate(shapes):
        camera = cameras[i]
        away = float((camera.pose[0, :3, 3] - middle).norm().clamp(min=1e-6))
        radius = min(math.ceil(size / 2 * float(camera.focal.max()) / away), min(shape.shape) // 2)
        wide = max_pool2d(shape[None].float(), (1, 2 * radius + 1), 1, (0, radius))  # a cell is some pixels wide ...
        grown = max_pool2d(wide, (2 * radius + 1, 1), 1, (radius, 0))[0]  # ... and high
        pixels, depth = camera.project(x[left])
        column, row = pixels[0].floor().long().unbind(-1)
        pictured = (depth[0] > 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        seen[left] += pictured
        missed[left[pictured]] += 1 - grown[row[pictured], column[pictured]]
        left = left[missed[left] <= (1 - INSIDE) * len(shapes)]  # the others cannot be kept any more
    kept = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    kept[left] = (seen[left] >= SEEN * len(shapes)) & (missed[left] <= (1 - INSIDE) * seen[left])
    return kept
