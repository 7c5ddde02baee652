"""Motions, keypoints, joints and scans that are wrong: one sentence, exit 2, nothing written."""

import json
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image

from mpcli.errors import InputError
from mpcli.notices import Notice
from mpcli_bodies.kit import keypoints
from mpcli_bodies.smpl import SMPL
from mpcli_bodies.smpl.files import random_body, read_body, read_motion
from mpcli_bodies.smplify.observed import Points

MOTION = {"poses": np.zeros((4, 156)), "trans": np.zeros((4, 3)), "mocap_framerate": 60.0, "betas": np.zeros(16)}


def refused(mpcli, folder, arguments, words) -> None:
    result = mpcli(*arguments)
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err
    assert not list(folder.rglob("run.json"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"poses": None}, ["lacks poses"]),
        ({"poses": np.zeros((4, 65))}, ["poses has shape (4, 65)", "(frames, 72)"]),
        ({"poses": np.zeros((0, 156))}, ["poses has shape (0, 156)"]),
        ({"poses": np.zeros(156)}, ["poses has shape (156,)"]),
        ({"poses": np.full((4, 156), np.nan)}, ["poses holds NaN"]),
        ({"poses": np.array(["a"])}, ["poses holds no numbers"]),
        ({"trans": np.zeros((3, 3))}, ["trans has shape (3, 3)", "(4, 3)"]),
        ({"trans": np.full((4, 3), np.inf)}, ["trans holds NaN or infinity"]),
        ({"mocap_framerate": 0.0}, ["mocap_framerate"]),
        ({"mocap_framerate": np.ones(2)}, ["mocap_framerate"]),
    ],
)
def test_a_motion(mpcli, tmp_path, change, words):
    np.savez(tmp_path / "motion.npz", **{k: v for k, v in (MOTION | change).items() if v is not None})
    refused(mpcli, tmp_path, ["render", "smpl", "--pose", "motion.npz"], ["motion.npz", *words])


def test_a_motion_that_is_cut_short_or_would_be_unpickled(mpcli, tmp_path):
    np.savez(tmp_path / "whole.npz", **MOTION)
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    refused(mpcli, tmp_path, ["render", "smpl", "--pose", "half.npz"], ["half.npz"])
    np.savez(tmp_path / "objects.npz", **MOTION | {"poses": np.array([{}, {}], dtype=object)}, allow_pickle=True)
    refused(mpcli, tmp_path, ["render", "smpl", "--pose", "objects.npz"], ["objects.npz"])


@pytest.mark.parametrize(
    ("people", "words"),
    [
        ([], ["no person"]),
        ([{"pose_keypoints_2d": [0.0] * 75}], ["no person"]),
        ([{"pose_keypoints_2d": [1.0] * 74}], ["person 0", "74 numbers", "75 or 54"]),
        ([{}], ["person 0", "0 numbers"]),
        ([{"pose_keypoints_2d": ["x"] * 75}], ["person 0", "no number"]),
        ([{"pose_keypoints_2d": [1e99] * 75}], ["person 0", "not finite"]),
    ],
)
def test_keypoints(mpcli, tmp_path, people, words):
    (tmp_path / "k.json").write_text(json.dumps({"people": people}))
    refused(mpcli, tmp_path, ["fit-smpl", "smplify", "--data", "k.json"], ["k.json", *words])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"joints": np.zeros((24, 2))}, ["joints has shape (24, 2)"]),
        ({"joints": np.zeros((1, 23, 3))}, ["23 joints and 0 names"]),
        ({"joints": np.full((24, 3), np.nan)}, ["no joint is seen"]),
        ({"joints": np.zeros((24, 3)), "confidence": np.ones(7)}, ["confidence has shape (7,)"]),
    ],
)
def test_joints(mpcli, tmp_path, content, words):
    np.savez(tmp_path / "joints.npz", **content)
    refused(mpcli, tmp_path, ["fit-smpl", "smplify", "--data", "joints.npz"], ["joints.npz", *words])


