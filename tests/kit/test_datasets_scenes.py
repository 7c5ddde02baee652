"""Scenes: cameras that see what the pictures show, in both layouts, and every way in which they can be wrong."""

import json
import math
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.cameras import look_at, orbit, pinhole
from mpcli.kit.datasets import colmap as reader
from mpcli.kit.datasets.scenes import bounds_of_views
from mpcli.notices import Notice

# Blender


def write_blender(folder, parts=(("train", 4), ("val", 2), ("test", 3)), size=(8, 6), mode="RGBA", **shared):
    poses = orbit(sum(n for _, n in parts), 4.0, 0.5, width=8, height=6).pose
    shared = shared or {"camera_angle_x": 0.8}
    number = 0
    for part, n in parts:
        frames = []
        for i in range(n):
            path = folder / part / f"r_{i}.png"
            path.parent.mkdir(exist_ok=True, parents=True)
            Image.new(mode, size, (10 * number, 20, 30, 128)[: len(mode)]).save(path)
            frames.append({"file_path": f"./{part}/r_{i}", "transform_matrix": poses[number].tolist()})
            number += 1
        name = "transforms.json" if part == "all" else f"transforms_{part}.json"
        (folder / name).write_text(json.dumps({**shared, "frames": frames}))
    return poses


def test_blender_poses_lens_pictures_and_split(tmp_path):
    poses = write_blender(tmp_path)
    scene = datasets.load(f"blender:{tmp_path}", datasets.Scene)
    assert [len(part) for part in scene.split.parts().values()] == [4, 2, 3]
    assert scene.images.shape == (9, 4, 6, 8)
    assert sorted(torch.cat(list(scene.split.parts().values())).tolist()) == list(range(9))
    by_name = {name: i for i, name in enumerate(scene.names)}
    for number, name in enumerate(["train/r_0.png", "train/r_3.png", "val/r_0.png", "test/r_2.png"]):
        source, part = (0, 3, 4, 8)[number], ("train", "train", "validation", "test")[number]
        i = by_name[name]
        torch.testing.assert_close(scene.cameras.pose[i], poses[source])
        torch.testing.assert_close(scene.images[i, :, 0, 0] * 255, torch.tensor([10.0 * source, 20, 30, 128]))
        assert i in scene.split.parts()[part]
    focal = 8 / (2 * math.tan(0.4))
    torch.testing.assert_close(scene.cameras.focal, torch.full((9, 2), focal))
    torch.testing.assert_close(scene.cameras.centre, torch.tensor([[4.0, 3.0]]).expand(9, 2))
    assert scene.bounds == pytest.approx((2, 6), abs=1e-4)
    assert scene.describe() == f"{tmp_path.name}: 4 train, 2 validation, 3 test views of 8x6"
    assert torch.equal(datasets.load(str(tmp_path), datasets.Scene).images[:], scene.images[:])


def test_every_eighth_frame_is_held_out_where_there_is_no_split(tmp_path):
    write_blender(tmp_path, [("all", 17)], mode="RGB", fl_x=20, fl_y=10.5, cx=3.5, cy=2.5, w=16, h=12)
    scene = datasets.load(f"blender:{tmp_path}", datasets.Scene)
    assert scene.split.test.tolist() == [0, 8, 16] and len(scene.split.train) == 14
    assert len(scene.split.validation) == 0 and scene.images.shape == (17, 3, 6, 8)
    # The lens is that of pictures of 16x12, of which these are the halves.
    torch.testing.assert_close(scene.cameras.focal[0], torch.tensor([10.0, 5.25]))
    torch.testing.assert_close(scene.cameras.centre[0], torch.tensor([1.75, 1.25]))
    (tmp_path / "transforms.json").rename(tmp_path / "transforms_train.json")
    again = datasets.load(f"blender:{tmp_path}", datasets.Scene)
    assert again.split.test.tolist() == [0, 8, 16]


def test_a_lens_of_its_own_for_a_frame(tmp_path):
    write_blender(tmp_path, [("all", 2)], fl_x=20)
    tree = json.loads((tmp_path / "transforms.json").read_text())
    tree["frames"][1]["fl_x"] = 30
    tree["frames"][1]["transform_matrix"] = tree["frames"][1]["transform_matrix"][:3]
    (tmp_path / "transforms.json").write_text(json.dumps(tree))
    scene = datasets.load(f"blender:{tmp_path}", datasets.Scene)
    assert scene.cameras.focal.tolist() == [[20, 20], [30, 30]]
    assert scene.cameras.pose[1, 3].tolist() == [0, 0, 0, 1]


def test_scaled_pictures_have_scaled_cameras(tmp_path):
    write_blender(tmp_path, size=(40, 30))
    whole, half = (datasets.load(f"blender:{tmp_path}{size}", datasets.Scene) for size in ("", "@20"))
    assert half.images.shape == (9, 4, 15, 20) and (half.cameras.width, half.cameras.height) == (20, 15)
    torch.testing.assert_close(half.cameras.focal * 2, whole.cameras.focal)
    torch.testing.assert_close(half.cameras.centre * 2, whole.cameras.centre)
    torch.testing.assert_close(half.images[:].mean((2, 3)), whole.images[:].mean((2, 3)), atol=5e-3, rtol=0)


