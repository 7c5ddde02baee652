"""The body function against the paper, written out joint by joint and vertex by vertex; and what its reader refuses."""

import importlib.resources
import os
import pickle
import types

import numpy as np
import pytest
import scipy.sparse
import torch
import trimesh
from mutants import arguments, larger, part, result
from scipy.spatial.transform import Rotation

from mpcli.errors import InputError
from mpcli.kit.rotations import axis_angle_to_matrix
from mpcli_bodies import smpl
from mpcli_bodies.smpl import SMPL, Skinning, read_body, read_motion
from mpcli_bodies.smpl.files import Body, random_body, walk


def backwards(kinematics):
    def twin(self, rotations, joints):
        return kinematics(self, rotations.mT, joints)

    return twin


MUTANTS = {
    "shape ignored": (SMPL, "rest", arguments(lambda self, betas, turns: (self, 0 * betas, turns))),
    "rest not taken off": (SMPL, "rest", arguments(lambda self, betas, turns: (self, betas, turns + torch.eye(3)))),
    "joints of another shape": (SMPL, "rest", part(1, larger)),
    "turned the other way": (SMPL, "kinematics", backwards),
    "bones too long": (SMPL, "kinematics", arguments(lambda self, turns, joints: (self, turns, 1.1 * joints))),
    "rotations of half the angle": (smpl, "axis_angle_to_matrix", arguments(lambda v: (v / 2,))),
    "gradient of a vertex": (Skinning, "backward", part(0, larger)),
    "gradient of a bone": (Skinning, "backward", part(1, larger)),
    "vertices in other units": (SMPL, "forward", part(0, larger)),
    "blended bones": (smpl, "_blended", result(lambda parts: ((rows, 1.1 * blend) for rows, blend in parts))),
}


