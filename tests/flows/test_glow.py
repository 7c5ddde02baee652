"""Glow: convolutions that mix, normalisation by the first batch, and the walk between two pictures."""

import pytest
import torch
from mutants import larger, part

from mpcli_flows import glow
from mpcli_flows.kit.bijectors import Chain

MUTANTS = {
    "log-determinant": (Chain, "inverse", part(1, larger)),
    "log-determinant of actnorm": (glow.ActNorm, "inverse", part(1, larger)),
    "log-determinant of a convolution": (glow.Conv1x1, "inverse", part(1, larger)),
    "log-determinant of a convolution on the way to data": (glow.Conv1x1, "forward", part(1, larger)),
    "the factors' diagonal": (glow.LUConv1x1, "weight", part(0, larger)),
    "actnorm that is never set": (glow.ActNorm, "fit", lambda original: lambda self, x: None),
}


@pytest.mark.parametrize("layer", [glow.Conv1x1, glow.LUConv1x1])
def test_the_convolution_starts_as_a_rotation(layer):
    weight, logdet = layer(6).double().requires_grad_(False).weight()
    torch.testing.assert_close(weight @ weight.T, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-5)
    assert abs(float(logdet)) < 1e-5


def test_a_learned_mixing_reaches_every_permutation():
    f, order = glow.Conv1x1(5).double(), torch.randperm(5)
    f.matrix.data = torch.eye(5, dtype=torch.float64)[order]
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    z, logdet = f.inverse(x)
    torch.testing.assert_close(z, x[:, order])
    assert logdet.abs().max() < 1e-12


def test_actnorm_is_set_by_the_first_batch_only_and_survives_saving():
    f = glow.ActNorm(3)
    x = 5 + 3 * torch.randn(64, 3, 4, 4)
    z = f.inverse(x)[0]
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.var((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-2)
    loaded = glow.ActNorm(3)
    loaded.load_state_dict(f.state_dict())
    other = torch.randn(64, 3, 4, 4)
    assert torch.equal(loaded.train().inverse(other)[0], f.inverse(other)[0])
    assert f.inverse(other)[0].mean().abs() > 0.5


def test_actnorm_is_not_set_by_evaluation():
    f = glow.ActNorm(3).eval()
    x = 5 + torch.randn(8, 3, 2, 2)
    assert torch.equal(f.inverse(x)[0], x)


def test_glow_walks_from_one_picture_to_another(mpcli):
    small = ("--depth", 1, "--channels", 4, "--steps", 2)
    trained = mpcli("train", "glow", *small, "--quiet").path
    assert mpcli("sample", trained, "--between", "3,8", "-n", 5, "--out", "walk.gif").path.stat().st_size > 0
    refused = mpcli("sample", trained, "--between", "3,300")
    assert refused.code == 2 and "300" in refused.err
    rows = mpcli("train", "glow", "--data", "moons")
    assert rows.code == 2 and "even sides" in rows.err
    faces = mpcli("train", "glow", "--data", "faces")
    assert faces.code == 2 and "25x25" in faces.err
