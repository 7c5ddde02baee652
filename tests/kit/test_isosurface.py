"""The octree against the dense lattice, and both against closed forms."""

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit import isosurface

CUBE = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


def ball(x: Tensor, radius: float = 0.6) -> Tensor:
    return x.norm(dim=-1) - radius


def torus(x: Tensor, major: float = 0.5, minor: float = 0.25) -> Tensor:
    return torch.stack([x[:, :2].norm(dim=-1) - major, x[:, 2]], -1).norm(dim=-1) - minor


def capsule(x: Tensor, radius: float) -> Tensor:
    """Distance to a segment that is parallel to no axis, less the radius."""
    a, b = x.new_tensor([-0.71, -0.33, -0.52]), x.new_tensor([0.64, 0.41, 0.77])
    t = ((x - a) @ (b - a) / (b - a).square().sum()).clamp(0, 1)
    return (x - a - t[:, None] * (b - a)).norm(dim=-1) - radius


def gyroid(x: Tensor) -> Tensor:
    s, c = (7 * x).sin(), (7 * x).cos()
    return (s * c.roll(-1, dims=-1)).sum(-1)


FIELDS = {
    "ball": (ball, 1.0),
    "torus": (torus, 1.0),
    "moved union": (lambda x: torch.minimum(torus(x - 0.2), ball(x + 0.4, 0.3)), 1.0),
    "shell": (lambda x: ball(x).abs() - 0.01, 1.0),
    "algebraic ball, |grad| up to 2 sqrt 3": (lambda x: x.square().sum(-1) - 0.36, 3.47),
    "gyroid, |grad| up to 7 sqrt 3": (gyroid, 12.2),
    "occupancy, |grad| up to 40 / 4": (lambda x: torch.sigmoid(-40 * torus(x)) - 0.5, 10.0),
}


def same(octree: isosurface.Surface, dense: isosurface.Surface) -> None:
    """The same faces between the same vertices, in the same order; f itself rounds as the size of its batch has it."""
    np.testing.assert_array_equal(octree.faces, dense.faces)
    np.testing.assert_allclose(octree.vertices, dense.vertices, rtol=0, atol=2e-6)


@pytest.mark.parametrize("resolution", [2, 3, 16, 31, 64, 97])
@pytest.mark.parametrize("name", FIELDS)
def test_octree_and_dense_give_the_same_mesh(name, resolution):
    field, lipschitz = FIELDS[name]
    try:
        dense = isosurface.marching_cubes(field, CUBE, resolution, method="dense")
    except InputError:  # so few points that none is inside
        with pytest.raises(InputError, match="no surface"):
            isosurface.marching_cubes(field, CUBE, resolution, lipschitz=lipschitz)
        assert resolution < 31
        return
    same(isosurface.marching_cubes(field, CUBE, resolution, lipschitz=lipschitz), dense)
    assert dense.asked == dense.points == (resolution + 1) ** 3


@pytest.mark.parametrize("level", [-0.1, 0.1, 0.2])
def test_other_levels(level):
    octree = isosurface.marching_cubes(torus, CUBE, 64, level)
    same(octree, isosurface.marching_cubes(torus, CUBE, 64, level, "dense"))
    assert octree.mesh().volume == pytest.approx(2 * math.pi**2 * 0.5 * (0.25 + level) ** 2, rel=0.02)


def test_boxes_that_are_no_cubes():
    box = ((-0.8, -0.9, -0.3), (0.8, 0.1, 0.37))
    octree = isosurface.marching_cubes(torus, box, 50, lipschitz=1.0)
    dense = isosurface.marching_cubes(torus, box, 50, method="dense")
    same(octree, dense)
    assert octree.points == 51 * 32 * 22
    low, high = octree.mesh().bounds
    assert (low >= np.array(box[0]) - 1e-6).all() and (high <= np.array(box[1]) + 1e-6).all()
    np.testing.assert_allclose(torus(torch.from_numpy(octree.vertices)).abs().max(), 0, atol=2e-3)