def test_real_scene(shared_data):
    scene = datasets.load(f"blender:{shared_data / 'nerf-spot'}", datasets.Scene)
    assert [len(part) for part in scene.split.parts().values()] == [100, 10, 30]
    assert scene.images.shape == (140, 4, 128, 128) and scene.bounds == pytest.approx((2.015, 6.047), abs=0.01)
    # Depth of the test views, thrown out along the rays, lies on the surface that was rendered.
    import trimesh
    from scipy.spatial import cKDTree

    truth = trimesh.load(shared_data / "nerf-spot" / "gt_mesh.ply")
    surface = cKDTree(truth.sample(20000, seed=0))
    data = np.load(shared_data / "nerf-spot" / "test_depth_normals.npz")
    depth = torch.from_numpy(data["depth"]).float()
    test = scene.cameras[scene.split.test]
    for view in (0, 7, 29):
        if "test" not in scene.names[scene.split.test[view]]:
            raise AssertionError
        origins, directions = test[view].rays()
        along = directions[0] @ -test.pose[view, :3, 2]
        seen = (depth[view] > 0) & torch.isfinite(depth[view]) & (depth[view] < 10)
        points = (origins[0] + directions[0] * (depth[view] / along)[..., None])[seen]
        assert len(points) > 1000
        assert np.mean(surface.query(points.numpy())[0]) < 0.012


def edited(change):
    def write(folder):
        path = folder / "transforms_train.json"
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))

    return write


def frame(**values):
    return edited(lambda tree: tree["frames"][1].update(values))


def matrix(change):
    def apply(tree):
        pose = np.array(tree["frames"][1]["transform_matrix"])
        tree["frames"][1]["transform_matrix"] = change(pose).tolist()

    return edited(apply)


