"""Grids of numbers: what is read, what is refused, and the surface in them."""

import io
import math
import re
import zipfile

import numpy as np
import pytest
import torch
import trimesh
from mutants import arguments, larger, result

from mpcli.kit import isosurface
from mpcli_surfaces import volume

MUTANTS = {
    "the value of the cell's corner": (volume, "trilinear", arguments(lambda v, x: (v, x.floor()))),
    "axes swapped": (volume, "trilinear", arguments(lambda v, x: (v, x.flip(-1)))),
    "half a cell aside": (volume, "trilinear", arguments(lambda v, x: (v, x + 0.5))),
    "a bound too low": (volume, "steepest", result(lambda bound: 0.9 * bound)),
    "a bound too high": (volume, "steepest", result(larger)),
    "one axis left out of the bound": (volume, "steepest", arguments(lambda v: (v * 0 + v[:, :, :1],))),
}


def ball(n: int = 40, radius: float = 12.0) -> np.ndarray:
    return np.linalg.norm(np.indices((n, n, n)) - (n - 1) / 2, axis=0) - radius


def extract(mpcli, *arguments) -> trimesh.Trimesh:
    result = mpcli("marching-cubes", "volume", *arguments, "--json", "--quiet")
    assert result.code == 0, result.err
    return trimesh.load(result.json["artifacts"][0], process=False)


def test_a_stored_distance_in_units_of_its_cells(mpcli):
    np.save("ball.npy", ball())
    mesh = extract(mpcli, "--data", "ball.npy")
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - 19.5, axis=1), 12, atol=0.02)
    assert mesh.is_watertight and mesh.volume == pytest.approx(4 / 3 * math.pi * 12**3, rel=5e-3)


def test_equal_to_scikit_image_on_the_grid_itself(mpcli):
    from skimage import measure

    values = np.random.default_rng(0).standard_normal((9, 14, 11)).astype(np.float32)
    np.save("noise.npy", values)
    vertices, faces, _, _ = measure.marching_cubes(values, 0.25, allow_degenerate=False)
    for method in ("octree", "dense"):
        mesh = extract(mpcli, "--data", "noise.npy", "--level", 0.25, "--method", method)
        np.testing.assert_array_equal(mesh.faces, faces)
        np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-5)


def test_bright_solids_face_outward_and_spacing_is_a_length(mpcli):
    scan = (1000 - 40 * ball()).astype(np.int16)  # brighter inside; 1000 on the surface
    np.savez("scan.npz", scan=scan, mask=scan > 1000)
    mesh = extract(mpcli, "--data", "scan.npz", "--key", "scan", "--level", 1000, "--inside", "greater",
                   "--spacing", "0.5,0.5,2")  # fmt: skip
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 12**3 * 0.5, rel=1e-2)
    np.testing.assert_allclose(mesh.extents, [12, 12, 48], rtol=5e-3)


def test_part_of_a_grid_and_another_resolution(mpcli):
    np.save("ball.npy", ball())
    half = extract(mpcli, "--data", "ball.npy", "--bounds", "0,0,0,39,39,19.5", "--resolution", 78)
    assert half.area == pytest.approx(2 * math.pi * 12**2, rel=5e-3)
    assert half.bounds[1, 2] == pytest.approx(19.5)
    assert len(half.faces) > len(extract(mpcli, "--data", "ball.npy").faces)


def test_a_level_is_found_where_none_is_given(mpcli):
    np.save("mask.npy", ball() < 0)  # booleans: halfway
    mesh = extract(mpcli, "--data", "mask.npy", "--inside", "greater")
    assert mesh.is_watertight and mesh.volume == pytest.approx(4 / 3 * math.pi * 12**3, rel=0.05)


def test_the_default_is_a_closed_surface_with_handles(mpcli):
    mesh = extract(mpcli)
    assert mesh.is_watertight and mesh.euler_number < 0 and mesh.volume > 0


