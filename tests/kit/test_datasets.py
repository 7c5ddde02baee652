"""Datasets by name, batches as a function of the step, and the distributions in the plane."""

import functools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from mpcli.errors import Failed, InputError
from mpcli.kit import datasets, densities
from mpcli.kit.cameras import orbit
from mpcli.kit.datasets import Images, Pictures, Points, Scene, Split, Table, shuffled, toys
from mpcli.kit.datasets.types import every_eighth


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


class Lines:
    """Token sequences of any length; a batch is filled up with 0."""

    def __init__(self, lines):
        self.lines = lines

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, index):
        index = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        return torch.nn.utils.rnn.pad_sequence([self.lines[i] for i in index], batch_first=True)


def test_a_split_of_token_sequences():
    lines = Lines([torch.full((length,), length) for length in range(1, 8)])
    text = Split(lines, Lines(lines.lines[:2]), Lines(lines.lines[:1]), name="text")
    drawn = [text.batches(3, seed=5)(step) for step in range(7)]
    for batch in drawn:
        assert batch.shape == (3, batch.max())  # as long as its longest
        assert all(line.count_nonzero() == line[0] for line in batch)
    assert sorted(int(line[0]) for batch in drawn for line in batch) == sorted(3 * list(range(1, 8)))
    assert text.describe() == "text: 7 train, 2 validation, 1 test examples"
    assert text.to("cpu").train is lines


def test_a_split_of_pictures_and_their_masks():
    pixels = torch.arange(9, dtype=torch.uint8)[:, None, None, None].expand(9, 3, 2, 2).contiguous()
    masks = (torch.arange(9)[:, None, None] % 2).expand(9, 2, 2)
    sizes = [5, 2, 2]
    pairs = Split(*map(Pictures, pixels.split(sizes))).beside(Split(*masks.split(sizes)))
    for step in range(5):
        x, mask = pairs.batches(4, seed=1)(step)
        assert x.shape == (4, 3, 2, 2) and mask.shape == (4, 2, 2)
        assert torch.equal((x[:, 0] * 255).round() % 2, mask.float())
    x, mask = pairs.test[:]
    assert len(pairs.validation) == len(x) == len(mask) == 2 and mask[:, 0, 0].tolist() == [1, 0]
    moved = pairs.to("meta")
    assert moved.train.second.device.type == moved.train.first.device.type == "meta"


def toy_images(n=11):
    pixels = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 2, 3)
    labels = Split(torch.arange(n), torch.arange(2), torch.arange(3))
    classes = tuple(map(str, range(n)))
    return Images(*map(Pictures, (pixels, pixels[:2], pixels[:3])), labels=labels, classes=classes)


def test_images_and_labels_come_in_the_same_order():
    images = toy_images()
    assert images.shape == (1, 2, 3)
    plain, labelled = images.batches(4, seed=9), images.labelled.batches(4, seed=9)
    for step in range(12):
        x, y = labelled(step)
        assert torch.equal(x, plain(step)) and x.shape == (4, 1, 2, 3)
        assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)
    assert images.describe() == "images: 11 train, 2 validation, 3 test images of 1x2x3"
    with pytest.raises(ValueError, match="images has no labels"):
        Images(images.train, images.validation, images.test).labelled  # noqa: B018


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_bytes_are_given_as_even_steps_from_0_to_1(levels):
    k = torch.arange(levels)
    pictures = Pictures(k.byte()[:, None, None, None], levels=levels)
    assert torch.equal(pictures[:].flatten(), (k.double() / (levels - 1)).float())
    assert torch.equal(pictures[torch.tensor([levels - 1, 0])].flatten(), torch.tensor([1.0, 0.0]))
    assert pictures[1].shape == (1, 1, 1) and pictures[[1, 0], 0].shape == (2, 1, 1)
    assert pictures[1:].dtype == torch.float32 and pictures.values.dtype == torch.uint8  # the kept ones are unchanged
    fine = torch.rand(3, 1, 2, 2)
    assert torch.equal(Pictures(fine)[torch.tensor([2, 0])], fine[[2, 0]])


