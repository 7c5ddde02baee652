"""Sphere, plane and torus from the command line, against closed forms."""

import math

import numpy as np
import pytest
import torch
import trimesh

from mpcli_surfaces import plane, sphere, torus


def extract(mpcli, *arguments) -> tuple[trimesh.Trimesh, dict]:
    result = mpcli("marching-cubes", *arguments, "--json", "--quiet")
    assert result.code == 0, result.err
    assert result.err == ""
    mesh = trimesh.load(result.json["artifacts"][0], process=False)
    assert result.json["metrics"]["faces"] == len(mesh.faces)
    return mesh, result.json["metrics"]


@pytest.mark.parametrize("method", ["octree", "dense"])
def test_sphere(mpcli, method):
    mesh, metrics = extract(mpcli, "sphere", "--radius", 2, "--method", method)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 2, atol=2e-3)
    assert mesh.is_watertight and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 8, rel=1e-3)
    assert metrics["asked"] == 1 if method == "dense" else metrics["asked"] < 0.06


def test_torus(mpcli):
    mesh, metrics = extract(mpcli, "torus", "--major", 0.6, "--minor", 0.2, "--resolution", 96)
    assert mesh.is_watertight and mesh.euler_number == 0
    assert mesh.volume == pytest.approx(2 * math.pi**2 * 0.6 * 0.2**2, rel=4e-3)  # chords: (h / r)^2 / 4 too little
    assert mesh.area == pytest.approx(4 * math.pi**2 * 0.6 * 0.2, rel=4e-3)
    assert metrics["asked"] < 0.06


def test_a_level_is_an_offset_surface(mpcli):
    mesh, _ = extract(mpcli, "torus", "--level", "-0.05", "--resolution", 96)
    assert mesh.volume == pytest.approx(2 * math.pi**2 * 0.5 * 0.2**2, rel=5e-3)


def test_plane_contains_its_points_and_looks_along_the_cross_product(mpcli):
    points = np.array([[1, 2, 3], [2, 2.5, 2.5], [1.5, 3, 4]], float)
    texts = [",".join(map(str, point)) for point in points]
    mesh, _ = extract(mpcli, "plane", "-p", texts[0], "-q", texts[1], "-r", texts[2], "--resolution", 24)
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    normal /= np.linalg.norm(normal)
    np.testing.assert_allclose((mesh.vertices - points[0]) @ normal, 0, atol=1e-5)
    whole = mesh.area_faces > 1e-4 * mesh.area_faces.max()  # the direction of a sliver is rounding
    np.testing.assert_allclose(mesh.face_normals[whole] @ normal, 1, atol=1e-3)
    for point in points:
        assert np.linalg.norm(mesh.vertices - point, axis=1).min() < 0.15


def test_negative_coordinates_are_no_options(mpcli):
    mesh, _ = extract(mpcli, "plane", "-p", "-1,0,0", "-q", "0,-1,0", "-r", "0,0,-1", "--resolution", 8)
    np.testing.assert_allclose(mesh.vertices.sum(axis=1), -1, atol=1e-5)


def test_bounds(mpcli):
    mesh, _ = extract(mpcli, "sphere", "--radius", 1, "--bounds", "0,0,0,2,2,2", "--resolution", 40)
    assert mesh.bounds[0].min() == 0
    assert mesh.area == pytest.approx(4 * math.pi / 8, rel=2e-3)


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb", "stl"])
def test_formats(mpcli, suffix):
    result = mpcli("marching-cubes", "torus", "--resolution", 32, "--out", f"ring.{suffix}", "--quiet")
    assert result.code == 0 and result.path.name == f"ring.{suffix}"
    mesh = trimesh.load(result.path, force="mesh")
    mesh.merge_vertices()
    assert mesh.is_watertight and mesh.volume == pytest.approx(2 * math.pi**2 * 0.5 * 0.25**2, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("plane", "-p", "0,0,0", "-q", "1,1,1", "-r", "2,2,2"), "on one line"),
        (("plane", "-p", "0,0,0", "-q", "0,0,0"), "on one line"),
        (("plane", "-p", "0,0"), "-p 0.0,0.0: is no point"),
        (("plane", "-q", "0,nan,0"), "-q must be finite, not nan"),
        (("sphere", "--radius", "0"), "--radius must be greater than 0"),
        (("sphere", "--radius", "nan"), "--radius"),
        (("torus", "--resolution", "1"), "--resolution must be at least 2"),
        (("torus", "--level", "9"), "--level 9: no surface in the box"),
        (("torus", "--level", "nan"), "--level"),
        (("torus", "--bounds", "1,2"), "--bounds: has 2 numbers"),
        (("torus", "--bounds", "1,1,1,0,0,0"), "--bounds: is no box"),
        (("torus", "--method", "magic"), "octree"),
        (("torus", "--out", "ring.xyz"), "ring.xyz"),
    ],
)
def test_bad_requests(mpcli, arguments, reason):
    result = mpcli("marching-cubes", *arguments)
    assert result.code == 2, result.err
    assert reason in result.err and "Traceback" not in result.err


def test_distances_are_distances():
    """Against the nearest of many points of the surface itself."""
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    u, v = torch.meshgrid(*[torch.linspace(0, 2 * math.pi, 500).double()] * 2, indexing="ij")
    ring = 0.8 + 0.3 * v.cos()
    surface = torch.stack([ring * u.cos(), ring * u.sin(), 0.3 * v.sin()], -1).reshape(-1, 3)
    nearest = torch.stack([(surface - point).norm(dim=-1).min() for point in x])
    torch.testing.assert_close(torus.Torus(0.8, 0.3).distance(x).abs(), nearest, atol=1e-3, rtol=0)
    ball = torch.stack([u.sin() * v.cos(), u.sin() * v.sin(), u.cos()], -1).reshape(-1, 3)
    nearest = torch.stack([(ball - point).norm(dim=-1).min() for point in x])
    torch.testing.assert_close(sphere.Sphere(1.0).distance(x).abs(), nearest, atol=1e-3, rtol=0)
    n = torch.tensor([0.0, 3.0, 4.0]).double()
    assert plane.distance(torch.tensor([7.0, 3.0, 4.0]).double(), torch.zeros(3).double(), n).item() == pytest.approx(5)
