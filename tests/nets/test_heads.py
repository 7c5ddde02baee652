"""Heads: boxes that come back, AP as COCO has it, directions, and what is reached on each task."""

import json

import numpy as np
import pytest
import torch
from mutants import larger, result
from scipy import ndimage

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import Boxes, Gazes
from mpcli_nets.heads import Config, Heads, centres, measures, tasks

MUTANTS = {
    "columns before rows": (centres, "centred", result(lambda found: tuple(x.flip(1) for x in found))),
    "a wider heat": (centres, "NARROW", lambda original: 2.0),
    "focal loss without its square": (centres, "focal", result(larger)),
    "sides exchanged": (
        tasks,
        "relative",
        lambda original: lambda boxes, shape: original(boxes, (shape[0], shape[2], shape[1])),
    ),
    "union counted twice": (measures, "box_iou", result(lambda iou: iou / (1 + iou))),
    "every box is right": (measures, "matched", result(lambda hits: hits | True)),
    "half the angle": (measures, "angle", result(lambda a: a / 2)),
}
SMALL = {
    "train": ("--width", "2", "--batch", "4"),
    "render": ("--shown", "3"),
}


@pytest.fixture(scope="module")
def scenes():
    return datasets.load("digit_scenes", Boxes)


def test_batches_of_scenes_come_back_from_their_maps(scenes):
    part = scenes.test[:50]
    picture = torch.repeat_interleave(torch.tensor([len(box) for box in part.boxes]))
    boxes, labels = torch.cat(part.boxes), torch.cat(part.labels)
    heat = centres.heat(boxes, labels, picture, (50, 10, 16, 16))
    cell, place, size = centres.centred(boxes)
    maps = torch.cat([heat.logit(1e-6), torch.zeros(50, 4, 16, 16)], 1)
    maps[picture, -4:, cell[:, 0], cell[:, 1]] = torch.cat([place, size], 1)
    truth = list(zip(part.boxes, part.labels, strict=True))
    found = centres.decode(maps)
    assert measures.mean_average_precision(found, truth, 10).min() > 0.999
    for (boxes_found, scores, _), boxes_true in zip(found, part.boxes, strict=True):
        kept = boxes_found[scores > 0.99]
        far = torch.cdist(boxes_true, kept, p=float("inf")).amin(1)
        assert far.max() < 1e-4


def coco(found, truth, label, least):
    """AP, recall by recall, one box after the other."""
    rows = []
    objects = sum(int((labels == label).sum()) for _, labels in truth)
    for image, ((boxes, scores, labels), (true, classes)) in enumerate(zip(found, truth, strict=True)):
        mine = sorted((-float(s), k) for k, s in enumerate(scores) if labels[k] == label)
        free = [k for k in range(len(true)) if classes[k] == label]
        for sure, k in mine:
            ious = [(float(measures.box_iou(boxes[k : k + 1].double(), true[j : j + 1].double())), j) for j in free]
            best = max(ious, default=(0, -1))
            hit = best[0] >= least
            if hit:
                free.remove(best[1])
            rows.append((sure, image, hit))
    rows.sort(key=lambda row: row[0])
    hits = np.cumsum([hit for *_, hit in rows])
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / max(1, objects)
    return np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)])


def random_found(random):
    found, truth = [], []
    for _ in range(6):
        n, m = random.randint(0, 5), random.randint(0, 8)
        low = random.uniform(0, 40, (n, 2))
        true = np.concatenate([low, low + random.uniform(5, 20, (n, 2))], 1)
        labels = random.randint(0, 2, n)
        which = random.randint(0, max(1, n), m)
        said = (
            true[which] + random.normal(0, 1.5, (m, 4)) if n else random.uniform(0, 1, (m, 4)) + np.array([0, 0, 9, 9])
        )
        classes = np.where(random.rand(m) < 0.8, labels[which] if n else 0, 1)
        found.append((torch.tensor(said), torch.tensor(random.rand(m)), torch.tensor(classes)))
        truth.append((torch.tensor(true), torch.tensor(labels)))
    return found, truth


@pytest.mark.parametrize("seed", range(8))
def test_ap_is_that_of_a_list_gone_through_by_hand(seed):
    found, truth = random_found(np.random.RandomState(seed))
    for label in (0, 1):
        right = [coco(found, truth, label, least) for least in measures.ALL]
        assert measures.average_precision(found, truth, label, measures.ALL) == pytest.approx(right, abs=1e-9)