def test_the_bound_on_the_slope_is_one():
    values = torch.randn(6, 7, 8, generator=torch.Generator().manual_seed(1))
    x = 8 * torch.rand(20_000, 3, generator=torch.Generator().manual_seed(2)) - 1  # some of it outside
    y = x + 0.01 * torch.randn(20_000, 3, generator=torch.Generator().manual_seed(3))
    quotient = (volume.trilinear(values, x) - volume.trilinear(values, y)).abs() / (x - y).norm(dim=-1)
    assert 0.5 * volume.steepest(values) < quotient.max() < volume.steepest(values)


def test_storage_grows_with_the_cube_of_the_resolution_and_with_no_other_property_of_the_shape():
    assert volume.gyroid(64).nbytes == 8 * volume.gyroid(32).nbytes
    coarse, fine = (
        isosurface.marching_cubes(lambda x: x.norm(dim=-1) - 0.7, ((-1.0,) * 3, (1.0,) * 3), n) for n in (32, 64)
    )
    assert len(fine.faces) == pytest.approx(4 * len(coarse.faces), rel=0.05)


class Trap:
    """Unpickling it would leave a file behind."""

    def __reduce__(self):
        return open, ("trapped", "w")


def npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def with_nan() -> np.ndarray:
    values = ball(6)
    values[1, 2, 3] = np.nan
    return values


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return buffer.getvalue()


BAD = {
    "flat.npy": (npy(np.zeros((5, 5))), r"float64 \[5, 5\]"),
    "thin.npy": (npy(np.zeros((5, 5, 1))), r"\[5, 5, 1\]"),
    "empty.npy": (npy(np.zeros((0, 5, 5))), r"\[0, 5, 5\]"),
    "nan.npy": (npy(with_nan()), r"value at \[1, 2, 3\] is nan"),
    "overflow.npy": (npy(np.full((3, 3, 3), 1e300)), r"value at \[0, 0, 0\] is 1e\+300"),
    "complex.npy": (npy(np.zeros((3, 3, 3), complex)), "complex128"),
    "words.npy": (npy(np.full((3, 3, 3), "tissue")), "<U6"),
    "objects.npy": (npy(np.array([[[Trap()]]]), allow_pickle=True), "Python objects"),
    "objects.npz": (archive(a=npy(np.array([[[Trap()]]]), allow_pickle=True)), "Python objects"),
    "constant.npy": (npy(np.ones((4, 4, 4))), "no surface"),
    "cut.npy": (npy(ball(6))[:-9], "cut.npy"),
    "huge.npy": (npy(ball(6)).replace(b"(6, 6, 6)", b"(9999999, 9999999, 9999999)"), "huge.npy"),
    "text.npy": (b"0 1 2", "text.npy"),
    "text.npz": (b"0 1 2", "text.npz"),
    "two.npz": (archive(a=npy(ball(6)), b=npy(ball(6))), "has 2 arrays; --key with one of a, b"),
    "none.npz": (archive(), "has 0 arrays"),
    "scan.raw": (b"\0" * 64, "no known format"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(mpcli, tmp_path, name):
    data, reason = BAD[name]
    (tmp_path / name).write_bytes(data)
    result = mpcli("marching-cubes", "volume", "--data", name)
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    assert re.search(reason, " ".join(result.err.split())), result.err
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--data", "there-is-none.npy"), "there-is-none.npy: there is no such file"),
        (("--spacing", "1,2"), "--spacing: has 2 numbers"),
        (("--spacing", "1,0,1"), "--spacing must be greater than 0"),
        (("--level", "99"), "--level 99: no surface"),
        (("--bounds", "200,200,200,300,300,300"), "no surface"),
    ],
)
def test_bad_requests(mpcli, arguments, reason):
    result = mpcli("marching-cubes", "volume", *arguments)
    assert result.code == 2 and reason in " ".join(result.err.split()), result.err