def text(content):
    return lambda folder: (folder / "transforms_train.json").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (text(b"{"), r"transforms_train\.json: is not JSON"),
        (text(b""), "is not JSON"),
        (text(b"\xff\xd8\xff"), "is no text"),
        (text(b"[" * 100000), "is not JSON"),
        (text(b"[]"), "holds a JSON list; right would be an object"),
        (text(b"{}"), "has no frames; right would be a list"),
        (text(b'{"frames": {}}'), "has no frames"),
        (text(b'{"frames": [3], "camera_angle_x": 1}'), "frame 0 has no file_path"),
        (frame(file_path="./train/gone"), r"there is no picture \./train/gone; right would be a picture"),
        (frame(file_path="../../etc/passwd"), r"refers to '../../etc/passwd', outside"),
        (frame(file_path="/etc/passwd"), "/etc/passwd: is no picture"),
        (frame(file_path="/etc/gone.png"), "refers to '/etc/gone.png', outside"),
        (frame(file_path="a\0b"), "outside"),
        (frame(file_path=None), "frame 1 has no file_path"),
        (frame(file_path=""), "there is no picture"),
        (frame(transform_matrix=None), "frame 1 has no transform_matrix of 4x4 numbers"),
        (frame(transform_matrix=[[1, 2], [3]]), "frame 1 has no transform_matrix"),
        (frame(transform_matrix=[["x"] * 4] * 4), "frame 1 has no transform_matrix"),
        (frame(transform_matrix=[[0] * 4] * 4), "frame 1 has a singular transform_matrix"),
        (matrix(lambda m: m * [1, 1, 0, 1]), "frame 1 has a singular transform_matrix; right would be a rotation"),
        (matrix(lambda m: m * np.nan), "frame 1 has no transform_matrix"),
        (matrix(lambda m: m * [2, 2, 2, 1]), "that scales, shears or mirrors"),
        (matrix(lambda m: m * [-1, 1, 1, 1]), "that scales, shears or mirrors"),
        (matrix(lambda m: m + [[0, 0.1, 0, 0]] * 4), "that scales, shears or mirrors"),
        (matrix(lambda m: m * [[1], [1], [1], [2]]), "that scales, shears or mirrors"),
        (edited(lambda t: t.pop("camera_angle_x")), "has no lens; right would be camera_angle_x"),
        (edited(lambda t: t.update(camera_angle_x=4)), "has no lens"),
        (edited(lambda t: t.update(camera_angle_x="wide")), "has the camera_angle_x 'wide'; right would be a finite"),
        (edited(lambda t: t.update(camera_angle_x=float("nan"))), "has the camera_angle_x nan"),
        (edited(lambda t: t.update(fl_x=0)), "has the fl_x 0.0; right would be a positive number"),
        (edited(lambda t: t.update(fl_x=5, w=-4)), "has the w -4.0; right would be a positive number"),
        (edited(lambda t: t.update(k3=0.1)), "is of a lens with k3, which OPENCV has not"),
        (edited(lambda t: t.update(camera_model="FOV")), "is of a lens with FOV"),
        (lambda f: (f / "train/r_1.png").write_bytes(b"hello"), r"r_1\.png: is no picture"),
        (lambda f: (f / "transforms_train.json").unlink(), r"has no transforms_train\.json"),
    ],
)
def test_blender_scenes_that_are_wrong(tmp_path, damage, message):
    write_blender(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        datasets.load(f"blender:{tmp_path}", datasets.Scene)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    write_blender(tmp_path / "scene")
    Image.new("RGBA", (8, 6)).save(tmp_path / "outside.png")
    (tmp_path / "scene" / "train" / "r_1.png").unlink()
    (tmp_path / "scene" / "train" / "r_1.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(InputError, match="outside"):
        datasets.load(f"blender:{tmp_path / 'scene'}", datasets.Scene)


def test_one_frame_leaves_nothing_to_train_on(tmp_path):
    write_blender(tmp_path, [("all", 1)])
    with pytest.raises(InputError, match="has 1 frames; right would be at least two"):
        datasets.load(f"blender:{tmp_path}", datasets.Scene)


def test_bounds_follow_the_cameras():
    target = torch.tensor([3.0, -1.0, 2.0])
    cameras = orbit(12, 4.0, 0.3, target.tolist(), width=8, height=8)
    assert bounds_of_views(cameras) == pytest.approx((2, 6), abs=1e-3)
    side_by_side = pinhole(
        look_at(torch.tensor([[0.0, 0, 5], [1, 0, 5]]), torch.tensor([[0.0, 0, 0], [1, 0, 0]])), 1.0, 8, 8
    )
    near, far = bounds_of_views(side_by_side)  # parallel axes meet nowhere
    assert 0 < near < far < math.inf


# COLMAP


def copy_spot(shared_data, folder, binary):
    source = shared_data / "colmap-spot"
    shutil.copytree(source / "images", folder / "images")
    shutil.copytree(source / "sparse" / ("0" if binary else "0_txt"), folder / "sparse" / "0")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def observations(path):
    """The picture coordinates that COLMAP measured, from images.txt, for each picture: (x, y, number of the point)."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    found = {}
    for head, body in zip(lines[::2], lines[1::2], strict=True):
        rows = np.array(body.split(), dtype=np.float64).reshape(-1, 3)
        found[head.split()[9]] = rows[rows[:, 2] >= 0]
    return found


def point_numbers(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {int(line.split()[0]): i for i, line in enumerate(lines)}


def test_colmap_cameras_see_the_points_where_colmap_saw_them(shared_data):
    scene = datasets.load(f"colmap:{shared_data / 'colmap-spot'}", datasets.Scene)
    assert scene.images.shape[0] == 40 and scene.images.shape[2:] == (128, 128) and len(scene.points) == 1714
    assert scene.names == tuple(sorted(scene.names))
    assert scene.split.test.tolist() == [0, 8, 16, 24, 32] and len(scene.split.train) == 35
    text = shared_data / "colmap-spot" / "sparse" / "0_txt"
    seen, numbers = observations(text / "images.txt"), point_numbers(text / "points3D.txt")
    for i, name in enumerate(scene.names):
        rows = seen[name]
        points = scene.points.xyz[[numbers[int(n)] for n in rows[:, 2]]]
        pixels, depth = scene.cameras[i].project(points)
        assert (depth > 0).all()
        np.testing.assert_allclose(pixels[0], rows[:, :2], atol=2e-3)
        distance = (points - scene.cameras.pose[i, :3, 3]).norm(dim=1)
        assert scene.bounds[0] < distance.min() and distance.max() < scene.bounds[1]
    # And the points have the colour that they have in the pictures.
    x, y = pixels[0].long().unbind(-1)
    agree = (scene.images[39][:3, y, x].T - scene.points.colours[[numbers[int(n)] for n in rows[:, 2]]]).abs().mean()
    assert agree < 0.15


def test_colmap_text_and_binary_are_the_same(shared_data):
    binary = datasets.load(f"colmap:{shared_data / 'colmap-spot'}", datasets.Scene)
    text = datasets.load(f"colmap:{shared_data / 'colmap-spot' / 'sparse' / '0_txt'}", datasets.Scene)
    torch.testing.assert_close(binary.cameras.pose, text.cameras.pose)
    torch.testing.assert_close(binary.points.xyz.sort(0).values, text.points.xyz.sort(0).values)
    assert torch.equal(binary.images[:], text.images[:]) and binary.names == text.names
    assert datasets.load(str(shared_data / "colmap-spot"), datasets.Scene).names == text.names


def test_colmap_agrees_with_the_scene_it_was_made_of(shared_data):
    colmap = datasets.load(f"colmap:{shared_data / 'colmap-spot'}", datasets.Scene)
    blender = datasets.load(f"blender:{shared_data / 'nerf-spot'}", datasets.Scene)
    names = {name: i for i, name in enumerate(blender.names)}
    for i, name in enumerate(colmap.names):
        j = names[f"train/{name}"]
        torch.testing.assert_close(colmap.cameras.pose[i], blender.cameras.pose[j], atol=1e-5, rtol=0)
        torch.testing.assert_close(colmap.cameras.focal[i], blender.cameras.focal[j])
        rgb, alpha = blender.images[j, :3], blender.images[j, 3:]
        torch.testing.assert_close(colmap.images[i, :3], rgb * alpha + 1 - alpha, atol=0.01, rtol=0)


def test_a_real_reconstruction_reprojects_as_colmap_says(shared_data):
    folder = shared_data / "colmap-sceaux"
    model = reader.read_model(folder / "txt")
    assert len(model.names) == 11 and len(model.xyz) == 7862 and model.lenses[0].distorts
    seen, numbers = observations(folder / "txt" / "images.txt"), point_numbers(folder / "txt" / "points3D.txt")
    assert sum(map(len, seen.values())) == 37123
    errors, counts = np.zeros(7862), np.zeros(7862)
    for i, name in enumerate(model.names):
        chosen = [numbers[int(n)] for n in seen[name][:, 2]]
        camera = model.xyz[chosen] @ model.world_to_camera[i, :3, :3].T + model.world_to_camera[i, :3, 3]
        lens = model.lenses[i]
        f_x, f_y, c_x, c_y = lens.values[:4]
        pixels = lens.distorted(camera[:, :2] / camera[:, 2:]) * torch.tensor([f_x, f_y]) + torch.tensor([c_x, c_y])
        np.add.at(errors, chosen, np.linalg.norm(pixels.numpy() - seen[name][:, :2], axis=1))
        np.add.at(counts, chosen, 1)
    # The text rounds to six digits, the errors that COLMAP wrote beside its points do not.
    lines = (folder / "txt" / "points3D.txt").read_text().splitlines()
    said = np.array([float(line.split()[7]) for line in lines if line and not line.startswith("#")])
    np.testing.assert_allclose(errors / counts, said, atol=0.01)
    assert said.mean() == pytest.approx(0.60, abs=0.005)


def test_a_real_reconstruction_in_both_formats(shared_data):
    text, binary = (reader.read_model(shared_data / "colmap-sceaux" / kind) for kind in ("txt", "bin"))
    assert text.names == binary.names
    torch.testing.assert_close(binary.xyz, text.xyz, atol=1e-4, rtol=0)
    assert torch.equal(binary.colours, text.colours)
    torch.testing.assert_close(binary.world_to_camera, text.world_to_camera, atol=1e-5, rtol=0)
    for one, other in zip(binary.lenses, text.lenses, strict=True):
        assert (one.width, one.height) == (other.width, other.height)
        assert one.values == pytest.approx(other.values, rel=1e-5)


def test_scaled_pictures_of_colmap(shared_data):
    scene = datasets.load(f"colmap:{shared_data / 'colmap-spot'}@32", datasets.Scene)
    assert scene.images.shape[2:] == (32, 32)
    whole = datasets.load(f"colmap:{shared_data / 'colmap-spot'}", datasets.Scene)
    torch.testing.assert_close(scene.cameras.focal * 4, whole.cameras.focal)


def test_pictures_that_were_scaled_after_the_reconstruction(shared_data, tmp_path):
    folder = copy_spot(shared_data, tmp_path / "spot", binary=True)
    for path in (folder / "images").iterdir():
        Image.open(path).resize((64, 64)).save(path)
    scene = datasets.load(f"colmap:{folder}", datasets.Scene)
    assert scene.images.shape[2:] == (64, 64)
    torch.testing.assert_close(scene.cameras.centre[0], torch.tensor([32.0, 32.0]))
    Image.open(folder / "images" / "r_1.png").resize((128, 128)).save(folder / "images" / "r_1.png")
    with pytest.warns(Notice, match=r"1 of \d+ pictures, r_1\.png first, are not 64x64"):
        again = datasets.load(f"colmap:{folder}", datasets.Scene)
    assert torch.equal(again.cameras.focal, scene.cameras.focal) and again.images.shape == scene.images.shape
    for path in (folder / "images").iterdir():
        Image.open(path).resize((64, 48)).save(path)
    with pytest.raises(InputError, match=r"r_0\.png: is 64x48 where its camera has 128x128"):
        datasets.load(f"colmap:{folder}", datasets.Scene)


# Lenses that distort


def pattern(points):
    """A smooth picture of the plane at depth 1."""
    u, v = points.unbind(-1)
    return torch.stack(
        [0.5 + 0.4 * torch.sin(5 * u), 0.5 + 0.4 * torch.cos(4 * v), 0.5 + 0.3 * torch.sin(3 * u * v)], 0
    )


def inverted(lens, distorted):
    """The undistorted points, by iterating the lens's own formula until it gives back what it should."""
    at = distorted.clone()
    for _ in range(200):
        at = at - (lens.distorted(at) - distorted)
    torch.testing.assert_close(lens.distorted(at), distorted, atol=1e-9, rtol=0)
    return at


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("SIMPLE_RADIAL", (70.0, 41.0, 29.0, -0.15)),
        ("SIMPLE_RADIAL", (70.0, 41.0, 29.0, 0.15)),
        ("RADIAL", (70.0, 39.0, 30.0, 0.1, -0.05)),
        ("OPENCV", (72.0, 69.0, 40.0, 31.0, -0.12, 0.03, 0.004, -0.006)),
        ("OPENCV", (72.0, 69.0, 40.0, 31.0, 0.12, 0.03, -0.01, 0.006)),
        ("OPENCV_FISHEYE", (60.0, 62.0, 40.0, 31.0, 0.05, -0.02, 0.01, -0.003)),
        ("OPENCV_FISHEYE", (60.0, 62.0, 40.0, 31.0, 0.0, 0.0, 0.0, 0.0)),
        ("FULL_OPENCV", (72.0, 69.0, 40.0, 31.0, 0.1, 0.03, 0.004, -0.006, 0.02, 0.15, 0.02, 0.01)),
        ("SIMPLE_RADIAL_FISHEYE", (64.0, 41.0, 29.0, 0.1)),
        ("RADIAL_FISHEYE", (64.0, 41.0, 29.0, 0.1, -0.02)),
    ],
)
def test_undistorted_pictures_are_those_of_a_pinhole(tmp_path, model, values):
    width, height = 80, 60
    _, lens = reader._lens(tmp_path, 1, model, width, height, values)
    f_x, f_y, c_x, c_y = lens.values[:4]
    grid = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), -1).double() + 0.5
    scale, middle = torch.tensor([f_x, f_y]).double(), torch.tensor([c_x, c_y]).double()
    photo = pattern(inverted(lens, (grid - middle) / scale)).float()
    cameras = pinhole(torch.eye(4)[None], 1.0, width, height)
    cameras = type(cameras)(cameras.pose, scale[None].float(), middle[None].float(), width, height)
    images, straight = reader.undistort(photo[None], cameras, (lens,), tmp_path)
    expected = pattern((grid - straight.centre[0].double()) / straight.focal[0].double()).float()
    error = (images[0] - expected).abs()
    assert error[:, 1:-1, 1:-1].max() < 4e-3 and error.max() < 0.03  # bilinear, and half a pixel short at the edge
    zoom = float(straight.focal[0, 0] / f_x)
    assert zoom >= 1 and float(straight.focal[0, 1] / f_y) == pytest.approx(zoom)
    # Without it the picture would not be right, and no corner would be missing.
    naive = pattern((grid - middle) / scale).float()
    assert (photo - naive).abs().max() > 0.03
    torch.testing.assert_close(straight.centre, cameras.centre)


