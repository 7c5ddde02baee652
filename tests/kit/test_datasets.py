"""Datasets by name, batches as a function of the step, and the distributions in the plane."""

import math
import sys

import numpy as np
import pytest
import torch

from mpcli.errors import Failed, InputError
from mpcli.kit import datasets
from mpcli.kit.cameras import orbit
from mpcli.kit.datasets import toys
from mpcli.kit.datasets.types import Images, Points, Scene, Table, every_eighth, shuffled


def test_an_epoch_gives_every_item_once():
    for n, size in [(10, 3), (7, 7), (5, 12), (1, 4)]:
        batch = shuffled(n, size, seed=3)
        drawn = torch.cat([batch(step) for step in range(n)])  # size epochs
        assert all(len(batch(step)) == size for step in range(n))
        for epoch in drawn.split(n):
            assert sorted(epoch.tolist()) == list(range(n))


def test_a_batch_depends_on_seed_and_step_alone():
    forwards, backwards = shuffled(50, 8, seed=1), shuffled(50, 8, seed=1)
    torch.manual_seed(5)
    first = [forwards(step) for step in range(40)]
    torch.manual_seed(6)
    for step in reversed(range(40)):
        assert torch.equal(backwards(step), first[step])
    assert torch.equal(shuffled(50, 8, seed=1)(10**9), shuffled(50, 8, seed=1)(10**9))
    assert not torch.equal(shuffled(50, 50, seed=2)(0), forwards(0)[:0].new_tensor(range(50)))
    assert not torch.equal(shuffled(50, 50, seed=2)(0), shuffled(50, 50, seed=1)(0))
    assert not torch.equal(shuffled(50, 50, seed=2)(0), shuffled(50, 50, seed=2)(1))


def test_the_first_batch_never_changes():
    assert shuffled(1000, 6, seed=0)(0).tolist() == FIRST


FIRST = [267, 628, 353, 576, 259, 584]


def test_drawing_is_uniform():
    batch = shuffled(4, 4, seed=0)
    first = torch.stack([batch(step) for step in range(2400)])[:, 0]
    counts = torch.bincount(first, minlength=4)
    assert ((counts - 600).abs() < 5 * math.sqrt(450)).all()


def test_nothing_to_draw_from():
    with pytest.raises(ValueError, match="cannot draw batches of 3 from 0"):
        shuffled(0, 3, seed=0)


def toy_images(n=11):
    pictures = torch.arange(n).float()[:, None, None, None].expand(n, 1, 2, 3) / 255
    return Images(pictures, pictures[:2], pictures[:3], torch.arange(n), torch.arange(2), torch.arange(3))


def test_images_and_labels_come_in_the_same_order():
    images = toy_images()
    assert images.shape == (1, 2, 3)
    plain, labelled = images.batches(4, seed=9), images.labelled_batches(4, seed=9)
    for step in range(12):
        x, y = labelled(step)
        assert torch.equal(x, plain(step)) and x.shape == (4, 1, 2, 3)
        assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)
    assert images.describe() == "images: 11 train, 2 validation, 3 test images of 1x2x3"
    with pytest.raises(ValueError, match="images has no labels"):
        Images(images.train, images.validation, images.test).labelled_batches(4, seed=0)


def test_moving_moves_every_tensor():
    points = Points(torch.zeros(4, 3), normals=torch.ones(4, 3))
    cameras = orbit(8, 1.0, 0.0, width=4, height=4)
    scene = Scene(torch.zeros(8, 3, 4, 4), cameras, every_eighth(8), (1.0, 2.0), tuple("abcdefgh"), points)
    moved = scene.to("meta")
    for tensor in (moved.images, moved.cameras.pose, moved.cameras.focal, moved.points.xyz, moved.points.normals):
        assert tensor.device.type == "meta"
    assert moved.points.colours is None and moved.split["train"].device.type == "cpu" and moved.bounds == (1.0, 2.0)
    images = toy_images().to("meta")
    assert images.train.device.type == images.test_labels.device.type == "meta"
    assert scene.describe() == "scene: 7 train, 0 validation, 1 test views of 4x4, 4 points"
    assert points.describe() == "points: 4 points with normals"


