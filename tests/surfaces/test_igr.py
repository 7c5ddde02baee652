"""IGR learns distances; its claims about planes and about the Eikonal term hold."""

import json

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh
from mutants import larger, part, result

from mpcli.kit import isosurface, pictures, raster
from mpcli.kit.cameras import framing
from mpcli.run import Trained
from mpcli_surfaces import igr
from mpcli_surfaces.igr import equations
from mpcli_surfaces.kit.tracing import outline

SMALL = {
    "train": ["--width", "16", "--depth", "2", "--batch", "32"],
    "render": ["--size", "32"],
    "marching_cubes": ["--resolution", "24"],
    "evaluate": ["--resolution", "24"],
}


def only_at_the_surface(terms):
    return lambda f, slope, in_space, normals, *vanish: terms(f, slope, slope, normals, *vanish)


def unscaled(value):
    return lambda net, x: value(net, x) / net.scale


MUTANTS = {
    "slope of the network": (igr.IGR, "forward", part(1, larger)),
    "slope not let through to the softplus": (torch, "sigmoid", result(torch.ones_like)),
    "value at a point": (igr.IGR, "forward", part(0, larger)),
    "value in units of the box": (igr.IGR, "value", unscaled),
    "input not centred": (igr.IGR, "unit", lambda unit: lambda net, x: x / net.scale),
    "slope asked for at the surface only": (igr, "terms", only_at_the_surface),
    "too much Eikonal term": (igr, "terms", part(1, larger)),
    "no vanish term": (igr, "terms", part(0, lambda vanish: 0 * vanish)),
    "normals that are unknown count": (igr, "terms", part(2, larger)),
    "secant the other way": (equations, "secant", lambda _: lambda x0, f0, x1, f1: x1 + f1 * (x1 - x0) / (f1 - f0)),
    "rays stop short": (equations, "trace", part(0, lambda t: 0.999 * t)),
}

TINY = ("--width", 48, "--depth", 3, "--batch", 256, "--quiet", "--seed", 1)


