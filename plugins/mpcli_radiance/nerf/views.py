"""Pictures of a scene: which views see a place, cameras that go round it, and distances as colours."""

from dataclasses import replace

import torch
from matplotlib import colormaps
from torch import Tensor

from mpcli.kit.cameras import Cameras, orbit
from mpcli.kit.datasets import Scene

DEPTH = "viridis_r"  # near is bright


def share_of_views(scene: Scene, x: Tensor, most: int = 40) -> Tensor:
    """Of the training views, or `most` of them, the share that has places [N, 3] in the picture and within bounds."""
    index = scene.split.train
    cameras = scene.cameras[index[:: -(-len(index) // most)]]
    pixels, _ = cameras.project(x)
    distance = torch.cdist(cameras.pose[:, :3, 3], x)
    inside = ((pixels >= 0) & (pixels <= pixels.new_tensor([cameras.width, cameras.height]))).all(-1)
    near, far = scene.bounds
    return (inside & (distance >= near) & (distance <= far)).float().mean(0)


def around(scene: Scene, middle: Tensor, n: int, elevation: float, up: str) -> Cameras:
    """`n` cameras on a circle about `middle` [3], at the distance and with the lens of the training's."""
    seen = scene.cameras[scene.split.train]
    axes = dict(zip("xyz", torch.eye(3).tolist(), strict=True))
    above = axes.get(up) or seen.pose[:, :3, 1].mean(0).tolist()
    radius = float((seen.pose[:, :3, 3] - middle).norm(dim=-1).mean())
    circle = orbit(n, radius, elevation, middle.tolist(), above, width=seen.width, height=seen.height).to(
        seen.pose.device
    )
    return replace(circle, focal=seen.focal.mean(0).expand(n, 2), centre=seen.centre.mean(0).expand(n, 2))


def span(distance: Tensor) -> tuple[float, float]:
    """The least and greatest of the distances [n] but for a few; 0 and 1 where there are none."""
    if not len(distance):
        return 0.0, 1.0
    low, high = (float(distance.kthvalue(max(1, round(q * len(distance)))).values) for q in (0.005, 0.995))
    return low, max(high, low + 1e-3)


def depth_map(distance: Tensor, opacity: Tensor, near: float, far: float) -> Tensor:  # [R, H, W] -> [R, 3, H, W]
    """Distances as colours, white where there is nothing."""
    table = torch.from_numpy(colormaps[DEPTH](range(256))[:, :3]).float()
    step = ((distance - near) / (far - near) * 255).round().long().clamp(0, 255)
    return (opacity[..., None] * table[step] + 1 - opacity[..., None]).movedim(-1, 1)
