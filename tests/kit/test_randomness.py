"""Generators that belong to a place."""

import torch

from mpcli.kit.randomness import generator


def numbers(*key: int) -> torch.Tensor:
    return torch.randn(1000, generator=generator(*key))


def test_the_same_place_gives_the_same_numbers_and_others_have_nothing_to_do_with_them():
    assert torch.equal(numbers(3, 7), numbers(3, 7))
    for other in ((3, 8), (4, 7), (3, 7, 1), (-3, 7)):
        assert torch.corrcoef(torch.stack([numbers(3, 7), numbers(*other)]))[0, 1].abs() < 0.15