EMPTY = "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\nproperty float z\nend_header\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("empty.ply", EMPTY),
        ("short.ply", EMPTY.replace("vertex 0", "vertex 100") + "0 0 0\n"),
        ("empty.xyz", ""),
        ("empty.obj", "# nothing\n"),
        ("nan.xyz", "0 0 0\n" * 99 + "0 nan 0\n"),
        ("nan.ply", EMPTY.replace("vertex 0", "vertex 2") + "0 0 0\nnan 0 0\n"),
        ("words.xyz", "a b c\n"),
    ],
)
def test_a_scan(mpcli, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    refused(mpcli, tmp_path, ["fit-smpl", "smplify", "--data", name], [name])


def test_a_scan_that_is_not_there(mpcli, tmp_path):
    refused(mpcli, tmp_path, ["fit-smpl", "smplify", "--data", "nowhere.ply"], ["nowhere.ply"])


def test_a_motion_with_objects_that_nobody_needs_is_read(mpcli, tmp_path):
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "stageii.npz", **MOTION | {"markers_latent_vids": objects}, allow_pickle=True)
    result = mpcli("render", "smpl", "--pose", "stageii.npz", "--out", "m.ply")
    assert result.code == 0, result.err


def test_a_sparse_matrix_of_a_size_that_the_others_do_not_have(tmp_path):
    values = {"v_template": np.eye(3), "shapedirs": np.zeros((3, 3, 1)), "posedirs": np.zeros((3, 3, 9)),
              "weights": np.full((3, 2), 0.5), "kintree_table": np.array([[-1, 0], [0, 1]]), "f": np.array([[0, 1, 2]]),
              "J_regressor": scipy.sparse.csc_matrix((10**7, 10**5))}  # fmt: skip
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(values, 2))
    with pytest.raises(InputError, match=r"J_regressor has shape \(10000000, 100000\); right would be \(2, 3\)"):
        read_body(tmp_path / "b.pkl")


@pytest.mark.parametrize("key", ["mocap_framerate", "mocap_frame_rate", "fps"])
def test_the_frame_rate_under_each_of_its_names(tmp_path, key):
    np.savez(tmp_path / "m.npz", poses=np.zeros((4, 72)), **{key: 30.0})
    assert read_motion(tmp_path / "m.npz").rate == 30


def test_a_frame_rate_that_is_missing_is_told_and_two_that_differ_are_refused(tmp_path):
    np.savez(tmp_path / "m.npz", poses=np.zeros((4, 72)))
    with pytest.warns(Notice, match="does not say how many frames a second it has; 60 are taken"):
        assert read_motion(tmp_path / "m.npz").rate == 60
    np.savez(tmp_path / "m.npz", poses=np.zeros((4, 72)), fps=30, mocap_framerate=60.0)
    with pytest.raises(InputError, match="mocap_framerate and fps differ"):
        read_motion(tmp_path / "m.npz")


def test_a_person_who_was_not_seen_and_a_picture_of_another_size(mpcli, tmp_path):
    flat = [float(v) for k in range(25) for v in (9 * k, 7 * k, 1)]
    people = [{"pose_keypoints_2d": []}, {"pose_keypoints_2d": flat}]
    (tmp_path / "k.json").write_text(json.dumps({"people": people, "canvas_width": 300, "canvas_height": 200}))
    command = ["fit-smpl", "smplify", "--data", "k.json", "--steps", "1"]
    refused(mpcli, tmp_path, command, ["--person 0", "shows 1, counted from 0: 1"])
    refused(mpcli, tmp_path, [*command, "--person", "1", "--size", "200,300"], ["k.json", "300x200", "200x300"])


def test_the_hands_of_a_body_with_fingers_are_not_its_joints_22_and_23():
    body = random_body(torch.Generator().manual_seed(0), joints=52)
    names = keypoints.SMPL_24
    assert "right_hand" not in Points(SMPL(body), body, names, torch.ones(24), "a.npz").names
    body = random_body(torch.Generator().manual_seed(0), joints=24)
    assert "right_hand" in Points(SMPL(body), body, names, torch.ones(24), "a.npz").names


def test_a_picture_is_turned_as_its_camera_noted(mpcli, tmp_path):
    photo = Image.new("RGB", (400, 300))
    noted = photo.getexif()
    noted[0x0112] = 6  # shown as 300 x 400
    photo.save(tmp_path / "a.jpg", exif=noted)
    flat = [float(v) for k in range(25) for v in (9 * k, 7 * k, 1)]
    content = {"people": [{"pose_keypoints_2d": flat}], "canvas_width": 300, "canvas_height": 400}
    (tmp_path / "k.json").write_text(json.dumps(content))
    command = ["fit-smpl", "smplify", "--data", "k.json", "--image", "a.jpg", "--steps", "1", "--out", "fit.npz"]
    result = mpcli(*command)
    assert result.code == 0, result.err
    assert np.load(tmp_path / "fit.npz")["centre"].tolist() == [150, 200]
