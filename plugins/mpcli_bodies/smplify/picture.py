"""The body over what was seen."""

import torch
import trimesh
from matplotlib.figure import Figure
from torch import Tensor

from mpcli.kit import pictures, raster
from mpcli.kit.cameras import Cameras

SIDE = 640  # pixels along the longer side of a picture that no photograph lies behind
SHOWN = 800  # pixels along the longer side of a figure at most
MANY = 100  # points from which on they are drawn as dots


def figure(
    mesh: trimesh.Trimesh, camera: Cameras, seen: Tensor, fitted: Tensor | None, behind: Tensor | None, heading: str
) -> Figure:
    """The body half transparent over a photograph, or filling a grey ground, with observed and fitted points.

    Args:
        seen: observed points, pixels [n, 2].
        fitted: the same points of the body, pixels [n, 2].
        behind: the photograph [3, H, W], as large as the camera's picture.
    """
    if behind is None:
        outline = camera.project(torch.tensor(mesh.vertices, dtype=torch.float32))[0][0]
        camera, low, scale = closer(camera, torch.cat([outline, seen]))
        seen = (seen - low) * scale
        fitted = None if fitted is None else (fitted - low) * scale
        behind = torch.full((3, camera.height, camera.width), 0.93)
    body = raster.render_mesh(mesh, camera)[0]
    cover = 0.75 * body[3:]
    over = cover * body[:3] + (1 - cover) * behind
    shrink = min(1.0, SHOWN / max(camera.width, camera.height))
    width, height = round(camera.width * shrink), round(camera.height * shrink)
    drawn = pictures.figure(heading, max(width, 360) + 2 * pictures.MARGIN, height + 80)
    axes = drawn.subplots()
    axes.imshow(over.clamp(0, 1).permute(1, 2, 0).numpy())
    axes.plot(*seen.T.numpy(), "o", color="tab:orange", markersize=5 if len(seen) < MANY else 1, label="observed")
    if fitted is not None:
        axes.plot(*torch.stack([seen, fitted]).permute(2, 0, 1).numpy(), color="black", linewidth=0.8)
        axes.plot(*fitted.T.numpy(), "x", color="tab:blue", markersize=5, label="fitted")
    axes.set(xlim=(0, camera.width), ylim=(camera.height, 0))
    axes.set_axis_off()
    drawn.legend(loc="outside lower center", ncols=2, fontsize=pictures.NAME)
    return drawn


def closer(camera: Cameras, points: Tensor) -> tuple[Cameras, Tensor, float]:
    """The part of a camera's picture that holds these pixels [n, 2], enlarged; its corner, and by how much."""
    low, high = points.amin(0), points.amax(0)
    margin = 0.05 * (high - low).max()
    low, size = low - margin, high - low + 2 * margin
    scale = float(SIDE / size.max())
    width, height = (max(1, round(side * scale)) for side in size.tolist())
    return Cameras(camera.pose, camera.focal * scale, (camera.centre - low) * scale, width, height), low, scale
