"""What is drawn of a flow."""

import torch

from mpcli.kit.densities import on_grid
from mpcli_flows.kit.flow import picture


def skewed(x: torch.Tensor) -> torch.Tensor:
    return -0.5 * (x[:, 0] ** 2 + (x[:, 1] - 1).square() / 4)


def test_picture_shows_the_peak_where_it_is_and_y_upwards():
    low, high = (-4.0, -4.0), (4.0, 4.0)
    panels = picture(on_grid(skewed, low, high, 64), torch.tensor([[3.9, 3.9], [100.0, 0.0]]), low, high)
    assert panels.shape == (2, 3, 64, 64) and panels.min() >= 0 and panels.max() <= 1
    brightest = (panels[0].sum(0) == panels[0].sum(0).max()).nonzero().float().mean(0)
    torch.testing.assert_close(brightest, torch.tensor([23.5, 31.5]))  # y = 1 lies above the middle
    assert panels[1, :, 0, 63].max() < 1 and (panels[1] == 1).all(0).sum() == 64 * 64 - 1
