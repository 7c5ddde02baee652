"""`boxes:FILE.json`, and scenes of digits: boxes that lie around what they name, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import Boxed, Boxes, Gazes, Pictures, Split, door
from mpcli.notices import Notice


def written(folder, change=lambda tree: None, *, pictures="images", name="instances_val.json", n=4):
    """Pictures of 40x20, in each a white rectangle from (10, 4) of 12x8."""
    where = folder / pictures
    where.mkdir(parents=True, exist_ok=True)
    tree = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]}
    for i in range(n):
        x = np.zeros((20, 40, 3), np.uint8)
        x[4:12, 10:22] = 255
        Image.fromarray(x).save(where / f"{i}.png")
        tree["images"].append({"id": 10 + i, "file_name": f"{i}.png", "width": 40, "height": 20})
        tree["annotations"].append({"image_id": 10 + i, "category_id": (3, 7)[i % 2], "bbox": [10, 4, 12.0, 8]})
    change(tree)
    (folder / name).write_text(json.dumps(tree))
    return f"boxes:{folder / name}"


@pytest.mark.parametrize("pictures", [".", "images", "../val"])
def test_boxes_go_with_their_pictures(tmp_path, pictures):
    (tmp_path / "annotations").mkdir()
    given = datasets.load(written(tmp_path / "annotations", pictures=pictures) + "@80", Boxes)
    assert given.shape == (3, 80, 80) and given.classes == ("cat", "dog")
    assert [len(part) for part in given.parts().values()] == [2, 1, 1]
    for part in given.parts().values():
        for x, box in zip(part.pictures[:], part.boxes, strict=True):
            assert box.tolist() == [[20.0, 8.0, 44.0, 24.0]]
            assert x[:, 10:22, 22:42].min() > 0.9 and x[:, 40:].max() == 0
    labels = torch.cat([label for part in given.parts().values() for label in part.labels])
    assert sorted(labels.tolist()) == [0, 0, 1, 1]


def test_a_bare_path_is_read_as_boxes(tmp_path):
    spec = written(tmp_path)
    assert datasets.load(spec.removeprefix("boxes:"), Boxes).shape == (3, 128, 128)


def test_crowds_are_left_out_and_boxes_end_at_the_picture(tmp_path):
    def change(tree):
        tree["annotations"][0]["iscrowd"] = 1
        tree["annotations"][1]["bbox"] = [-5, -5, 1000, 1000]

    given = datasets.load(written(tmp_path, change) + "@40", Boxes)
    boxes = [box.tolist() for part in given.parts().values() for box in part.boxes]
    assert [] in boxes and [[0.0, 0.0, 40.0, 20.0]] in boxes


def test_boxes_without_a_pixel_are_left_out_and_told(tmp_path):
    def change(tree):
        tree["annotations"][2]["bbox"] = [3, 3, 0, 5]

    with pytest.warns(Notice, match="1 boxes are smaller than a pixel"):
        given = datasets.load(written(tmp_path, change), Boxes)
    assert sum(len(box) for part in given.parts().values() for box in part.boxes) == 3


def of(name, **values):
    return lambda tree: tree[name][0].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.pop("categories"), "has no list categories"),
        (lambda tree: tree.update(images=3), "has no list images"),
        (of("images", id="a"), "whose id is 'a'"),
        (of("annotations", image_id=99), "names picture 99, which is not listed"),
        (of("annotations", category_id=99), "names category 99, which is not listed"),
        (of("annotations", bbox=[1, 2, 3]), "right would be \\[x, y, width, height\\]"),
        (of("annotations", bbox=[1, 2, 3, "a"]), "right would be \\[x, y, width, height\\]"),
        (of("images", file_name="none.png"), "there is no picture 'none.png'"),
        (of("images", file_name="../../../etc/passwd"), "outside"),
        (lambda tree: tree.update(annotations=[]), "right would be 3 or more"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        datasets.load(written(tmp_path / "deep" / "er", change), Boxes)


@pytest.mark.parametrize("size", ["x", "2", "99999"])
def test_sizes_that_are_none_are_refused(tmp_path, size):
    with pytest.raises(InputError, match="is no size"):
        datasets.load(f"{written(tmp_path)}@{size}", Boxes)


@pytest.mark.parametrize("spec", ["digit_scenes", "one_digit"])
def test_digits_lie_in_their_boxes(spec):
    given = datasets.load(spec, Boxes)
    counts = [len(box) for box in given.test.boxes]
    assert (set(counts) == {1}) if spec == "one_digit" else ({1, 2, 3} <= set(counts) and max(counts) <= 4)
    for x, boxes in list(zip(given.test.pictures[:], given.test.boxes, strict=True))[:60]:
        covered = torch.zeros(64, 64, dtype=torch.bool)
        for left, top, right, bottom in boxes.int().tolist():
            assert 4 <= right - left <= 28 and 8 <= bottom - top <= 28
            covered[top:bottom, left:right] = True
        # Noise has a deviation of 0.06 about 0.1: what is brighter than 0.45 is a digit.
        assert x[0][~covered].max() < 0.45 < x[0][covered].max()


def test_scenes_of_other_digits(shared_data):
    given = datasets.load(f"digit_scenes:mnist:{shared_data / 'mnist'}", Boxes)
    assert given.shape == (1, 64, 64) and given.name == "digit_scenes:mnist"
    with pytest.raises(InputError, match="right would be grey pictures with classes"):
        datasets.load("digit_scenes:faces", Boxes)


def test_the_door_holds_boxes_and_directions_against_their_pictures():
    x = Pictures(torch.zeros(1, 1, 8, 10, dtype=torch.uint8))
    box, label = torch.tensor([[0.0, 0, 10, 8]]), torch.tensor([1])
    good = Boxed(x, (box,), (label,))
    door.admit("x", Boxes(good, good, good, classes=("a", "b")))
    for bad in (
        Boxed(x, (box + 1,), (label,)),
        Boxed(x, (box[:, [2, 1, 0, 3]],), (label,)),
        Boxed(x, (box[:, :3],), (label,)),
        Boxed(x, (box,), (label + 1,)),
        Boxed(x, (box, box), (label, label)),
        Boxed(Pictures(torch.zeros(1, 1, 9, 9, dtype=torch.uint8)), (box - 1,), (label,)),
    ):
        with pytest.raises(InputError, match="right would be"):
            door.admit("x", Boxes(good, good, bad, classes=("a", "b")))
    ahead = torch.tensor([[0.0, 0, 1]])
    door.admit("x", Gazes(x, x, x, directions=Split(ahead, ahead, ahead)))
    for directions in (2 * ahead, ahead[:0]):
        with pytest.raises(InputError, match="right would be"):
            door.admit("x", Gazes(x, x, x, directions=Split(ahead, ahead, directions)))
