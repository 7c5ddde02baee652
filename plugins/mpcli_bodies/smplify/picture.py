"""The body over what was seen."""

import torch
from torch import Tensor

GIVEN = (0.95, 0.35, 0.1)


def overlay(body: Tensor, behind: Tensor, points: Tensor, radius: float) -> Tensor:
    """A picture [3, H, W]: the body [4, H, W] half transparent over a background [3, H, W], discs at pixels [n, 2]."""
    cover = 0.75 * body[3:]
    picture = cover * body[:3] + (1 - cover) * behind
    _, height, width = picture.shape
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    near = torch.full((height, width), torch.inf)
    for part in points.split(64):
        squared = (columns - part[:, 0, None, None]).square() + (rows - part[:, 1, None, None]).square()
        near = torch.minimum(near, squared.amin(0))
    disc = (radius + 0.5 - near.sqrt()).clamp(0, 1)
    return disc * torch.tensor(GIVEN)[:, None, None] + (1 - disc) * picture
