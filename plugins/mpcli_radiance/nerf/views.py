"""The frame of a scene: how large it is, and cameras that go round it."""

from dataclasses import replace

import torch
from torch import Tensor

from mpcli.kit.cameras import Cameras, orbit
from mpcli.kit.datasets import Scene


def extent(scene: Scene) -> tuple[tuple[float, ...], float]:
    """Middle and half the side of the smallest cube that holds what the training views see within bounds."""
    origins, directions = scene.cameras[scene.split.train].rays()
    corners = (slice(None), slice(None, None, scene.cameras.height - 1), slice(None, None, scene.cameras.width - 1))
    ends = torch.cat([(origins + t * directions)[corners].flatten(0, 2) for t in scene.bounds])
    low, high = ends.amin(0), ends.amax(0)
    return tuple(((low + high) / 2).tolist()), float((high - low).max() / 2)


def share_of_views(scene: Scene, x: Tensor, most: int = 40) -> Tensor:
    """Of the training views, or `most` of them, the share that has places [N, 3] in the picture and within bounds."""
    index = scene.split.train
    cameras = scene.cameras[index[:: -(-len(index) // most)]]
    pixels, _ = cameras.project(x)
    distance = torch.cdist(cameras.pose[:, :3, 3], x)
    inside = ((pixels >= 0) & (pixels <= pixels.new_tensor([cameras.width, cameras.height]))).all(-1)
    near, far = scene.bounds
    return (inside & (distance >= near) & (distance <= far)).float().mean(0)


def around(scene: Scene, n: int, elevation: float, up: str) -> Cameras:
    """`n` cameras on a circle about the middle of the scene, at the distance and with the lens of the training's."""
    seen = scene.cameras[scene.split.train]
    middle, _ = extent(scene)
    axes = dict(zip("xyz", torch.eye(3).tolist(), strict=True))
    above = axes.get(up) or seen.pose[:, :3, 1].mean(0).tolist()
    radius = float((seen.pose[:, :3, 3] - seen.pose.new_tensor(middle)).norm(dim=-1).mean())
    circle = orbit(n, radius, elevation, middle, above, width=seen.width, height=seen.height).to(seen.pose.device)
    return replace(circle, focal=seen.focal.mean(0).expand(n, 2), centre=seen.centre.mean(0).expand(n, 2))