def model(width: int = 256, depth: int = 4, **options) -> igr.IGR:
    return igr.IGR(igr.Config(width=width, depth=depth, **options), (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


def trained(path) -> igr.IGR:
    return Trained(path, device="cpu").load(igr.IGR, igr.Config)


def write_ring(name: str, n: int = 3000, noise: float = 0.0) -> trimesh.Trimesh:
    """A torus as a cloud without normals, away from the origin and not of unit size."""
    g = np.random.default_rng(0)
    mesh = trimesh.creation.torus(3.0, 1.0, major_sections=64, minor_sections=32).apply_translation([10, -20, 5])
    points, _ = trimesh.sample.sample_surface(mesh, n, seed=0)
    np.savetxt(name, points + noise * g.standard_normal(points.shape))
    return mesh


def test_it_starts_as_a_ball():
    x = 2 * torch.rand(2000, 3) - 1
    for _ in range(5):
        f, slope = model(width=512, radius=0.5)(x)
        assert (f - (x.norm(dim=-1) - 0.5)).abs().mean() < 0.15
        assert torch.cosine_similarity(slope, x, dim=-1).mean() > 0.97


def test_the_slope_is_that_of_autograd():
    for depth in (2, 3, 6):
        net = model(width=16, depth=depth, sharpness=3.0).double()
        x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
        f, slope = net(x)
        torch.testing.assert_close(slope, torch.autograd.grad(f.sum(), x)[0])
        torch.testing.assert_close(net.value(x), f)


def test_lengths_are_those_of_the_cloud():
    """The same network on a cloud twice as large and moved is the same function, twice as large and moved."""
    torch.manual_seed(0)
    small = model(width=16)
    torch.manual_seed(0)
    large = igr.IGR(igr.Config(width=16), (1.0, 1.0, 1.0), (5.0, 5.0, 5.0))
    x = torch.randn(5, 3)
    torch.testing.assert_close(large.value(2 * x + 3), 2 * small.value(x))
    torch.testing.assert_close(large(2 * x + 3)[1], small(x)[1])


@pytest.mark.learning
def test_it_learns_the_surface_behind_a_mesh(mpcli):
    result = mpcli("train", "igr", *TINY, "--steps", 250, "--json")
    assert result.code == 0, result.err
    assert result.json["metrics"]["chamfer"] < 0.008
    start = mpcli("train", "igr", *TINY, "--steps", 1, "--lr", 1e-9, "--json")
    assert start.json["metrics"]["chamfer"] > 0.05  # the ball that it starts as


@pytest.mark.learning
def test_a_raw_cloud_to_a_mesh(mpcli, tmp_path):
    truth = write_ring("ring.xyz")
    run = mpcli("train", "igr", "--data", "ring.xyz", *TINY, "--steps", 400).path
    net = trained(run)
    x, _ = trimesh.sample.sample_surface(truth, 500, seed=3)
    x = torch.tensor(np.asarray(x), dtype=torch.float32)
    assert net.value(x).abs().mean() < 0.05  # of a shape 8 across
    centre = torch.tensor([[10.0, -20, 5], [13, -20, 5], [10, -23.0, 5], [10, -20, 7]])
    f = net.value(centre).tolist()
    assert f[0] > 0 and f[3] > 0  # the hole, and above: outside
    assert f[1] < -0.2 and f[2] < -0.2  # in the tube, 1 deep: smooth functions round off the ridge
    extracted = mpcli("marching-cubes", run, "--resolution", 64, "--json", "--quiet")
    mesh = trimesh.load(extracted.json["artifacts"][0], process=False)
    assert mesh.is_watertight and mesh.euler_number == 0
    assert mesh.volume == pytest.approx(truth.volume, rel=0.05)

    held_out = mpcli("evaluate", run, "--json", "--quiet")
    assert held_out.json["metrics"] == json.loads((run / "run.json").read_text())["result"]
    assert 0 < held_out.json["metrics"]["chamfer"] < 0.05  # 300 points on it are that far apart
    truth.export("ring.ply")
    exact = mpcli("evaluate", run, "--data", "mesh:ring.ply", "--json", "--quiet")
    assert exact.json["metrics"]["chamfer"] < 0.004


@pytest.mark.learning
def test_normals_help_where_they_are_known(mpcli):
    plain = mpcli("train", "igr", *TINY, "--steps", 60, "--json").json["metrics"]["chamfer"]
    turned = mpcli("train", "igr", *TINY, "--steps", 60, "--normals", 1, "--json").json["metrics"]["chamfer"]
    assert turned < plain


def test_batches_are_a_function_of_seed_and_step_and_as_long_as_each_other():
    x, n = torch.randn(100, 3), torch.zeros(100, 3)
    box = ((-9.0, -9.0, -9.0), (9.0, 9.0, 9.0))

    def batch(seed: int, step: int) -> tuple[torch.Tensor, ...]:
        return igr.drawn(x, n, torch.full((100, 1), 1e-3), box, 33, seed)(step)

    for ours, again in zip(batch(1, 5), batch(1, 5), strict=True):
        assert torch.equal(ours, again) and len(ours) == 33
    for other in (batch(2, 5), batch(1, 6)):
        assert not torch.isin(other[2], batch(1, 5)[2]).any()
    points, _, space = batch(1, 5)
    moved = (space[:17] - points[::2]) / 1e-3
    assert 0 < moved.abs().max() < 5 and moved.std() == pytest.approx(1, abs=0.3)
    assert space[17:].abs().max() < 9 and space[17:].std() == pytest.approx(18 / 12**0.5, abs=1.2)


def test_octree_and_dense_give_the_same_mesh(mpcli):
    run = mpcli("train", "igr", *TINY, "--steps", 100).path
    net = trained(run)
    octree = isosurface.marching_cubes(net.value, net.box(), 40, lipschitz=igr.SLOPE)
    dense = isosurface.marching_cubes(net.value, net.box(), 40, method="dense")
    np.testing.assert_array_equal(octree.faces, dense.faces)
    np.testing.assert_allclose(octree.vertices, dense.vertices, atol=1e-5)
    assert octree.asked < 0.35 * dense.asked


def test_a_picture_shows_the_surface_from_its_camera(mpcli):
    """Against the mesh of the same function, drawn by the rasteriser from the same camera."""
    run = mpcli("train", "igr", *TINY, "--steps", 150).path
    figure = iio.imread(mpcli("render", run, "--size", 64, "--quiet").path) / 255
    # The last 128 rows and columns but for frame and margin: each pixel is enlarged to two by two.
    end = pictures.GAP + pictures.MARGIN
    picture = figure[-128 - end : -end : 2, -128 - end : -end : 2, :3]

    net = trained(run)
    mesh = isosurface.marching_cubes(net.value, net.box(), 64, lipschitz=igr.SLOPE).mesh()
    middle, reach = net.ball()
    vertices = (torch.from_numpy(mesh.vertices.astype(np.float32)) - middle) / reach
    camera = framing(
        (outline(net.value, net.box(), "cpu") - middle) / reach, (0.0, 1.0, 0.0), 2.6, 0.35, height=64, width=64
    )
    drawn = raster.rasterize(vertices, torch.from_numpy(mesh.faces), camera)
    face, corners = drawn.face[0].numpy(), drawn.barycentric[0].numpy()
    normals = (corners[..., None] * mesh.vertex_normals[mesh.faces[face]]).sum(-2)
    seen = face >= 0
    assert 0.25 < seen.mean() < 0.8
    filled = (picture < 0.99).any(-1)
    assert (filled != seen).mean() < 0.03  # half-covered pixels of the outline
    both = filled & seen
    assert np.abs(picture[both] - (normals[both] + 1) / 2).mean() < 0.02


def test_animations(mpcli):
    run = mpcli("train", "igr", *TINY, "--steps", 2).path
    gif = mpcli("render", run, "--size", 16, "--frames", 3, "--out", "turn.gif", "--quiet").path
    assert gif.name == "turn.gif" and iio.imread(gif).shape[0] == 3


@pytest.mark.parametrize("seed", range(6))
def test_points_of_a_hyperplane_reproduce_it(seed):
    """With the Eikonal term descent ends at w = n or -n; without, w . n stays what it was and the rest vanishes."""
    g = torch.Generator().manual_seed(seed)
    dimensions = 2 + seed
    n = torch.nn.functional.normalize(torch.randn(dimensions, generator=g).double(), dim=0)
    x = torch.randn(40, dimensions, generator=g).double()
    x = x - (x @ n)[:, None] * n
    start = torch.randn(dimensions, generator=g).double()

    def loss(w: torch.Tensor, weight: float) -> torch.Tensor:
        unit_slope = igr.terms(x @ w, w[None], w[None], w[None])[1]
        return (x @ w).square().mean() + weight * unit_slope

    def descend(weight: float) -> torch.Tensor:
        w = start.clone()
        for _ in range(1000):
            w -= 0.05 * torch.func.grad(loss)(w, weight)
        return w

    torch.testing.assert_close(descend(0.5), n * (start @ n).sign(), atol=1e-6, rtol=0)
    without = descend(0.0)
    torch.testing.assert_close(without, n * (start @ n), atol=1e-6, rtol=0)
    assert abs(without.norm().item() - 1) > 0.01


@pytest.mark.learning
def test_without_the_eikonal_term_the_function_flattens(mpcli):
    slopes = {}
    for weight in (0.0, 0.1):
        run = mpcli("train", "igr", *TINY, "--steps", 150, "--eikonal", weight, "--radius", 0.9).path
        _, slope = trained(run)(2 * torch.rand(2000, 3) - 1)
        slopes[weight] = (slope.norm(dim=-1) - 1).abs().mean().item()
    assert slopes[0.1] < 0.25
    assert slopes[0.0] > 2 * slopes[0.1]


def test_real_scans(mpcli, shared_data):
    """397 points of the Stanford bunny, seen from one side, in a PCD file."""
    scan = ("--data", f"points:{shared_data / 'pointclouds' / 'bun0.pcd'}")
    run = mpcli("train", "igr", *scan, *TINY, "--steps", 150).path
    cloud = igr.read(scan[1])[0].train
    assert trained(run).value(cloud.xyz).abs().mean() < 0.01 * (cloud.xyz.amax(0) - cloud.xyz.amin(0)).norm()
    picture = iio.imread(mpcli("render", run, "--size", 32, "--quiet").path)
    assert (picture < 250).any(-1).mean() > 0.1


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("few.xyz", "0 0 0\n1 0 0\n0 1 0\n", "few.xyz: 3 points show no surface"),
        ("one.xyz", "1 2 3\n" * 50, "one.xyz: 50 points show no surface"),
        ("empty.xyz", "", "empty.xyz"),
        ("nan.xyz", "0 0 nan\n" * 30, "nan.xyz"),
    ],
)
def test_clouds_that_are_none(mpcli, tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    result = mpcli("train", "igr", "--data", name, "--steps", 1)
    assert result.code == 2 and reason in " ".join(result.err.split()), result.err


def test_normals_that_are_not_there(mpcli):
    write_ring("ring.xyz")
    result = mpcli("train", "igr", "--data", "ring.xyz", "--normals", 1, "--steps", 1)
    assert result.code == 2 and "--normals 1: ring.xyz has no normals" in " ".join(result.err.split())


def test_a_function_that_lost_its_surface_fails(mpcli):
    run = mpcli("train", "igr", *TINY, "--steps", 1, "--radius", 1e-9, "--lr", 1e-9)
    assert run.code == 1 and "is no surface" in run.err
