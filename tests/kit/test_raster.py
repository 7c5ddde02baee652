"""The rasteriser against rays that meet planes, spheres and boxes in closed form; pictures against known colours."""

import math

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from mpcli.errors import InputError
from mpcli.kit import raster
from mpcli.kit.cameras import Cameras, look_at, orbit, pinhole
from mpcli.kit.raster import rasterize, render_mesh


def tensors(mesh: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(np.array(mesh.vertices)), torch.tensor(np.array(mesh.faces))


def skewed_cameras(n: int, distance: float, width: int = 47, height: int = 33) -> Cameras:
    """Cameras around the origin with unequal focal lengths and a principal point off the middle."""
    g = torch.Generator().manual_seed(n)
    eye = torch.nn.functional.normalize(torch.randn(n, 3, generator=g, dtype=torch.float64), dim=-1) * distance
    focal = torch.tensor([50.0, 40.0]).double() + 20 * torch.rand(n, 2, generator=g, dtype=torch.float64)
    centre = torch.tensor([width / 2 + 3, height / 2 - 2]).double().expand(n, 2)
    target = 0.2 * torch.randn(n, 3, generator=g, dtype=torch.float64)
    return Cameras(look_at(eye, target), focal, centre, width, height)


def seen_points(vertices, faces, fragments) -> torch.Tensor:
    """The surface point that each pixel sees, from its face and weights."""
    return (fragments.barycentric[..., None] * vertices[faces[fragments.face.clamp(min=0)]]).sum(-2)


def rays(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Origins, unit directions, and how much depth one unit along each ray gains."""
    origins, directions = cameras.rays()
    return origins, directions, (directions * -cameras.pose[:, None, None, :3, 2]).sum(-1)


def test_depth_and_position_of_a_tilted_plane_are_exact():
    # A quadrilateral in the plane n . x = c, seen at a slant, where interpolating in the picture would be far off.
    cameras = skewed_cameras(6, 3.0)
    corners = torch.tensor([[-2.0, -2, 0.3], [2, -2, 0.9], [2, 2, 0.1], [-2, 2, -0.5]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    normal = torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0])
    normal, c = normal / normal.norm(), (normal / normal.norm() * corners[0]).sum()
    assert ((corners @ normal) - c).abs().max() < 1e-12
    fragments = rasterize(corners, faces, cameras)
    hit = fragments.face >= 0
    assert hit.float().mean() > 0.3
    origins, directions, gain = rays(cameras)
    t = (c - origins @ normal) / (directions @ normal)
    torch.testing.assert_close(fragments.depth[hit], (t * gain)[hit], rtol=1e-11, atol=0)
    points = origins + t[..., None] * directions
    torch.testing.assert_close(seen_points(corners, faces, fragments)[hit], points[hit], rtol=0, atol=1e-10)
    assert fragments.depth[~hit].isinf().all() and (fragments.barycentric[~hit] == 0).all()
    # Every pixel whose ray meets the quadrilateral is covered, and no other.
    inside = torch.ones_like(hit)
    for k in range(4):
        side = torch.linalg.cross(normal, corners[(k + 1) % 4] - corners[k])
        inside &= ((points - corners[k]) @ side) > 0
    assert torch.equal(hit, inside & (t > 0))


def test_weights_of_the_corners_sum_to_one_and_are_positive():
    vertices, faces = tensors(trimesh.creation.icosphere(subdivisions=2))
    fragments = rasterize(vertices, faces, skewed_cameras(3, 3.0))
    hit = fragments.face >= 0
    torch.testing.assert_close(fragments.barycentric.sum(-1), hit.double(), rtol=0, atol=1e-12)
    assert fragments.barycentric.min() >= 0


def test_silhouette_and_depth_of_a_sphere():
    ball = trimesh.creation.icosphere(subdivisions=5)
    cameras = skewed_cameras(3, 3.0, 120, 90)
    vertices, faces = tensors(ball)
    fragments = rasterize(vertices, faces, cameras)
    origins, directions, gain = rays(cameras)
    along = -(origins * directions).sum(-1)
    miss = (origins + along[..., None] * directions).norm(dim=-1)  # how far the ray passes from the centre
    inner = np.linalg.norm(np.array(ball.triangles).mean(axis=1), axis=1).min()  # the mesh is between two spheres
    hit = fragments.face >= 0
    assert hit[miss < inner].all() and not hit[miss > 1].any()
    assert 0.05 < hit.float().mean() < 0.9
    sure = miss < 0.99 * inner
    t = along - (1 - miss**2).clamp(min=0).sqrt()
    torch.testing.assert_close(fragments.depth[sure], (t * gain)[sure], rtol=0, atol=0.01)
    assert (seen_points(vertices, faces, fragments)[hit].norm(dim=-1) > inner - 1e-9).all()


def grid(n: int, jitter: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangles that tile the square (0, 0)..(n, n) of the picture of `flat_camera`, with moved inner corners."""
    y, x = torch.meshgrid(torch.arange(n + 1.0).double(), torch.arange(n + 1.0).double(), indexing="ij")
    g = torch.Generator().manual_seed(0)
    inner = ((x > 0) & (x < n) & (y > 0) & (y < n)).double()
    x, y = (v + jitter * inner * (torch.rand(n + 1, n + 1, generator=g).double() - 0.5) for v in (x, y))
    vertices = torch.stack([x, -y, -torch.ones_like(x)], -1).view(-1, 3)
    corner = (torch.arange(n)[:, None] * (n + 1) + torch.arange(n)).view(-1)
    one = torch.stack([corner, corner + 1, corner + n + 1], -1)
    two = torch.stack([corner + n + 2, corner + 1, corner + n + 1], -1)  # wound the other way round, on purpose
    return vertices, torch.cat([one, two])


def flat_camera(n: int, scale: float, shift: float) -> Cameras:
    focal, centre = torch.tensor([[scale, scale]]).double(), torch.tensor([[shift, shift]]).double()
    return Cameras(torch.eye(4).double()[None], focal, centre, n, n)


@pytest.mark.parametrize(
    ("jitter", "scale", "shift"),
    [(0.9, 5.0, 0.0), (0.0, 3.0, 0.5), (0.0, 1.0, 0.5), (0.0, 2.0, 0.0), (0.7, 0.37, 0.1)],
    ids=["general", "edges-through-centres", "corners-on-centres", "diagonals-through-centres", "smaller-than-pixels"],
)
def test_neighbouring_triangles_cover_each_pixel_exactly_once(jitter, scale, shift):
    vertices, faces = grid(8, jitter)
    camera = flat_camera(int(8 * scale), scale, shift)
    count = sum((rasterize(vertices, face[None], camera).face >= 0).int() for face in faces)
    low, high = math.ceil(shift - 0.5), math.ceil(8 * scale + shift - 0.5)
    expected = torch.zeros_like(count)
    expected[:, low:high, low:high] = 1
    assert torch.equal(count, expected)


def test_no_light_comes_through_a_closed_surface():
    # Long thin triangles that meet in two points, and repeated vertices along a seam.
    ball = trimesh.creation.uv_sphere(count=[7, 301])
    split = trimesh.Trimesh(np.array(ball.triangles).reshape(-1, 3), np.arange(3 * len(ball.faces)).reshape(-1, 3),
                            process=False)  # fmt: skip
    for mesh in (ball, split):
        cameras = skewed_cameras(4, 1.2, 160, 120)  # so near that it fills the middle of the picture
        hit = rasterize(*tensors(mesh), cameras).face >= 0
        origins, directions, _ = rays(cameras)
        miss = torch.linalg.cross(origins, directions).norm(dim=-1)
        inner = np.linalg.norm(np.array(mesh.triangles).mean(axis=1), axis=1).min() - 0.03
        assert (miss < inner).float().mean() > 0.2
        assert hit[miss < inner].all()


def test_from_inside_a_box_every_pixel_sees_the_wall_behind_it():
    # Triangles that reach behind the camera: the case that other rasterisers clip.
    box = trimesh.creation.box(extents=(2, 3, 4))
    vertices, faces = tensors(box)
    cameras = skewed_cameras(5, 0.6)
    fragments = rasterize(vertices, faces, cameras)
    origins, directions, gain = rays(cameras)
    half = torch.tensor([1.0, 1.5, 2]).double()
    t = ((half * directions.sign() - origins) / directions).amin(-1)
    assert (fragments.face >= 0).all()
    torch.testing.assert_close(fragments.depth, t * gain, rtol=1e-9, atol=0)


def test_what_is_behind_the_camera_is_not_seen():
    vertices, faces = tensors(trimesh.creation.icosphere(subdivisions=2))
    behind = pinhole(look_at(torch.tensor([[0.0, 0, 3]]), torch.tensor([0.0, 0, 6])), 1.0, 32, 32)
    assert (rasterize(vertices, faces, behind).face == -1).all()


def test_the_nearest_of_crossing_planes_is_seen():
    corners = torch.tensor([[-9.0, -9, 9], [9, -9, -9], [9, 9, -9], [-9, 9, 9]]).double()
    vertices = torch.cat([corners, corners * torch.tensor([-1.0, 1, 1]).double()])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    camera = flat_camera(20, 20.0, 10.0)
    camera.pose[0, 2, 3] = 3.0
    fragments = rasterize(vertices, faces, camera)
    left = torch.arange(20)[None, None, :].expand(1, 20, 20) < 10
    assert torch.equal(fragments.face < 2, left)  # z = -x is nearer on the left, z = x on the right
    order = torch.tensor([3, 1, 0, 2])
    again = rasterize(vertices, faces[order], camera)
    assert torch.equal(order[again.face] < 2, left) and torch.equal(again.depth, fragments.depth)


def test_drawing_in_small_portions_changes_nothing(monkeypatch):
    vertices, faces = tensors(trimesh.creation.torus(1, 0.4))
    cameras = skewed_cameras(2, 3.0)
    whole = rasterize(vertices, faces, cameras)
    monkeypatch.setattr(raster, "_AT_ONCE", 50)
    small = rasterize(vertices, faces, cameras)
    assert torch.equal(whole.face, small.face) and torch.equal(whole.depth, small.depth)


def test_triangles_without_area_are_not_drawn():
    vertices = torch.tensor([[0.0, 0, -2], [1, 1, -2], [2, 2, -2], [0, 0, -2]])
    assert (rasterize(vertices, torch.tensor([[0, 1, 2], [0, 3, 1]]), flat_camera(8, 4.0, 4.0)).face == -1).all()


# ------------------------------------------------------------------------------------------------------- pictures


def square(visual: trimesh.visual.base.Visuals | None = None, **colours) -> trimesh.Trimesh:
    """The square from (-1, -1) to (1, 1) in the plane z = 0, facing +z."""
    corners = [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False, visual=visual, **colours)


def facing_camera(width: int, height: int, focal: float, distance: float = 2.0) -> Cameras:
    pose = torch.eye(4)[None].clone()
    pose[0, 2, 3] = distance
    return Cameras(pose, torch.tensor([[focal, focal]]), torch.tensor([[width / 2, height / 2]]), width, height)


def hue(picture: torch.Tensor) -> torch.Tensor:
    """Colour without brightness: light falls alike on all of a flat square, and multiplies in linear light."""
    linear = picture[:3] ** 2.2
    return linear / linear.amax(dim=0, keepdim=True).clamp(min=1e-9)


def test_opacity_is_the_area_that_is_covered():
    # 21 pixels wide and high in the middle of 32: a half of each border pixel, a quarter of each corner.
    picture = render_mesh(square(), facing_camera(32, 32, 21.0))[0]
    assert picture.shape == (4, 32, 32)
    expected = torch.zeros(32)
    expected[6:26], expected[5], expected[26] = 1, 0.5, 0.5
    torch.testing.assert_close(picture[3], expected[:, None] * expected)
    # Straight colour: the border is as bright as the middle.
    torch.testing.assert_close(picture[:3, 5, 5], picture[:3, 16, 16])
    assert (picture[:3, 0, 0] == 0).all()


def test_a_background_replaces_transparency():
    transparent = render_mesh(square(), facing_camera(32, 32, 21.0))[0]
    picture = render_mesh(square(), facing_camera(32, 32, 21.0), background=(0.2, 0.4, 0.6))[0]
    behind = torch.tensor([0.2, 0.4, 0.6])[:, None, None]
    torch.testing.assert_close(picture[:3], transparent[:3] * transparent[3:] + (1 - transparent[3:]) * behind)
    assert (picture[3] == 1).all()


def test_vertex_colours_are_interpolated_on_the_surface():
    corners = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=np.uint8)
    mesh = square(vertex_colors=corners)
    camera = facing_camera(9, 9, 9.0)
    picture = hue(render_mesh(mesh, camera, supersample=1)[0])
    # On the diagonal from red to blue; in the triangle of corners 0, 1, 2 the weights are (1-x)/2, (x-y)/2, (1+y)/2.
    for row, column in ((8, 4), (7, 6), (4, 5)):
        x, y = (column + 0.5) / 4.5 - 1, 1 - (row + 0.5) / 4.5
        expected = torch.tensor([(1 - x) / 2, (x - y) / 2, (1 + y) / 2]) ** 2.2
        torch.testing.assert_close(picture[:, row, column], expected / expected.max(), atol=1e-3, rtol=0)


def test_face_colours():
    mesh = square(face_colors=np.array([[255, 0, 0, 255], [0, 0, 255, 255]], dtype=np.uint8))
    picture = hue(render_mesh(mesh, facing_camera(8, 8, 8.0), supersample=1)[0])
    assert picture[:, 6, 5].tolist() == [1, 0, 0] and picture[:, 1, 2].tolist() == [0, 0, 1]


def textured(pixels: list[list[tuple[int, int, int]]], uv: list[list[float]]) -> trimesh.Trimesh:
    image = Image.fromarray(np.array(pixels, dtype=np.uint8))
    material = trimesh.visual.material.SimpleMaterial(image=image)
    return square(trimesh.visual.TextureVisuals(uv=np.array(uv), material=material))


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def test_a_texture_stands_the_right_way_up():
    mesh = textured([[RED, GREEN], [BLUE, WHITE]], [[0, 0], [1, 0], [1, 1], [0, 1]])
    picture = hue(render_mesh(mesh, facing_camera(8, 8, 8.0), supersample=1)[0])
    for row, column, colour in ((1, 1, RED), (1, 6, GREEN), (6, 1, BLUE), (6, 6, WHITE)):
        nearest = min((RED, GREEN, BLUE, WHITE), key=lambda c: (picture[:, row, column] * 255 - torch.tensor(c)).norm())
        assert nearest == colour


def test_texture_look_up_is_bilinear_and_repeats():
    texture = torch.tensor([[0.0, 1.0], [2.0, 3.0]])[..., None]
    uv = torch.tensor([[0.25, 0.75], [0.75, 0.25], [0.5, 0.75], [0.5, 0.5], [0.0, 0.75], [1.25, -0.25]])
    torch.testing.assert_close(raster.sample_texture(texture, uv)[:, 0], torch.tensor([0, 3, 0.5, 1.5, 0.5, 0.0]))


def test_a_texture_is_not_bent_by_perspective():
    # A striped floor that runs away from the camera: stripe borders are straight in the world, at y = k / 8.
    stripes = [[RED if row % 2 else GREEN] for row in range(64)]
    mesh = textured(stripes, [[0, 0], [1, 0], [1, 1], [0, 1]])
    cameras = pinhole(look_at(torch.tensor([[0.3, -1.6, 0.5]]), torch.tensor([0.0, 0, 0])), 0.9, 96, 96)
    picture = render_mesh(mesh, cameras, supersample=1)[0]
    origins, directions = cameras.rays()
    t = -origins[0, ..., 2] / directions[0, ..., 2]
    y = (origins[0] + t[..., None] * directions[0])[..., 1]
    v = (1 - (y + 1) / 2) * 64  # rows from the top of the texture
    sure = (picture[3] > 0) & ((v % 1 - 0.5).abs() < 0.2) & (v > 1) & (v < 63)
    assert sure.sum() > 300
    assert torch.equal((picture[0] > picture[1])[sure], (v.floor() % 2 == 1)[sure])


def test_the_lamp_lights_the_side_that_it_is_on():
    ball = trimesh.creation.icosphere(subdivisions=3)
    camera = facing_camera(40, 40, 40.0, 3.0)
    bright = render_mesh(ball, camera, light=(1.0, 0.0, 0.0))[0, :3].mean(0)
    assert bright[20, 28] > 1.5 * bright[20, 12] > 0.2
    above = render_mesh(ball, camera, light=(0.0, 1.0, 0.0))[0, :3].mean(0)
    assert above[12, 20] > 1.5 * above[28, 20]
    dull, glossy = (render_mesh(ball, camera, specular=s)[0] for s in (0.0, 0.5))
    assert (glossy >= dull - 1e-6).all() and (glossy - dull).max() > 0.1


def test_both_sides_of_an_open_surface_are_lit():
    front = facing_camera(8, 8, 8.0)
    back = pinhole(look_at(torch.tensor([[0.0, 0, -2]]), up=(0.0, 1.0, 0.0)), 0.9, 8, 8)
    assert render_mesh(square(), back)[0, :3, 4, 4].min() > 0.5
    torch.testing.assert_close(
        render_mesh(square(), back)[0, :, 4, 4], render_mesh(square(), front)[0, :, 4, 4], rtol=0, atol=0.02
    )


def test_turning_the_mesh_is_turning_the_camera_the_other_way():
    tilt = trimesh.transformations.random_rotation_matrix(np.array([0.1, 0.5, 0.9]))
    body = trimesh.creation.torus(1, 0.4).apply_transform(tilt)
    angle = 2 * math.pi / 3
    cameras = orbit(3, 4.0, 0.3, width=64, height=64)
    turned = body.copy().apply_transform(trimesh.transformations.rotation_matrix(-angle, [0, 0, 1]))
    a, b = render_mesh(body, cameras)[1], render_mesh(turned, cameras)[0]
    assert (a - b).abs().mean() < 1e-3


def test_sharp_edges_stay_sharp_and_round_shapes_smooth():
    cube = trimesh.creation.box()
    normals = raster.meshes.corner_normals(cube, 0.7)
    np.testing.assert_allclose(normals, np.repeat(cube.face_normals[:, None], 3, axis=1), atol=1e-12)
    ball = trimesh.creation.icosphere(subdivisions=3)
    np.testing.assert_allclose(raster.meshes.corner_normals(ball, 0.7), ball.triangles, atol=0.02)
    # The same sphere with every triangle's vertices its own, as texture seams have it.
    split = trimesh.Trimesh(np.array(ball.triangles).reshape(-1, 3), np.arange(3 * len(ball.faces)).reshape(-1, 3),
                            process=False)  # fmt: skip
    np.testing.assert_allclose(raster.meshes.corner_normals(split, 0.7), raster.meshes.corner_normals(ball, 0.7))


def test_a_textured_model_from_a_file(shared_data):
    spot = trimesh.load(shared_data / "meshes" / "spot" / "spot.obj", process=False)
    camera = orbit(1, 3.2, 0.2, (0.0, 0.1, 0.1), (0.0, 1.0, 0.0), width=128, height=128, azimuth=math.pi)
    picture = render_mesh(spot, camera)[0]
    solid = picture[:, picture[3] == 1].T
    assert 0.1 < len(solid) / 128**2 < 0.4
    white = (solid[:, :3].min(-1).values > 0.7).float().mean()
    black = (solid[:, :3].max(-1).values < 0.3).float().mean()
    muzzle = (solid[:, 0] > solid[:, 2] + 0.2).float().mean()
    assert white > 0.3 and black > 0.03 and muzzle > 0.03  # a white cow with black spots and a pink muzzle


def test_a_mesh_without_faces_is_refused():
    with pytest.raises(InputError, match="no faces"):
        render_mesh(trimesh.Trimesh(np.zeros((3, 3)), process=False), facing_camera(8, 8, 8.0))


def test_a_portrait_shows_all_of_a_mesh_whatever_its_units():
    mesh = trimesh.creation.icosphere(subdivisions=2).apply_scale([3, 1, 1])
    figure = raster.portrait(mesh.apply_scale(1e-3).apply_translation([7, 0, 0]), "ellipsoid", size=100)
    assert figure.texts[0].get_text() == "ellipsoid\n162 vertices, 320 faces"
    (sheet,) = (image.get_array() for image in figure.images)
    seen = (sheet[2:-2, 2:-2] < 250).any(-1)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    for found, size in ((rows, len(seen)), (columns, seen.shape[1])):
        assert found[0] > 0 and found[-1] < size - 1
    assert columns[-1] - columns[0] > 0.75 * seen.shape[1]