def test_a_thread_thinner_than_a_cell_is_found_where_the_lattice_sees_it():
    # A cell is 0.0156 wide, the thread 0.012: refining by signs alone at the corners of coarse blocks would drop it.
    def thread(x: Tensor) -> Tensor:
        return capsule(x, 0.006)

    octree = isosurface.marching_cubes(thread, CUBE, 128)
    same(octree, isosurface.marching_cubes(thread, CUBE, 128, method="dense"))
    assert len(octree.faces) > 50
    coarse = torch.cartesian_prod(*[torch.linspace(-1, 1, 17)] * 3)
    assert (thread(coarse) > 0).all()


def test_a_bound_that_the_values_refute_is_raised():
    def steep(x: Tensor) -> Tensor:
        return 20 * torus(x)

    octree = isosurface.marching_cubes(steep, CUBE, 64, lipschitz=1.0)
    same(octree, isosurface.marching_cubes(steep, CUBE, 64, method="dense"))


def test_a_function_that_jumps_has_no_bound_and_is_asked_everywhere():
    def solid(x: Tensor) -> Tensor:
        return (torus(x) > 0).float() - 0.5

    octree = isosurface.marching_cubes(solid, CUBE, 32)
    same(octree, isosurface.marching_cubes(solid, CUBE, 32, method="dense"))


def test_what_a_false_bound_can_miss_a_true_one_finds():
    # The limit that the documentation states: a needle of the graph between the points asked, |grad| = 30.
    def needle(x: Tensor) -> Tensor:
        return torch.minimum(torus(x), 30 * (x - x.new_tensor([0.0, 0.0, 0.75])).norm(dim=-1) - 1)

    dense = isosurface.marching_cubes(needle, CUBE, 64, method="dense").mesh()
    assert dense.body_count == 2
    assert isosurface.marching_cubes(needle, CUBE, 64, lipschitz=1.0).mesh().body_count == 1
    assert isosurface.marching_cubes(needle, CUBE, 64, lipschitz=30.0).mesh().body_count == 2


def test_the_octree_asks_for_little_more_than_it_needs():
    """2.42% is what refining cells with a change of sign from 32^3 on asks for here; the crossed cells have 1.37%."""
    surface = isosurface.marching_cubes(torus, CUBE, 256)
    assert surface.asked / surface.points < 0.0190


def test_the_lattice_grows_with_the_cube_and_what_is_asked_with_the_square():
    coarse, fine = (isosurface.marching_cubes(torus, CUBE, n) for n in (64, 256))
    assert fine.points / coarse.points > 60
    assert fine.asked / coarse.asked < 4.3**2


def test_faces_point_to_greater_values_and_the_surface_is_closed():
    surface = isosurface.marching_cubes(torus, CUBE, 64).mesh()
    assert surface.is_watertight
    assert surface.volume == pytest.approx(2 * math.pi**2 * 0.5 * 0.25**2, rel=5e-3)
    assert surface.area == pytest.approx(4 * math.pi**2 * 0.5 * 0.25, rel=5e-3)
    inverted = isosurface.marching_cubes(lambda x: -torus(x), CUBE, 64).mesh()
    assert inverted.volume == pytest.approx(-surface.volume, rel=1e-6)


@pytest.mark.parametrize("resolution", [4, 8, 16])
def test_a_surface_through_lattice_points_stays_closed(resolution):
    surface = isosurface.marching_cubes(lambda x: ball(x, 0.5), CUBE, resolution).mesh()
    assert surface.is_watertight
    assert surface.area_faces.min() > 0


