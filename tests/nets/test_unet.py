"""U-Net: the paper's count, every size, sequences, conditions, tiles, and what copies are worth."""

import json

import numpy as np
import pytest
import torch
from mutants import arguments, result
from PIL import Image

from mpcli.errors import InputError
from mpcli_nets import cnn, fcn, unet
from mpcli_nets.unet import Level, Segmenter, UNet, tiles

MUTANTS = {
    "a condition twice as strong": (
        Level,
        "forward",
        lambda original: lambda self, x, c=None: original(self, x, c if c is None else 2 * c),
    ),
    "copies twice as strong": (
        UNet,
        "decode",
        arguments(lambda self, levels, *rest: (self, [2 * levels[0], *levels[1:]], *rest)),
    ),
    "what comes out begins elsewhere": (UNet, "decode", result(lambda y: y + 0.01)),
    "tiles that see too little": (tiles, "reach", lambda original: lambda levels: 2 ** (levels - 1)),
}
SMALL = {
    "train": ("--widths", "2,3", "--batch", "2", "--crop", "32"),
    "render": ("--shown", "2"),
}


def test_the_paper_s_network_has_its_parameters():
    with torch.device("meta"):
        made = UNet(1, 2, (64, 128, 256, 512, 1024), norm="none")
    assert sum(p.numel() for p in made.parameters()) == 31_030_658
    # 23 convolutions as the paper counts them, of which four go up.
    assert cnn.totals(made, (1, 64, 64))[2] == 23


def test_what_comes_out_is_as_large_as_what_goes_in():
    made = UNet(1, 1, (2, 2, 2, 2)).eval()
    with torch.no_grad():
        for height in range(1, 41):
            for width in range(1, 41) if height in (1, 2, 15, 16, 17) else (height, 7):
                assert made(torch.zeros(1, 1, height, width)).shape == (1, 1, height, width)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("skips", ["copy", "none"])
def test_sequences_and_maps_take_a_condition(norm, skips):
    for size in ((19,), (6, 11)):
        made = UNet(3, 2, (4, 8, 8), condition=5, norm=norm, skips=skips, dimensions=len(size))
        x, c = torch.randn(4, 3, *size), torch.randn(4, 5)
        torch.nn.init.normal_(made.top.weight)
        assert made(x, c).shape == (4, 2, *size)
        made(x, c).square().mean().backward()
        assert all(p.grad is not None for p in made.parameters())
        torch.nn.init.normal_(made.down[0].modulation.weight)
        made.eval()
        assert not torch.allclose(made(x, c), made(x, -c))
        with pytest.raises(ValueError, match=r"condition \[N, 5\]"):
            made(x)


def test_without_copies_nothing_of_the_first_level_is_seen_directly():
    made = UNet(1, 1, (2, 3), norm="none", skips="none").eval()
    torch.nn.init.normal_(made.top.weight)
    levels = made.encode(torch.rand(1, 1, 6, 6))
    assert torch.equal(made.decode(levels), made.decode([0 * levels[0], levels[1]]))


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_reach_is_what_the_network_sees(levels):
    widths = (1,) * levels
    far = cnn.table(UNet(1, 1, widths), (1, 64, 64))[-1].field
    assert tiles.reach(levels) >= far / 2 and tiles.reach(levels) <= far


def test_tiles_are_the_whole_at_every_pixel():
    torch.manual_seed(0)
    made = UNet(2, 3, (2, 3, 4)).eval()
    torch.nn.init.normal_(made.top.weight)
    x = torch.randint(256, (2, 150, 131), dtype=torch.uint8)
    whole = tiles.classes_of(made, x, 200)
    assert len(whole.unique()) > 1
    for tile in (1, 16, 37, 64):
        assert torch.equal(tiles.classes_of(made, x, tile), whole)


def test_one_level_is_refused(mpcli):
    refused = mpcli("train", "unet", "--widths", "8")
    assert refused.code == 2 and "right would be two or more" in refused.err
    with pytest.raises(InputError):
        Segmenter(unet.Config(widths=(3,)), 1, 2)


def test_any_picture_is_segmented_to_files(mpcli, tmp_path):
    mpcli("train", "unet", "--steps", 2, *SMALL["train"])
    picture = fcn.masked("cells").test.pictures[1]
    Image.fromarray(picture[0, :50, :71].numpy()).save(tmp_path / "one.png")
    done = json.loads(mpcli("sample", "unet", "--image", "one.png", "--json").out)
    mask, objects = (np.asarray(Image.open(path)) for path in done["artifacts"])
    assert mask.shape == objects.shape == (50, 71) and set(np.unique(mask)) <= {0, 255}
    assert ((objects > 0) == (mask > 0)).all()
    assert mpcli("sample", "unet", "--image", "one.png", "--out", "mask.png").code == 0
    assert (np.asarray(Image.open(tmp_path / "mask.png")) == mask).all()
    missing = mpcli("sample", "unet", "--image", "two.png")
    assert missing.code == 2 and "two.png" in missing.err


@pytest.mark.learning
def test_copies_sharpen_boundaries(mpcli):
    found = {}
    for skips in ("copy", "none"):
        done = mpcli("train", "unet", "--skips", skips, "--steps", 200, "--out", skips, "--json")
        found[skips] = done.json["metrics"]
    assert found["copy"]["dice"] > 0.97 and found["copy"]["boundary_iou"] > found["none"]["boundary_iou"] + 0.2


@pytest.mark.learning
@pytest.mark.parametrize(("page", "least"), [("unet", 0.9), ("fcn", 0.5)])
@pytest.mark.parametrize("seed", [0, 2])
def test_several_classes_are_told_apart(mpcli, tmp_path, page, least, seed):
    """From scores near 0 all classes but one were once never said, on the easiest of pictures."""
    random = np.random.RandomState(0)
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for i in range(16):
        mask, light = np.zeros((72, 72), np.uint8), random.normal(30, 20, (72, 72, 3))
        for k in random.randint(1, 4, 5):
            row, column = random.randint(0, 52, 2)
            size = random.randint(10, 20)
            mask[row : row + size, column : column + size] = k
        light[mask > 0, mask[mask > 0] - 1] += 170
        Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(tmp_path / "set" / "images" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"{i}.png")
    data = f"segmentation:{tmp_path / 'set'}"
    done = mpcli("train", page, "--data", data, "--steps", 250, "--seed", seed, "--json")
    assert done.json["metrics"]["dice"] >= least


@pytest.mark.learning
def test_nuclei_are_found(mpcli, shared_data):
    done = mpcli("train", "unet", "--data", f"segmentation:{shared_data / 'nuclei-dsb2018'}", "--steps", 250, "--json")
    found = mpcli("evaluate", "unet", "--json").json["metrics"]
    assert found["dice"] == done.json["metrics"]["dice"] >= 0.87 and found["ap"] >= 0.7


def test_seeds_and_drawings_of_a_few_steps(mpcli):
    first, second = (
        mpcli("train", "unet", "--steps", 2, *SMALL["train"], "--json", "--out", name).json["metrics"] for name in "ab"
    )
    assert first == second
    drawn = json.loads(mpcli("render", "a", "--shown", 1, "--json").out)
    assert [path.rpartition("/")[2] for path in drawn["artifacts"]] == ["predictions.png", "maps.png", "layers.csv"]
