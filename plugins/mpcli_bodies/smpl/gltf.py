"""Writing a skinned, animated body as glTF 2.0 (.glb): what Blender, three.js and game engines open.

The Khronos Group, glTF 2.0 Specification, 2021: sections 3.7.3 (skins), 3.11 (animations), 4.4 (the binary container).
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpcli.kit.meshes import vertex_normals
from mpcli.kit.rotations import axis_angle_to_quaternion
from mpcli_bodies.smpl.files import Body, Motion

_FLOAT, _UINT, _USHORT = 5126, 5125, 5123
_TYPES = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (16,): "MAT4"}


class _Buffer:
    """The binary part of the file, and the JSON that says what lies where in it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, values: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Append an array [N, ...]; its number."""
        kind = {"f": _FLOAT, "u": _UINT if values.dtype.itemsize == 4 else _USHORT}[values.dtype.kind]
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        self.views.append(view | ({"target": target} if target else {}))
        accessor: dict[str, Any] = {"bufferView": len(self.views) - 1, "componentType": kind, "count": len(values)}
        accessor["type"] = _TYPES[values.shape[1:]]
        if bounds:
            accessor |= {"min": np.atleast_1d(values.min(0)).tolist(), "max": np.atleast_1d(values.max(0)).tolist()}
        self.accessors.append(accessor)
        self.data += values.astype(values.dtype.newbyteorder("<")).tobytes()
        return len(self.accessors) - 1


def _weights(buffer: _Buffer, weights: np.ndarray) -> dict[str, int]:
    """Which joints move each vertex, and by how much: glTF takes them four at a time."""
    attributes = {}
    most = int((weights > 0).sum(1).max())
    order = np.argsort(-weights, axis=1, kind="stable")[:, : -(-most // 4) * 4]
    order = np.pad(order, ((0, 0), (0, -order.shape[1] % 4)), mode="edge")
    share = np.take_along_axis(weights, order, 1)
    share[:, weights.shape[1] :] = 0
    order = np.where(share > 0, order, 0)
    for group in range(order.shape[1] // 4):
        four = slice(4 * group, 4 * group + 4)
        attributes[f"JOINTS_{group}"] = buffer.add(np.ascontiguousarray(order[:, four]).astype(np.uint16), 34962)
        attributes[f"WEIGHTS_{group}"] = buffer.add(np.ascontiguousarray(share[:, four]).astype(np.float32), 34962)
    return attributes


def _nodes(rest: np.ndarray, parents: tuple[int, ...], up: tuple[float, ...]) -> tuple[list[dict[str, Any]], int]:
    """The joints in their order, then the mesh, then the scene that turns `up` to y; and which joint is the root."""
    nodes: list[dict[str, Any]] = []
    for k, parent in enumerate(parents):
        offset = rest[k] - (rest[parent] if parent >= 0 else 0)
        children = [c for c, p in enumerate(parents) if p == k]
        nodes.append(
            {"name": f"joint_{k}", "translation": offset.tolist()} | ({"children": children} if children else {})
        )
    root = parents.index(-1)
    nodes.append({"name": "body", "mesh": 0, "skin": 0})
    scene = {"name": "scene", "children": [root, len(nodes) - 1]}
    if up[2]:
        scene["rotation"] = [-(0.5**0.5), 0.0, 0.0, 0.5**0.5]
    nodes.append(scene)
    return nodes, root


def _animation(buffer: _Buffer, motion: Motion, rest: np.ndarray, root: int) -> dict[str, Any]:
    times = buffer.add(np.arange(len(motion.poses), dtype=np.float32) / np.float32(motion.rate), bounds=True)
    turns = axis_angle_to_quaternion(motion.poses.double()).cpu().numpy()
    flips = np.cumprod(np.where((turns[1:] * turns[:-1]).sum(-1, keepdims=True) < 0, -1, 1), axis=0)
    turns[1:] *= flips  # q and -q are one rotation, but between them lies a whole turn
    outputs = [buffer.add(turns[:, k, [1, 2, 3, 0]].astype(np.float32)) for k in range(len(rest))]
    places = buffer.add((motion.places.cpu().numpy() + rest[root]).astype(np.float32))
    samplers = [{"input": times, "output": output, "interpolation": "LINEAR"} for output in [*outputs, places]]
    channels = [{"sampler": k, "target": {"node": k, "path": "rotation"}} for k in range(len(rest))]
    channels.append({"sampler": len(rest), "target": {"node": root, "path": "translation"}})
    return {"name": "motion", "samplers": samplers, "channels": channels}


def write(path: Path, vertices: Tensor, joints: Tensor, body: Body, motion: Motion, up: tuple[float, ...]) -> None:
    """Write a body at rest, its skeleton and its motion.

    Args:
        vertices: the shaped body at rest, [V, 3], metres.
        joints: its joints, [K, 3].
        body: whose faces, weights and tree of joints to use.
        motion: the poses; frame 0 is at time 0.
        up: the vertical axis of the motion; glTF's is y.
    """
    buffer = _Buffer()
    rest = joints.cpu().numpy().astype(np.float32)
    normals = vertex_normals(vertices, torch.from_numpy(body.faces).to(vertices.device))
    attributes = {
        "POSITION": buffer.add(vertices.cpu().numpy().astype(np.float32), 34962, bounds=True),
        "NORMAL": buffer.add(normals.cpu().numpy().astype(np.float32), 34962),
    }
    attributes |= _weights(buffer, body.weights)
    indices = buffer.add(body.faces.reshape(-1).astype(np.uint32), 34963)
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(rest), 1, 1))
    inverse[:, :3, 3] = -rest
    binding = buffer.add(inverse.transpose(0, 2, 1).reshape(-1, 16))  # column by column

    nodes, root = _nodes(rest, body.parents, up)
    animation = _animation(buffer, motion, rest, root)
    document = {
        "asset": {"version": "2.0", "generator": "mpcli"},
        "scene": 0,
        "scenes": [{"nodes": [len(nodes) - 1]}],
        "nodes": nodes,
        "meshes": [{"name": "body", "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [{
            "name": "clay",
            "pbrMetallicRoughness": {"baseColorFactor": [0.6, 0.58, 0.52, 1], "metallicFactor": 0},
        }],
        "skins": [{"inverseBindMatrices": binding, "joints": list(range(len(rest))), "skeleton": root}],
        "animations": [animation],
        "buffers": [{"byteLength": len(buffer.data)}],
        "bufferViews": buffer.views,
        "accessors": buffer.accessors,
    }  # fmt: skip
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    data = bytes(buffer.data) + b"\0" * (-len(buffer.data) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