@pytest.mark.parametrize("level", [0.0, 100.0])
@pytest.mark.parametrize("method", ["dense", "octree"])
def test_a_level_that_is_among_the_values_leaves_no_hole(method, level):
    # Whole numbers, as a scanner gives them: of such grids, half had holes where the level is one of the numbers.
    random = np.random.default_rng(0)
    for _ in range(20):
        values = torch.from_numpy(np.pad(random.integers(-3, 4, (4, 4, 4)), 1, constant_values=3) + level).float()

        def field(x: Tensor, values: Tensor = values) -> Tensor:
            i, j, k = x.round().long().clamp(0, 5).unbind(-1)
            return values[i, j, k]

        mesh = isosurface.marching_cubes(field, ((0.0,) * 3, (5.0,) * 3), 5, level, method, lipschitz=100.0).mesh()
        edges = np.sort(mesh.edges, axis=1)
        shared = np.unique(edges, axis=0, return_counts=True)[1]
        assert (shared % 2 == 0).all() and len(mesh.faces) > 0
        assert len(np.unique(np.sort(mesh.faces, axis=1), axis=0)) == len(mesh.faces)
        assert (mesh.triangles.min() >= 0) and (mesh.triangles.max() <= 5)


def test_any_topology_from_one_function():
    """A blend turns two bodies into one, and holes come and go, with nothing to be done to the mesh."""

    def pair(apart: float, blend: float):
        def field(x: Tensor) -> Tensor:
            shift = x.new_tensor([apart, 0, 0])
            distances = torch.stack([ball(x - shift, 0.3), ball(x + shift, 0.3)])
            return -blend * torch.logsumexp(-distances / blend, 0)  # |grad| <= 1: a mean of unit vectors

        return isosurface.marching_cubes(field, CUBE, 48).mesh()

    assert pair(0.5, 0.02).body_count == 2 and pair(0.5, 0.02).euler_number == 4
    assert pair(0.33, 0.15).body_count == 1 and pair(0.33, 0.15).euler_number == 2
    assert isosurface.marching_cubes(torus, CUBE, 48).mesh().euler_number == 0
    assert isosurface.marching_cubes(lambda x: torus(x, 0.4, 0.2), CUBE, 48, level=0.25).mesh().euler_number == 2


def test_a_moved_function_is_a_moved_surface():
    """f(T^-1 x) is exact for every invertible T; a mesh of it is the moved mesh, up to the lattice."""
    turn = torch.tensor(trimesh.transformations.euler_matrix(0.4, -1.1, 0.7)[:3, :3], dtype=torch.float32)
    shift = torch.tensor([0.05, -0.1, 0.08])
    moved = isosurface.marching_cubes(lambda x: torus((x - shift) @ turn), CUBE, 96).mesh()
    back = (torch.from_numpy(np.asarray(moved.vertices, np.float32)) - shift) @ turn
    assert torus(back).abs().max() < 1e-3
    assert moved.volume == pytest.approx(2 * math.pi**2 * 0.5 * 0.25**2, rel=5e-3)


def test_a_function_is_asked_in_pieces_of_bounded_size():
    sizes = []

    def counted(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return torus(x)

    surface = isosurface.marching_cubes(counted, CUBE, 96, method="dense")
    assert max(sizes) <= isosurface.AT_ONCE and sum(sizes) == surface.asked


@pytest.mark.parametrize("method", ["dense", "octree"])
def test_no_surface_is_an_input_error(method):
    for level in (5.0, -0.7):
        with pytest.raises(InputError, match=r"--level .*no surface in the box, where the function was seen between"):
            isosurface.marching_cubes(ball, CUBE, 16, level, method)


@pytest.mark.parametrize("method", ["dense", "octree"])
def test_a_function_that_is_not_finite_is_an_input_error(method):
    with pytest.raises(InputError, match="not finite at"):
        isosurface.marching_cubes(lambda x: ball(x).log(), CUBE, 16, method=method)


def test_bounds():
    assert isosurface.Grid().box(CUBE) == CUBE
    assert isosurface.Grid(bounds=(2.0,)).box(CUBE) == ((-2, -2, -2), (2, 2, 2))
    assert isosurface.Grid(bounds=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0)).box(CUBE) == ((0, 1, 2), (3, 4, 5))
    for wrong in ((1.0, 2.0), (-1.0,), (0.0,), (math.nan,), (math.inf,), (0.0, 0.0, 0.0, 1.0, 0.0, 1.0)):
        with pytest.raises(InputError, match="--bounds"):
            isosurface.Grid(bounds=wrong).box(CUBE)
