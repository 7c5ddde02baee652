"""Fully convolutional networks: ways up against torch, windows against the whole, sizes, and what they reach."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mutants import larger, result
from skimage.segmentation import watershed

from mpcli_nets import fcn
from mpcli_nets.fcn import FCN, Config, examples, measures, nets, up

MUTANTS = {
    "nails in the middle": (up, "nails", result(lambda x: x.roll(1, -1))),
    "switches one aside": (up, "unpool", result(lambda x: x.roll(1, -1))),
    "window turned": (up, "transposed", lambda original: lambda y, size, w: original(y, size, w.flip(2, 3))),
    "nearest with a border": (up, "nearest", result(lambda x: x.roll(1, -2))),
    "windows without distances": (nets.Windows, "lay", lambda original: lambda self, apart: original(self, False)),
    "objects by pieces": (measures, "objects", lambda original: lambda mask: mask.int()),
    "Dice of the sum": (measures, "dice", result(larger)),
    "one pixel of boundary": (measures, "BOUNDARY", lambda original: 1),
    "AP without misses": (measures, "average_precision", result(lambda ap: min(1.0, 2 * ap))),
    "soft Dice of one class": (examples, "soft_dice", result(larger)),
}
SMALL = {
    "train": ("--width", "2", "--batch", "2", "--crop", "32"),
    "render": ("--shown", "2"),
}


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (7, 4), (8, 8), (5, 9)])
def test_ways_up_are_those_of_torch(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    y, switches = up.pooled(x)
    assert torch.equal(up.nearest(y, size), F.interpolate(y, scale_factor=2)[..., : size[0], : size[1]])
    assert torch.equal(up.unpool(y, size, switches), F.max_unpool2d(y, switches, 2, output_size=list(size)))
    w = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    padding = [size[0] - 2 * y.shape[-2] + 1, size[1] - 2 * y.shape[-1] + 1]
    right = F.conv_transpose2d(y, w, stride=2, padding=1, output_padding=padding)
    assert torch.equal(up.transposed(y, size, w), right)
    assert torch.allclose(up.copies(y, size, w), right, atol=1e-12)


@pytest.mark.parametrize("scheme", ["patch", "sliding", "flat", *(f"up {way}" for way in ("straight", "nearest", "nails", "unpool", "transposed"))])  # fmt: skip  # noqa: E501
def test_any_size_has_a_score_at_every_pixel(scheme):
    of = {"upsample": scheme[3:]} if scheme.startswith("up") else {"scheme": scheme}
    model = FCN(Config(width=2, **of), 1, 3).eval()
    with torch.no_grad():
        for height, width in [(1, 1), (1, 9), (15, 16), (17, 31), (40, 33)]:
            assert model(torch.rand(2, 1, height, width)).shape == (2, 3, height, width)


def test_a_dense_layer_is_a_convolution_of_its_window():
    dense = torch.nn.Linear(3 * 5 * 5, 4).double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    w = dense.weight.reshape(4, 3, 5, 5)
    assert torch.allclose(F.conv2d(x, w, dense.bias).flatten(1), dense(x.flatten(1)), atol=1e-12)


def test_windows_are_learned_from_at_their_middle():
    """The class that a window is to give is that of the pixel around which it lies."""
    torch.manual_seed(0)
    x, t = torch.rand(2, 1, 20, 24), torch.arange(960).reshape(2, 20, 24)
    torch.manual_seed(1)
    seen = {}

    def spy(z, at):
        seen["at"] = at
        return torch.zeros(2, 3, fcn.PIXELS, 1)

    _, classes = fcn.by_window(spy, x, t)
    at = seen["at"]
    assert classes.shape == (2, fcn.PIXELS, 1)
    assert torch.equal(classes[..., 0], at[..., 0] * 24 + at[..., 1] + 480 * torch.arange(2)[:, None])


def test_crops_turn_pictures_and_masks_alike():
    part = fcn.masked("cells").train
    torch.manual_seed(0)
    same = type(part)(tuple(255 * t[None] for t in part.masks), part.masks)
    x, t = examples.crops(same, torch.arange(12), 40)
    assert x.shape == (12, 1, 40, 40) and torch.equal(x[:, 0].long(), t)
    assert len({tuple(of.flatten().tolist()) for of in examples.crops(same, torch.zeros(9).long(), 64)[1]}) > 5
    small, _ = examples.crops(same, torch.tensor([0]), 500)
    assert small.shape == (1, 1, 96, 96)


def test_objects_of_a_mask_are_as_many_as_there_are_discs():
    rows, columns = np.mgrid[:40, :60]
    mask = np.zeros((40, 60), bool)
    for row, column in ((12, 12), (12, 27), (30, 45)):
        mask |= (rows - row) ** 2 + (columns - column) ** 2 <= 64
    found = measures.objects(torch.from_numpy(mask))
    assert found.max() == 3 and torch.equal(found > 0, torch.from_numpy(mask))
    assert measures.objects(torch.zeros(5, 5, dtype=torch.bool)).max() == 0
    whole = measures.objects(torch.ones(9, 9, dtype=torch.bool))
    assert (whole > 0).all()


def test_average_precision_is_that_of_every_pair_by_itself():
    random = np.random.RandomState(0)
    for _ in range(30):
        seeds = [np.where(random.rand(12, 12) < 0.05, random.randint(1, 99, (12, 12)), 0) for _ in range(2)]
        said, true = (watershed(np.zeros((12, 12)), s, mask=random.rand(12, 12) < 0.8) for s in seeds)
        a, b = set(np.unique(said)) - {0}, set(np.unique(true)) - {0}
        hits = sum(((said == i) & (true == j)).sum() > 0.5 * ((said == i) | (true == j)).sum() for i in a for j in b)
        right = hits / (len(a) + len(b) - hits) if a or b else 1.0
        assert measures.average_precision(torch.from_numpy(said), torch.from_numpy(true)) == right
        assert measures.average_precision(torch.from_numpy(said), torch.from_numpy(said)) == 1.0


def test_numbers_of_files_are_what_others_read():
    assert examples.as_written(torch.tensor([[0, 1]])).tolist() == [[0, 255]]
    assert examples.as_written(torch.tensor([[0, 2]])).dtype == np.uint8
    assert examples.as_written(torch.tensor([[0, 300]])).dtype == np.uint16


def test_otsu_takes_the_side_on_which_training_masks_are():
    given = fcn.masked("cells")
    dark = type(given)(
        *(type(part)(tuple(255 - x for x in part.pictures), part.masks) for part in given.parts().values()),
        classes=given.classes,
    )
    for of in (given, dark):
        said = examples.otsu(of)(of.test.pictures[0])
        assert measures.dice(said > 0, of.test.masks[0] > 0) > 0.8


def test_three_classes_are_told_apart_by_colour_where_there_is_no_network(tmp_path):
    from mpcli.kit.datasets import Masked, Segmentation

    mask = torch.zeros(8, 9, dtype=torch.uint8)
    mask[2:5], mask[5:] = 1, 2
    picture = torch.stack([60 * mask, 100 - 40 * mask, mask])
    part = Masked((picture, picture), (mask, mask))
    found = examples.beside(Segmentation(part, part, part, classes=("a", "b", "c")))
    assert found == {"colour_dice": 1.0, "colour_boundary_iou": 1.0}


def test_schemes_cost_what_their_layers_do(mpcli):
    rows = {scheme: (parameters, flops) for scheme, parameters, flops in fcn.costs((1, 64, 64), 2)}
    assert rows["patch"][0] == rows["sliding"][0] and rows["patch"][1] > 5 * rows["sliding"][1]
    assert rows["encoder-decoder"][1] < rows["flat"][1] * 2
    # A window by itself: its first convolution has 27x27 places.
    made = nets.Windows(16, 1, 2)
    made.lay(apart=False)
    first = fcn.cnn.table(made.layers, (1, 29, 29))[0]
    assert first.flops == 2 * 9 * 16 * 27 * 27


@pytest.mark.learning
def test_cells_are_found_where_a_threshold_fails(mpcli):
    done = mpcli("train", "fcn", "--json")
    found = mpcli("evaluate", "fcn", "--json").json["metrics"]
    assert found["dice"] == done.json["metrics"]["dice"] >= 0.9 > found["otsu_dice"]


@pytest.mark.learning
@pytest.mark.parametrize("scheme", ["patch", "sliding", "flat"])
def test_every_scheme_learns(mpcli, scheme):
    done = mpcli("train", "fcn", "--scheme", scheme, "--steps", 120, "--width", 8, "--crop", 64, "--json")
    assert done.json["metrics"]["dice"] >= 0.85


def test_predictions_and_costs_are_drawn(mpcli):
    mpcli("train", "fcn", "--steps", 2, *SMALL["train"])
    drawn = json.loads(mpcli("render", "fcn", "--shown", 1, "--json").out)
    names = [path.rpartition("/")[2] for path in drawn["artifacts"]]
    assert names == ["predictions.png", "upsampling.png", "schemes.png", "schemes.csv", "layers.csv"]


def test_pictures_of_other_channels_are_refused(mpcli, tmp_path):
    from PIL import Image

    mpcli("train", "fcn", "--steps", 1, *SMALL["train"])
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (20, 10), (i, 5, 9)).save(tmp_path / "set" / "images" / f"{i}.png")
        mask = np.zeros((10, 20), np.uint8)
        mask[3:6] = 255
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"{i}.png")
    refused = mpcli("evaluate", "fcn", "--data", f"segmentation:{tmp_path / 'set'}")
    assert refused.code == 2 and "has 3 channels, but the model was trained on 1" in refused.err
