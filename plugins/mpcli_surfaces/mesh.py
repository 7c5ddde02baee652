"""Mesh: pictures of triangle meshes, by projecting them and keeping the nearest triangle of every pixel.

A pinhole camera sends the point (x, y, z) in its own axes, looking down -z, to homogeneous pixel coordinates

    P = (f x + c_x d,  c_y d - f y,  d),    d = -z                    the pixel is (P_1 / d, P_2 / d), d its depth

The ray of pixel (u, v) meets the triangle P_0 P_1 P_2 at the weights b of its corners for which

    lambda (u, v, 1) = b_0 P_0 + b_1 P_1 + b_2 P_2,    b_0 + b_1 + b_2 = 1
    b_i = E_i / sum E,    lambda = det(P_0, P_1, P_2) / sum E,    E_i = (u, v, 1) . (P_j x P_k)

    inside: all b_i >= 0        seen: the least lambda        any quantity of the corners there: a = sum b_i a_i

Weights measured in the picture, w, are not b: what is linear there is 1/lambda = sum w_i / d_i, so that
b_i = lambda w_i / d_i. Seen points are lit by a lamp and a fill: albedo (k n . l + fill) in linear light.

Olano and Greer, Triangle Scan Conversion using 2D Homogeneous Coordinates, Graphics Hardware 1997.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
import trimesh
from annotated_types import Ge, Gt, Interval
from torch import Tensor
from torch.nn.functional import normalize

from mpcli.checks import Case, Sides, identity
from mpcli.kit import datasets, meshes, raster
from mpcli.kit.cameras import Cameras, framing
from mpcli.kit.rotations import axis_angle_to_matrix
from mpcli.run import ANIMATIONS, Run
from mpcli_surfaces.kit.tracing import UP

FRONT = 2.6  # azimuth from which the embedded animal, whose head is at -z, is seen half from the side
BACKGROUND = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "transparent": None}


def render(
    run: Run,
    data: Annotated[str, "mesh: a dataset or a file"] = "spot",
    path: Annotated[Literal["still", "orbit"], "one picture, or once round; .gif and .mp4 are orbits"] = "still",
    frames: Annotated[int, "pictures of an orbit", Ge(1)] = 60,
    size: Annotated[int, "pixels along each side", Interval(ge=8, le=8192)] = 512,
    azimuth: Annotated[
        float, "angle of the (first) camera around the object, radians; 0: from +z when y is up"
    ] = FRONT,
    elevation: Annotated[float, "angle of the camera above the object, radians", Interval(ge=-1.57, le=1.57)] = 0.35,
    zoom: Annotated[float, "1: the object just fits", Gt(0)] = 1.0,
    up: Annotated[Literal["x", "y", "z"], "the axis that points up"] = "y",
    background: Annotated[Literal["white", "black", "transparent"], "what is behind the object"] = "white",
    specular: Annotated[float, "strength of the highlight", Interval(ge=0, le=1)] = 0.15,
) -> None:
    mesh = datasets.load(data, trimesh.Trimesh)
    meshes.require_faces(mesh, data)
    run.say(f"{data}: {len(mesh.vertices)} vertices, {len(mesh.faces)} faces")
    turning = path == "orbit" or run.suffix in ANIMATIONS
    mesh = meshes.fitted(mesh)
    cameras = framing(
        torch.tensor(mesh.vertices[np.unique(mesh.faces)]), UP[up], azimuth, elevation,
        height=size, width=size, n=frames if turning else 1, zoom=zoom,
    )  # fmt: skip
    pictures = raster.render_mesh(mesh, cameras.to(run.device), background=BACKGROUND[background], specular=specular)
    run.image("orbit.gif" if turning else "mesh.png", pictures if turning else pictures[0])


def gradcheck() -> Iterator[Case]:
    camera = Cameras(torch.eye(4)[None], torch.full((1, 2), 20.0), torch.tensor([[11.0, 9.0]]), 20, 20)

    def triangle(g: torch.Generator) -> Tensor:  # corners [3, 3] in front of the camera, which cover its middle
        flat = torch.tensor([[-0.4, -0.4, -1], [0.5, -0.3, -1], [0.1, 0.5, -1]], dtype=torch.float64)
        depth = 1 + 3 * torch.rand(3, 1, generator=g, dtype=torch.float64)
        return (flat + 0.05 * torch.randn(3, 3, generator=g) * torch.tensor([1, 1, 0])) * depth

    def seen(corners: Tensor) -> tuple[Tensor, ...]:  # pixels (u, v, 1) [n, 3], b [n, 3], lambda [n], P [3, 3]
        fragments = raster.rasterize(corners, torch.tensor([[0, 1, 2]]), camera)
        _, row, column = torch.nonzero(fragments.face == 0, as_tuple=True)
        pixel = torch.stack([column + 0.5, row + 0.5, torch.ones_like(row)], -1).double()
        d = -corners[:, 2]
        p = torch.stack([20 * corners[:, 0] + 11 * d, 9 * d - 20 * corners[:, 1], d], -1)
        return pixel, fragments.barycentric[0, row, column], fragments.depth[0, row, column], p

    def definition(corners: Tensor) -> Sides:
        pixel, b, depth, p = seen(corners)
        return torch.cat([b @ p, b.sum(1, True)], 1), torch.cat([depth[:, None] * pixel, torch.ones(len(b), 1)], 1)

    yield identity("lambda (u, v, 1) = sum b_i P_i and sum b_i = 1", definition, triangle)

    def perspective(corners: Tensor) -> Sides:
        pixel, b, depth, p = seen(corners)
        w = torch.linalg.solve((p / p[:, 2:]).T, pixel.T).T  # (u, v, 1) = sum w_i P_i / d_i
        return b, depth[:, None] * w / p[:, 2], w

    yield identity("b_i = lambda w_i / d_i, and so 1 / lambda = sum w_i / d_i", perspective, triangle, mistake="b = w")

    def nearest(corners: Tensor, others: Tensor) -> Sides:
        both = raster.rasterize(torch.cat([corners, others]), torch.arange(6).view(2, 3), camera).depth
        alone = [raster.rasterize(one, torch.tensor([[0, 1, 2]]), camera).depth for one in (corners, others)]
        return 1 / both, 1 / torch.minimum(*alone)

    yield identity("of two triangles the one with the least lambda is seen", nearest, triangle, triangle)

    def scene(g: torch.Generator) -> tuple[Tensor, ...]:  # colours, unit normals, points of a surface
        colours, (normals, points) = torch.rand(6, 3, generator=g), torch.randn(2, 6, 3, generator=g)
        return colours.double(), normalize(normals, dim=-1).double(), points.double()

    def moved(surface: tuple[Tensor, ...], axis_angle: Tensor, shift: Tensor) -> Sides:
        def lit(turn: Tensor, shift: Tensor) -> Tensor:
            pose = torch.eye(4, dtype=torch.float64)
            pose[:3, :3], pose[:3, 3] = turn, turn @ torch.tensor([0, 0, 4.0]).double() + shift
            colours, normals, points = surface
            return raster.shade(colours, normals @ turn.T, normals @ turn.T, points @ turn.T + shift, pose, None, 0.3)

        return lit(axis_angle_to_matrix(axis_angle), shift), lit(torch.eye(3).double(), 0 * shift)

    yield identity("moving scene and camera together changes no colour", moved, scene, (3,), (3,))

    def lambert(surface: tuple[Tensor, ...], lamp: Tensor) -> Sides:
        colours, n, points = surface
        pose = torch.eye(4, dtype=torch.float64)
        found = raster.shade(colours, n, n, points, pose, lamp.tolist())
        n = torch.where((n * points).sum(-1, keepdim=True) > 0, -n, n)  # the side that a camera at the origin sees
        share = 0.25 * (0.7 + 0.3 * n[:, 1:2]) + 0.8 * (n @ normalize(lamp, dim=0)).clamp(min=0)[:, None]
        return found**2.2, colours**2.2 * share, (colours * share) ** 2.2

    name = "colour^2.2 = albedo^2.2 (0.25 (0.7 + 0.3 n . up) + 0.8 max(0, n . l))"
    yield identity(name, lambert, scene, (3,), mistake="light multiplied as colours, not as their power 2.2")