def test_ap_of_nothing():
    none = (torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    one = (torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0]))
    assert measures.average_precision([none], [one], 0, (0.5,)) == 0
    assert measures.average_precision([none], [one], 1, (0.5,)) is None
    assert measures.mean_average_precision([none], [(none[0], none[2])], 3).tolist() == [0] * 10


def test_angles_near_none_and_near_all():
    x = torch.tensor([[0.0, 0, 1]], dtype=torch.float64)
    tiny = torch.tensor([[1e-9, 0, 1]], dtype=torch.float64)
    assert float(measures.angle(x, tiny)) == pytest.approx(np.rad2deg(1e-9), rel=1e-6)
    assert float(measures.angle(x, -x)) == pytest.approx(180)


@pytest.mark.parametrize("task", ["localize", "detect", "gaze"])
def test_any_size_that_was_trained_on(task):
    for shape in ((1, 64, 64), (3, 33, 47), (1, 8, 8)):
        model = Heads(Config(task=task, width=2), shape, 5).eval()
        out = model(torch.rand(2, *shape))
        size = (2, 9, -(-shape[1] // 4), -(-shape[2] // 4))
        assert out.shape == {"localize": (2, 9), "detect": size, "gaze": (2, 3)}[task]
        assert model.features(torch.rand(2, *shape)).shape == (2, 8)


def test_pictures_without_objects_are_learned_from():
    loss = centres.loss_of(torch.randn(2, 7, 4, 4), torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).long())
    assert loss.isfinite() and loss > 0


@pytest.mark.parametrize(("task", "data", "words"), [
    ("localize", "digit_scenes", "right would be one, or --task detect"),
    ("gaze", "digit_scenes", "eyes with directions"),
    ("detect", "eyes", "pictures with boxes"),
])  # fmt: skip
def test_data_of_another_task_are_refused(task, data, words):
    with pytest.raises(InputError, match=words):
        tasks.loaded(task, data)


def test_every_task_is_trained_judged_and_drawn(mpcli):
    for task, first in (("localize", "iou"), ("detect", "map_50"), ("gaze", "angle")):
        done = mpcli("train", "heads", "--task", task, "--steps", 2, *SMALL["train"], "--out", task, "--json")
        assert first in done.json["metrics"]
        names = [path.rpartition("/")[2] for path in json.loads(mpcli("render", task, "--json").out)["artifacts"]]
        assert names[0] == "predictions.png" and names[-1] == "layers.csv"
        assert ("centres.png" in names) == (task == "detect")
    refused = mpcli("evaluate", "detect", "--data", "one_digit:faces")
    assert refused.code == 2


def test_what_a_threshold_finds_is_a_base_that_means_something(scenes):
    few = Boxes(scenes.train[:300], scenes.validation, scenes.test[:40], classes=scenes.classes)
    found = tasks.TASKS["detect"].beside(few)
    assert found["threshold_map_50"] > 0.3
    assert len(tasks.pieces(torch.zeros(1, 9, 9))) == 0


@pytest.mark.learning
@pytest.mark.parametrize(
    ("task", "steps", "least"), [("detect", 250, {"map_50": 0.85}), ("localize", 300, {"exact": 0.8})]
)
def test_objects_are_found(mpcli, task, steps, least):
    done = mpcli("train", "heads", "--task", task, "--steps", steps, "--width", 12, "--json")
    ((name, bound),) = least.items()
    assert done.json["metrics"][name] >= bound


@pytest.mark.learning
def test_a_gaze_is_closer_than_what_is_linear_in_pixels(mpcli):
    mpcli("train", "heads", "--task", "gaze", "--steps", 300, "--json")
    found = mpcli("evaluate", "heads", "--json").json["metrics"]
    assert found["angle"] < 3 < found["ridge_angle"] < found["mean_angle"]


def test_eyes_look_where_they_are_said_to():
    """The darkest disc of an eye is its pupil, and lies where its direction meets the eyeball."""
    given = datasets.load("eyes", Gazes)
    x = given.test[:200, 0].numpy()
    directions = given.directions.test[:200]
    far = []
    for picture, (right, up, _) in zip(x, directions.tolist(), strict=True):
        dark, count = ndimage.label(ndimage.gaussian_filter(picture, 0.5) < 0.17)
        if count:
            sizes = ndimage.sum_labels(np.ones_like(picture), dark, range(1, count + 1))
            row, column = ndimage.center_of_mass(dark == 1 + int(np.argmax(sizes)))
            pixel = 2 * 1.35 / 48
            far.append(np.hypot((column + 0.5) * pixel - 1.35 - right, (16 - row - 0.5) * pixel - up))
    assert len(far) > 150 and np.median(far) < 0.15
