"""Pictures of the analytic shapes: what a ray sees of them in closed form, whatever the form of the function."""

import math

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from mpcli_surfaces import plane, sphere, torus
from mpcli_surfaces.kit.tracing import View, normals, outline

SHAPES = {
    "sphere": (sphere.Sphere().field, sphere.Sphere().box(), 1.0),
    "algebraic sphere": (
        sphere.Sphere(form="algebraic").field,
        sphere.Sphere().box(),
        sphere.Sphere(form="algebraic").steepest(sphere.Sphere().box()),
    ),
    "torus": (torus.Torus().field, torus.Torus().box(), 1.0),
    "algebraic torus": (
        torus.Torus(form="algebraic").field,
        torus.Torus().box(),
        torus.Torus(form="algebraic").steepest(torus.Torus().box()),
    ),
    "plane": plane.solved(plane.Plane()),
    "algebraic plane": plane.solved(plane.Plane(form="algebraic")),
}


def seen(name: str, view: View) -> torch.Tensor:
    field, box, lipschitz = SHAPES[name]
    cameras = view.cameras(outline(field, box, "cpu"), False)
    slope = torch.func.vmap(torch.func.grad(field))
    return normals(field, slope, cameras, box, lipschitz, 1e-4 * lipschitz)[0]


@pytest.mark.parametrize("name", ["sphere", "torus", "plane"])
def test_both_forms_show_the_same_surface(name):
    view = View(size=40, azimuth=2.6)
    one, other = seen(name, view), seen(f"algebraic {name}", view)
    covered = (one < 1).any(0)
    assert 0.2 < covered.float().mean() < 0.9
    assert ((one - other).abs().amax(0) < 0.02).float().mean() > 0.97  # but for pixels at the outline


def test_the_normal_of_a_sphere_is_its_place():
    view = View(size=60, azimuth=0.0, elevation=0.0)
    picture = seen("sphere", view)
    cameras = view.cameras(outline(*SHAPES["sphere"][:2], "cpu"), False).resized(60, 60)
    origins, directions = (x[0].reshape(-1, 3) for x in cameras.rays())
    along = -(origins * directions).sum(-1)
    across = (origins + along[:, None] * directions).norm(dim=-1)
    t = along - (0.75**2 - across**2).clamp(min=0).sqrt()
    expected = ((origins + t[:, None] * directions) / 0.75 + 1) / 2
    found, inside = picture.flatten(1).T, across < 0.7
    assert inside.float().mean() > 0.4 and (found[inside] - expected[inside]).abs().max() < 0.02
    assert (found[across > 0.8] == 1).all()


def test_a_plane_is_seen_from_both_sides():
    for azimuth in (2.6, 2.6 + math.pi):
        picture = seen("plane", View(size=30, azimuth=azimuth))
        shown = picture[:, (picture < 0.99).any(0)]
        expected = (torch.ones(3) / math.sqrt(3) + 1) / 2
        assert shown.shape[1] > 100 and (shown.median(1).values - expected).abs().max() < 0.01


@pytest.mark.parametrize("page", ["sphere", "plane", "torus"])
def test_render_and_extraction_take_either_form(mpcli, page):
    shown = mpcli("render", page, "--size", 16, "--form", "algebraic")
    assert shown.code == 0 and shown.path.name == "surface.png", shown.err
    assert iio.imread(shown.path).std() > 10
    meshes = [mpcli("marching-cubes", page, "--resolution", 24, "--form", form, "--json") for form in FORMS]
    distance, algebraic = ([mesh.json["metrics"][key] for key in ("vertices", "faces")] for mesh in meshes)
    np.testing.assert_allclose(distance, algebraic, rtol=0.02)


FORMS = ("distance", "algebraic")


def test_an_orbit_is_an_animation(mpcli, tmp_path):
    result = mpcli("render", "torus", "--size", 16, "--frames", 3, "--out", tmp_path / "t.gif")
    assert result.code == 0 and iio.imread(result.path).shape[0] == 3, result.err