def test_a_lens_that_stretches_is_zoomed_just_enough(tmp_path):
    _, lens = reader._lens(tmp_path, 1, "SIMPLE_RADIAL", 100, 100, (100.0, 50.0, 50.0, 0.3))
    cameras = pinhole(torch.eye(4)[None], 2 * math.atan(0.5), 100, 100)
    _, straight = reader.undistort(torch.zeros(1, 3, 100, 100), cameras, (lens,), tmp_path)
    # The corner pixel at distance r from the middle comes from r (1 + k r^2), at most as far as the picture's side.
    zoom = float(straight.focal[0, 0]) / 100
    r = 0.495 / zoom
    assert r * (1 + 0.3 * 2 * r**2) == pytest.approx(0.5, abs=2e-4)


def test_lenses_without_distortion_leave_pictures_alone(tmp_path):
    _, lens = reader._lens(tmp_path, 1, "OPENCV", 8, 6, (9.0, 9.0, 4.0, 3.0, 0.0, 0.0, 0.0, 0.0))
    cameras = pinhole(torch.eye(4)[None], 1.0, 8, 6)
    images = torch.rand(1, 4, 6, 8)
    found, same = reader.undistort(images, cameras, (lens,), tmp_path)
    assert torch.equal(found, images) and torch.equal(same.focal, cameras.focal)


