"""Planar maps: the root, the constraint, and the four energies with what is known of them."""

import math

import pytest
import torch
from mutants import larger, part

from mpcli.kit.densities import log_integral
from mpcli_flows import planar
from mpcli_flows.planar import BENDS, ENERGIES, Config, FreeEnergy, Planar, PlanarFlow, root

MUTANTS = {
    "log-determinant": (Planar, "forward", part(1, larger)),
    "log-determinant of the inverse": (Planar, "inverse", part(1, larger)),
    "u as it comes, which folds": (Planar, "invertible_u", lambda original: lambda self: (self.u, self.w @ self.u)),
    "a root without a gradient": (planar, "root", lambda original: lambda *given: original(*given).detach()),
    "a slope of another bend": (
        planar,
        "BENDS",
        lambda bends: bends | {"arctan": bends["arctan"]._replace(slope=bends["tanh"].slope)},
    ),
    "no energy": (FreeEnergy, "forward", lambda original: lambda self, z, t=1.0: original(self, z, 0.0)),
}


@pytest.mark.parametrize("h", BENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_root_is_one_also_where_the_map_nearly_folds(dtype, h):
    a = torch.linspace(-30, 30, 4001, dtype=dtype)
    for s in (-0.99, -0.5, 0.0, 3.0, 100.0):
        s = torch.tensor(s, dtype=dtype)
        found = root(a + s * BENDS[h].value(a), s, h)
        torch.testing.assert_close(found, a, rtol=0, atol=3000 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("s", [-0.99, 3.0, 100.0, 1000.0])
def test_the_root_is_found_whatever_the_last_digits_of_tanh_are(s, monkeypatch):
    """Processors and libraries differ in them, and a vector's middle from its end; the search must not wait for it."""
    a = torch.cat((torch.linspace(-30, 30, 40_001), 100 * torch.randn(10_000)))
    y = a.double() + s * a.double().tanh()
    tanh, eps = BENDS["tanh"], torch.finfo(torch.float32).eps
    shaken = tanh._replace(value=lambda x: tanh.value(x) * (1 + 4 * eps * torch.sin(1e5 * x)))
    monkeypatch.setitem(BENDS, "tanh", shaken)
    found = root(y.float(), torch.tensor(s)).double()
    # Each value of a + s tanh(a) is off by some eps of its terms, and the root by that over the slope.
    unsure = 16 * eps * (1 + y.abs() + abs(s)) / (1 + s * (1 - found.tanh().square()))
    assert ((found - a.double()).abs() <= unsure).all()


def test_the_inverse_is_found_far_from_the_data_too():
    """In float32 at scale 100, of strong layers: it leads back to x within the last digits of what was added up."""
    for _ in range(50):
        f = Planar(2).requires_grad_(False)
        for parameter in f.parameters():
            parameter.add_(3.0 * torch.randn_like(parameter))
        x = 100 * torch.randn(1000, 2)
        again = f(f.inverse(x)[0])[0]
        # A digit lost in w^T z comes back multiplied by the slope, at most 1 + |w| |u|.
        lost = torch.finfo(torch.float32).eps * (1 + f.w.norm() * f.invertible_u()[0].norm()) * (x.norm(dim=1) + 1)
        assert ((again - x).norm(dim=1) <= 8 * lost).all()


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
    model = FreeEnergy(flow, ENERGIES["u1"])
    with torch.no_grad():
        before = float(model(flow.base.sample(20_000)).mean())
    adam = torch.optim.Adam(flow.parameters(), 0.02)
    for step in range(400):
        loss = model(flow.base.sample(128), min(1.0, 0.01 + 2 * step / 400)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        after = float(model(flow.base.sample(20_000)).mean())
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
