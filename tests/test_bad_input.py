"""Wrong files and wrong requests from the shell: exit 2, one sentence that names what is wrong, nothing left behind."""

import gzip
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CASES: dict[
    str, tuple[Callable[[Path], list], tuple[str, ...]]
] = {}  # what is wrong -> (makes it, gives the command), words


def case(*words: str):
    def keep(make):
        CASES[make.__name__] = make, words
        return make

    return keep


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def idx(magic: int, *sizes: int, data: bytes) -> bytes:
    return struct.pack(f">I{len(sizes)}I", magic, *sizes) + data


def blender(folder: Path, matrix: list, file: str) -> None:
    frames = [{"file_path": file, "transform_matrix": matrix}] * 10
    write(folder / "transforms.json", json.dumps({"camera_angle_x": 0.8, "frames": frames}))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@case("no page", "vea", "did you mean vae")
def unknown_page(folder):
    return ["train", "vea"]


@case("sphere", "marching-cubes")
def a_verb_that_the_page_lacks(folder):
    return ["train", "sphere"]


@case("--latent", "at least 1", "0")
def an_option_out_of_range(folder):
    return ["train", "vae", "--latent", 0]


@case("--latnet", "--latent")
def an_unknown_option(folder):
    return ["train", "vae", "--latnet", 4]


@case("nowhere")
def a_path_that_is_missing(folder):
    return ["train", "vae", "--data", "mnist:nowhere"]


@case("train-images-idx3-ubyte")
def idx_cut_short(folder):
    write(folder / "train-images-idx3-ubyte", idx(0x803, 10, 8, 8, data=bytes(100)))
    write(folder / "train-labels-idx1-ubyte", idx(0x801, 10, data=bytes(10)))
    return ["train", "vae", "--data", f"mnist:{folder}"]


@case("train-images-idx3-ubyte.gz")
def gzip_cut_short(folder):
    write(folder / "train-images-idx3-ubyte.gz", gzip.compress(idx(0x803, 10, 8, 8, data=os.urandom(640)))[:-200])
    write(folder / "train-labels-idx1-ubyte.gz", gzip.compress(idx(0x801, 10, data=bytes(10))))
    return ["train", "vae", "--data", f"mnist:{folder}"]


@case("b.png")
def a_png_that_is_none(folder):
    for name in "acd":
        Image.new("L", (8, 8)).save(folder / f"{name}.png")
    write(folder / "b.png", "no picture")
    return ["train", "vae", "--data", f"images:{folder}"]


@case("transforms.json", "lost")
def transforms_json_with_a_missing_picture(folder):
    blender(folder, np.eye(4).tolist(), "lost")
    return ["train", "nerf", "--data", f"blender:{folder}"]


@case("transforms.json", "matrix")
def transforms_json_with_a_singular_matrix(folder):
    Image.new("RGBA", (8, 8)).save(folder / "there.png")
    blender(folder, np.zeros((4, 4)).tolist(), "there")
    return ["train", "nerf", "--data", f"blender:{folder}"]


@case("cameras.bin")
def colmap_cut_short(folder):
    write(folder / "sparse/0/cameras.bin", struct.pack("<QiiQQ", 1, 1, 1, 8, 8) + bytes(20))
    write(folder / "sparse/0/images.bin", struct.pack("<Q", 0))
    write(folder / "sparse/0/points3D.bin", struct.pack("<Q", 0))
    Image.new("RGB", (8, 8)).save(write(folder / "images/a.png", ""))
    return ["train", "nerf", "--data", f"colmap:{folder}"]


@case("flat.obj", "face")
def a_mesh_without_faces(folder):
    return ["render", "mesh", "--data", write(folder / "flat.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n")]


@case("none.xyz")
def an_empty_cloud(folder):
    return ["train", "igr", "--data", write(folder / "none.xyz", "")]


@case("holes.xyz")
def nan_in_a_cloud(folder):
    return ["train", "igr", "--data", write(folder / "holes.xyz", "0 0 0\n1 nan 0\n0 1 0\n")]


@case("grid.npy")
def a_grid_that_is_flat(folder):
    np.save(folder / "grid.npy", np.zeros((4, 4)))
    return ["marching-cubes", "volume", "--data", folder / "grid.npy"]


@case("body.npz", "v_template")
def a_body_with_a_missing_key(folder):
    np.savez(folder / "body.npz", shapedirs=np.zeros((4, 3, 10)))
    return ["render", "smpl", "--body", folder / "body.npz"]


@case("body.pkl")
def a_pickle_that_would_run_code(folder):
    return ["render", "smpl", "--body", write(folder / "body.pkl", pickle.dumps(Bomb()))]


@case("poses.npz")
def a_motion_of_another_kind(folder):
    np.savez(folder / "poses.npz", nothing=np.zeros(3))
    return ["render", "smpl", "--pose", folder / "poses.npz"]


@case("nobody.json")
def keypoints_without_a_person(folder):
    return ["fit-smpl", "smplify", "--data", write(folder / "nobody.json", json.dumps({"version": 1.3, "people": []}))]


@case("CartPool-v1", "CartPole-v1")
def an_environment_that_does_not_exist(folder):
    return ["rl-run", "dqn", "--env", "CartPool-v1"]


@case("Pendulum-v1", "action")
def an_environment_with_the_wrong_actions(folder):
    return ["rl-run", "dqn", "--env", "Pendulum-v1"]


@case("CartPole-v1", "observation")
def an_environment_with_the_wrong_observations(folder):
    return ["rl-run", "q_learning", "--env", "CartPole-v1"]


@case("options.toml", "latnet")
def an_unknown_name_in_a_file_of_options(folder):
    return ["train", "vae", "--config", write(folder / "options.toml", "latnet = 4")]


@case("/proc/nowhere")
def a_directory_that_cannot_be_written(folder):
    return ["train", "vae", "--out", "/proc/nowhere"]


@case("a.docx", ".ply")
def a_format_that_cannot_be_written(folder):
    return ["marching-cubes", "sphere", "--resolution", "8", "--out", "a.docx"]


@pytest.mark.parametrize("name", CASES)
def test_it_is_told_in_one_sentence(name, mpcli, tmp_path):
    make, words = CASES[name]
    folder = tmp_path / "given"
    folder.mkdir()
    command = make(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = mpcli(*command)
    assert result.code == 2, result.err
    assert result.out == ""
    sentence = result.err.strip()
    assert sentence.startswith("mpcli: ")
    assert "\n" not in sentence
    for word in words:
        assert word in sentence
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents) == []