def test_transparent_colours_do_not_bleed(tmp_path):
    _, lens = reader._lens(tmp_path, 1, "SIMPLE_RADIAL", 16, 16, (16.0, 8.0, 8.0, -0.2))
    image = torch.zeros(1, 4, 16, 16)
    image[:, 0] = 1  # red, and transparent on the left, where it is green
    image[:, :2, :, :8] = torch.tensor([0.0, 1.0])[:, None, None]
    image[:, 3, :, 8:] = 1
    found, _ = reader.undistort(image, pinhole(torch.eye(4)[None], 2 * math.atan(0.5), 16, 16), (lens,), tmp_path)
    opaque = found[0, 3] > 0.01
    assert (found[0, 1][opaque] < 1e-3).all() and (found[0, 0][opaque] > 0.999).all()


def test_a_scene_with_a_distorting_lens(shared_data, tmp_path):
    folder = copy_spot(shared_data, tmp_path / "spot", binary=False)
    cameras = folder / "sparse" / "0" / "cameras.txt"
    cameras.write_text("1 SIMPLE_RADIAL 128 128 177.7 64 64 -0.1\n")
    scene = datasets.load(f"colmap:{folder}", datasets.Scene)
    assert scene.cameras.focal[0, 0] == pytest.approx(177.7)
    plain = datasets.load(f"colmap:{shared_data / 'colmap-spot'}", datasets.Scene)
    assert (scene.images[:] - plain.images[:]).abs().max() > 0.1


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("number", "model", "count"), [(7, "FOV", 5), (10, "THIN_PRISM_FISHEYE", 12), (99, "number 99", 4)]
)
def test_other_lens_models_are_refused_by_name(tmp_path, binary, number, model, count):
    if binary:
        body = struct.pack("<QIiQQ", 1, 1, number, 64, 48) + struct.pack(f"<{count}d", *[1.0] * count)
        (tmp_path / "cameras.bin").write_bytes(body)
    else:
        (tmp_path / "cameras.txt").write_text(f"1 {model.replace(' ', '_')} 64 48 {'1.0 ' * count}\n")
        model = model.replace(" ", "_")
    with pytest.raises(
        InputError, match=rf"cameras\.\w+: camera 1 is of the model {model}; right would be one of SIMPLE_"
    ):
        datasets.load(f"colmap:{tmp_path}", datasets.Scene)


def test_a_lens_that_folds_over_is_refused(shared_data, tmp_path):
    folder = copy_spot(shared_data, tmp_path / "spot", binary=False)
    (folder / "sparse" / "0" / "cameras.txt").write_text("1 SIMPLE_RADIAL 128 128 100 64 64 -2.0\n")
    with pytest.raises(InputError, match="distorts too strongly to be undone here"):
        datasets.load(f"colmap:{folder}", datasets.Scene)


# COLMAP files that are wrong


