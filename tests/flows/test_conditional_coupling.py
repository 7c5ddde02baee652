"""The class matters: it moves the density, classifies unseen pictures, and is what is sampled."""

import math

import imageio.v3 as iio
import pytest
import torch
from mutants import arguments, larger, nothing, part, result

from mpcli_flows.conditional_coupling import (
    ByClass,
    ClassCoupling,
    ConditionalCoupling,
    ConditionalFlow,
    Config,
    held_out,
    labelled,
)

MUTANTS = {
    "log-determinant": (ConditionalCoupling, "inverse", part(1, larger)),
    "log-determinant on the way to data": (ConditionalCoupling, "forward", part(1, larger)),
    "a class that reaches nothing": (ClassCoupling, "read", arguments(lambda self, a, c: (self, a, 0 * c))),
    "scales without what they read": (ByClass, "forward", result(nothing)),
}


@pytest.mark.parametrize("name", ["t.0.weight", "a_c", "b_c"])
def test_the_class_reaches_shift_matrix_and_vector(name):
    whole = ClassCoupling(Config(hidden=(8,), dropout=0.0), 6, 2, False)
    f = whole.net
    torch.nn.init.normal_(f.t[2].weight)
    for other in ("t.0.weight", "a_c", "b_c"):
        value = dict(f.named_parameters())[other]
        torch.nn.init.normal_(value)
        if other != name:  # what the class could change, the same for both classes
            value.data[:, -2:] = 0 if other == "t.0.weight" else value.data[:, -2:]
            value.data[1] = value.data[0] if other != "t.0.weight" else value.data[1]
    z = torch.randn(1, 6)
    (x, logdet), (y, other_logdet) = (whole(z, torch.tensor([c])) for c in (0, 1))
    assert torch.equal(x[:, :3], y[:, :3]) and not torch.equal(x[:, 3:], y[:, 3:])
    assert torch.equal(logdet, other_logdet) == (name == "t.0.weight")


def test_two_classes_of_points_are_told_apart():
    """Two normals of known density: the flow finds log p(x | c), and so the error of the best possible classifier."""
    c = torch.arange(4000) % 2
    x = torch.randn(4000, 2) * torch.tensor([[1.0, 0.5], [0.5, 1.0]])[c] + torch.tensor([[-0.7, 0.0], [0.7, 0.3]])[c]
    flow = ConditionalFlow(Config(couplings=2, hidden=(16,), dropout=0.0), (2,), 2)
    adam = torch.optim.Adam(flow.parameters(), 0.02)
    for step in range(250):
        part = slice(200 * (step % 15), 200 * (step % 15) + 200)
        loss = -flow(x[part], c[part]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    test, given = x[3000:], c[3000:]
    with torch.no_grad():
        ours = torch.stack([flow(test, torch.full_like(given, k)) for k in (0, 1)], 1)
    normal = torch.distributions.Normal
    best = torch.stack(
        [
            normal(torch.tensor([-0.7, 0.0]), torch.tensor([1.0, 0.5])).log_prob(test).sum(1),
            normal(torch.tensor([0.7, 0.3]), torch.tensor([0.5, 1.0])).log_prob(test).sum(1),
        ],
        1,
    )
    own = torch.arange(1000), given
    assert abs(float((best[own] - ours[own]).mean())) < 0.05
    assert (ours.argmax(1) == given).float().mean() > (best.argmax(1) == given).float().mean() - 0.02


def test_learns_to_classify_digits():
    examples, images, labels = labelled("digits", torch.device("cpu"))
    flow = ConditionalFlow(Config(), examples.shape, 10, 17)
    flow.fit_scale(examples)
    adam = torch.optim.Adam(flow.parameters(), 0.005)
    batches = images.labelled.batches(64, 0)
    for step in range(120):
        x, c = batches(step)
        loss = -flow(examples.continuous(x), c).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    result = held_out(flow, examples, labels, 10)
    assert result["accuracy"] > 0.85 and result["bits_per_dim"] < 2.55
    assert float(result["nll"]) == pytest.approx(float(result["bits_per_dim"]) * 64 * math.log(2), rel=1e-5)


def test_verbs(mpcli):
    first = mpcli("train", "conditional_coupling", "--steps", 2, "--quiet", "--json").json
    assert mpcli("evaluate", first["run"], "--json").json["metrics"] == pytest.approx(first["metrics"])
    path = mpcli("sample", first["run"], "--label", 3, "-n", 4, "--out", "threes.png").path
    assert iio.imread(path).std() > 5
    refused = mpcli("sample", first["run"], "--label", 10)
    assert refused.code == 2 and "0 to 9" in refused.err
    unlabelled = mpcli("train", "conditional_coupling", "--data", "faces")
    assert unlabelled.code == 2 and "labels" in unlabelled.err