def test_every_eighth_view_is_held_out():
    split = every_eighth(18)
    assert split["test"].tolist() == [0, 8, 16] and len(split["validation"]) == 0
    assert sorted(torch.cat([split["train"], split["test"]]).tolist()) == list(range(18))


# Lookup


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a distribution that declares datasets: `installed("name", {"entry": "module:function"}, source)`."""

    def install(name, entries, source):
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-2.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
        lines = "\n".join(f"{key} = {value}" for key, value in entries.items())
        (info / "entry_points.txt").write_text(f"[mpcli.datasets]\n{lines}\n")
        (site / f"{name}_module.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))

    yield install
    for name in [name for name in sys.modules if name.endswith("_module")]:
        del sys.modules[name]


NOISE = """
import torch
from mpcli.kit.datasets import Images, Table
def noise(argument):
    n = int(argument or 4)
    return Images(torch.rand(n, 1, 2, 2), torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2), name="noise")
def line(argument):
    return Table(torch.zeros(4, 1), torch.zeros(2, 1), torch.zeros(2, 1))
"""


def test_a_dataset_of_another_distribution_is_an_equal(installed):
    installed("other", {"noise": "other_module:noise", "line": "other_module:line"}, NOISE)
    assert len(datasets.images("noise").train) == 4
    assert len(datasets.images("noise:7").train) == 7
    assert datasets.table("line").train.shape == (4, 1)
    with pytest.raises(InputError, match=r"line is of kind Table; images is needed here, such as digits"):
        datasets.images("line")
    with pytest.raises(InputError, match=r"did you mean noise\?"):
        datasets.images("nosie:3")


def test_ours_keep_their_names_and_a_broken_one_breaks_nothing_else(installed):
    installed("aaa", {"digits": "aaa_module:noise", "broken": "aaa_module:missing"}, "import torch\n1 / 0\n")
    assert len(datasets.images("digits").train) == 1197
    with pytest.raises(Failed, match=r"dataset broken of aaa 2\.0 does not import: ZeroDivisionError"):
        datasets.images("broken")


def test_names_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"there is no dataset digts: did you mean digits\?"):
        datasets.images("digts")
    with pytest.raises(InputError, match=r"there is no dataset xyzzy: there are .*blender, .*mnist"):
        datasets.scene("xyzzy")
    with pytest.raises(InputError, match=r"there is no file or folder data/nothing\.ply"):
        datasets.points("data/nothing.ply")
    with pytest.raises(InputError, match="there is no dataset"):
        datasets.table(str(tmp_path))  # a folder is no table
    with pytest.raises(InputError, match="there is no dataset : "):
        datasets.images("")


def test_the_wrong_kind(tmp_path):
    with pytest.raises(InputError, match="digits is of kind Images; a scene with cameras is needed here"):
        datasets.scene("digits")
    with pytest.raises(InputError, match="digits is of kind Images; a mesh is needed here, such as mesh:FILE"):
        datasets.mesh("digits")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "images", "points", "mesh", "blender", "colmap"])
def test_the_argument_is_missing_or_is_no_such_thing(tmp_path, name):
    load = {"points": datasets.points, "mesh": datasets.mesh, "blender": datasets.scene, "colmap": datasets.scene}
    load = load.get(name, datasets.images)
    what, other = ("file", tmp_path) if name in ("points", "mesh") else ("folder", tmp_path / "file")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=rf"{name}: the {what} is missing; right would be {name}:(DIR|FILE)"):
        load(name)
    with pytest.raises(InputError, match=rf"nowhere: there is no such {what}"):
        load(f"{name}:{tmp_path}/nowhere")
    with pytest.raises(InputError, match=rf"is a {'folder' if what == 'file' else 'file'}; right would be {name}:"):
        load(f"{name}:{other}")


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.xyz").write_text("1 2 3\n")
    assert len(datasets.points("points:~/a.xyz")) == len(datasets.points("~/a.xyz")) == 1


# Distributions in the plane


@pytest.mark.parametrize("toy", [toys.moons, toys.eight_gaussians, toys.pinwheel, toys.checkerboard])
def test_a_toy_is_the_same_every_time(toy):
    data, again = toy(""), toy("")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20000, 5000, 5000]
    assert data.train.dtype == torch.float32 and data.train.shape[1] == 2
    assert torch.equal(data.train, again.train) and torch.equal(data.test, again.test)
    # The parts are of one distribution and share no row.
    torch.testing.assert_close(data.train.mean(0), data.test.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(data.train.std(0), data.test.std(0), atol=0.1, rtol=0)
    rows = torch.cat([data.train, data.validation, data.test]).tolist()
    assert len(set(map(tuple, rows))) == 30000
    assert data.describe() == f"{toy.__name__}: 20000 train, 5000 validation, 5000 test rows of 2"
    assert data.batches(7, seed=0)(3).shape == (7, 2)
    with pytest.raises(InputError, match=rf"{toy.__name__}:5: {toy.__name__} takes nothing behind its name"):
        toy("5")


def test_the_checkerboard_is_uniform_on_its_black_fields():
    x = toys.checkerboard("").train
    field = ((x + 4) / 2).floor().long()
    assert ((field >= 0) & (field < 4)).all() and ((field.sum(1) % 2) == 0).all()
    counts = torch.bincount(field[:, 0] * 4 + field[:, 1], minlength=16)[:16]
    assert ((counts == 0) | ((counts - 2500).abs() < 5 * math.sqrt(2500))).all() and (counts > 0).sum() == 8
    within = ((x + 4) / 2).frac()
    torch.testing.assert_close(within.mean(0), torch.tensor([0.5, 0.5]), atol=0.01, rtol=0)
    torch.testing.assert_close(within.var(0), torch.tensor([1 / 12, 1 / 12]), atol=0.002, rtol=0)


def test_the_eight_gaussians_have_the_entropy_of_a_mixture():
    x = toys.eight_gaussians("").train.double()
    angle = torch.arange(8) * math.pi / 4
    centres = 4 / math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], 1).double()
    variance = 0.25 / 2
    squared = torch.cdist(x, centres).square()
    log_p = torch.logsumexp(-squared / (2 * variance), 1) - math.log(8 * 2 * math.pi * variance)
    # Nearly apart, so that the entropy is that of one Gaussian and of the choice among eight.
    entropy = math.log(8) + math.log(2 * math.pi * math.e * variance)
    assert abs(-float(log_p.mean()) - entropy) < 0.03
    share = torch.bincount(squared.argmin(1), minlength=8) / len(x)
    torch.testing.assert_close(share, torch.full((8,), 1 / 8), atol=0.01, rtol=0)


def test_the_moons_lie_around_their_half_circles():
    x = toys.moons("").train.double() / 2 + torch.tensor([0.5, 0.25])
    upper = torch.stack([x[:, 0], x[:, 1].clamp(min=0)], 1)
    lower = torch.stack([x[:, 0] - 1, (x[:, 1] - 0.5).clamp(max=0)], 1)
    distance = torch.minimum((upper.norm(dim=1) - 1).abs(), (lower.norm(dim=1) - 1).abs())
    assert distance.square().mean().sqrt() < 0.11 and distance.max() < 0.6
    assert abs(float(x[:, 0].mean()) - 0.5) < 0.02 and abs(float(x[:, 1].mean()) - 0.25) < 0.02


def test_the_pinwheel_looks_the_same_from_five_sides():
    x = toys.pinwheel("").train.double().numpy()
    turn = 2 * np.pi / 5
    turned = x @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    bins = np.linspace(-4, 4, 17)
    counts = [np.histogram2d(*points.T, bins=(bins, bins))[0] for points in (x, turned)]
    assert np.abs(counts[0] - counts[1]).sum() / len(x) < 0.1
    # Untwisted by exp(distance) / 4, five arms remain, each as wide as a deviation of 0.1 makes it.
    radius, angle = np.linalg.norm(x, axis=1) / 2, np.arctan2(x[:, 1], x[:, 0])
    arm = (angle - 0.25 * np.exp(radius)) % turn
    away = np.minimum(arm, turn - arm) * radius
    assert abs(np.sqrt((away**2).mean()) - 0.1) < 0.01


def test_table_is_a_table():
    table = Table(torch.zeros(3, 2), torch.zeros(1, 2), torch.zeros(1, 2), name="t")
    assert table.to("meta").train.device.type == "meta"
