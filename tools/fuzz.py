"""python tools/fuzz.py [--count N] [--seed S] [READER ...]: damaged files for every reader of data.

A reader gives data or raises `InputError`, and nothing else; what else comes is printed with the seed that makes the
file again. `tests/kit/test_fuzz.py` runs 300 files a reader.
"""

import argparse
import gzip
import io
import json
import pickle
import random
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from mpcli.errors import InputError
from mpcli.kit import datasets, pickles
from mpcli.kit.datasets import files
from mpcli_bodies.kit import keypoints
from mpcli_bodies.smpl.files import read_body, read_motion

WORDS = (
    b"-1", b"0", b"1e999", b"nan", b"null", b"[]", b"{}", b'"x"', b"99999999999999999999", b"2147483648", b"true",
    b"\xff", b"\0", b" ", b"\n", b",", b"[[[[", b"../..", b"'", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80",
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """What is damaged (a whole file, by its name in a folder of others), and what reads it."""

    name: str
    files: dict[str, bytes]
    damaged: str
    read: Callable[[Path], Any]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four faults: cut, flipped, repeated, or with a hostile word in them."""
    for _ in range(rng.randint(1, 4)):
        at, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        match rng.randrange(7):
            case 0:
                data = data[:at]
            case 1 | 2:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 3:
                data = (
                    data[:at] + data[end:]
                    if rng.random() < 0.5
                    else data[: at + 1] + data[at + 1 + rng.randint(1, 9) :]
                )
            case 4:
                data = data[:at] + data[at : at + rng.randint(1, 40)] + data[at:]
            case 5:
                word = rng.choice(WORDS)
                data = data[:at] + word + data[at + (len(word) if rng.random() < 0.5 else 0) :]
            case _:
                # Numbers of text are where sizes and counts stand.
                digits = [i for i, byte in enumerate(data[:4000]) if 48 <= byte < 58]
                if digits:
                    place = rng.choice(digits)
                    data = data[:place] + rng.choice(WORDS) + data[place + 1 :]
    return data


def fuzz(reader: Reader, folder: Path, count: int, seed: int = 0) -> Iterator[tuple[int, BaseException]]:
    """Read so many damaged files; gives the seed and the exception of each that fails otherwise than it may."""
    for name, data in reader.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    whole = reader.files[reader.damaged]
    for number in range(seed, seed + count):
        (folder / reader.damaged).write_bytes(mutated(whole, random.Random(number)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(folder)
        except InputError:
            pass
        except Exception as error:
            yield number, error


def _packed(save: Callable[..., None], *args: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *args, **named)
    return buffer.getvalue()


def _png(size: int = 4, mode: str = "RGB", kind: str = "PNG", shade: int = 70) -> bytes:
    return _packed(lambda buffer: Image.new(mode, (size, size), shade).save(buffer, kind))


def _array(values: np.ndarray) -> bytes:
    return _packed(lambda stream, x: Image.fromarray(x).save(stream, "PNG"), values)


def _path(name: str, kind: type, of: str) -> Callable[[Path], Any]:
    return lambda folder: datasets.load(f"{of}:{folder / name}", kind)


def _mesh(kind: str) -> Reader:
    box = trimesh.creation.box()
    data = box.export(file_type=kind)
    name = f"m.{kind}"
    data = data if isinstance(data, bytes) else data.encode()
    return Reader(f"mesh {kind}", {name: data}, name, _path(name, trimesh.Trimesh, "mesh"))


def _cloud(name: str, data: bytes) -> Reader:
    return Reader(f"points {name}", {name: data}, name, _path(name, datasets.Points, "points"))


def _scene(damaged: str) -> Reader:
    frames = [{"file_path": f"{i}.png", "transform_matrix": np.eye(4).tolist(), "w": 4, "h": 4} for i in range(3)]
    tree = {"camera_model": "OPENCV", "fl_x": 5.0, "fl_y": 5.0, "cx": 2.0, "cy": 2.0, "k1": 0.0, "frames": frames}
    parts = {"transforms.json": json.dumps(tree).encode(), **{f"{i}.png": _png() for i in range(3)}}
    return Reader(
        f"blender {damaged}", parts, damaged, lambda folder: datasets.load(f"blender:{folder}", datasets.Scene)
    )


def _colmap(damaged: str) -> Reader:
    pose = "0.9 0.1 0 0 0 0 2"
    binary = {
        "cameras": struct.pack("<QIiQQ4d", 1, 1, 1, 4, 4, 5, 5, 2, 2),
        "images": struct.pack("<Q", 3)
        + b"".join(struct.pack("<I7dI", i, 1, 0, 0, 0, 0, 0, 2, 1) + b"%d.png\0" % i + bytes(8) for i in range(3)),
        "points3D": struct.pack("<QQ3d3BdQII", 1, 1, 0, 0, 1, 1, 2, 3, 0.1, 1, 1, 1),
    }
    text = {
        "cameras": b"# cameras\n1 OPENCV 4 4 5 5 2 2 0.01 0 0 0\n",
        "images": "".join(f"{i} {pose} 1 {i}.png\n1 1 -1\n" for i in range(3)).encode(),
        "points3D": b"1 0 0 1 10 20 30 0.1 1 1\n",
    }
    chosen = binary if damaged.endswith(".bin") else text
    parts = {f"sparse/0/{name}{Path(damaged).suffix}": data for name, data in chosen.items()}
    parts |= {f"images/{i}.png": _png() for i in range(3)}
    return Reader(
        f"colmap {damaged}", parts, f"sparse/0/{damaged}", lambda f: datasets.load(f"colmap:{f}", datasets.Scene)
    )


def _idx(damaged: str) -> Reader:
    parts = {
        f"{part}-{what}": b"\0\0\x08"
        + bytes([len(shape)])
        + struct.pack(f">{len(shape)}I", *shape)
        + bytes(np.prod(shape))
        for part in ("train", "t10k")
        for what, shape in (("images-idx3-ubyte", (24, 2, 2)), ("labels-idx1-ubyte", (24,)))
    }
    parts = {f"{name}.gz": gzip.compress(data) for name, data in parts.items()} if damaged.endswith("gz") else parts
    return Reader(f"mnist {damaged}", parts, damaged, lambda f: datasets.load(f"mnist:{f}", datasets.Images))


def _cifar(damaged: str) -> Reader:
    batch = pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": [0, 1] * 5}, 2)
    parts = {"data_batch_1": batch, "batches.meta": pickle.dumps({b"label_names": [b"a", b"b"]}, 2)}
    return Reader(f"cifar10 {damaged}", parts, damaged, lambda f: datasets.load(f"cifar10:{f}", datasets.Images))


def _pictures(name: str, data: bytes) -> Reader:
    parts = {name: data, **{f"{i}.png": _png() for i in range(3)}}
    return Reader(f"images {name}", parts, name, lambda f: datasets.load(f"images:{f}@4", datasets.Images))


def _masks(damaged: str) -> Reader:
    values = np.zeros((4, 4), np.uint8)
    values[2:] = 255
    parts = {f"images/{i}.png": _png() for i in range(4)} | {f"masks/{i}.png": _array(values) for i in range(4)}
    parts |= {f"instances/{i}.png": _array(values.astype(np.uint16) * 3) for i in range(4)}
    return Reader(
        f"masks {damaged}", parts, damaged, lambda f: datasets.load(f"segmentation:{f}", datasets.Segmentation)
    )


def _boxes(damaged: str) -> Reader:
    tree = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(4)],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": [0, 1, 3, 2]} for i in range(4)],
        "categories": [{"id": 1, "name": "a"}],
    }
    parts = {"b.json": json.dumps(tree).encode()} | {f"{i}.png": _png() for i in range(4)}
    return Reader(f"boxes {damaged}", parts, damaged, _path("b.json", datasets.Boxes, "boxes"))


def _table(name: str, delimiter: str) -> Reader:
    lines = [["a", "b", "kind"], *([str(i), f"{i / 7:.3f}", "yes" if i % 2 else "no"] for i in range(12))]
    text = "\n".join(delimiter.join(line) for line in lines).encode()
    return Reader(f"table {name}", {name: text}, name, _path(name, datasets.Table, "table"))


def _body(name: str) -> Reader:
    values = {
        "v_template": np.eye(3), "shapedirs": np.zeros((3, 3, 1)), "posedirs": np.zeros((3, 3, 9)),
        "J_regressor": np.full((2, 3), 1 / 3), "weights": np.full((3, 2), 0.5),
        "kintree_table": np.array([[-1, 0], [0, 1]]), "f": np.array([[0, 1, 2]]),
    }  # fmt: skip
    data = _packed(np.savez, **values) if name.endswith("npz") else pickle.dumps(values, 2)
    return Reader(f"body {name}", {name: data}, name, lambda f: read_body(f / name))


def _people(name: str, tree: Any) -> Reader:
    return Reader(f"keypoints {name}", {name: json.dumps(tree).encode()}, name, lambda f: keypoints.read(f / name))


def readers() -> list[Reader]:
    """One for every format and kind of file."""
    xyz = np.linspace(-1, 1, 30).reshape(10, 3)
    text = "".join("{} {} {}\n".format(*row) for row in xyz).encode()
    pcd = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 10\nHEIGHT 1\nPOINTS 10\nDATA {}\n"
    literals = b"".join(
        bytes([len(part) - 1]) + part
        for part in (np.ascontiguousarray(xyz.T, "<f4").tobytes()[i : i + 32] for i in range(0, 120, 32))
    )
    flat = [float(i % 7 + 1) for i in range(75)]
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(keypoints.COCO_17)}],
        "annotations": [{"image_id": 1, "category_id": 1, "keypoints": flat[:51]}],
    }
    motion = _packed(np.savez, poses=np.zeros((2, 72)), trans=np.zeros((2, 3)), mocap_framerate=30.0)
    joints = _packed(np.savez, joints=np.ones((2, 24, 3)), confidence=np.ones((2, 24)))
    return [
        *map(_mesh, ("obj", "ply", "glb", "stl", "off")),
        _cloud("p.ply", trimesh.PointCloud(xyz).export(file_type="ply")),
        _cloud("p.xyz", text),
        _cloud("p.pts", b"10\n" + text),
        _cloud("p.npy", _packed(np.save, xyz)),
        _cloud("p.npz", _packed(np.savez_compressed, xyz=xyz)),
        _cloud("p.obj", b"".join(b"v " + line + b"\n" for line in text.splitlines())),
        _cloud("a.pcd", pcd.format("ascii").encode() + text),
        _cloud("b.pcd", pcd.format("binary").encode() + xyz.astype("<f4").tobytes()),
        _cloud("c.pcd", pcd.format("binary_compressed").encode() + struct.pack("<II", len(literals), 120) + literals),
        *map(_scene, ("transforms.json", "1.png")),
        *map(_colmap, [f"{name}.{kind}" for kind in ("bin", "txt") for name in ("cameras", "images", "points3D")]),
        *map(_idx, ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte.gz")),
        *map(_cifar, ("data_batch_1", "batches.meta")),
        _pictures("a.png", _png()),
        _pictures("a.jpg", _png(kind="JPEG")),
        *(_pictures(f"a.{kind.lower()}", _png(kind=kind)) for kind in ("BMP", "GIF", "TIFF", "WEBP", "PPM")),
        _pictures("b.png", _png(mode="I;16", shade=20_000)),
        *map(_masks, ("images/1.png", "masks/2.png", "instances/3.png")),
        *map(_boxes, ("b.json", "2.png")),
        _table("t.csv", ","),
        _table("t.tsv", "\t"),
        *map(_body, ("b.npz", "b.pkl")),
        Reader("motion", {"m.npz": motion}, "m.npz", lambda f: read_motion(f / "m.npz")),
        Reader("joints", {"j.npz": joints}, "j.npz", lambda f: keypoints.read_joints(f / "j.npz")),
        _people("openpose.json", {"people": [{"pose_keypoints_2d": flat}], "canvas_width": 9, "canvas_height": 9}),
        _people("coco.json", coco),
        Reader("pickle", {"p.pkl": pickle.dumps({"a": xyz})}, "p.pkl", lambda f: pickles.load(f / "p.pkl")),
        Reader("npy", {"a.npy": _packed(np.save, xyz)}, "a.npy", lambda f: files.read_npy(f / "a.npy")),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("reader", nargs="*", help="of these readers only")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    wanted, failed = parser.parse_args(), 0
    for reader in readers():
        if wanted.reader and reader.name not in wanted.reader:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for number, error in fuzz(reader, Path(folder), wanted.count, wanted.seed):
                failed += 1
                print(f"{reader.name}, seed {number}: {type(error).__name__}: {str(error)[:150]}", flush=True)
        print(f"{reader.name}: {wanted.count} files", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
