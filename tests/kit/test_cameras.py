"""The camera's convention, pinned by pictures that can be drawn on paper, and by taking rays and projection back."""

import math

import numpy as np
import pytest
import torch

from mpcli.kit.cameras import Cameras, framing, look_at, opencv_to_opengl, orbit, pinhole


def random_cameras(n: int = 5) -> Cameras:
    g = torch.Generator().manual_seed(1)
    eye = 3 * torch.randn(n, 3, generator=g, dtype=torch.float64)
    target = 0.3 * torch.randn(n, 3, generator=g, dtype=torch.float64)
    focal = 40 + 20 * torch.rand(n, 2, generator=g, dtype=torch.float64)
    centre = torch.tensor([14.0, 9.0]) + 3 * torch.rand(n, 2, generator=g, dtype=torch.float64)
    return Cameras(look_at(eye, target), focal, centre, width=31, height=20)


def test_rays_and_projection_are_inverse_of_each_other():
    cameras = random_cameras()
    origins, directions = cameras.rays()
    assert origins.shape == directions.shape == (5, 20, 31, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(5, 20, 31, dtype=torch.float64))
    for i in range(len(cameras)):
        points = origins[i] + 2.5 * directions[i]
        pixels, depth = cameras.project(points)
        x, y = torch.meshgrid(torch.arange(31) + 0.5, torch.arange(20) + 0.5, indexing="xy")
        torch.testing.assert_close(pixels[i], torch.stack([x, y], -1).double(), rtol=0, atol=1e-9)
        forward = -cameras.pose[i, :3, 2]
        torch.testing.assert_close(depth[i], 2.5 * directions[i] @ forward)
        assert (depth[i] > 0).all()


def test_a_point_lies_on_the_ray_of_the_pixel_it_projects_to():
    cameras = random_cameras()
    points = torch.randn(7, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 0.4
    pixels, depth = cameras.project(points)
    assert pixels.shape == (5, 7, 2, 2) and depth.shape == (5, 7, 2)
    index = torch.arange(5).repeat_interleave(14)
    origins, directions = cameras.rays_at(index, pixels.reshape(-1, 2))
    offset = points.repeat(5, 1, 1, 1).reshape(-1, 3) - origins
    along = torch.sign(depth).reshape(-1, 1) * offset / offset.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(directions, along)


def test_rays_at_picks_the_same_rays_as_the_whole_picture():
    cameras = random_cameras()
    origins, directions = cameras.rays()
    camera, x, y = torch.tensor([4, 0, 2]), torch.tensor([30, 0, 7]), torch.tensor([0, 19, 3])
    o, d = cameras.rays_at(camera, torch.stack([x, y], -1) + 0.5)
    torch.testing.assert_close(o, origins[camera, y, x])
    torch.testing.assert_close(d, directions[camera, y, x])


def test_picture_of_the_convention():
    # A camera with the identity pose stands at the origin and looks down -z, with x right and y up; 2 x 2 pixels.
    camera = Cameras(torch.eye(4)[None], torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 1.0]]), 2, 2)
    pixels, depth = camera.project(torch.tensor([[0.0, 0.0, -2.0], [1.0, 0.0, -2.0], [0.0, 1.0, -2.0], [0, 0, 3.0]]))
    assert pixels[0, :3].tolist() == [[1.0, 1.0], [1.5, 1.0], [1.0, 0.5]]  # the middle, right of it, above it
    assert depth[0].tolist() == [2.0, 2.0, 2.0, -3.0]
    _, directions = camera.rays()
    top_left = torch.tensor([-0.5, 0.5, -1.0]) / math.sqrt(1.5)
    torch.testing.assert_close(directions[0, 0, 0], top_left)
    torch.testing.assert_close(directions[0, 1, 1], top_left * torch.tensor([-1.0, -1.0, 1.0]))


def test_field_of_view_spans_the_picture():
    camera = pinhole(torch.eye(4)[None], math.pi / 2, width=100, height=60)
    pixels, _ = camera.project(torch.tensor([[1.0, 0, -1], [-1, 0, -1], [0, 0.6, -1]]))
    torch.testing.assert_close(pixels[0], torch.tensor([[100.0, 30], [0, 30], [50, 0]]))


def test_look_at_is_a_rotation_that_puts_the_target_in_the_middle_and_up_upward():
    g = torch.Generator().manual_seed(3)
    eye, target = torch.randn(20, 3, generator=g).double(), torch.randn(20, 3, generator=g).double()
    pose = look_at(eye, target)
    r = pose[:, :3, :3]
    torch.testing.assert_close(r @ r.mT, torch.eye(3).double().expand(20, 3, 3))
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(20).double())
    torch.testing.assert_close(pose[:, :3, 3], eye)
    cameras = pinhole(pose, 1.0, 64, 48)
    for i in range(20):
        pixels, depth = cameras[i].project(torch.stack([target[i], target[i] + torch.tensor([0, 0, 0.01])]))
        torch.testing.assert_close(pixels[0, 0], torch.tensor([32.0, 24.0]).double())
        torch.testing.assert_close(depth[0, 0], (eye[i] - target[i]).norm())
        assert pixels[0, 1, 1] < 24 and abs(pixels[0, 1, 0] - 32) < 1e-6  # up the world is up the picture


def test_look_at_straight_down_is_still_a_rotation():
    for up in ([0.0, 0.0, 1.0], [0.0, 1.0, 0.0]):
        pose = look_at(3 * torch.tensor([up]), up=up)
        torch.testing.assert_close(pose[0, :3, :3] @ pose[0, :3, :3].T, torch.eye(3))
        torch.testing.assert_close(pose[0, :3, 2], torch.tensor(up))


