"""Pictures of meshes from the shell: framed, lit, turning, and refused where there is no surface."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from mutants import larger, part, result

from mpcli.kit import raster


def with_identity(shade):
    return lambda *args: shade(*args[:4], torch.eye(4).to(args[4]), *args[5:])


MUTANTS = {
    "depth too large": (raster, "_visible", part(2, larger)),
    "weights of other corners": (raster, "_visible", part(3, lambda b: b.roll(1, -1))),
    "weights that do not sum to one": (raster, "_visible", part(3, larger)),
    "light that stays behind when the camera moves": (raster, "shade", with_identity),
    "light in colours, not in their power": (raster, "shade", result(lambda colour: colour**2.2)),
    "light too strong": (raster, "shade", result(larger)),
}


@pytest.fixture
def torus(tmp_path):
    mesh = trimesh.creation.torus(1, 0.4).apply_translation([1000, 0, 0])
    mesh.apply_scale(50)
    path = tmp_path / "torus.ply"
    mesh.export(path)
    return path


def test_a_bare_path_becomes_a_picture(mpcli, torus):
    # What `mpcli marching-cubes torus | xargs mpcli render mesh --data` ends in.
    result = mpcli("render", "mesh", "--data", torus, "--size", 96, "--up", "z")
    assert result.code == 0, result.err
    picture = iio.imread(result.path)
    assert picture.shape == (96, 96, 4) and (picture[..., 3] == 255).all()
    object_ = picture[..., :3].min(axis=-1) < 250
    rows, columns = np.flatnonzero(object_.any(axis=1)), np.flatnonzero(object_.any(axis=0))
    assert columns[0] < 8 and columns[-1] > 87  # it fills the picture ...
    assert columns[0] > 0 and columns[-1] < 95 and rows[0] > 0 and rows[-1] < 95  # ... and is whole
    assert object_.mean() > 0.2
    assert 90 < picture[object_].mean() < 240


def test_the_scale_and_place_of_a_mesh_do_not_matter(mpcli, tmp_path):
    shape = trimesh.creation.icosphere(subdivisions=2).apply_scale([1, 2, 3])
    pictures = []
    for scale, shift in ((1, 0), (1e-4, 0), (1e3, 1e5)):
        shape.copy().apply_scale(scale).apply_translation([shift, 0, shift]).export(tmp_path / "shape.glb")
        result = mpcli("render", "mesh", "--data", tmp_path / "shape.glb", "--size", 64)
        assert result.code == 0, result.err
        pictures.append(iio.imread(result.path).astype(float))
    assert np.abs(pictures[1] - pictures[0]).max() <= 1
    assert np.abs(pictures[2] - pictures[0]).mean() < 1  # the file rounds coordinates to single precision


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio leaves ffmpeg's pipes open
@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_an_animation_is_an_orbit(mpcli, torus, tmp_path, suffix):
    out = tmp_path / f"turn{suffix}"
    result = mpcli("render", "mesh", "--data", torus, "--size", 48, "--frames", 6, "--out", out)
    assert result.code == 0 and result.path == out, result.err
    frames = iio.imread(out, plugin="FFMPEG" if suffix == ".mp4" else None)
    assert frames.shape[:3] == (6, 48, 48)
    assert np.abs(frames[0].astype(float) - frames[2]).mean() > 3


def test_an_orbit_as_png_is_a_sheet_of_its_frames(mpcli, torus, tmp_path):
    out = tmp_path / "turn.png"
    result = mpcli("render", "mesh", "--data", torus, "--size", 48, "--frames", 4, "--path", "orbit", "--out", out)
    assert result.code == 0, result.err
    assert min(iio.imread(out).shape[:2]) >= 2 * 48


def test_texture_and_transparency(mpcli, shared_data):
    spot = shared_data / "meshes" / "spot" / "spot.obj"
    result = mpcli("render", "mesh", "--data", spot, "--size", 96, "--background", "transparent")
    assert result.code == 0, result.err
    picture = iio.imread(result.path).astype(float)
    solid = picture[picture[..., 3] == 255][:, :3]
    assert 0.1 < len(solid) / 96**2 < 0.6 and (picture[0, 0] == 0).all()
    assert ((solid[:, 0] - solid[:, 2]) > 50).mean() > 0.02  # pink muzzle, brown horns
    assert (solid.max(axis=1) < 80).mean() > 0.02 and (solid.min(axis=1) > 170).mean() > 0.3  # black spots on white


def test_the_default_works_and_says_what_it_drew(mpcli):
    result = mpcli("render", "mesh", "--size", 64)
    assert result.code == 0, result.err
    assert "5856 faces" in result.err
    assert (iio.imread(result.path)[..., :3].min(axis=-1) < 250).mean() > 0.1


def test_a_mesh_without_faces_is_refused(mpcli, tmp_path):
    path = tmp_path / "cloud.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    result = mpcli("render", "mesh", "--data", path)
    assert result.code == 2 and "cloud.obj" in result.err and "Traceback" not in result.err
    assert result.out == ""


def test_a_mesh_with_a_coordinate_that_is_no_number_is_refused(mpcli, tmp_path):
    path = tmp_path / "broken.obj"
    path.write_text("v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n")
    result = mpcli("render", "mesh", "--data", path)
    assert result.code == 2 and "broken.obj" in result.err and "Traceback" not in result.err


def test_the_cases_hold(mpcli):
    result = mpcli("gradcheck", "mesh", "--json")
    assert result.code == 0, result.err
