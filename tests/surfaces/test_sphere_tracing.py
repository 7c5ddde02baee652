"""Rays against surfaces whose intersections have closed forms."""

import pytest
import torch
from torch import Tensor

from mpcli.kit.sphere_tracing import secant, trace

INFINITE = 100.0


def rays(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """From outside, towards points of a ball of radius 1.3 around the origin: some miss a ball of radius 1."""
    g = torch.Generator().manual_seed(seed)
    origins = 4 * torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    targets = (
        1.3 * torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1) * torch.rand(n, 1, generator=g)
    )
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1)


def ball(x: Tensor) -> Tensor:
    return x.norm(dim=-1) - 1


def truth(origins: Tensor, directions: Tensor) -> Tensor:  # NaN where the ray misses the ball
    b = (origins * directions).sum(-1).double()
    return -b - (b * b - origins.double().square().sum(-1) + 1).sqrt()


def depth_inside(origins: Tensor, directions: Tensor) -> Tensor:  # how deep a ray goes into the ball; < 0: it misses
    return 1 - torch.linalg.cross(origins, directions).norm(dim=-1)


@pytest.mark.parametrize("steepness", [0.7, 1.0, 1.4])
def test_hits_of_a_ball_are_those_of_the_quadratic(steepness):
    origins, directions = rays(2000)
    near, far = torch.zeros(2000), torch.full((2000,), INFINITE)
    t, hit = trace(lambda x: steepness * ball(x), origins, directions, near, far, max(steepness, 1), tolerance=1e-3)
    depth = depth_inside(origins, directions)
    clear = depth.abs() > 2e-3  # closer, it is within the tolerance whether it meets the ball
    assert torch.equal(hit[clear], depth[clear] > 0)
    assert 200 < hit.sum() < 1950
    found = hit & clear
    torch.testing.assert_close(t[found].double(), truth(origins, directions)[found], atol=1e-4, rtol=0)


def test_a_function_steeper_than_promised_is_caught_by_its_sign():
    origins, directions = rays(2000)
    deep = depth_inside(origins, directions) > 0.1
    origins, directions = origins[deep], directions[deep]
    t, hit = trace(lambda x: 1.2 * ball(x), origins, directions, t0(origins), t0(origins) + INFINITE)
    assert hit.all()
    torch.testing.assert_close(t.double(), truth(origins, directions), atol=1e-4, rtol=0)


def test_the_secant_steps_are_what_makes_hits_exact():
    origins, directions = rays(500)
    deep = depth_inside(origins, directions) > 0.01
    origins, directions = origins[deep], directions[deep]
    for refinements in (0, 4):
        t, hit = trace(
            ball, origins, directions, t0(origins), t0(origins) + INFINITE, tolerance=1e-2, refinements=refinements
        )
        assert hit.all()
        off = ball(origins + t[:, None] * directions).abs().max()
        assert off < 1e-5 if refinements else off > 1e-3


def t0(origins: Tensor) -> Tensor:
    return torch.zeros(len(origins))


def test_the_first_surface_is_the_one_that_is_seen():
    wall = torch.tensor([[0.0, 0, -5]]), torch.tensor([[0.0, 0, 1]])

    def two(x: Tensor) -> Tensor:
        return torch.minimum(x.sub(x.new_tensor([0.0, 0, 2])).norm(dim=-1), x.norm(dim=-1)) - 0.5

    t, hit = trace(two, *wall, torch.zeros(1), torch.full((1,), INFINITE))
    assert hit.all() and t.item() == pytest.approx(4.5, abs=1e-5)
    t, hit = trace(two, *wall, torch.full((1,), 6.0), torch.full((1,), INFINITE))
    assert hit.all() and t.item() == pytest.approx(6.5, abs=1e-5)
    assert not trace(two, *wall, torch.zeros(1), torch.full((1,), 4.0))[1].any()
    assert not trace(two, *wall, torch.ones(1), torch.zeros(1))[1].any()


def test_secant():
    x = secant(*torch.tensor([[0.0, 1], [3, 2], [1, 2], [1, 2]]))
    assert x.tolist() == [1.5, 2.0]  # the second line is level
