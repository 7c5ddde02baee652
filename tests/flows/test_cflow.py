"""Two flows of which one steers the other: the joint density, what reaches what, and pairs from files."""

import io
import zipfile

import imageio.v3 as iio
import pytest
import torch
from mutants import larger, part
from PIL import Image

from mpcli_flows import cflow
from mpcli_flows.cflow import CFlow, Config, Step, Steps, halves, held_out, pairs
from mpcli_flows.kit.flow import log_abs_det

SMALL = {"train": ["--depth", "2", "--channels", "4"]}
MUTANTS = {
    "log-determinant of a step": (Step, "inverse", part(1, larger)),
    "log-determinant of a step on the way to data": (Step, "forward", part(1, larger)),
    "log-determinant of a flow": (Steps, "inverse", part(1, larger)),
    "a mean of the two densities": (CFlow, "forward", lambda original: lambda self, x, c: original(self, x, c) / 2),
}

SHAPE = (1, 4, 2)


def stirred(dtype: torch.dtype = torch.float64) -> CFlow:
    flow = CFlow(Config(depth=2, channels=4), SHAPE, 17).eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow.to(dtype).requires_grad_(False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_both_flows_invert_at_scale_10(dtype, tolerance):
    flow, x_a = stirred(dtype), torch.rand(100, *SHAPE, dtype=dtype)
    states = flow.g.inverse(x_a)[2]
    z = 10 * torch.randn(100, 8, dtype=dtype)
    for steps, given in ((flow.g, None), (flow.f, states)):
        inner = cflow.Steps.__new__(cflow.Steps)
        torch.nn.Module.__init__(inner)
        inner.inside, inner.steps = steps.inside, steps.steps
        inner.pixels = torch.nn.ModuleList([steps.pixels[0], Same()])  # a sigmoid of 50 is 1, of which nothing returns
        x, logdet = inner(z, given)
        back, backwards, _ = inner.inverse(x, given)
        torch.testing.assert_close(back, z, rtol=0, atol=tolerance)
        torch.testing.assert_close(backwards, -logdet, rtol=0, atol=10 * tolerance)


class Same(torch.nn.Module):
    def forward(self, z, c=None):
        return z, z.new_zeros(len(z))

    inverse = forward


def test_the_log_determinant_of_each_flow_is_that_of_its_jacobian():
    flow, x_a = stirred(), torch.rand(1, *SHAPE, dtype=torch.float64)
    states, z = flow.g.inverse(x_a)[2], torch.randn(8, dtype=torch.float64)
    for steps, given in ((flow.g, None), (flow.f, states)):
        whole = log_abs_det(lambda z, s=steps, c=given: s(z[None], c)[0].flatten(), z)
        logdet = steps(z[None], given)[1][0]
        torch.testing.assert_close(logdet, whole, rtol=0, atol=1e-9)
        assert logdet.abs() > 1e-3


def test_the_first_picture_steers_the_second_and_not_the_other_way():
    flow = stirred()
    x_a, x_b, other = torch.rand(3, 1, *SHAPE, dtype=torch.float64)
    right, wrong, changed = flow(x_b, x_a)[0], flow(x_b, other)[0], flow(other, x_a)[0]
    assert right[1] != wrong[1] and right[0] != wrong[0]
    assert right[0] == changed[0] and right[1] != changed[1]
    levels = flow.g.inverse(x_a)[2]
    for k in range(len(levels)):  # each coupling reads the state of its own depth
        altered = [state + (i == k) for i, state in enumerate(levels)]
        assert (flow.f.inverse(x_b, altered)[0] - flow.f.inverse(x_b, levels)[0]).abs().max() > 1e-6


def test_a_transfer_to_itself_gives_the_picture_back():
    flow = stirred()
    x = torch.randint(0, 17, (5, 1, 4, 4)) / 16.0
    x_a, x_b = halves(x.double(), "left_to_right")
    torch.testing.assert_close(flow.second(flow.latent(x_b, x_a), x_a), x_b)
    right, left = halves(x, "right_to_left")
    assert torch.equal(torch.cat((left, right), 3), x)


def test_learns_the_right_half_of_a_digit_from_its_left():
    images = pairs("digits", torch.device("cpu"))
    flow = CFlow(Config(depth=3, channels=16), (1, 8, 4), 17)
    adam = torch.optim.Adam(flow.parameters(), 0.005)
    batches = images.batches(64, 0)
    for step in range(150):
        x_a, x_b = halves(cflow.dequantised(batches(step), 17), "left_to_right")
        loss = -flow(x_b, x_a).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = held_out(flow.eval(), images, "left_to_right")
    # A normal distribution with full covariance, fitted in closed form to whole digits, has 2.95 bits/dim.
    assert (found["bits_per_dim"] + found["bits_per_dim_given"]) / 2 < 2.7
    assert found["bits_per_dim_wrong_pair"] > found["bits_per_dim"] + 0.3


def test_reads_pairs_side_by_side_from_a_folder(mpcli, shared_data, tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    with zipfile.ZipFile(shared_data / "edges2emoji" / "edges2emoji_AB_64.zip") as archive:
        for name in [name for name in archive.namelist() if name.endswith(".png")][:12]:
            picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            assert picture.size == (128, 64)
            picture.resize((32, 16)).save(folder / name.rpartition("/")[2])
    tiny = ("--depth", 1, "--channels", 4, "--steps", 2, "--batch", 4, "--direction", "right_to_left")
    first = mpcli("train", "cflow", "--data", f"images:{folder}", *tiny, "--quiet", "--json")
    assert first.code == 0, first.err
    run = first.json["run"]
    assert mpcli("evaluate", run, "--json").json["metrics"] == pytest.approx(first.json["metrics"], rel=1e-5)
    path = mpcli("sample", run, "-n", 2, "--each", 2, "--temperature", 0, "--out", "rows.png").path
    rows = iio.imread(path)
    assert rows.shape[1] > 3 * 32
    warm = mpcli("sample", run, "-n", 2, "--each", 2, "--temperature", 1, "--out", "other.png").path
    assert (iio.imread(warm) != rows).any()


def test_what_cannot_be_halved_is_refused(mpcli):
    refused = mpcli("train", "cflow", "--data", "faces")
    assert refused.code == 2 and "25x25" in refused.err
