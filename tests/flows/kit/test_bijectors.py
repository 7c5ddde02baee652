"""The parts of flows by themselves; what holds for whole flows is in tests/flows."""

import pytest
import torch
from torch import nn

from mpcli_flows.kit.bijectors import (
    Chain,
    FactorOut,
    Logit,
    Reshape,
    Scale,
    Shuffle,
    Units,
    Unsqueeze,
    bounded,
)


def scale(*shape: int) -> Scale:
    made = Scale(*shape).double()
    nn.init.normal_(made.shift)
    nn.init.normal_(made.log_scale)
    return made


def units(size: int) -> Units:
    made = Units(size).double()
    made.fit(3 + 7 * torch.randn(50, size))
    return made


PARTS = {
    "scale": (lambda: scale(6), (6,)),
    "units": (lambda: units(6), (6,)),
    "scale of channels": (lambda: scale(2, 1, 1), (2, 3, 4)),
    "logit": (lambda: Logit(0.1), (2, 3)),
    "shuffle": (lambda: Shuffle(7), (7,)),
    "reshape": (lambda: Reshape(2, 3, 1), (6,)),
    "unsqueeze": (Unsqueeze, (8, 2, 3)),
    "factor out": (lambda: FactorOut(Chain([scale(4), Reshape(1, 2, 2)]), (3, 2, 2)), (12,)),
    "chain": (lambda: Chain([scale(4), Reshape(4, 1, 1), Unsqueeze(), Logit()]), (4,)),
}


@pytest.mark.parametrize("name", PARTS)
def test_inverse_and_log_determinant(name):
    make, shape = PARTS[name]
    f = make()
    z = torch.randn(5, *shape, dtype=torch.float64)
    x, logdet = f(z)
    back, backwards = f.inverse(x)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(backwards, -logdet, rtol=0, atol=1e-10)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda z: f(z)[0].flatten(), z[i : i + 1])
        jacobian = jacobian.reshape(z[0].numel(), -1)
        torch.testing.assert_close(logdet[i], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-10)


def test_scale_fits_the_units_of_data():
    x = 3 + 7 * torch.randn(4000, 2, 3, 3)
    for shape in ((2, 3, 3), (2, 1, 1)):
        f = Scale(*shape)
        f.fit(x)
        z, _ = f.inverse(x)
        axes = [0] if shape == (2, 3, 3) else [0, 2, 3]
        torch.testing.assert_close(z.mean(axes), torch.zeros(z.mean(axes).shape), rtol=0, atol=1e-4)
        torch.testing.assert_close(z.var(axes), torch.ones(z.mean(axes).shape), rtol=0, atol=1e-3)
    f = Scale(2)
    f.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))  # the second number never varies
    assert f.log_scale.isfinite().all()


def test_units_are_those_of_the_data_whatever_their_size():
    x = torch.tensor([1e8, 0.0, -4e-7, 7.0]) + torch.tensor([1e6, 1e-8, 1e-9, 0.0]) * torch.randn(4000, 4)
    f = Units(4)
    f.fit(x)
    z, _ = f.inverse(x)
    assert z[:, 3].abs().max() == 0 and f.unit.isfinite().all()  # the last number never varies
    torch.testing.assert_close(z[:, :3].mean(0), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(z[:, :3].std(0), torch.ones(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(f(z)[0], x, rtol=1e-6, atol=1e-12)


def test_unsqueeze_takes_four_channels_to_a_block_of_pixels():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    deep, _ = Unsqueeze().inverse(x)
    assert deep.shape == (1, 4, 2, 2)
    assert deep[0, :, 0, 0].tolist() == [0, 1, 4, 5]


def test_shuffle_survives_saving():
    f, g = Shuffle(50), Shuffle(50)
    g.load_state_dict(f.state_dict())
    x = torch.randn(3, 50)
    assert torch.equal(f(x)[0], g(x)[0]) and not torch.equal(f(x)[0], x)


def test_bounded_is_the_identity_near_0_and_stays_below_its_limit():
    a = torch.tensor([-1e9, -1e-4, 0.0, 1e-4, 1e9])
    torch.testing.assert_close(bounded(a, 2.0), torch.tensor([-2, -1e-4, 0, 1e-4, 2]), rtol=1e-6, atol=0)
