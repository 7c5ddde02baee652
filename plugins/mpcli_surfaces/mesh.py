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
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from mpcli.checks import Case, identity
from mpcli.kit import datasets, meshes, raster
from mpcli.kit.cameras import framing
from mpcli.kit.rotations import axis_angle_to_matrix
from mpcli.run import ANIMATIONS, Run

UP = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}
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
    mesh = datasets.mesh(data)
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


def hit(pixel: Tensor, corners: Tensor) -> Tensor:  # (u, v, 1) [3], P [3, 3] -> b_0, b_1, b_2, lambda [4]
    e = torch.stack([pixel @ torch.linalg.cross(corners[(k + 1) % 3], corners[(k + 2) % 3]) for k in range(3)])
    return torch.cat([e, torch.linalg.det(corners)[None]]) / e.sum()


def gradcheck() -> Iterator[Case]:
    def triangle(g: torch.Generator) -> tuple[Tensor, Tensor]:  # a pixel inside the picture of a triangle, and its P
        depth = 1 + 3 * torch.rand(3, 1, generator=g, dtype=torch.float64)
        corners = torch.tensor([[0.0, 0, 1], [90, 10, 1], [20, 80, 1]], dtype=torch.float64)
        corners = (corners + torch.randn(3, 3, generator=g).double() * torch.tensor([5.0, 5, 0])) * depth
        inside = 0.2 + torch.rand(3, generator=g, dtype=torch.float64)
        return (inside / inside.sum()) @ (corners / depth), corners

    def in_the_picture(pixel: Tensor, corners: Tensor) -> Tensor:  # weights w of the corners' pixels, by areas
        flat = corners / corners[:, 2:]
        doubled = [torch.linalg.det(torch.stack([pixel, flat[(k + 1) % 3], flat[(k + 2) % 3]])) for k in range(3)]
        return torch.stack(doubled) / torch.linalg.det(flat)

    def by_elimination(pixel: Tensor, corners: Tensor) -> Tensor:  # the definition, as four equations in b and lambda
        system = torch.zeros(4, 4, dtype=torch.float64)
        system[:3, :3], system[:3, 3], system[3, :3] = corners.T, -pixel, 1
        return torch.linalg.solve(system, torch.tensor([0.0, 0, 0, 1]).double())

    yield identity("lambda (u, v, 1) = sum b_i P_i and sum b_i = 1", hit, by_elimination, triangle)
    yield identity(
        "b_i = lambda w_i / d_i: interpolation that knows of perspective",
        lambda pixel, corners: hit(pixel, corners)[:3],
        lambda pixel, corners: hit(pixel, corners)[3] * in_the_picture(pixel, corners) / corners[:, 2],
        triangle,
        printed=in_the_picture,
    )
    yield identity(
        "1 / lambda = sum w_i / d_i: inverse depth is linear in the picture",
        lambda pixel, corners: 1 / hit(pixel, corners)[3],
        lambda pixel, corners: (in_the_picture(pixel, corners) / corners[:, 2]).sum(),
        triangle,
    )

    def scene(g: torch.Generator) -> tuple[Tensor, ...]:  # colours, unit normals, points, a turn and a shift
        normals = torch.nn.functional.normalize(torch.randn(6, 3, generator=g), dim=-1)
        turn = axis_angle_to_matrix(torch.randn(3, generator=g).double())
        colours, points = torch.rand(6, 3, generator=g), torch.randn(6, 3, generator=g)
        return colours.double(), normals.double(), points.double(), turn, torch.randn(3, generator=g).double()

    def lit(colours: Tensor, normals: Tensor, points: Tensor, turn: Tensor, shift: Tensor) -> Tensor:
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = turn, turn @ torch.tensor([0.0, 0, 4]).double() + shift
        normals, points = normals @ turn.T, points @ turn.T + shift
        return raster.shade(colours, normals, normals, points, pose, specular=0.3)

    yield identity(
        "light depends on angles only: moving scene and camera together changes no colour",
        lit,
        lambda colours, normals, points, *_: lit(colours, normals, points, torch.eye(3).double(), torch.zeros(3)),
        scene,
    )
