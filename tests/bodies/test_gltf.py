"""The glTF file, read back and posed by the rules of its specification, against the body function."""

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mpcli_bodies.smpl import SMPL, read_body
from mpcli_bodies.smpl.files import random_body, walk
from mpcli_bodies.smpl.gltf import write

NUMBERS = {5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTH = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class File:
    """A .glb: its JSON, and its accessors as arrays."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.json = json.loads(data[20 : 20 + size])
        rest, kind = struct.unpack_from("<I4s", data, 20 + size)
        assert kind == b"BIN\0" and 28 + size + rest == len(data)
        self.data = data[28 + size :]
        assert self.json["buffers"][0]["byteLength"] <= rest

    def array(self, number: int) -> np.ndarray:
        accessor = self.json["accessors"][number]
        view = self.json["bufferViews"][accessor["bufferView"]]
        kind, width = NUMBERS[accessor["componentType"]], WIDTH[accessor["type"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteLength"] == accessor["count"] * width * np.dtype(kind).itemsize
        values = np.frombuffer(self.data, kind, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)
        if "min" in accessor:
            assert np.array_equal(values.min(0), np.array(accessor["min"], np.float32))
            assert np.array_equal(values.max(0), np.array(accessor["max"], np.float32))
        return values

    def posed(self, frame: int) -> np.ndarray:
        """Vertices in the world at the time of one key frame."""
        nodes = [dict(node) for node in self.json["nodes"]]
        animation = self.json["animations"][0]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            nodes[channel["target"]["node"]][channel["target"]["path"]] = self.array(sampler["output"])[frame]
        world: dict[int, np.ndarray] = {}

        def visit(number: int, above: np.ndarray) -> None:
            local = np.eye(4)
            local[:3, :3] = Rotation.from_quat(nodes[number].get("rotation", [0, 0, 0, 1])).as_matrix()
            local[:3, 3] = nodes[number].get("translation", [0, 0, 0])
            world[number] = above @ local
            for child in nodes[number].get("children", []):
                visit(child, world[number])

        for number in self.json["scenes"][0]["nodes"]:
            visit(number, np.eye(4))
        skin, attributes = self.json["skins"][0], self.json["meshes"][0]["primitives"][0]["attributes"]
        bind = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        bones = np.array([world[joint] @ bind[k] for k, joint in enumerate(skin["joints"])])
        points = np.pad(self.array(attributes["POSITION"]), ((0, 0), (0, 1)), constant_values=1)
        total = np.zeros((len(points), 4))
        for group in range(sum(name.startswith("JOINTS_") for name in attributes)):
            joints, share = self.array(attributes[f"JOINTS_{group}"]), self.array(attributes[f"WEIGHTS_{group}"])
            for k in range(4):
                total += share[:, k, None] * (bones[joints[:, k]] @ points[..., None])[..., 0]
        return total[:, :3]


@pytest.mark.parametrize("up", [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("source", ["embedded", "random"])
def test_other_tools_see_the_same_motion(tmp_path, source, up):
    body = read_body() if source == "embedded" else random_body(torch.Generator().manual_seed(3), vertices=70)
    bare = dataclasses.replace(body, correctives=0 * body.correctives)  # which glTF's skinning does not have
    model, motion = SMPL(bare), walk(24)[::13]
    betas = torch.linspace(-1, 1, model.shapes)[None]
    still, joints = model(betas, torch.zeros(1, 24, 3))
    write(tmp_path / "b.glb", still[0], joints[0], bare, motion, up)
    file = File(tmp_path / "b.glb")
    assert np.array_equal(file.array(file.json["meshes"][0]["primitives"][0]["indices"]).reshape(-1, 3), body.faces)
    times = file.array(file.json["animations"][0]["samplers"][0]["input"])[:, 0]
    assert np.allclose(times, np.arange(len(motion)) / motion.rate)
    for frame in range(len(motion)):
        true = model(betas, motion.poses[frame : frame + 1], motion.places[frame : frame + 1])[0][0].numpy()
        if up[2]:
            true = np.stack([true[:, 0], true[:, 2], -true[:, 1]], 1)  # z up, as y up
        assert np.abs(file.posed(frame) - true).max() < 1e-5


def test_more_than_four_bones_a_vertex_take_a_second_set(tmp_path):
    body = random_body(torch.Generator().manual_seed(4), vertices=20)
    weights = np.random.default_rng(0).dirichlet(np.ones(6), 20)
    body = dataclasses.replace(body, weights=np.pad(weights, ((0, 0), (0, 18))), correctives=0 * body.correctives)
    model, motion = SMPL(body), walk(24)[:3]
    still, joints = model(torch.zeros(1, 10), torch.zeros(1, 24, 3))
    write(tmp_path / "b.glb", still[0], joints[0], body, motion, (0.0, 1.0, 0.0))
    file = File(tmp_path / "b.glb")
    assert "JOINTS_1" in file.json["meshes"][0]["primitives"][0]["attributes"]
    true = model(torch.zeros(1, 10), motion.poses[2:], motion.places[2:])[0][0].numpy()
    assert np.abs(file.posed(2) - true).max() < 1e-5


def test_neighbouring_key_frames_turn_the_short_way(tmp_path):
    body = random_body(torch.Generator().manual_seed(5), vertices=20)
    motion = walk(24)[:40]
    motion.poses[:, 0, 1] = torch.linspace(0, 6.2, 40)  # a whole turn, through the half where quaternions change sign
    write(tmp_path / "b.glb", torch.zeros(20, 3), torch.zeros(24, 3), body, motion, (0.0, 1.0, 0.0))
    file = File(tmp_path / "b.glb")
    for sampler in file.json["animations"][0]["samplers"][:-1]:
        turns = file.array(sampler["output"])
        assert ((turns[1:] * turns[:-1]).sum(1) > 0).all()
