"""Pictures of implicit functions: the surface by sphere tracing, and level sets in a section."""

from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import avg_pool2d, normalize

from mpcli.errors import InputError
from mpcli.kit import isosurface
from mpcli.kit.cameras import Cameras, framing
from mpcli.kit.isosurface import Field
from mpcli.kit.pictures import figure
from mpcli.kit.rays import intersect_box
from mpcli.kit.sphere_tracing import trace
from mpcli.run import ANIMATIONS, Run, watched

UP = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}
OUTLINE = 24  # cells along the box, enough to frame a surface
LINES = 24  # level sets in a section


@dataclass(frozen=True)
class View:
    """How a user looks at a surface."""

    path: Annotated[Literal["still", "orbit"], "one picture, or once round; .gif and .mp4 are orbits"] = "still"
    frames: Annotated[int, "pictures of an orbit", Ge(1)] = 24
    size: Annotated[int, "pixels along each side", Interval(ge=8, le=4096)] = 320
    azimuth: Annotated[float, "angle of the (first) camera around the object, radians"] = 0.5
    elevation: Annotated[float, "angle of the camera above the object, radians", Interval(ge=-1.57, le=1.57)] = 0.35
    zoom: Annotated[float, "1: the object just fits", Gt(0)] = 1.0
    up: Annotated[Literal["x", "y", "z"], "the axis that points up"] = "z"

    def turning(self, run: Run) -> bool:
        return self.path == "orbit" or run.suffix in ANIMATIONS

    def cameras(self, points: Tensor, turning: bool) -> Cameras:
        """Cameras that see points [n, 3], at twice the size of the pictures."""
        side = 2 * self.size
        n = self.frames if turning else 1
        return framing(points, UP[self.up], self.azimuth, self.elevation, height=side, width=side, n=n, zoom=self.zoom)


def outline(field: Field, box: isosurface.Box, device: torch.device | str) -> Tensor:
    """Points of the surface [n, 3], enough to frame it; corners of the box where it has none."""
    try:
        return torch.from_numpy(isosurface.marching_cubes(field, box, OUTLINE, method="dense", device=device).vertices)
    except InputError:
        return torch.tensor(list(product(*zip(*box, strict=True))))


def normals(
    field: Field, slope: Field, cameras: Cameras, box: isosurface.Box, lipschitz: float, tolerance: float
) -> Tensor:
    """What cameras see of f = 0 in a box, white where nothing: n = grad f / |grad f| as colour (n + 1) / 2.

    Args:
        slope: grad f, [n, 3] -> [n, 3].
        cameras: at twice the size, so that each pixel is a mean of four rays.
        lipschitz, tolerance: as `trace` has them.

    Returns:
        [N, 3, H, W]
    """
    device = cameras.pose.device
    low, high = (torch.tensor(corner, device=device) for corner in box)
    pictures = []
    for camera in watched(range(len(cameras)), "frames"):
        origins, directions = (ray.reshape(-1, 3) for ray in cameras[camera].rays())
        # a plane has no inside: it is seen from either side
        outside = (lambda x: -field(x)) if field(origins[:1]) < 0 else field
        near, far = intersect_box(origins, directions, low, high)
        colour = torch.ones_like(origins)
        for rays in torch.arange(len(origins), device=device).split(isosurface.AT_ONCE):
            t, hit = trace(outside, origins[rays], directions[rays], near[rays], far[rays], lipschitz, tolerance)
            rays = rays[hit]
            if not len(rays):
                continue
            n = normalize(slope(origins[rays] + t[hit, None] * directions[rays]), dim=-1)
            colour[rays] = (n + 1) / 2
        pictures.append(avg_pool2d(colour.T.reshape(3, cameras.height, cameras.width), 2))
    return torch.stack(pictures)


def render(run: Run, view: View, field: Field, box: isosurface.Box, lipschitz: float = 1.0) -> None:
    """What the verb `render` of an analytic shape does: its surface, beside the level sets of f in the middle section.

    `lipschitz` is a bound of |grad f| in the box.
    """
    turning = view.turning(run)
    cameras = view.cameras(outline(field, box, run.device), turning).to(run.device)
    extent = max(b - a for a, b in zip(*box, strict=True))
    pictures = normals(field, vmap(grad(field)), cameras, box, lipschitz, 1e-4 * lipschitz * extent)
    if turning:
        run.image("orbit.gif", pictures)
    else:
        run.figure("surface.png", beside_its_section(run.heading, pictures[0].cpu(), field, box))


def beside_its_section(heading: str, picture: Tensor, field: Field, box: isosurface.Box) -> Figure:
    """A picture [3, H, W] of the surface, and level sets of f in the plane y = middle of the box, the surface thick."""
    (left, front, bottom), (right, back, top) = box
    x, z = torch.meshgrid(torch.linspace(left, right, 200), torch.linspace(bottom, top, 200), indexing="xy")
    values = field(torch.stack([x, torch.full_like(x, (front + back) / 2), z], -1).view(-1, 3)).view_as(x)
    made = figure(heading, 900, 440)
    surface, section = made.subplots(1, 2)
    surface.imshow(picture.movedim(0, -1).numpy())
    surface.set_axis_off()
    surface.set_title("f = 0; colour: the normal n, as (n + 1) / 2", fontsize="small")
    most = float(values.abs().max())
    levels = MaxNLocator(LINES, symmetric=True).tick_values(-most, most)
    shown = section.contourf(x, z, values, levels, cmap="RdBu_r")
    section.contour(x, z, values, levels, colors="0.4", linewidths=0.4)
    if values.min() < 0 < values.max():
        section.contour(x, z, values, [0.0], colors="black", linewidths=1.5)
    section.set(xlabel="x", ylabel="z", aspect="equal")
    section.set_title(f"f in the section y = {(front + back) / 2:g}", fontsize="small")
    made.colorbar(shown, ax=section, shrink=0.8)
    return made
