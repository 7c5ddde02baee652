"""`segmentation:DIR` and `cells`: masks as people have them, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import Masked, Segmentation, door
from mpcli.notices import Notice


def written(folder, masks, *, kind="L", palette=False, suffix="", n=4, shape=(6, 8)):
    """A set of n grey pictures whose masks are made by `masks(i)`."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(np.full(shape, 10 * i, np.uint8)).save(folder / "images" / f"p{i}.png")
        mask = Image.fromarray(masks(i))
        if palette:
            mask = mask.convert("P") if mask.mode != "L" else mask
            mask.putpalette([k for k in range(256) for _ in range(3)])
        mask.save(folder / "masks" / f"p{i}{suffix}.png")
    return f"segmentation:{folder}"


def halves(high, low=0):
    def mask(i):
        values = np.full((6, 8), low, np.uint8)
        values[:, 4:] = high
        return values

    return mask


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("suffix", ["", "_mask"])
@pytest.mark.parametrize("palette", [False, True])
def test_two_values_are_two_classes(tmp_path, high, suffix, palette):
    given = datasets.load(written(tmp_path / "s", halves(high), suffix=suffix, palette=palette), Segmentation)
    assert given.classes == ("background", "object") and given.channels == 1
    assert [len(part) for part in given.parts().values()] == [2, 1, 1]
    for part in given.parts().values():
        assert all(t.dtype == torch.uint8 and t[:, :4].sum() == 0 and (t[:, 4:] == 1).all() for t in part.masks)


def test_masks_of_0_and_1_beside_masks_of_0_and_255_are_two_classes(tmp_path):
    given = datasets.load(written(tmp_path / "s", lambda i: halves(255 if i % 2 else 1)(i)), Segmentation)
    assert len(given.classes) == 2


def test_more_values_and_colours_are_more_classes(tmp_path):
    def three(i):
        values = halves(200)(i)
        values[0] = 100
        return values

    given = datasets.load(written(tmp_path / "grey", three), Segmentation)
    assert given.classes == ("0", "100", "200") and given.train.masks[0][:, -1].tolist() == [1, 2, 2, 2, 2, 2]

    def colours(i):
        values = np.zeros((6, 8, 3), np.uint8)
        values[:, 2:4], values[:, 4:] = (255, 0, 0), (0, 0, 255)
        return values

    given = datasets.load(written(tmp_path / "colour", colours), Segmentation)
    assert len(given.classes) == 3 and given.classes[2] == "#ff0000"
    assert given.train.masks[0][0].tolist() == [0, 0, 2, 2, 1, 1, 1, 1]


def test_instances_alone_are_enough_and_are_numbered(tmp_path):
    name = written(tmp_path / "s", halves(255))
    (tmp_path / "s" / "masks").rename(tmp_path / "s" / "instances")
    for i in range(4):
        numbers = np.zeros((6, 8), np.uint16)
        numbers[:2], numbers[4:] = 7, 4000 + i
        Image.fromarray(numbers).save(tmp_path / "s" / "instances" / f"p{i}.png")
    given = datasets.load(name, Segmentation)
    assert given.train.instances[0].unique().tolist() == [0, 1, 2]
    assert torch.equal(given.train.instances[0] > 0, given.train.masks[0] > 0)
    assert "objects told apart" in given.describe()


def test_sizes_may_differ_from_picture_to_picture(tmp_path):
    folder = tmp_path / "s"
    name = written(folder, halves(255))
    Image.fromarray(np.zeros((9, 5), np.uint8)).save(folder / "images" / "p1.png")
    mask = np.zeros((9, 5), np.uint8)
    mask[2] = 255
    Image.fromarray(mask).save(folder / "masks" / "p1.png")
    assert "6x8 to 9x5" in datasets.load(name, Segmentation).describe()


def test_a_split_of_folders_is_kept(tmp_path):
    for part, n in (("train", 3), ("val", 2), ("test", 1)):
        written(tmp_path / "s" / part, halves(255), n=n)
    given = datasets.load(f"segmentation:{tmp_path / 's'}", Segmentation)
    assert [len(part) for part in given.parts().values()] == [3, 2, 1]


def noisy(i):
    return np.random.RandomState(i).randint(0, 256, (20, 30)).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "masks" / "p2.png").unlink(), ["p2.png", "has no mask", "masks/p2.png"]),
        (lambda folder: (folder / "masks").rename(folder / "labels"), ["has no folder masks"]),
        (lambda folder: (folder / "images").rename(folder / "imgs"), ["has no folder images"]),
        (lambda folder: Image.new("L", (8, 5)).save(folder / "masks" / "p1.png"), ["p1.png", "8x5", "8x6"]),
        (lambda folder: (folder / "masks" / "p0.png").write_bytes(b"no"), ["p0.png", "no picture"]),
        (lambda folder: [path.unlink() for path in (folder / "images").iterdir()], ["has no picture"]),
        (
            lambda folder: [Image.new("L", (8, 6), 3).save(folder / "masks" / f"p{i}.png") for i in range(4)],
            ["all masks are 3", "two classes"],
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, change, words):
    name = written(tmp_path / "s", halves(255))
    change(tmp_path / "s")
    with pytest.raises(InputError) as refused:
        datasets.load(name, Segmentation)
    assert all(word in str(refused.value) for word in [*words, "right would be"])


def test_masks_that_jpeg_has_blurred_are_refused(tmp_path):
    with pytest.raises(InputError, match="different values, as JPEG makes them"):
        datasets.load(written(tmp_path / "s", noisy, shape=(20, 30)), Segmentation)


def test_masks_without_a_picture_are_told(tmp_path):
    name = written(tmp_path / "s", halves(255))
    (tmp_path / "s" / "images" / "p3.png").unlink()
    with pytest.warns(Notice, match="1 masks have no picture"):
        assert sum(map(len, datasets.load(name, Segmentation).parts().values())) == 3


def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(InputError, match="too few to hold some out"):
        datasets.load(written(tmp_path / "s", halves(255), n=2), Segmentation)


def test_cells_are_the_same_for_everybody_and_of_one_object_a_number():
    first, second = (datasets.load("cells", Segmentation) for _ in range(2))
    assert all(map(torch.equal, first.test.pictures, second.test.pictures))
    assert all(torch.equal(n > 0, t > 0) for n, t in zip(first.train.instances, first.train.masks, strict=True))
    assert all(len(n.unique()) == int(n.max()) + (n.min() == 0) for n in first.train.instances)


def test_the_door_holds_masks_against_their_pictures():
    picture, mask = torch.zeros(1, 4, 5, dtype=torch.uint8), torch.zeros(4, 5, dtype=torch.uint8)
    good = Masked((picture,), (mask,))

    def given(part):
        return Segmentation(good, good, part, classes=("a", "b"))

    door.admit("x", given(good))
    for bad in (
        Masked((picture,), (mask[:3],)),
        Masked((picture,), (mask + 2,)),
        Masked((picture,), (mask, mask)),
        Masked((picture.float(),), (mask,)),
        Masked((picture.expand(3, -1, -1),), (mask,)),
        Masked((picture,), (mask,), (mask[:, :2],)),
        Masked((), ()),
    ):
        with pytest.raises(InputError, match="right would be"):
            door.admit("x", given(bad))
