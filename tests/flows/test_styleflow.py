"""Edits: an attribute goes where it is told to, the others stay, and what is measured is what its name says."""

import math

import pytest
import torch
from mutants import larger, part, result

from mpcli.kit import datasets
from mpcli_flows import styleflow
from mpcli_flows.styleflow import Config, StyleFlow, attributes
from mpcli_latent import vae

MUTANTS = {
    "log-determinant": (styleflow.ConditionalCoupling, "inverse", part(1, larger)),
    "attributes that reach nothing": (
        StyleFlow,
        "edit",
        lambda original: lambda self, w, a, wanted: original(self, w, a, a),
    ),
    "half a density": (StyleFlow, "forward", result(lambda log_p: log_p / 2)),
    "slant to the other side": (styleflow, "attributes", lambda original: lambda x: original(x.flip(3))),
}


def test_attributes_of_drawings_whose_attributes_are_known():
    upright, leaning = torch.zeros(1, 1, 9, 9), torch.zeros(1, 1, 9, 9)
    upright[..., 1:8, 4] = 1
    for row in range(1, 8):
        leaning[..., row, 8 - row] = 1  # as a slash
    (ink, slant, width), (ink2, slant2, width2) = attributes(torch.cat((upright, leaning))).tolist()
    assert ink == ink2 == pytest.approx(7 / 81)
    assert slant == pytest.approx(0, abs=1e-5) and slant2 == pytest.approx(1, abs=1e-4)
    assert width < 0.01 and width2 == pytest.approx(0.5, abs=0.01)  # columns at steps of a quarter, seven of them
    assert attributes(torch.zeros(1, 1, 8, 8)).isfinite().all()
    shifted = attributes(upright.roll(2, 3))
    torch.testing.assert_close(shifted, attributes(upright), rtol=0, atol=1e-5)


def toy(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A latent space of which all is known: w = (a + e_1 / 4, 2 a + e_2 / 4), e what the attribute does not say."""
    a, e = torch.randn(n, 1), torch.randn(n, 2)
    return torch.cat((a, 2 * a), 1) + e / 4, a


def test_an_edit_moves_the_attribute_and_keeps_the_rest():
    chain = styleflow.couplings(Config(couplings=4, hidden=(32,)), 2, 1)
    flow = styleflow.Flow(chain, styleflow.base("normal", 2))
    adam = torch.optim.Adam(flow.parameters(), 0.01)
    for _ in range(400):
        loss = -flow(*toy(256)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    w, a = toy(500)
    with torch.no_grad():
        known = math.log(2 * math.pi * math.e / 16)  # the entropy of e / 4
        assert abs(-float(flow(w, a).mean()) - known) < 0.15
        moved = flow.bijector(flow.bijector.inverse(w, a)[0], a + 0.5)[0] - w
    assert (moved - torch.tensor([0.5, 1.0])).abs().mean() < 0.08


def test_learns_to_edit_digits(mpcli):
    first = mpcli("train", "styleflow", "--steps", 900, "--hidden", "64", "--quiet", "--json")
    assert first.code == 0, first.err
    metrics = first.json["metrics"]
    assert 0.4 < metrics["moved"] < 1.2 and metrics["drift"] < 0.3
    assert metrics["class_reached"] > 0.5 and metrics["class_kept"] > 0.6
    untrained = mpcli("train", "styleflow", "--steps", 2, "--quiet", "--json").json["metrics"]
    assert abs(untrained["moved"]) < 0.1 and untrained["class_reached"] < 0.3


def test_takes_the_generator_of_another_run(mpcli):
    generator = mpcli("train", "vae", "--steps", 3, "--latent", 6, "--hidden", 16, "--importance", 2, "--quiet").path
    path = mpcli("train", "styleflow", "--generator", generator, "--steps", 2, "--quiet").path
    from mpcli.run import Trained

    ours = Trained(path, "cpu").load(StyleFlow, Config)
    theirs = Trained(generator, "cpu").load(vae.VAE, vae.Config)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.generator.state_dict()[name], value), name
    assert mpcli("sample", path, "--attribute", "class", "-n", 2, "--out", "classes.png").code == 0
    missing = mpcli("train", "styleflow", "--generator", "nowhere")
    assert missing.code == 2 and "nowhere" in missing.err
    other = mpcli("train", "styleflow", "--generator", generator, "--data", "faces")
    assert other.code == 2 and "1x8x8" in other.err


def test_pictures_without_labels_have_no_class_to_change(mpcli):
    path = mpcli("train", "styleflow", "--data", "faces", "--steps", 2, "--latent", 4, "--quiet").path
    assert mpcli("sample", path, "--attribute", "ink", "--out", "ink.png").code == 0
    refused = mpcli("sample", path, "--attribute", "class")
    assert refused.code == 2 and "slant" in refused.err
    assert datasets.images("faces").train_labels is None