def test_binary_files_cut_short_anywhere(shared_data, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(shared_data / "colmap-spot" / "sparse" / "0", place)
    place.chmod(0o755)
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        path = place / name
        path.chmod(0o644)
        whole = path.read_bytes()
        ends = {0, 1, 7, 8, 9, 20, len(whole) // 3, len(whole) // 2, len(whole) - 1}
        for end in sorted(end for end in ends if end < len(whole)):
            path.write_bytes(whole[:end])
            with pytest.raises(InputError, match=rf"{name}: is cut short at byte {end}; right would be COLMAP's whole"):
                reader.read_model(place)
        path.write_bytes(struct.pack("<Q", 2**60) + whole[8:])
        with pytest.raises(InputError, match=rf"{name}: (is cut short|has the name|camera \d+ is)"):
            reader.read_model(place)
        path.write_bytes(whole)
    reader.read_model(place)


def replaced(name, old, new, count=1):
    def change(place):
        text = (place / name).read_text()
        assert old in text
        (place / name).write_text(text.replace(old, new, count))

    return change


def line(name, number, content):
    """Replaces a line that is no comment."""

    def change(place):
        lines = [line for line in (place / name).read_text().splitlines() if not line.startswith("#")]
        lines[number] = content
        (place / name).write_text("\n".join(lines) + "\n")

    return change


POSE = "1 0.1 0.7 -0.6 0.1 0 0 4 1 r_0.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "cameras.txt").unlink(), "has no cameras.bin or cameras.txt"),
        (lambda p: (p / "images.txt").unlink(), r"images\.txt: cannot be read"),
        (lambda p: (p / "points3D.txt").unlink(), r"points3D\.txt: cannot be read"),
        (
            lambda p: (p / "images.txt").write_text("# none\n"),
            r"images\.txt: has 0 pictures; right would be at least two",
        ),
        (lambda p: (p / "images.txt").write_text(POSE + "\n\n"), "has 1 pictures"),
        (lambda p: (p / "images.txt").write_bytes(b"\xff\xfe\x00\x01"), r"images\.txt: is no text"),
        (line("cameras.txt", 0, "1 PINHOLE 128"), "line 1 is too short; right would be CAMERA_ID"),
        (
            line("cameras.txt", 0, "1 PINHOLE 128 128 177 177 64"),
            "camera 1 has 3 parameters; right would be those of PIN",
        ),
        (line("cameras.txt", 0, "1 PINHOLE 128 128 0 177 64 64"), "focal lengths above 0"),
        (line("cameras.txt", 0, "1 PINHOLE 128 0 177 177 64 64"), "camera 1 is 128x0"),
        (line("cameras.txt", 0, "1 PINHOLE 128 128 nan 177 64 64"), "camera 1 is 128x128 with"),
        (
            line("cameras.txt", 0, "1 PINHOLE wide 128 177 177 64 64"),
            "line 1: invalid literal.*right would be a number",
        ),
        (line("cameras.txt", 0, "7 PINHOLE 128 128 177 177 64 64"), r"is of camera 1, and cameras.txt has \[7\]"),
        (line("images.txt", 0, "1 0 0 0 0 0 0 4 1 r_0.png"), "r_0.png has the pose .*right would be a unit quaternion"),
        (line("images.txt", 0, "1 nan 0 0 0 0 0 4 1 r_0.png"), "r_0.png has the pose"),
        (line("images.txt", 0, "1 1 0 0 0 0 0 4 1"), "line 1 is too short; right would be IMAGE_ID"),
        (line("images.txt", 0, "1 1 0 0 0 0 0 four 1 r_0.png"), "line 1: could not convert"),
        (line("images.txt", 1, "1.5 2.5"), "line 2 does not end"),
        (line("images.txt", 0, POSE.replace("r_0", "gone")), r"gone\.png: there is no such picture"),
        (line("images.txt", 0, POSE.replace("r_0", "../../r_0")), r"refers to '\.\./\.\./r_0\.png', outside"),
        (line("images.txt", 0, POSE.replace("r_0.png", "/etc/passwd")), "refers to '/etc/passwd', outside"),
        (line("points3D.txt", 0, "1 2 3"), "line 1 is too short; right would be POINT3D_ID"),
        (line("points3D.txt", 0, "1 2 nan 3 4 5 6 7"), "has a point that is not finite"),
        (line("points3D.txt", 0, "1 2 x 3 4 5 6 7"), "line 1: could not convert"),
    ],
)
def test_colmap_text_that_is_wrong(shared_data, tmp_path, change, message):
    folder = copy_spot(shared_data, tmp_path / "spot", binary=False)
    change(folder / "sparse" / "0")
    with pytest.raises(InputError, match=message):
        datasets.load(f"colmap:{folder}", datasets.Scene)


def test_colmap_pictures_that_are_wrong(shared_data, tmp_path):
    folder = copy_spot(shared_data, tmp_path / "spot", binary=True)
    (folder / "images" / "r_3.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"r_3\.png: is no picture"):
        datasets.load(f"colmap:{folder}", datasets.Scene)
    shutil.rmtree(folder / "images")
    with pytest.raises(InputError, match=r"has no folder images; right would be .*images with r_0\.png in it"):
        datasets.load(f"colmap:{folder}", datasets.Scene)


def test_a_scene_without_points_still_has_bounds(shared_data, tmp_path):
    folder = copy_spot(shared_data, tmp_path / "spot", binary=False)
    (folder / "sparse" / "0" / "points3D.txt").write_text("# none\n")
    scene = datasets.load(f"colmap:{folder}", datasets.Scene)
    assert scene.points is None and 0 < scene.bounds[0] < scene.bounds[1]


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "bin", "."])
def test_where_the_model_may_lie(shared_data, tmp_path, place):
    folder = copy_spot(shared_data, tmp_path / "spot", binary=True)
    if place != "sparse/0":
        (folder / place).mkdir(exist_ok=True)
        for path in (folder / "sparse" / "0").iterdir():
            path.rename(folder / place / path.name)
    assert reader.find_model(folder) == folder / Path(place)
    assert len(datasets.load(f"colmap:{folder}", datasets.Scene).names) == 40