@pytest.mark.parametrize(
    ("up", "front", "side"),
    [((0.0, 0.0, 1.0), (0, -1, 0), (1, 0, 0)), ((0.0, 1.0, 0.0), (0, 0, 1), (1, 0, 0))],
)
def test_orbit_goes_round_from_the_front(up, front, side):
    target = torch.tensor([1.0, 2.0, 3.0])
    cameras = orbit(4, 2.0, 0.0, target.tolist(), up, width=8, height=8)
    eye = cameras.pose[:, :3, 3] - target
    expected = 2 * torch.tensor([front, side, [-v for v in front], [-v for v in side]], dtype=torch.float32)
    torch.testing.assert_close(eye, expected, atol=1e-6, rtol=0)
    raised = orbit(7, 2.0, 0.4, target.tolist(), up, width=8, height=8)
    height = (raised.pose[:, :3, 3] - target) @ torch.tensor(up, dtype=torch.float32)
    torch.testing.assert_close(height, torch.full((7,), 2 * math.sin(0.4)))
    pixels, depth = raised.project(target)
    torch.testing.assert_close(pixels, torch.full((7, 2), 4.0))
    torch.testing.assert_close(depth, torch.full((7,), 2.0))


def test_opencv_to_opengl_sees_the_same_pixels_as_opencv():
    # OpenCV's own projection, written with its matrix K: x right, y down, z forward.
    g = torch.Generator().manual_seed(4)
    r = torch.linalg.qr(torch.randn(6, 3, 3, generator=g).double()).Q
    r = r * torch.linalg.det(r)[:, None, None]
    world_to_camera = torch.eye(4).double().repeat(6, 1, 1)
    world_to_camera[:, :3, :3], world_to_camera[:, :3, 3] = r, torch.randn(6, 3, generator=g).double()
    k = torch.tensor([[50.0, 0, 31], [0, 45, 22], [0, 0, 1]]).double()
    points = torch.randn(40, 3, generator=g).double()
    seen = points @ world_to_camera[:, :3, :3].mT + world_to_camera[:, None, :3, 3]
    homogeneous = seen @ k.T
    cameras = Cameras(
        opencv_to_opengl(world_to_camera),
        torch.tensor([[50.0, 45.0]]).double().expand(6, 2),
        torch.tensor([[31.0, 22.0]]).double().expand(6, 2),
        64,
        48,
    )
    pixels, depth = cameras.project(points)
    torch.testing.assert_close(depth, seen[..., 2])
    torch.testing.assert_close(pixels, homogeneous[..., :2] / homogeneous[..., 2:])
    torch.testing.assert_close(torch.linalg.det(cameras.pose), torch.ones(6).double())


def test_choosing_cameras_keeps_them_batched():
    cameras = random_cameras()
    assert len(cameras) == 5 and len(cameras[1]) == 1 and len(cameras[-1]) == 1 and len(cameras[1:4]) == 3
    torch.testing.assert_close(cameras[-1].pose[0], cameras.pose[4])
    torch.testing.assert_close(cameras[torch.tensor([3, 1])].focal, cameras.focal[[3, 1]])
    with pytest.raises(IndexError):
        cameras[5]
    assert len(list(cameras)) == 5
    assert cameras.to(torch.float32).pose.dtype == torch.float32


def test_resizing_the_picture_scales_the_pixels():
    cameras = random_cameras()
    points = 0.2 * torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    small = cameras.resized(62, 10)
    scale = torch.tensor([2.0, 0.5]).double()
    torch.testing.assert_close(small.project(points)[0], cameras.project(points)[0] * scale)
    assert (small.width, small.height) == (62, 10)


def test_real_renders_project_onto_their_silhouettes(shared_data):
    # Points of the mesh that was rendered, seen by the cameras in the file, must fall on what was drawn.
    trimesh = pytest.importorskip("trimesh")
    from mpcli.kit import datasets

    scene = datasets.load(f"blender:{shared_data / 'nerf-spot'}", datasets.Scene)
    points = torch.from_numpy(np.array(trimesh.load(shared_data / "nerf-spot" / "gt_mesh.ply").vertices)).float()
    pixels, depth = scene.cameras.project(points)
    assert (depth > 0).all()
    for i in range(0, len(scene.cameras), 9):
        x, y = (pixels[i].long()).unbind(-1)
        assert (scene.images[i, 3, y, x] > 0).float().mean() > 0.97


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("n", [1, 7])
def test_framing_sees_every_point_and_stands_no_farther_than_it_must(up, n):
    points = torch.randn(300, 3) * torch.tensor([3.0, 1.0, 0.5]) + torch.tensor([40.0, -7.0, 2.0])
    camera = framing(points, up, 0.4, 0.3, height=80, width=100, n=n)
    assert (len(camera), camera.width, camera.height) == (n, 100, 80)
    pixels, depth = camera.project(points)
    assert (depth > 0).all()
    share = (pixels - camera.centre[:, None]).abs() / camera.centre[:, None]  # 1 at the edge of the picture
    assert float(share.max()) == pytest.approx(0.94, abs=1e-3)
    closer = framing(points, up, 0.4, 0.3, height=80, width=100, n=n, zoom=2.0).project(points)[0]
    torch.testing.assert_close(
        closer - camera.centre[:, None], 2 * (pixels - camera.centre[:, None]), rtol=1e-4, atol=1e-2
    )


def test_a_picture_is_as_wide_as_what_it_frames():
    tall = framing(torch.tensor([[0.0, 0, -3], [1, 0, 3]]), (0.0, 0.0, 1.0), 0.0, 0.0, height=100)
    wide = framing(torch.tensor([[-9.0, 0, -1], [9, 0, 1]]), (0.0, 0.0, 1.0), 0.0, 0.0, height=100)
    assert (tall.width, wide.width) == (50, 200)
