"""Super-resolution: several answers to one question, all true to it, and nearer to the truth than interpolation."""

import imageio.v3 as iio
import pytest
import torch
from mutants import larger, part
from PIL import Image

from mpcli.kit import datasets
from mpcli.kit.densities import Examples
from mpcli_flows import srflow
from mpcli_flows.kit.flow import log_abs_det
from mpcli_flows.srflow import Config, SRFlow, cut, held_out, large, small, varied

SMALL = {"train": ["--depth", "1", "--channels", "4", "--blocks", "0"]}
MUTANTS = {
    "log-determinant of a coupling": (srflow.Coupling, "inverse", part(1, larger)),
    "log-determinant of an injector": (srflow.AffineInjector, "inverse", part(1, larger)),
    "an injector that does not come back": (srflow.AffineInjector, "forward", part(0, larger)),
    "a residual of the wrong size": (srflow.Residual, "forward", part(0, larger)),
}


def stirred(cfg=Config(depth=1, channels=6), shape=(1, 8, 8)):  # noqa: B008
    flow = SRFlow(cfg, shape, 256)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return flow.double().eval().requires_grad_(False)


def test_the_density_given_a_small_picture_is_that_of_the_whole_jacobian():
    flow = stirred()
    y, z = torch.rand(1, 1, 2, 2, dtype=torch.float64), torch.randn(1, 64, dtype=torch.float64)
    given = flow.given(y)
    x = flow.bijector(z, given)[0]
    whole = log_abs_det(lambda z: flow.bijector(z[None], given)[0].flatten(), z[0])
    torch.testing.assert_close(flow(x, y)[0], flow.base.log_prob(z)[0] - whole, rtol=0, atol=1e-8)


def test_the_small_picture_reaches_the_density_through_the_network_and_the_residual():
    flow = stirred()
    y, other = torch.rand(2, 1, 1, 2, 2, dtype=torch.float64)
    z = torch.randn(1, 64, dtype=torch.float64)
    features, elsewhere = flow.given(y)[1], flow.given(other)[1]
    by_network = flow.bijector(z, (y, elsewhere))[0] - flow.bijector(z, (y, features))[0]
    assert by_network.abs().max() > 1e-3
    by_residual = flow.bijector(z, (other, features))[0] - flow.bijector(z, (y, features))[0]
    torch.testing.assert_close(by_residual, large(other) - large(y))


def test_every_channel_moves_in_an_injector_and_half_of_them_in_a_coupling():
    c = torch.rand(1, 1, 2, 2), torch.randn(1, 6, 2, 2)
    for made, moves in ((srflow.AffineInjector(4, 6), 4), (srflow.Coupling(4, Config(channels=6)), 2)):
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        z = torch.randn(1, 4, 2, 2)
        assert ((made.eval()(z, c)[0] != z).flatten(2).any(2).sum()) == moves


def test_enlarging_and_making_small_again_keeps_what_is_smooth():
    y = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    torch.testing.assert_close(small(large(y))[..., 2:-2], y[..., 2:-2], rtol=0, atol=0.01)


def test_variation_mirrors_and_shifts_whole_pictures():
    x = torch.rand(3, 1, 9, 10)
    seen = {
        (down, right, flip)
        for _ in range(200)
        for part in [varied(x)]
        for down in range(2)
        for right in range(3)
        for flip in (False, True)
        if torch.equal(part[0], cut(x.flip(3) if flip else x, down, right)[0])
    }
    assert len(seen) == 12


def test_learns_faces_beyond_bicubic():
    """80 faces and 60 steps: bicubic has 19.2 dB; an untrained flow, all of whose parts start at rest, has the same."""
    images = srflow.pictures("faces", torch.device("cpu"))
    flow = SRFlow(Config(depth=2, channels=16, blocks=1), (1, 24, 24), 256)
    before = held_out(flow.train(False), images, draws=2)
    adam = torch.optim.Adam(flow.train().parameters(), 0.005)
    batches = images.batches(16, 0)
    for step in range(90):
        x = varied(batches(step))
        loss = -flow(Examples(images, 256).continuous(x), small(x)).mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 100.0)
        adam.step()
    after = held_out(flow.eval(), images)
    assert after["psnr"] > after["psnr_bicubic"] + 0.2 and before["psnr"] < after["psnr_bicubic"] + 0.1
    assert after["bits_per_dim"] < 7.0 < before["bits_per_dim"]
    assert after["psnr_small"] > 30 and after["diversity"] > 0.02


def test_reads_pictures_of_a_folder(mpcli, shared_data, tmp_path):
    import io
    import zipfile

    with zipfile.ZipFile(shared_data / "emoji-captions" / "noto_emoji_64.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")][:20]
        for i, name in enumerate(names):
            Image.open(io.BytesIO(archive.read(name))).convert("RGB").save(tmp_path / f"{i}.png")
    tiny = ("--depth", 1, "--channels", 4, "--steps", 2, "--batch", 4)
    first = mpcli("train", "srflow", "--data", f"images:{tmp_path}@32", *tiny, "--quiet", "--json")
    assert first.code == 0, first.err
    run = first.json["run"]
    assert mpcli("evaluate", run, "--json").json["metrics"] == pytest.approx(first.json["metrics"], rel=1e-5)
    path = mpcli("sample", run, "-n", 2, "--each", 3, "--out", "rows.png").path
    assert iio.imread(path).shape[1] > 7 * 32
    other = mpcli("sample", run, "--data", "faces")
    assert other.code == 2 and "3x32x32" in other.err


def test_what_is_too_small_is_refused(mpcli, tmp_path):
    for i in range(4):
        Image.new("L", (8, 6), 10 * i).save(tmp_path / f"{i}.png")
    refused = mpcli("train", "srflow", "--data", tmp_path, "--quiet")
    assert refused.code == 2 and "8x6" in refused.err
    assert datasets.images(str(tmp_path)).shape == (1, 6, 8)
