"""Normals and nearest points against closed forms and brute force."""

import numpy as np
import pytest
import torch
import trimesh

from mpcli.errors import InputError
from mpcli.kit import meshes


def brute_force(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Distances by trimesh's own triangle routine, over every pair of a point and a face."""
    n, f = len(points), len(mesh.faces)
    nearest = trimesh.triangles.closest_point(np.tile(mesh.triangles, (n, 1, 1)), np.repeat(points, f, axis=0))
    return np.linalg.norm(nearest.reshape(n, f, 3) - points[:, None], axis=-1).min(axis=1)


def uneven_mesh() -> trimesh.Trimesh:
    """Small triangles beside very large ones."""
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.3)
    box = trimesh.creation.box(extents=(50, 2, 3))
    return trimesh.util.concatenate([ball, box.apply_translation([20, 1.5, 0])])


def test_closest_point_is_that_of_brute_force():
    mesh = uneven_mesh()
    points = 3 * np.random.default_rng(0).standard_normal((200, 3))
    points = np.concatenate([points, mesh.vertices[:7], [[1e3, 0, 0], [0, 0, 0]]])
    where, far, face = meshes.closest_point(mesh, points)
    np.testing.assert_allclose(far, brute_force(mesh, points), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(where - points, axis=-1), far, atol=1e-12)
    barycentric = trimesh.triangles.points_to_barycentric(mesh.triangles[face], where)
    assert barycentric.min() > -1e-7 and barycentric.max() < 1 + 1e-7  # it lies on the face that is named
    np.testing.assert_allclose((barycentric[..., None] * mesh.triangles[face]).sum(axis=1), where, atol=1e-7)


def test_closest_point_with_more_candidates_than_are_held_at_once(monkeypatch):
    # From the middle of a sphere every triangle is a candidate of every point.
    monkeypatch.setattr(meshes, "_AT_ONCE", 1000)
    ball = trimesh.creation.icosphere(subdivisions=2)
    points = 1e-3 * np.random.default_rng(0).standard_normal((50, 3))
    _, far, _ = meshes.closest_point(ball, points)
    np.testing.assert_allclose(far, brute_force(ball, points), atol=1e-12)


def test_closest_point_bears_triangles_without_area():
    vertices = [[0, 0, 0], [2, 0, 0], [1, 0, 0], [1, 0, 0]]
    sliver = trimesh.Trimesh(vertices, [[0, 1, 2], [2, 3, 2]], process=False)
    _, far, _ = meshes.closest_point(sliver, np.array([[0.5, 3.0, 4.0], [-3.0, 4.0, 0.0]]))
    np.testing.assert_allclose(far, [5, 5])


def test_no_points_have_no_nearest_points():
    where, far, face = meshes.closest_point(trimesh.creation.box(), np.zeros((0, 3)))
    assert where.shape == (0, 3) and far.shape == face.shape == (0,)


def test_vertex_normals_of_a_sphere_point_outward():
    ball = trimesh.creation.icosphere(subdivisions=4)
    vertices = torch.from_numpy(np.array(ball.vertices))
    batch = torch.stack([vertices, 2 * vertices + 1])
    normals = meshes.vertex_normals(batch, torch.from_numpy(np.array(ball.faces)))
    assert (normals * vertices).sum(-1).min() > 0.999
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(2, len(vertices)).double())


def test_vertex_normals_are_weighted_by_area():
    # One corner shared by a face of area 1/2 with normal z and a face of area 2 with normal x.
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 2, 0], [0, 0, 2]])
    normals = meshes.vertex_normals(vertices, torch.tensor([[0, 1, 2], [0, 3, 4]]))
    torch.testing.assert_close(normals[0], torch.tensor([4.0, 0, 1]) / 17**0.5)
    assert meshes.vertex_normals(vertices, torch.tensor([[0, 1, 2]]))[4].tolist() == [0, 0, 0]


def test_welded_names_positions():
    assert meshes.welded(np.array([[1.0, 0, 0], [0, 0, 0], [1, 0, 0]])).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("vertices", "faces", "what"),
    [
        (np.zeros((3, 3)), np.zeros((0, 3), int), "no faces"),
        (np.zeros((3, 3)), [[0, 1, 7]], "names vertex 7"),
        ([[0, 0, 0], [np.nan, 0, 0], [0, 1, 0]], [[0, 1, 2]], "vertex 1 is not finite"),
    ],
)
def test_a_mesh_that_is_no_surface_is_refused(vertices, faces, what):
    with pytest.raises(InputError, match=f"cow.ply: .*{what}"):
        meshes.require_faces(trimesh.Trimesh(vertices, faces, process=False), "cow.ply")