def test_moving_moves_every_tensor():
    points = Points(torch.zeros(4, 3), normals=torch.ones(4, 3))
    cameras = orbit(8, 1.0, 0.0, width=4, height=4)
    scene = Scene(Pictures(torch.zeros(8, 3, 4, 4)), cameras, every_eighth(8), (1.0, 2.0), tuple("abcdefgh"), points)
    moved = scene.to("meta")
    for tensor in (moved.images, moved.cameras.pose, moved.cameras.focal, moved.points.xyz, moved.points.normals):
        assert tensor.device.type == "meta"
    assert moved.points.colours is None and moved.split.train.device.type == "cpu" and moved.bounds == (1.0, 2.0)
    images = toy_images().to("meta")
    assert images.train.device.type == images.labels.test.device.type == "meta"
    assert scene.describe() == "scene: 7 train, 0 validation, 1 test views of 4x4, 4 points"
    assert points.describe() == "points: 4 points with normals"


def test_every_eighth_view_is_held_out():
    split = every_eighth(18)
    assert split.test.tolist() == [0, 8, 16] and len(split.validation) == 0
    assert sorted(torch.cat([split.train, split.test]).tolist()) == list(range(18))


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
from mpcli.kit.datasets import Images, Pictures, Table
def noise(argument):
    return Images(*(Pictures(torch.rand(n, 1, 2, 2)) for n in (int(argument or 4), 2, 2)), name="noise")
def line(argument):
    return Table(torch.zeros(4, 1), torch.zeros(2, 1), torch.zeros(2, 1))
"""


def test_a_dataset_of_another_distribution_is_an_equal(installed):
    installed("other", {"noise": "other_module:noise", "line": "other_module:line"}, NOISE)
    assert len(datasets.load("noise", Images).train) == 4
    assert len(datasets.load("noise:7", Images).train) == 7
    assert datasets.load("line", Table).train.shape == (4, 1)
    with pytest.raises(InputError, match="line is of kind Table; right would be pictures, such as digits"):
        datasets.load("line", Images)
    with pytest.raises(InputError, match=r"did you mean noise\?"):
        datasets.load("nosie:3", Images)


def test_ours_keep_their_names_and_a_broken_one_breaks_nothing_else(installed):
    installed("aaa", {"digits": "aaa_module:noise", "broken": "aaa_module:missing"}, "import torch\n1 / 0\n")
    assert len(datasets.load("digits", Images).train) == 1197
    with pytest.raises(Failed, match=r"dataset broken of aaa 2\.0 does not import: ZeroDivisionError"):
        datasets.load("broken", Images)


def test_names_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"there is no dataset digts: did you mean digits or diabetes\?"):
        datasets.load("digts", Images)
    with pytest.raises(InputError, match=r"there is no dataset xyzzy: there are .*blender, .*mnist"):
        datasets.load("xyzzy", Scene)
    with pytest.raises(InputError, match=r"there is no file or folder data/nothing\.ply"):
        datasets.load("data/nothing.ply", Points)
    with pytest.raises(InputError, match=r"is a folder; right would be a \.csv or \.tsv file"):
        datasets.load(str(tmp_path), Table)  # a folder is no table
    with pytest.raises(InputError, match="there is no dataset : "):
        datasets.load("", Images)


def test_the_wrong_kind(tmp_path):
    with pytest.raises(InputError, match="digits is of kind Images; right would be a scene with cameras, such as"):
        datasets.load("digits", Scene)
    with pytest.raises(InputError, match="right would be a point cloud or a mesh, such as points:FILE or mesh:FILE"):
        datasets.load("digits", Points, trimesh.Trimesh)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "images", "points", "mesh", "blender", "colmap"])
def test_the_argument_is_missing_or_is_no_such_thing(tmp_path, name):
    kinds = {"points": Points, "mesh": trimesh.Trimesh, "blender": Scene, "colmap": Scene}
    kind = kinds.get(name, Images)
    what, other = ("file", tmp_path) if name in ("points", "mesh") else ("folder", tmp_path / "file")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=rf"{name}: the {what} is missing; right would be {name}:(DIR|FILE)"):
        datasets.load(name, kind)
    with pytest.raises(InputError, match=rf"nowhere: there is no such {what}"):
        datasets.load(f"{name}:{tmp_path}/nowhere", kind)
    with pytest.raises(InputError, match=rf"is a {'folder' if what == 'file' else 'file'}; right would be {name}:"):
        datasets.load(f"{name}:{other}", kind)


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.xyz").write_text("1 2 3\n")
    assert len(datasets.load("points:~/a.xyz", Points)) == len(datasets.load("~/a.xyz", Points)) == 1


def test_a_path_alone_is_read_as_what_is_asked_for(tmp_path):
    both = (Points, trimesh.Trimesh)
    box, cloud = trimesh.creation.box(), trimesh.PointCloud(np.eye(3))
    for suffix in ("ply", "obj"):
        box.export(tmp_path / f"box.{suffix}")
        assert isinstance(datasets.load(str(tmp_path / f"box.{suffix}"), *both), trimesh.Trimesh)
        assert len(datasets.load(str(tmp_path / f"box.{suffix}"), Points)) == 8
    cloud.export(tmp_path / "cloud.ply")
    (tmp_path / "cloud.obj").write_text("# faces follow? no\nv 1 2 3\n")
    (tmp_path / "cloud.xyz").write_text("1 2 3\n")
    for name, n in (("cloud.ply", 3), ("cloud.obj", 1), ("cloud.xyz", 1)):
        assert len(datasets.load(str(tmp_path / name), *both)) == n
    box.export(tmp_path / "box.stl")
    assert isinstance(datasets.load(str(tmp_path / "box.stl"), *both), trimesh.Trimesh)
    # What is wrong with a mesh is said, and not that it is no cloud either.
    whole = (tmp_path / "box.ply").read_bytes()
    (tmp_path / "cut.ply").write_bytes(whole[:-3])
    with pytest.raises(InputError, match=r"cut\.ply: is cut short at byte"):
        datasets.load(str(tmp_path / "cut.ply"), *both)


def test_a_dataset_is_read_once_and_what_is_wrong_with_it_is_said(installed):
    source = "from mpcli.errors import InputError\ncalls = []\n"
    source += "def bad(argument):\n    calls.append(argument)\n    raise InputError('row 3 is torn')\n"
    installed("once", {"torn": "once_module:bad"}, source)
    with pytest.raises(InputError, match="row 3 is torn"):
        densities.load("torn:x", torch.device("cpu"))
    assert sys.modules["once_module"].calls == ["x"]


# What a dataset must be


PREAMBLE = """
import torch, trimesh
from torch import nan, ones, zeros
from mpcli.kit.cameras import orbit
from mpcli.kit.datasets import Images, Paired, Pictures, Points, Scene, Split, Table
def rows(train=ones(4, 2), validation=ones(2, 2), test=ones(2, 2)):
    return Table(train, validation, test)
