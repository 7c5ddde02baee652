"""What judges a likelihood: noise, nats, bits, integrals."""

import math

import pytest
import torch
from torch import Tensor

from mpcli.kit.datasets import Table
from mpcli.kit.densities import Examples, bits_per_dim, dequantised, log_integral, nll, on_grid, quantised


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_level_fills_its_own_cell_and_comes_back(levels):
    x = (torch.arange(levels, dtype=torch.float64) / (levels - 1)).repeat(1000, 1)
    noisy = dequantised(x, levels)
    assert torch.equal(quantised(noisy, levels), x)
    inside = noisy * levels - torch.arange(levels)
    assert inside.min() >= 0 and inside.max() <= 1
    assert abs(float(inside.mean()) - 0.5) < 0.03
    assert quantised(torch.tensor([-0.3, 1.3]), levels).tolist() == [0, 1]


def test_dequantisation_bounds_the_probability():
    """E_u[log p] - D log(levels) <= log P where a cell's sum is known: p(x) = 2x, P(k) = (2k + 1)/levels^2."""
    levels = 17
    k = torch.arange(levels)
    x = dequantised((k / (levels - 1)).repeat(20_000, 1), levels)
    bound = (2 * x).log().mean(0) - math.log(levels)
    exact = ((2 * k + 1) / levels**2).log()
    assert (bound <= exact + 0.01).all()
    assert (exact - bound)[0] > 0.2 and (exact - bound)[1:].max() < 0.05


def test_dequantisation_repeats_with_its_generator():
    x = torch.zeros(3, 1, 2, 2)
    draws = [dequantised(x, 17, torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(*draws) and not torch.equal(draws[0], dequantised(x, 17))


def test_a_uniform_probability_costs_the_bits_of_its_levels():
    assert bits_per_dim(torch.tensor(10 * math.log(256)), 10).item() == pytest.approx(8)


def test_a_flat_density_over_noisy_pictures_is_the_uniform_probability_of_the_pictures():
    x = torch.randint(17, (700, 1, 2, 2)) / 16
    found = nll(lambda x: torch.zeros(len(x)), x, levels=17)
    torch.testing.assert_close(found, torch.full((700,), 4 * math.log(17)))


def test_nll_depends_neither_on_earlier_draws_nor_on_the_other_examples_given():
    x, c = torch.rand(30, 1, 2, 2), torch.rand(30, 1)

    def log_prob(x: Tensor, c: Tensor) -> Tensor:
        return x.flatten(1).sum(1) * c[:, 0]

    whole = nll(log_prob, x, c, levels=256)
    torch.rand(3)
    assert torch.equal(nll(log_prob, x, c, levels=256), whole)
    expected = -(x.flatten(1).sum(1) * c[:, 0])
    for part in (1, 7, 512):
        torch.testing.assert_close(nll(log_prob, x, c, part=part), expected)


def skewed(x: Tensor) -> Tensor:
    return -0.5 * (x[:, 0] ** 2 + (x[:, 1] - 1).square() / 4)


def test_integral_over_the_plane():
    total = log_integral(skewed, (-9, -19), (9, 21), 200, like=torch.zeros((), dtype=torch.float64))
    assert abs(float(total) - math.log(4 * math.pi)) < 1e-9


def test_grid_has_x_along_its_columns():
    values = on_grid(lambda x: x[:, 0] + 10 * x[:, 1], (0, 0), (4, 2), 4)
    expected = torch.tensor([[0.5, 1.5, 2.5, 3.5]]) + 10 * torch.tensor([[0.25], [0.75], [1.25], [1.75]])
    torch.testing.assert_close(values, expected)


def test_the_noise_of_a_batch_belongs_to_its_seed_and_step():
    level = torch.full((6, 500), 100 / 255)
    examples = Examples(Table(level, level, level), 256)
    noise = [examples.batches(4, seed)(step) for seed, step in ((0, 1), (0, 2), (1, 1), (2**31, 1))]
    assert torch.equal(noise[0], examples.batches(4, 0)(1))
    rows = torch.cat(noise)
    apart = torch.corrcoef(rows).fill_diagonal_(0)
    assert apart.abs().max() < 0.25  # 4.5 standard deviations of 500 independent pairs take 0.2
