"""A z-buffer rasteriser: pictures of triangle meshes with no display and no OpenGL.

A vertex at camera position (x, y, z) has homogeneous pixel coordinates P = (f_x x + c_x d, c_y d - f_y y, d), d = -z.
The ray of pixel (u, v) meets the plane of the triangle P_0 P_1 P_2 where

    lambda (u, v, 1) = b_0 P_0 + b_1 P_1 + b_2 P_2,    b_0 + b_1 + b_2 = 1.

With E_i = (u, v, 1) . (P_j x P_k), Cramer's rule gives

    b_i = E_i / (E_0 + E_1 + E_2),    lambda = det(P_0, P_1, P_2) / (E_0 + E_1 + E_2)

so the pixel is inside where the three E_i share the sign of the determinant, b interpolates what stands at the corners
with perspective taken into account, lambda is the depth, and no triangle needs clipping.

Olano and Greer, Triangle Scan Conversion using 2D Homogeneous Coordinates, Graphics Hardware 1997.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from mpcli.kit import meshes
from mpcli.kit.cameras import Cameras, framing
from mpcli.kit.pictures import tiles
from mpcli.run import watched

NEAR = 1e-6  # depth below which nothing is drawn: behind the camera, or as good as on its centre
CLAY = (0.80, 0.78, 0.74)  # what a mesh without colours is made of
_AT_ONCE = 1 << 22  # pixels that are looked at in one go: bounds the memory, whatever the mesh
_FAR_KEY = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Fragments:
    """What every pixel sees.

    `face` is the number of the nearest triangle, -1 where there is none; `depth` its distance along the viewing axis
    in scene units, infinite where there is none; `barycentric` the weights of its corners at that point, zero there.
    """

    face: Int[Tensor, "batch H W"]
    depth: Float[Tensor, "batch H W"]
    barycentric: Float[Tensor, "batch H W 3"]


def rasterize(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: Cameras) -> Fragments:
    """The triangle that each pixel centre of each camera sees, both sides of it, computed in float64.

    Neighbouring triangles leave no gap and cover no pixel twice: P_j x P_k changes nothing but its sign when j and k
    are swapped, and a pixel centre exactly on an edge belongs to the triangle on one agreed side. Of triangles at the
    same depth (to single precision) the first one is seen.
    """
    size = (len(cameras), cameras.height * cameras.width)
    face = torch.full(size, -1, dtype=torch.int64, device=vertices.device)
    depth = torch.full(size, torch.inf, dtype=torch.float64, device=vertices.device)
    barycentric = torch.zeros(*size, 3, dtype=torch.float64, device=vertices.device)
    for i in range(len(cameras)):
        pixel, *found = _visible(vertices, faces, cameras[i])
        face[i, pixel], depth[i, pixel], barycentric[i, pixel] = found
    shape = (len(cameras), cameras.height, cameras.width)
    return Fragments(face.view(shape), depth.view(shape), barycentric.view(*shape, 3))


def _visible(vertices: Tensor, faces: Tensor, camera: Cameras) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels of one camera, counted row by row, that see a face, and its number, depth and weights there."""
    width, height, device = camera.width, camera.height, vertices.device
    camera = camera.to(torch.float64).to(device)
    (fx, fy), (cx, cy) = camera.focal[0], camera.centre[0]
    # Written out, as a matrix product may round equal rows differently, and repeated vertices must stay equal.
    seen = vertices.double() - camera.pose[0, :3, 3]
    x, y, z = (
        seen[:, 0] * camera.pose[0, 0, j] + seen[:, 1] * camera.pose[0, 1, j] + seen[:, 2] * camera.pose[0, 2, j]
        for j in range(3)
    )
    p = torch.stack([fx * x - cx * z, -cy * z - fy * y, -z], -1)[faces]  # [F, corner, 3]

    edges = torch.stack([_cross(p[:, (k + 1) % 3], p[:, (k + 2) % 3]) for k in range(3)], 1)  # [F, edge, 3]
    determinant = (p[:, 0] * edges[:, 0]).sum(-1)
    edges, determinant = edges * determinant.sign()[:, None, None], determinant.abs()

    # The rows and columns that a triangle may touch; all of them where a corner is not in front of the camera.
    front = (p[..., 2] > NEAR).all(-1)
    corners = p[..., :2] / torch.where(front[:, None], p[..., 2], 1)[..., None]
    low, high = corners.amin(1), corners.amax(1)
    size = low.new_tensor([width, height])
    first = torch.where(front[:, None], (low - 0.5 - 1e-6).ceil(), 0).clamp(min=0).minimum(size)
    last = torch.where(front[:, None], (high - 0.5 + 1e-6).floor() + 1, size).clamp(min=0).minimum(size)
    boxes = (last - first).clamp(min=0).long() * ((p[..., 2] > NEAR).any(-1) & (determinant > 0))[:, None]

    drawn = torch.nonzero(boxes.prod(-1) > 0)[:, 0]
    buffer = torch.full((height * width,), _FAR_KEY, dtype=torch.int64, device=device)
    chunk = boxes[drawn].prod(-1).cumsum(0) // _AT_ONCE
    for part in torch.split(drawn, torch.unique_consecutive(chunk, return_counts=True)[1].tolist()):
        _draw(buffer, part, edges, determinant, first, last, width)

    hit = torch.nonzero(buffer != _FAR_KEY)[:, 0]
    face = buffer[hit] & 0xFFFFFFFF
    uv1 = torch.stack([hit % width + 0.5, hit // width + 0.5, torch.ones_like(hit)], -1).double()
    weights = (edges[face] @ uv1[..., None])[..., 0]
    total = weights[:, 0] + weights[:, 1] + weights[:, 2]
    return hit, face, determinant[face] / total, weights / total[:, None]


def _draw(
    buffer: Tensor, part: Tensor, edges: Tensor, determinant: Tensor, first: Tensor, last: Tensor, width: int
) -> None:
    """Draws the triangles `part`: each pixel of `buffer` keeps the smallest (depth, face), packed into one integer."""
    # Triangle by triangle into rows ...
    heights = (last - first)[part, 1].long()
    triangle, row = _ranges(part, first[part, 1].long(), heights)
    a, bc = edges[triangle, :, 0], edges[triangle, :, 1] * (row[:, None] + 0.5) + edges[triangle, :, 2]  # [R, edge]

    # ... rows into the span where a u + bc >= 0 for the three edges, widened by what rounding may take away ...
    slack = 1e-14 * (a.abs() * width + edges[triangle, :, 1:].abs().sum(-1) * (row[:, None] + 1))
    slope = torch.where(a == 0, 0.0, a)  # no negative zero
    bound = (-(bc + slack) / slope).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    left = torch.where(a >= 0, bound, -torch.inf).amax(-1)
    right = torch.where(a < 0, bound, torch.inf).amin(-1)
    left = (left - 0.5).ceil().maximum(first[triangle, 0])
    right = ((right - 0.5).floor() + 1).minimum(last[triangle, 0])
    span, column = _ranges(torch.arange(len(row), device=row.device), left, (right - left).clamp(min=0).long())

    # ... and spans into pixels, which are inside where all E are positive.
    u = (column + 0.5).double()
    inside, total = torch.ones_like(column, dtype=torch.bool), torch.zeros_like(u)
    mine = (edges[..., 0] > 0) | ((edges[..., 0] == 0) & (edges[..., 1] > 0))  # the agreed side, edge by edge
    for k in range(3):
        e = (a[:, k] * 1.0)[span] * u + bc[:, k][span]
        inside &= (e > 0) | ((e == 0) & mine[:, k][triangle][span])
        total += e
    span, column, total = span[inside], column[inside], total[inside]
    face = triangle[span]
    depth = (determinant[face] / total).float()
    key = (depth.view(torch.int32).long() << 32) | face  # positive floats sort like their bits
    near = depth > NEAR
    buffer.scatter_reduce_(0, (row[span] * width + column)[near], key[near], "amin")


def _ranges(owner: Tensor, start: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """`owner[i]` repeated `count[i]` times, beside the integers start[i], start[i] + 1, ... as int64."""
    before = count.cumsum(0) - count
    index = torch.arange(int(count.sum()), device=count.device)
    offset = (torch.where(count > 0, start, 0).long() - before).repeat_interleave(count)
    return owner.repeat_interleave(count), index + offset


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] @ b[..., None])[:, 0, 0]


def _interpolate(corners: Tensor, face: Tensor, weights: Tensor) -> Tensor:
    """The values at the corners [F, 3, C] at points [n] of faces, [n, C]."""
    return (weights[:, None] @ corners[face])[:, 0]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    # Written out, so that swapping the arguments flips the sign and changes no bit.
    (ax, ay, az), (bx, by, bz) = a.unbind(-1), b.unbind(-1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def portrait(
    mesh: trimesh.Trimesh,
    heading: str,
    up: Sequence[float] = (0.0, 0.0, 1.0),
    azimuth: float = 0.5,
    size: int = 360,
) -> Figure:
    """A picture of a mesh from above under a heading; `azimuth` as in `mpcli.kit.cameras.orbit`, `size` its height.

    Raises:
        InputError: the mesh has no faces, or a coordinate that is not finite.
    """
    meshes.require_faces(mesh, "mesh")
    mesh = meshes.fitted(mesh)
    points = torch.tensor(mesh.vertices[np.unique(mesh.faces)])
    camera = framing(points, up, azimuth, 0.5, height=size)
    sides = f"{len(mesh.vertices)} vertices, {len(mesh.faces)} faces"
    return tiles(render_mesh(mesh, camera, background=(1.0, 1.0, 1.0), specular=0.15), f"{heading}\n{sides}")


@torch.no_grad()
def render_mesh(
    mesh: trimesh.Trimesh,
    cameras: Cameras,
    *,
    background: Sequence[float] | None = None,
    light: Sequence[float] | None = None,
    specular: float = 0.0,
    color: Sequence[float] = CLAY,
    crease: float = 0.7,
    supersample: int = 2,
) -> Float[Tensor, "batch 4 H W"]:
    """Shaded pictures [B, 4, H, W] of a mesh in [0, 1]: red, green, blue and opacity (straight, not premultiplied).

    The surface is coloured by the mesh's texture, vertex colours or face colours, or by `color` where it has none, and
    lit from both sides by a lamp (Lambert), a soft fill from above and, with `specular` in [0, 1], a highlight
    (Blinn). `light` points in the world towards the lamp; without it the lamp follows the camera, over its left
    shoulder. Normals are smooth except across edges that bend by more than `crease` radians. `background` is a colour
    that replaces transparency. Each pixel averages `supersample` squared samples.

    Raises:
        InputError: the mesh has no faces, or a coordinate that is not finite.
    """
    meshes.require_faces(mesh, "mesh")
    device = cameras.pose.device
    vertices = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float64, device=device)
    faces = torch.tensor(np.asarray(mesh.faces), dtype=torch.int64, device=device)
    normals = torch.from_numpy(meshes.corner_normals(mesh, crease)).to(device, torch.float32)
    points = vertices.float()[faces]
    outward = torch.linalg.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    albedo = _albedo(mesh, color, device)
    width, height = cameras.width, cameras.height
    fine = cameras.resized(width * supersample, height * supersample)
    pictures = []
    for i in watched(range(len(cameras)), "frames"):
        pixel, face, _, weights = _visible(vertices, faces, fine[i])
        weights = weights.float()
        shaded = shade(
            albedo(face, weights),
            normalize(_interpolate(normals, face, weights), dim=-1),
            outward[face],
            _interpolate(points, face, weights),
            cameras.pose[i].float(),
            light,
            specular,
        )
        layers = torch.zeros(4, height * width * supersample**2, device=device)
        layers[:3, pixel], layers[3, pixel] = shaded.T, 1.0
        layers = avg_pool2d(layers.view(4, height * supersample, width * supersample), supersample)
        cover = layers[3:]
        if background is None:
            pictures.append(torch.cat([layers[:3] / cover.clamp(min=1e-6), cover]))
        else:
            behind = torch.tensor(background, dtype=torch.float32, device=device)[:, None, None]
            pictures.append(torch.cat([layers[:3] + (1 - cover) * behind, torch.ones_like(cover)]))
    return torch.stack(pictures).clamp(0, 1)


def shade(
    albedo: Float[Tensor, "n 3"],
    normal: Float[Tensor, "n 3"],
    outward: Float[Tensor, "n 3"],
    point: Float[Tensor, "n 3"],
    pose: Float[Tensor, "4 4"],
    light: Sequence[float] | None = None,
    specular: float = 0.0,
) -> Float[Tensor, "n 3"]:
    """Colours [n, 3] of surface points under a fill (0.7 + 0.3 n . up), a lamp max(n . l, 0) and its highlight
    max(n . h, 0)^32, which add up as light does: colours are raised to the power 2.2 before, and to 1 / 2.2 after.

    Normals are turned to the side of the face (whose outward direction is `outward`) that the camera at `pose` sees.
    """
    view = normalize(pose[:3, 3] - point, dim=-1)
    seen = torch.where(_dot(outward, view)[:, None] < 0, -normal, normal)
    up = pose[:3, 1]
    if light is None:
        lamp = normalize(pose[:3, :3] @ pose.new_tensor([-0.4, 0.6, 0.7]), dim=0)
    else:
        lamp = normalize(pose.new_tensor(light), dim=0)
    fill = 0.7 + 0.3 * (seen @ up)
    lambert = (seen @ lamp).clamp(min=0)
    highlight = _dot(seen, normalize(view + lamp, dim=-1)).clamp(min=0) ** 32
    linear = albedo.clamp(min=0) ** 2.2 * (0.25 * fill + 0.8 * lambert)[:, None] + specular * highlight[:, None]
    return linear ** (1 / 2.2)


class _albedo:
    """The colour of a mesh's surface, as a function of faces [n] and the weights of their corners [n, 3]."""

    def __init__(self, mesh: trimesh.Trimesh, color: Sequence[float], device: torch.device) -> None:
        self.texture: Tensor | None = None
        visual = mesh.visual
        corners = np.broadcast_to(np.asarray(color, dtype=np.float32), (len(mesh.faces), 3, 3))
        if visual.kind == "texture" and visual.uv is not None and len(visual.uv) == len(mesh.vertices):
            image = getattr(visual.material, "image", None) or getattr(visual.material, "baseColorTexture", None)
            if image is not None:
                self.texture = torch.tensor(np.asarray(image.convert("RGB")), dtype=torch.float32, device=device) / 255
                corners = np.asarray(visual.uv, dtype=np.float32)[mesh.faces]
            else:
                corners = np.broadcast_to(visual.material.main_color[:3] / np.float32(255), corners.shape)
        elif visual.kind == "vertex":
            corners = (visual.vertex_colors[:, :3] / np.float32(255))[mesh.faces]
        elif visual.kind == "face":
            corners = np.repeat(visual.face_colors[:, None, :3] / np.float32(255), 3, axis=1)
        self.corners = torch.tensor(np.ascontiguousarray(corners), dtype=torch.float32, device=device)

    def __call__(self, face: Tensor, weights: Tensor) -> Tensor:
        value = _interpolate(self.corners, face, weights)
        return value if self.texture is None else sample_texture(self.texture, value)


def sample_texture(texture: Float[Tensor, "H W C"], uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n C"]:
    """Bilinear look-up; (0, 0) is the bottom left corner of the picture, which repeats outside [0, 1]."""
    height, width, _ = texture.shape
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = x.floor(), y.floor()
    right, down = (x - left)[:, None], (y - top)[:, None]
    x0, y0 = left.long() % width, top.long() % height
    x1, y1 = (x0 + 1) % width, (y0 + 1) % height
    upper = texture[y0, x0] * (1 - right) + texture[y0, x1] * right
    lower = texture[y1, x0] * (1 - right) + texture[y1, x1] * right
    return upper * (1 - down) + lower * down
