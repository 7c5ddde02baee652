"""Motions, keypoints, joints and scans that are wrong: one sentence, exit 2, nothing written."""

import json
import pickle

import numpy as np
import pytest
import scipy.sparse

from mpcli.errors import InputError
from mpcli_bodies.smpl.files import read_body

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
