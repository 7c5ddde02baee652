"""Keypoint files: the real ones, the formats' own orders, and what is wrong with a file said in one sentence."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mpcli.errors import InputError
from mpcli.notices import Notice
from mpcli_bodies.kit import keypoints


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def openpose(*people: list[float], **more: object) -> dict:
    return {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": flat} for flat in people], **more}


def flat(count: int, confidence: float = 0.9) -> list[float]:
    return [x for k in range(count) for x in (10.0 * k, 5.0 * k, confidence)]


def test_the_orders_of_the_formats_hold_every_name_once():
    for names, count in (
        (keypoints.COCO_17, 17),
        (keypoints.COCO_18, 18),
        (keypoints.BODY_25, 25),
        (keypoints.SMPL_24, 24),
    ):
        assert len(set(names)) == count
    assert set(keypoints.COCO_18) - {"mid_shoulder"} == set(keypoints.COCO_17)
    # The places that other tools name by number.
    assert [keypoints.BODY_25[k] for k in (0, 1, 4, 8, 11, 16, 19, 24)] == [
        "nose", "mid_shoulder", "right_wrist", "mid_hip", "right_ankle", "left_eye", "left_big_toe", "right_heel",
    ]  # fmt: skip
    assert [keypoints.COCO_18[k] for k in (4, 7, 10, 13, 17)] == [
        "right_wrist", "left_wrist", "right_ankle", "left_ankle", "left_ear",
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "names"), [(25, keypoints.BODY_25), (18, keypoints.COCO_18)])
def test_openpose_gives_pixels_at_their_centres_and_confidences(tmp_path, count, names):
    blank = [0.0] * 3 * count
    content = openpose(flat(count), blank, flat(count, 0.5), canvas_width=320, canvas_height=200)
    people = keypoints.read(written(tmp_path / "k.json", content))
    assert len(people) == 2  # nobody was seen in the blank one
    assert people[0].names == names
    assert people[0].size == (320, 200)
    assert people[0].pixels[3].tolist() == [30.5, 15.5]
    assert torch.allclose(people[1].confidence, torch.full((count,), 0.5))
    assert people[0].space is None


def test_openpose_in_space_comes_along_and_misses_are_nan(tmp_path):
    content = openpose(flat(25))
    content["people"][0]["pose_keypoints_3d"] = [x for k in range(25) for x in (k, 2, -3, 0 if k == 4 else 1)]
    space = keypoints.read(written(tmp_path / "k.json", content))[0].space
    assert space[3].tolist() == [3, 2, -3]
    assert torch.isnan(space).any(1).nonzero().tolist() == [[4]]


def test_real_coco_annotations(shared_data):
    people = keypoints.read(shared_data / "coco-keypoints" / "test_coco.json")
    assert len(people) == 12  # of 14 annotations two have no keypoint
    first = people[0]
    assert (first.image, first.size) == ("000000000785.jpg", (640, 425))
    assert (first.confidence > 0).all()
    assert (first.pixels > 0).all() and (first.pixels < torch.tensor([640.0, 425.0])).all()
    # The skier's nose is above the hips, and the hips are above the ankles: pixels count downwards.
    height = dict(zip(first.names, first.pixels[:, 1].tolist(), strict=True))
    assert height["nose"] < height["left_hip"] < height["left_ankle"]


def test_real_boxes_without_keypoints_are_nobody(shared_data):
    with pytest.raises(InputError, match="holds no person"):
        keypoints.read(shared_data / "coco-keypoints" / "test_coco_det_AP_H_56.json")


def test_coco_results_carry_scores(tmp_path):
    items = [{"image_id": 7, "category_id": 1, "keypoints": flat(17, 0.25), "score": 0.8}]
    (person,) = keypoints.read(written(tmp_path / "r.json", items))
    assert person.names == keypoints.COCO_17
    assert person.confidence[0] == 0.25


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"people": []}, "holds no person"),
        (openpose([0.0] * 75), "holds no person"),
        ([], "holds no person"),
        ({"hello": 1}, "neither OpenPose's output"),
        (3, "neither OpenPose's output"),
        (openpose(flat(24)), "72 numbers"),
        ({"people": [{}]}, "0 numbers"),
        ({"people": [5]}, "0 numbers"),
        (openpose([*flat(24), "a", 1, 1]), "no number"),
        (openpose([*flat(24), math.nan, 1, 1]), "not finite"),
        (openpose([*flat(24), 1e30, 1, 1]), "not finite"),
        (openpose(flat(25), canvas_width=100), "canvas_width"),
        ([{"keypoints": flat(16)}], "48 numbers"),
        ({"annotations": [{"keypoints": flat(17)}], "images": [{"id": 1}]}, "an image lacks"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, said):
    path = written(tmp_path / "bad.json", content)
    with pytest.raises(InputError, match=said) as caught:
        keypoints.read(path)
    assert str(path) in str(caught.value)


def test_no_json_is_said(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        keypoints.read(path)
    with pytest.raises(InputError, match="cannot be read"):
        keypoints.read(tmp_path / "missing.json")


def test_joints_with_and_without_names(tmp_path):
    places = np.arange(2 * 24 * 3, dtype=np.float32).reshape(2, 24, 3)
    places[1, 5] = np.nan
    np.savez(tmp_path / "j.npz", joints=places)
    names, read, confidence = keypoints.read_joints(tmp_path / "j.npz")
    assert names == keypoints.SMPL_24
    assert read.shape == (2, 24, 3) and torch.isfinite(read).all()
    assert confidence[1].nonzero().flatten().tolist() == [k for k in range(24) if k != 5]
    np.savez(tmp_path / "n.npz", joints=places[0, :5], joint_names=["RHip", "L_Knee", "left ankle", "Neck", "MidHip"])
    names, read, _ = keypoints.read_joints(tmp_path / "n.npz")
    assert names == ("right_hip", "left_knee", "left_ankle", "neck", "mid_hip")
    assert read.shape == (1, 5, 3)


def test_real_joints_of_another_skeleton(shared_data):
    names, places, confidence = keypoints.read_joints(shared_data / "mocap" / "01_01_2d3d_pairs.npz")
    assert places.shape == (688, 17, 3) and confidence.min() == 1
    assert {"pelvis", "right_ankle", "left_wrist"} <= set(names)  # Human3.6M's Hip, RFoot, LWrist


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"other": np.zeros(3)}, "lacks joints"),
        ({"joints": np.zeros((24, 2))}, "shape"),
        ({"joints": np.zeros((0, 3))}, "shape"),
        ({"joints": np.zeros((7, 3))}, "0 names"),
        ({"joints": np.zeros((7, 3)), "joint_names": ["a"]}, "1 names"),
        ({"joints": np.full((24, 3), np.nan)}, "no joint is seen"),
        ({"joints": np.zeros((24, 3)), "confidence": np.zeros(3)}, "confidence has shape"),
        ({"joints": np.zeros((24, 3)), "confidence": np.zeros(24)}, "no joint is seen"),
    ],
)
def test_what_is_wrong_with_joints_is_said(tmp_path, arrays, said):
    path = tmp_path / "j.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=said):
        keypoints.read_joints(path)


def numbers(count, confidence=1.0):
    return [value for k in range(count) for value in (10.0 * k, 5.0 * k + 1, confidence)]


def test_the_place_in_openposes_list_is_the_person(tmp_path):
    people = [{"pose_keypoints_2d": []}, None, {"pose_keypoints_2d": numbers(25)}, {"pose_keypoints_2d": [0.0] * 75}]
    (seen,) = keypoints.read(written(tmp_path / "k.json", {"people": people}))
    assert seen.number == 2


def test_the_names_are_those_of_the_category(tmp_path):
    names = ["root (pelvis)", "left_hip", "left_knee", "left_foot", "right_hip", "right_knee", "right_foot"]
    annotation = {"category_id": 7, "keypoints": numbers(7)}
    content = {"annotations": [annotation], "categories": [{"id": 7, "name": "person", "keypoints": names}]}
    (person,) = keypoints.read(written(tmp_path / "k.json", content))
    assert person.names[2:4] == ("left_knee", "left_ankle")
    assert person.pixels[3].tolist() == [30.5, 16.5]
    for change, message in (({"name": "dog"}, "of a dog"), ({"keypoints": list("abcdefg")}, "names its points a, b")):
        wrong = content | {"categories": [content["categories"][0] | change]}
        with pytest.raises(InputError, match=message):
            keypoints.read(written(tmp_path / "k.json", wrong))


@pytest.mark.parametrize("wrap", [lambda p: [p], lambda p: {"instance_info": [{"frame_id": 0, "instances": [p]}]}])
def test_pairs_with_scores_beside_them(tmp_path, wrap):
    pairs = {"keypoints": [[float(k), 2.0 * k] for k in range(17)], "keypoint_scores": [0.5] * 17}
    (person,) = keypoints.read(written(tmp_path / "k.json", wrap(pairs)))
    assert person.pixels[4].tolist() == [4.5, 8.5] and person.confidence.tolist() == [0.5] * 17


def test_a_video_is_refused_and_a_whole_body_gives_its_17_points(tmp_path):
    frame = {"instances": [{"keypoints": numbers(17)}]}
    with pytest.raises(InputError, match="holds the people of 2 frames"):
        keypoints.read(written(tmp_path / "k.json", [frame, frame]))
    (person,) = keypoints.read(written(tmp_path / "k.json", [{"keypoints": numbers(133)}]))
    assert person.names == keypoints.COCO_17 and person.pixels[16].tolist() == [160.5, 81.5]


def test_a_damaged_person_does_not_spoil_the_others(tmp_path):
    people = [{"pose_keypoints_2d": [1.0] * 34}, {"pose_keypoints_2d": numbers(25)}]
    with pytest.warns(Notice, match=r"person 0 has 34 numbers in pose_keypoints_2d; .*; is left out"):
        (seen,) = keypoints.read(written(tmp_path / "k.json", {"people": people}))
    assert seen.number == 1
    items = [{"keypoints": numbers(17)}, {"keypoints": ["x"] * 51}]
    with pytest.warns(Notice, match="person 1 has a keypoint that is no number"):
        (seen,) = keypoints.read(written(tmp_path / "k.json", items))
    assert seen.number == 0 and seen.names == keypoints.COCO_17
