"""The embedded mesh: whole, and what its source is."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import mpcli_data
from mpcli.errors import InputError
from mpcli.kit import metrics
from mpcli.kit.datasets import Points
from mpcli.kit.datasets.spot import sampled, spot


def test_it_is_a_closed_surface():
    mesh = spot("")
    assert (len(mesh.vertices), len(mesh.faces)) == (2930, 5856)
    assert mesh.is_watertight and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(0.71826, abs=1e-5)


def test_it_is_small_and_its_licence_lies_beside_it():
    folder = Path(next(iter(mpcli_data.__path__)))
    assert (folder / "spot.npz").stat().st_size < 150_000
    assert "Keenan Crane" in (folder / "LICENSE-spot.txt").read_text()


def test_it_is_the_mesh_of_its_source(shared_data):
    source = trimesh.load(shared_data / "meshes" / "spot" / "spot.obj", process=False, maintain_order=True)
    mesh = spot("")
    np.testing.assert_array_equal(mesh.vertices, source.vertices.astype(np.float32))
    np.testing.assert_array_equal(mesh.faces, source.faces)


def test_clouds_lie_on_it_evenly_with_its_normals():
    mesh, cloud = spot(""), spot("4000")
    assert isinstance(cloud, Points) and len(cloud) == 4000
    assert metrics.point_to_surface(cloud.xyz, mesh).max() < 1e-6
    torch.testing.assert_close(cloud.normals.norm(dim=-1), torch.ones(4000))
    ahead = (mesh.triangles_center[:, 2] > 0) @ mesh.area_faces / mesh.area
    assert (cloud.xyz[:, 2] > 0).float().mean().item() == pytest.approx(ahead, abs=0.03)
    outside = cloud.xyz + 0.01 * cloud.normals
    volume = (outside * cloud.normals).sum(-1).mean().item() * mesh.area / 3  # the divergence theorem
    assert volume == pytest.approx(mesh.volume, rel=0.1)
    assert torch.equal(cloud.xyz, spot("4000").xyz)
    assert not torch.equal(cloud.xyz, sampled(mesh, 4000, seed=1).xyz)


@pytest.mark.parametrize("argument", ["0", "-3", "many", "99999999", "9" * 50, "1e3"])
def test_other_arguments_are_refused(argument):
    with pytest.raises(InputError, match="right would be spot"):
        spot(argument)