def pictures(x=ones(2, 1, 4, 4), test=ones(2, 1, 4, 4), levels=256, **more):
    return Images(Pictures(x, levels), Pictures(ones(2, 1, 4, 4), levels), Pictures(test, levels), **more)
def labelled(train=zeros(2).long(), classes=("a", "b")):
    return pictures(labels=Split(train, zeros(2).long(), zeros(2).long()), classes=classes)
def scene(x=ones(3, 3, 4, 4), bounds=(1.0, 2.0), split=([0, 1], [], [2]), scale=1.0):
    cameras, split = orbit(3, 1.0, 0.0, width=4, height=4), Split(*(torch.tensor(p, dtype=torch.int64) for p in split))
    cameras.pose.mul_(scale)
    return Scene(Pictures(x), cameras, split, bounds, ("a", "b", "c"))
def mesh(x=0.0):
    return trimesh.Trimesh([[x, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
"""

GOOD = ["rows()", "pictures()", "pictures(torch.rand(3, 1, 4, 4))", "pictures(ones(2, 1, 4, 4).byte(), levels=2)"]
GOOD += ["labelled()", "scene()", "mesh()", "Points(ones(2, 3))", "Split(*(Paired(ones(2), ones(2)),) * 3)"]

BAD = {
    "rows(ones(4, 2) * nan)": "train has a number that is not finite; right would be finite numbers",
    "rows(test=ones(2, 2) / 0)": "test has a number that is not finite",
    "rows(ones(4, 2).double())": "train is float64; right would be float32",
    "rows(ones(0, 2))": "train is empty; right would be at least one example",
    "rows(validation=ones(0, 2))": "validation is empty",
    "rows(test=ones(0, 2))": "test is empty",
    "rows(test=ones(2, 3))": r"test is of shape \[3\] and train of \[2\]; right would be one shape",
    "pictures(255 * ones(2, 1, 4, 4))": r"train has values from 255 to 255; right would be pictures in \[0, 1\]",
    "pictures(test=-ones(2, 1, 4, 4))": "test has values from -1 to -1",
    "pictures(nan * ones(2, 1, 4, 4))": "train has values from nan to nan",
    "pictures(ones(2, 1, 4, 4).double())": r"train is float64; right would be uint8, or float32 in \[0, 1\]",
    "pictures(ones(2, 4, 4))": r"train has the shape \[2, 4, 4\]; right would be \[pictures, channels, height, width\]",
    "pictures(ones(2, 1, 4, 5))": r"validation is of shape \[1, 4, 4\] and train of \[1, 4, 5\]",
    "pictures(9 * ones(2, 1, 4, 4).byte(), levels=9)": "train has a byte of 9 with 9 levels; right would be 0 to 8",
    "pictures(ones(2, 1, 4, 4).byte(), levels=1)": "train has 1 levels; right would be 2 to 256",
    "pictures(ones(0, 1, 4, 4))": "train is empty",
    "Images(*3 * [ones(2, 1, 4, 4)])": "train is of kind Tensor; right would be Pictures",
    "labelled(zeros(3).long())": r"labels train is \[3\] of torch.int64; right would be int64 \[2\], one an example",
    "labelled(zeros(2))": r"labels train is \[2\] of torch.float32",
    "labelled(torch.tensor([0, 2]))": "labels train goes from 0 to 2 with 2 classes",
    "labelled(torch.tensor([-1, 1]))": "labels train goes from -1 to 1",
    "labelled(classes=())": "labels train goes from 0 to 0 with 0 classes",
    "scene(2 * ones(3, 3, 4, 4))": "images has values from 2 to 2",
    "scene(ones(4, 3, 4, 4))": "it has 4 pictures for its cameras and its split",
    "scene(split=([0, 1], [], [3]))": "it has 3 pictures for its cameras and its split",
    "scene(split=([0, 1], [], []))": "split test is empty",
    "scene(bounds=(2.0, 1.0))": "bounds is 2 to 1; right would be two distances",
    "scene(scale=nan)": "cameras pose has a number that is not finite",
    "mesh(nan)": "it has no face, or vertices that are not finite",
    "Points(ones(2, 3) / 0)": "xyz has a number that is not finite",
    "Points(ones(0, 3))": "it has no point",
    "Points(ones(2, 3), colours=2 * ones(2, 3))": r"colours has values outside \[0, 1\]",
    "Split(*(Paired(ones(2), ones(3)),) * 3)": "train pairs 2 with 3; right would be one each",
}


@pytest.mark.parametrize("expression", [*GOOD, *BAD])
def test_a_dataset_is_judged_where_it_is_loaded(installed, expression):
    installed("judged", {"theirs": "judged_module:theirs"}, f"{PREAMBLE}def theirs(text):\n    return {expression}\n")
    load = functools.partial(datasets.load, "theirs", object)
    if expression in GOOD:
        load()
        return
    with pytest.raises(InputError, match=f"^theirs: {BAD[expression]}"):
        load()


def test_pictures_in_finer_steps_than_bytes_stay_as_they_are(installed):
    source = f"{PREAMBLE}def theirs(text):\n    return pictures(torch.rand(3, 1, 4, 4) ** 2)\n"
    installed("judged", {"theirs": "judged_module:theirs"}, source)
    x = datasets.load("theirs", Images).train
    assert x.values.dtype == torch.float32 and torch.equal(x[:], x.values)


def test_a_page_refuses_data_before_it_trains(installed, mpcli):
    source = f"{PREAMBLE}def theirs(text):\n    return pictures(test=ones(0, 1, 4, 4))\n"
    installed("judged", {"theirs": "judged_module:theirs"}, source)
    result = mpcli("train", "vae", "--data", "theirs", "--out", "run")
    assert result.code == 2 and "theirs: test is empty; right would be at least one example" in result.err
    assert not Path("run/metrics.jsonl").exists()


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