def reference(body: Body, betas: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One body in float64, as the paper's equations stand."""
    turns = [Rotation.from_rotvec(v).as_matrix() for v in pose]
    shaped = body.template.copy()
    for n, beta in enumerate(betas):
        shaped += beta * body.shapes[:, :, n]
    joints = body.regressor @ shaped
    posed = shaped.copy()
    features = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    for n, feature in enumerate(features):
        posed += feature * body.correctives[:, :, n]
    chain: list[np.ndarray] = []
    for k, parent in enumerate(body.parents):
        local = np.eye(4)
        local[:3, :3] = turns[k]
        local[:3, 3] = joints[k] - (joints[parent] if parent >= 0 else 0)
        chain.append(chain[parent] @ local if parent >= 0 else local)
    vertices = np.zeros_like(posed)
    for i, vertex in enumerate(posed):
        for k in range(len(chain)):
            away = np.eye(4)
            away[:3, 3] = -joints[k]
            vertices[i] += body.weights[i, k] * (chain[k] @ away @ np.append(vertex, 1))[:3]
    return vertices, np.array([g[:3, 3] for g in chain])


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_paper_written_out(seed):
    g = torch.Generator().manual_seed(seed)
    body = random_body(g, vertices=50)
    betas, pose = torch.randn(4, 10, generator=g).double(), torch.randn(4, 24, 3, generator=g).double()
    pose[0] = 0
    vertices, joints = SMPL(body, torch.float64)(betas, pose)
    for b in range(4):
        true_vertices, true_joints = reference(body, betas[b].numpy(), pose[b].numpy())
        assert np.abs(vertices[b].numpy() - true_vertices).max() < 1e-6
        assert np.abs(joints[b].numpy() - true_joints).max() < 1e-6


def test_at_rest_it_is_the_template_and_a_turned_root_turns_it():
    body = read_body()
    model = SMPL(body, torch.float64)
    still = torch.zeros(1, 24, 3, dtype=torch.float64)
    betas = torch.zeros(1, model.shapes, dtype=torch.float64)
    vertices, joints = model(betas, still)
    assert np.allclose(vertices[0], body.template, atol=1e-12)
    turned = still.clone()
    turned[0, 0] = torch.tensor([0.3, -0.5, 0.2])
    turn = torch.from_numpy(Rotation.from_rotvec(turned[0, 0].numpy()).as_matrix())
    moved = model(betas, turned, torch.tensor([[1.0, 2.0, 3.0]]).double())[0]
    expected = (vertices - joints[:, :1]) @ turn.T + joints[:, :1] + torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(moved, expected, atol=1e-12)


def test_the_embedded_body_is_a_human_shape():
    body = read_body()
    mesh = trimesh.Trimesh(body.template, body.faces, process=False)
    assert mesh.is_watertight
    assert 1.4 < np.ptp(body.template[:, 1]) < 2.0
    assert 0.03 < mesh.volume < 0.12  # cubic metres
    assert len(body.parents) == 24
    assert np.allclose(body.weights.sum(1), 1, atol=1e-3)


def test_every_joint_moves_vertices_far_from_it_through_the_correctives_alone():
    g = torch.Generator().manual_seed(0)
    body = random_body(g, vertices=80)
    hand = int(np.flatnonzero(~np.isin(np.arange(24), body.parents))[-1])  # a leaf of the tree
    model = SMPL(body, torch.float64)
    pose = torch.zeros(1, 24, 3, dtype=torch.float64)
    bent = pose.clone()
    bent[0, hand, 0] = 1.0
    betas = torch.zeros(1, 10, dtype=torch.float64)
    moved = (model(betas, bent)[0] - model(betas, pose)[0]).abs().amax((0, 2)).numpy()
    assert (moved[body.weights[:, hand] == 0] > 0).all()


class Ch:
    """Pickles as chumpy.ch.Ch does."""

    def __init__(self, x):
        self.x = x


@pytest.fixture
def layout(monkeypatch):
    body = random_body(torch.Generator().manual_seed(5), vertices=30)
    table = np.array([[2**32 - 1 if p < 0 else p for p in body.parents], range(24)], np.uint32)
    return body, {
        "v_template": body.template, "shapedirs": body.shapes, "posedirs": body.correctives,
        "J_regressor": body.regressor, "weights": body.weights, "kintree_table": table, "f": body.faces,
    }  # fmt: skip


def test_npz_and_pickle_with_chumpy_and_sparse_arrays_are_read_alike(layout, tmp_path, monkeypatch):
    body, content = layout
    np.savez(tmp_path / "body.npz", **content)
    module = types.ModuleType("chumpy.ch")
    module.Ch = Ch  # type: ignore[attr-defined]
    monkeypatch.setattr(Ch, "__module__", "chumpy.ch")
    monkeypatch.setitem(__import__("sys").modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(__import__("sys").modules, "chumpy.ch", module)
    stored = content | {
        "shapedirs": Ch(content["shapedirs"]),
        "J_regressor": scipy.sparse.csc_matrix(content["J_regressor"]),
    }
    (tmp_path / "body.pkl").write_bytes(pickle.dumps(stored, protocol=2))
    for name in ("body.npz", "body.pkl"):
        read = read_body(tmp_path / name)
        for field in ("template", "shapes", "correctives", "regressor", "weights", "faces"):
            assert np.allclose(getattr(read, field), getattr(body, field)), (name, field)
        assert read.parents == body.parents


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": None}, ["weights"]),
        ({"v_template": np.zeros((30, 2))}, ["v_template", "(vertices, 3)"]),
        ({"posedirs": np.zeros((30, 3, 9))}, ["posedirs", "(30, 3, 207)"]),
        ({"weights": np.zeros((30, 24))}, ["weights", "sum"]),
        ({"v_template": np.full((30, 3), np.nan)}, ["v_template", "NaN"]),
        ({"f": np.full((4, 3), 30)}, ["f names vertex 30"]),
        ({"f": np.zeros((0, 3), int)}, ["f", "(0, 3)"]),
        ({"kintree_table": np.array([range(24), range(24)])}, ["kintree_table"]),
    ],
)
def test_a_wrong_body_is_told_in_one_sentence(layout, tmp_path, mpcli, change, words):
    content = {key: value for key, value in (layout[1] | change).items() if value is not None}
    np.savez(tmp_path / "body.npz", **content)
    result = mpcli("render", "smpl", "--body", "body.npz")
    assert result.code == 2, result.err
    for word in ["body.npz", *words]:
        assert word in result.err
    assert not os.path.exists("runs") or not list(tmp_path.rglob("run.json"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, mpcli):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    (tmp_path / "body.pkl").write_bytes(pickle.dumps({"v_template": Bomb()}))
    result = mpcli("render", "smpl", "--body", "body.pkl")
    assert result.code == 2
    assert "mkdir" in result.err
    assert not (tmp_path / "exploded").exists()


def test_out_chooses_picture_mesh_or_motion(mpcli):
    small = ["--size", 48, "--seconds", 0.2, "--quiet"]
    mesh = trimesh.load(mpcli("render", "smpl", "--out", "b.ply", *small).path, process=False)
    assert len(mesh.vertices) == len(read_body().template)
    for suffix in ("png", "gif", "mp4", "glb"):
        result = mpcli("render", "smpl", "--out", f"b.{suffix}", *small)
        assert result.code == 0, result.err
    assert not trimesh.load("b.glb").is_empty
    assert "frames" in mpcli("render", "smpl", "--frame", 10_000).err


def test_amass_motion_poses_the_body(mpcli, shared_data):
    path = shared_data / "mocap" / "01_01_amass_layout.npz"
    motion = read_motion(path)
    model = SMPL(read_body())
    vertices, _ = model(torch.zeros(1, model.shapes), motion.poses[50:51], motion.places[50:51])
    drawn = trimesh.load(mpcli("render", "smpl", "--pose", path, "--frame", 50, "--out", "b.ply").path, process=False)
    shift = drawn.vertices - vertices[0].numpy()
    assert np.abs(shift - shift.mean(0)).max() < 1e-4


def test_without_correctives_a_pose_is_skinning_alone(mpcli):
    def shown(*options):
        mesh = mpcli("render", "smpl", "--frame", 12, "--betas", "1,-1", *options, "--out", "b.ply", "--quiet")
        assert mesh.code == 0, mesh.err
        return torch.from_numpy(np.asarray(trimesh.load(mesh.path, process=False).vertices)).float()

    model = SMPL(read_body())
    motion = walk(model.joints)
    betas = torch.zeros(1, model.shapes)
    betas[0, :2] = torch.tensor([1.0, -1.0])
    pose, place = motion.poses[12:13], motion.places[12:13]
    rotations = axis_angle_to_matrix(pose)
    still, joints = model.rest(betas, torch.eye(3).expand_as(rotations))  # no turn, so no correction
    chain = model.kinematics(rotations, joints)
    shift = chain[..., :3, 3] - (chain[..., :3, :3] @ joints[..., None])[..., 0]
    each = torch.einsum("kij,jv->kiv", chain[0, :, :3, :3], still[0]) + shift[0, ..., None]
    skinned = torch.einsum("kv,kiv->vi", model.weights, each) + place
    torch.testing.assert_close(shown("--no-correctives"), skinned, atol=2e-5, rtol=0)
    assert (shown() - skinned).norm(dim=-1).max() > 0.005  # metres


def test_the_components_of_shape_and_the_share_of_each(mpcli, tmp_path):
    drawn = mpcli("render", "smpl", "--components", 2, "--size", 32, "--quiet")
    assert drawn.code == 0, drawn.err
    table = np.genfromtxt(drawn.path.with_name("shapes.csv"), delimiter=",", names=True)
    body = read_body()
    # The components are as long as their deviations, but for the root, which they hold still and the shares do not.
    lengths = (body.shapes**2).sum((0, 1))
    np.testing.assert_allclose(table["variance"][:10] / table["variance"][0], lengths / lengths[0], rtol=0.4)
    assert table["with_those_before"][9] == pytest.approx(0.9925, abs=1e-4)
    assert "has 10; give no more" in mpcli("render", "smpl", "--components", 11).err
    with np.load(importlib.resources.files("mpcli_data") / "body.npz") as arrays:
        np.savez(tmp_path / "wrong.npz", **{**arrays, "shape_variance": np.full(3, 0.1)})
    with pytest.raises(InputError, match=r"shape_variance has shape \(3,\) and the sum 0.3; right would be a share"):
        read_body(tmp_path / "wrong.npz")
