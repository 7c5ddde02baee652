"""Fits to what a known body in a known pose would show."""

import json

import numpy as np
import pytest
import torch
import trimesh
from mutants import larger, nothing, result

from mpcli_bodies import smplify
from mpcli_bodies.smpl import SMPL, read_body, read_motion
from mpcli_bodies.smpl.files import walk
from mpcli_bodies.smplify import observed, prior


def flipped(project):
    return lambda x, f, c: project(x * x.new_tensor([1, -1, 1]), f, c)


MUTANTS = {
    "no energy": (smplify.People, "forward", result(nothing)),
    "what is seen counts less": (observed.InSpace, "misfit", result(lambda misfit: 0.9 * misfit)),
    "outliers pull as others do": (observed, "robust", lambda rho: lambda squared, sigma: squared),
    "pixels count upwards": (observed, "project", flipped),
    "a camera without a centre of projection": (observed, "project", lambda pi: lambda x, f, c: c + f * x[..., :2]),
    "hinges bend the other way": (smplify, "overextension", lambda pay: lambda pose: pay(-pose)),
    "no hinges": (smplify, "overextension", result(nothing)),
    "prior too strong": (prior, "independent", result(larger)),
    "knees independent of hips": (prior, "independent", lambda _: lambda away: away),
}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A walking body of some build: its vertices, joints and faces."""
    body = read_body()
    model = SMPL(body)
    betas = torch.zeros(1, model.shapes)
    betas[0, :2] = torch.tensor([1.0, -0.5])
    vertices, joints = model(betas, walk(24).poses[20:21], torch.tensor([[0.2, 0.1, -0.3]]))
    return vertices[0].numpy(), joints[0].numpy(), body.faces


@pytest.mark.learning
def test_keypoints_in_a_picture(mpcli):
    """The embedded example: noise of three pixels, two points missing."""
    result = mpcli("fit-smpl", "smplify", "--json", "--quiet")
    assert result.code == 0, result.err
    assert result.json["metrics"]["mpjpe"] < 60
    assert result.json["metrics"]["reprojection"] < 6
    written = next(path for path in result.json["artifacts"] if path.endswith("body.npz"))
    drawn = mpcli("render", "smpl", "--pose", written, "--out", "again.ply", "--quiet")
    assert drawn.code == 0, drawn.err
    assert len(trimesh.load(drawn.path, process=False).vertices) == len(read_body().template)


def test_joints_in_space(mpcli, known, tmp_path):
    _, joints, _ = known
    np.savez(tmp_path / "joints.npz", joints=joints[None])
    result = mpcli("fit-smpl", "smplify", "--data", "joints.npz", "--json", "--quiet")
    assert result.code == 0, result.err
    assert result.json["metrics"]["mpjpe"] < 15


@pytest.mark.learning
def test_a_scan(mpcli, known, tmp_path):
    vertices, _, faces = known
    trimesh.Trimesh(vertices, faces, process=False).export(tmp_path / "scan.ply")
    result = mpcli("fit-smpl", "smplify", "--data", "scan.ply", "--json", "--quiet")
    assert result.code == 0, result.err
    assert result.json["metrics"]["point_to_surface"] < 5


def test_mocap_poses(mpcli, shared_data, tmp_path):
    motion = read_motion(shared_data / "mocap" / "01_01_amass_layout.npz")
    model = SMPL(read_body())
    errors = []
    for frame in (100, 700):
        betas = torch.zeros(1, model.shapes)
        _, joints = model(betas, motion.poses[frame : frame + 1], motion.places[frame : frame + 1])
        np.savez(tmp_path / "joints.npz", joints=joints.numpy())
        result = mpcli("fit-smpl", "smplify", "--data", "joints.npz", "--steps", 200, "--json", "--quiet")
        errors.append(result.json["metrics"]["mpjpe"])
    assert np.median(errors) < 15


def test_what_cannot_be_fitted_is_refused(mpcli, tmp_path):
    (tmp_path / "nobody.json").write_text(json.dumps({"version": 1.3, "people": []}))
    (tmp_path / "broken.json").write_text("{")
    np.savez(tmp_path / "joints.npz", joints=np.zeros((1, 24, 3)))
    for arguments, words in [
        (["--data", "nobody.json"], ["nobody.json"]),
        (["--data", "broken.json"], ["broken.json", "JSON"]),
        (["--data", "joints.npz", "--frame", 3], ["joints.npz", "--frame 3"]),
        (["--person", 4], ["--person 4"]),
    ]:
        result = mpcli("fit-smpl", "smplify", *arguments)
        assert result.code == 2, result.err
        for word in words:
            assert word in result.err