# What a file says beside poses and lenses


def ring_of(folder, frames=10, **shared):
    (folder / "images").mkdir()
    listed = []
    for i in range(frames):
        Image.new("RGB", (8, 6), (9 * i, 70, 70)).save(folder / "images" / f"f{i}.png")
        pose = np.eye(4)
        pose[:3, 3] = (0.1 * i, 0, 4)
        listed.append({"file_path": f"images/f{i}.png", "transform_matrix": pose.tolist()})
    tree = {"camera_angle_x": 0.8, "frames": listed} | shared
    (folder / "transforms.json").write_text(json.dumps(tree))
    return tree


def test_the_split_that_a_file_names(tmp_path):
    names = [f"images/f{i}.png" for i in range(10)]
    ring_of(tmp_path, train_filenames=names[:6], val_filenames=names[6:7], test_filenames=names[8:])
    with pytest.warns(Notice, match="1 of 10 frames are in none of"):
        scene = datasets.load(f"{tmp_path}/transforms.json", datasets.Scene)
    assert scene.split.train.tolist() == list(range(6)) and scene.split.validation.tolist() == [6]
    assert [scene.names[i] for i in scene.split.test] == names[8:]


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        ({"camera_model": "EQUIRECTANGULAR"}, "a lens with EQUIRECTANGULAR"),
        ({"is_fisheye": True, "p1": 0.1}, "a lens with p1, which OPENCV_FISHEYE has not"),
        ({"k3": 0.1}, "a lens with k3, which OPENCV has not"),
        ({"camera_model": "OPENCV_FISHEYE", "k5": 0.1}, "a lens with k5"),
        ({"w": 6, "h": 8}, r"f0\.png: is 8x6 where .* says 6x8"),
        ({"camera_angle_y": 4.0}, "has the camera_angle_y 4.0"),
        ({"train_filenames": ["images/f99.png"]}, "names 'images/f99.png', which no frame has"),
        ({"test_filenames": ["images/f1.png"]}, "has no train_filenames"),
    ],
)
def test_words_that_change_the_meaning_are_not_passed_over(tmp_path, shared, message):
    ring_of(tmp_path, **shared)
    with pytest.raises(InputError, match=message):
        datasets.load(str(tmp_path), datasets.Scene)


def test_words_that_are_not_used_are_told(tmp_path):
    ring_of(tmp_path, aabb_scale=4, mask_kind="soft")
    with pytest.warns(Notice, match=r"transforms\.json: mask_kind is not used"):
        datasets.load(str(tmp_path), datasets.Scene)


def test_both_opening_angles_and_the_paths_of_windows(tmp_path):
    tree = ring_of(tmp_path, camera_angle_y=1.2)
    for frame in tree["frames"]:
        frame["file_path"] = frame["file_path"].replace("/", "\\")
    (tmp_path / "transforms.json").write_text(json.dumps(tree))
    focal = datasets.load(str(tmp_path), datasets.Scene).cameras.focal[0]
    np.testing.assert_allclose(focal, [4 / math.tan(0.4), 3 / math.tan(0.6)], rtol=1e-6)


def test_pictures_of_several_sizes_keep_their_cameras(tmp_path):
    ring_of(tmp_path, camera_angle_x=None, fl_x=10, fl_y=9, cx=3, cy=2, w=8, h=6)
    Image.new("RGB", (16, 12), (250, 0, 0)).save(tmp_path / "images" / "f4.png")
    tree = json.loads((tmp_path / "transforms.json").read_text())
    tree["frames"][5] |= {"fl_x": 6, "fl_y": 8, "cx": 3, "cy": 5, "w": 6, "h": 12}
    Image.new("RGB", (6, 12), (0, 250, 0)).save(tmp_path / "images" / "f5.png")
    (tmp_path / "transforms.json").write_text(json.dumps(tree))
    with pytest.warns(Notice, match=r"images: 2 of 10 pictures, f4\.png first, are not 8x6, to which they are scaled"):
        scene = datasets.load(str(tmp_path), datasets.Scene)
    assert scene.images.shape == (10, 3, 6, 8) and scene.images[5, 1].min() > 0.9
    assert scene.cameras.focal[3].tolist() == scene.cameras.focal[4].tolist() == [10, 9]
    assert scene.cameras.focal[5].tolist() == [8, 4]  # a pixel of the upright picture is wider and less high
    assert scene.cameras.centre[5].tolist() == [4, 2.5]


def test_views_without_pictures_are_left_out_on_request(tmp_path, shared_data):
    names = [f"images/f{i}.png" for i in range(10)]
    ring_of(tmp_path, train_filenames=names[:8], test_filenames=names[8:])
    for i in (3, 8):
        (tmp_path / names[i]).unlink()
    with pytest.raises(InputError, match=r"there is no picture images/f3\.png; .*, or blender:DIR@skip-missing"):
        datasets.load(str(tmp_path), datasets.Scene)
    for spec in (f"blender:{tmp_path}@skip-missing", f"{tmp_path}@4@skip-missing"):
        with pytest.warns(Notice, match=r"2 of 10 pictures are not there, images/f3\.png first, and are left out"):
            scene = datasets.load(spec, datasets.Scene)
        assert scene.names == tuple(names[i] for i in (0, 1, 2, 4, 5, 6, 7, 9))
        assert scene.split.train.tolist() == list(range(7)) and scene.split.test.tolist() == [7]
    folder = copy_spot(shared_data, tmp_path / "spot", binary=True)
    whole = datasets.load(f"colmap:{folder}", datasets.Scene)
    (folder / "images" / whole.names[5]).unlink()
    with pytest.warns(Notice, match="1 of 40 pictures are not there"):
        scene = datasets.load(f"colmap:{folder}@skip-missing", datasets.Scene)
    assert scene.names == whole.names[:5] + whole.names[6:]
    assert torch.equal(scene.cameras.pose[5], whole.cameras.pose[6])
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()
    with pytest.raises(InputError, match="none of its 40 pictures is there"):
        datasets.load(f"colmap:{folder}@skip-missing", datasets.Scene)


