"""Planar maps: the root, the constraint, and the four energies with what is known of them."""

import math

import pytest
import torch

from mpcli.kit.distributions import log_integral
from mpcli_flows.planar import ENERGIES, Config, Planar, PlanarFlow, root


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_root_is_one_also_where_the_map_nearly_folds(dtype):
    a = torch.linspace(-30, 30, 4001, dtype=dtype)
    for s in (-0.99, -0.5, 0.0, 3.0, 100.0):
        s = torch.tensor(s, dtype=dtype)
        found = root(a + s * a.tanh(), s)
        torch.testing.assert_close(found, a, rtol=0, atol=3000 * torch.finfo(dtype).eps)


def test_without_the_constraint_the_map_folds_and_with_it_never():
    f = Planar(2)
    f.w.data, f.u.data = torch.tensor([1.0, 0.0]), torch.tensor([-3.0, 0.0])
    along = torch.stack((torch.linspace(-3, 3, 601), torch.zeros(601)), 1)
    naive = along + f.u * torch.tanh(along @ f.w)[:, None]
    assert (naive[:, 0].diff() < 0).any()
    assert (f(along)[0][:, 0].diff() > 0).all()
    assert f.invertible_u()[0] @ f.w > -1


def test_energies_have_the_normalisers_that_quadrature_finds():
    for energy in ENERGIES.values():
        coarse, fine = (
            log_integral(lambda x, e=energy: -e(x), (-8, -8), (8, 8), size, like=torch.zeros((), dtype=torch.float64))
            for size in (600, 900)
        )
        assert abs(float(coarse - fine)) < 1e-3
    log_z = log_integral(lambda x: -ENERGIES["u1"](x), (-8, -8), (8, 8), 900)
    assert abs(float(log_z) - 1.8775) < 1e-3


def test_free_energy_falls_towards_minus_log_z_and_not_below():
    torch.manual_seed(1)
    flow = PlanarFlow(Config(layers=4), 2)
    with torch.no_grad():
        before = float(sum(flow.free_energy(ENERGIES["u1"], 20_000)))
    adam = torch.optim.Adam(flow.parameters(), 0.02)
    for step in range(400):
        log_q, u = flow.free_energy(ENERGIES["u1"], 128)
        loss = log_q + min(1.0, 0.01 + 2 * step / 400) * u
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        after = float(sum(flow.free_energy(ENERGIES["u1"], 20_000)))
    assert after < before - 1 and after < -1.4
    assert after > -1.8775 - 0.02


def test_verbs(mpcli):
    first = mpcli("train", "planar", "--layers", 2, "--steps", 3, "--data", "u4", "--quiet", "--json").json
    assert first["metrics"]["gap"] > 0 and math.isfinite(first["metrics"]["free_energy"])
    assert mpcli("sample", first["run"], "-n", 50, "--out", "x.png").code == 0
    rows = mpcli("train", "planar", "--layers", 2, "--steps", 3, "--data", "moons", "--quiet", "--json").json
    assert mpcli("evaluate", rows["run"], "--json").json["metrics"]["nll"] == pytest.approx(rows["metrics"]["nll"])
    refused = mpcli("train", "planar", "--data", "digits")
    assert refused.code == 2 and "pictures" in refused.err