def test_pictures_found_by_absolute_paths(tmp_path):
    (tmp_path / "scene").mkdir()
    tree = ring_of(tmp_path / "scene")
    (tmp_path / "scene" / "images").rename(tmp_path / "elsewhere")
    for frame in tree["frames"]:
        frame["file_path"] = str(tmp_path / "elsewhere" / Path(frame["file_path"]).name)
    (tmp_path / "scene" / "transforms.json").write_text(json.dumps(tree))
    scene = datasets.load(str(tmp_path / "scene"), datasets.Scene)
    assert scene.names[3] == str(tmp_path / "elsewhere" / "f3.png") and scene.images[3, 0, 0, 0] == 27 / 255


def test_a_distorting_lens_of_transforms_is_undone_as_colmaps_is(tmp_path):
    ring_of(tmp_path, camera_model="OPENCV", k1=0.1, p1=0.01)
    bent = datasets.load(str(tmp_path), datasets.Scene)
    focal = 4 / math.tan(0.4)
    lens = reader.Lens(8, 6, (focal, focal, 4.0, 3.0, 0.1, 0.0, 0.01, 0.0, *[0.0] * 4))
    (tmp_path / "straight").mkdir()
    ring_of(tmp_path / "straight")
    plain = datasets.load(str(tmp_path / "straight"), datasets.Scene)
    images, cameras = reader.undistort(plain.images[:], plain.cameras, (lens,) * 10, tmp_path)
    np.testing.assert_allclose(bent.images[:], images, atol=1 / 255)
    np.testing.assert_allclose(bent.cameras.focal, cameras.focal, rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "fisheye", "bent"),
    [
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.02}, True, (0.1, 0, 0, 0, 0, 0.02, 0, 0)),
        ({"is_fisheye": True, "k2": 0.1}, True, (0, 0.1, 0, 0, 0, 0, 0, 0)),
        ({"camera_model": "FULL_OPENCV", "k1": 0.1, "k3": 0.2, "k6": 0.3}, False, (0.1, 0, 0, 0, 0.2, 0, 0, 0.3)),
    ],
)
def test_lenses_of_transforms_with_more_terms(tmp_path, words, fisheye, bent):
    def photographed(folder, **words):
        ring_of(folder, **words)
        for path in sorted(folder.glob("images/*.png")):
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).save(path)

    photographed(tmp_path, **words)
    found = datasets.load(str(tmp_path), datasets.Scene)
    (tmp_path / "straight").mkdir()
    photographed(tmp_path / "straight")
    plain = datasets.load(str(tmp_path / "straight"), datasets.Scene)
    focal = 4 / math.tan(0.4)
    lens = reader.Lens(8, 6, (focal, focal, 4.0, 3.0, *bent), fisheye)
    images, cameras = reader.undistort(plain.images[:], plain.cameras, (lens,) * 10, tmp_path)
    np.testing.assert_allclose(found.images[:], images, atol=1 / 255)
    assert (found.images[:] - plain.images[:]).abs().max() > 0.01
    np.testing.assert_allclose(found.cameras.focal, cameras.focal, rtol=1e-6)


def test_a_fisheye_keeps_angles(tmp_path):
    # Without coefficients a point at the angle a to the axis lies at a focal lengths from the middle.
    _, lens = reader._lens(tmp_path, 1, "OPENCV_FISHEYE", 8, 6, (9.0, 9.0, 4.0, 3.0, 0.0, 0.0, 0.0, 0.0))
    angle = torch.linspace(0, 1.4, 9, dtype=torch.float64)
    at = lens.distorted(torch.stack([0.6 * angle.tan(), 0.8 * angle.tan()], -1))
    torch.testing.assert_close(at, torch.stack([0.6 * angle, 0.8 * angle], -1), atol=1e-9, rtol=0)


def test_the_larger_of_two_models_and_a_missing_line_of_points(tmp_path):
    for number, views in ((0, 2), (1, 5)):
        (tmp_path / "sparse" / str(number)).mkdir(parents=True)
        lines = "".join(f"{i} 1 0 0 0 0 0 2 1 my view {i}.png\n\n" for i in range(views))
        (tmp_path / "sparse" / str(number) / "images.txt").write_text(lines)
        (tmp_path / "sparse" / str(number) / "cameras.txt").write_text("1 PINHOLE 4 4 5 5 2 2\n")
        (tmp_path / "sparse" / str(number) / "points3D.txt").write_text("")
    with pytest.warns(Notice, match="has 2 models .* the largest, 1, is read"):
        place = reader.find_model(tmp_path)
    assert len(reader.read_model(place).names) == 5
    (place / "images.txt").write_text(lines.replace("\n\n", "\n"))
    with pytest.raises(InputError, match=r"line 2 is not the line of points that belongs to my view 0\.png"):
        reader.read_model(place)
