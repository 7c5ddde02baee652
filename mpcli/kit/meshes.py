"""Triangle meshes: normals and nearest points.

Meshes are `trimesh.Trimesh`; what is differentiated or batched takes vertices [..., V, 3] and faces [F, 3] as tensors.
"""

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import normalize

from mpcli.errors import InputError

_AT_ONCE = 1_000_000  # pairs of a point and a triangle that are looked at in one go: bounds the memory


def require_faces(mesh: trimesh.Trimesh, name: str) -> None:
    """Says what is wrong with a mesh that has no surface or no finite coordinates; `name` is its file.

    Raises:
        InputError: it has no faces, a face that names a vertex that is not there, or a coordinate that is not finite.
    """
    if len(mesh.faces) == 0:
        raise InputError(f"{name}: the mesh has no faces; a surface needs triangles")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise InputError(
            f"{name}: face {int(mesh.faces.max(axis=1).argmax())} names vertex {int(mesh.faces.max())}; "
            f"there are {len(mesh.vertices)}, counted from 0"
        )
    if not np.isfinite(mesh.vertices).all():
        bad = int((~np.isfinite(mesh.vertices)).any(axis=1).argmax())
        raise InputError(f"{name}: vertex {bad} is not finite; coordinates must be numbers")


def vertex_normals(vertices: Float[Tensor, "*batch V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "*batch V 3"]:
    """Unit normals at the vertices: the adjacent faces' normals, averaged by area; zero where there are none."""
    a, b, c = (vertices[..., faces[:, k], :] for k in range(3))
    doubled = torch.linalg.cross(b - a, c - a)  # length: twice the area, so that the sum is weighted by it
    total = torch.zeros_like(vertices)
    for k in range(3):
        total = total.index_add(-2, faces[:, k], doubled)
    return normalize(total, dim=-1)


def welded(vertices: Float[np.ndarray, "V 3"]) -> Int[np.ndarray, " V"]:
    """For each vertex the number of the distinct position that it has, [V].

    Files repeat a vertex where its texture coordinate jumps; normals must be averaged over positions, or
    the seam shows.
    """
    return np.unique(vertices, axis=0, return_inverse=True)[1].reshape(-1)


def corner_normals(mesh: trimesh.Trimesh, crease: float) -> Float[np.ndarray, "F 3 3"]:
    """Unit normals at the three corners of every face, for smooth shading that keeps sharp edges, [F, 3, 3].

    Faces that meet at an angle of at most `crease` radians belong to one smooth patch; a corner's normal is the mean of
    the normals of its patch around that position, weighted by area. Vertices at the same position count as one.
    """
    place = welded(np.asarray(mesh.vertices, dtype=np.float64))[mesh.faces]  # [F, 3]
    a, b, c = np.moveaxis(np.asarray(mesh.triangles, dtype=np.float64), 1, 0)
    doubled = np.cross(b - a, c - a)
    unit = doubled / np.maximum(np.linalg.norm(doubled, axis=-1, keepdims=True), 1e-300)

    ends = np.sort(np.stack([place, np.roll(place, -1, axis=1)], -1).reshape(-1, 2), axis=1)
    edge = ends[:, 0] * (place.max() + 1) + ends[:, 1]
    order = np.argsort(edge, kind="stable")
    same = edge[order[1:]] == edge[order[:-1]]
    first, second = order[:-1][same] // 3, order[1:][same] // 3
    smooth = (unit[first] * unit[second]).sum(-1) >= np.cos(crease)
    links = coo_array((np.ones(smooth.sum()), (first[smooth], second[smooth])), shape=(len(place), len(place)))
    patch = connected_components(links, directed=False)[1]

    _, shared = np.unique(patch[:, None] * (place.max() + 1) + place, return_inverse=True)
    shared = shared.reshape(-1)
    total = np.stack([np.bincount(shared, np.repeat(doubled[:, k], 3)) for k in range(3)], -1)
    total = total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-300)
    return total[shared].reshape(-1, 3, 3)


def closest_point(
    mesh: trimesh.Trimesh, points: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """The nearest point of the surface to each of `points`: where it is, how far (unsigned), and on which face.

    Exact. A triangle whose centroid is c and whose farthest corner is r away from c is at least |p - c| - r away from
    p, so those within the best distance found so far plus r are all that need a look. Triangles are searched in groups
    of similar r, so that a few large ones do not make every one a candidate.

    Raises:
        InputError: the mesh has no faces.
    """
    require_faces(mesh, "mesh")
    corners = np.asarray(mesh.triangles, dtype=np.float64)  # [F, 3, 3]
    centroids = corners.mean(axis=1)
    radii = np.linalg.norm(corners - centroids[:, None], axis=-1).max(axis=1)
    size = np.frexp(radii)[1]  # the power of two above the radius
    groups = [np.flatnonzero(size == s) for s in np.unique(size)]
    trees = [KDTree(centroids[group]) for group in groups]

    where, far, face = np.empty_like(points), np.full(len(points), np.inf), np.zeros(len(points), dtype=np.int64)

    def consider(rows: np.ndarray, candidates: np.ndarray) -> None:
        """Looks at pairs of a point (sorted) and a face, and keeps what is nearer."""
        found = _closest_on_triangles(points[rows], corners[candidates])
        squared = ((found - points[rows]) ** 2).sum(axis=-1)
        order = np.lexsort((candidates, squared, rows))
        best = order[np.unique(rows[order], return_index=True)[1]]
        distance = np.sqrt(squared[best])
        best, distance = best[distance < far[rows[best]]], distance[distance < far[rows[best]]]
        where[rows[best]], far[rows[best]], face[rows[best]] = found[best], distance, candidates[best]

    for group, tree in zip(groups, trees, strict=True):
        consider(np.arange(len(points)), group[tree.query(points)[1]])
    for group, tree in zip(groups, trees, strict=True):
        reach = far + radii[group].max()
        counts = tree.query_ball_point(points, reach, return_length=True)
        # At most _AT_ONCE pairs or so at a time: a point far away may have the whole mesh within reach.
        cuts = np.flatnonzero(np.diff(np.cumsum(counts) // _AT_ONCE, prepend=0))
        for block in np.split(np.arange(len(points)), cuts):
            found = tree.query_ball_point(points[block], reach[block])
            rows = np.repeat(block, [len(item) for item in found])
            if len(rows):
                consider(rows, group[np.concatenate([np.asarray(item, dtype=np.int64) for item in found])])
    return where, far, face


def _closest_on_triangles(p: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Nearest point of triangle `corners[i]` to `p[i]`: the foot of the perpendicular where it falls inside, else the
    nearest point of the three edges."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = _dot(ab, ab), _dot(ab, ac), _dot(ac, ac)
    d20, d21 = _dot(ap, ab), _dot(ap, ac)
    area = d00 * d11 - d01 * d01
    with np.errstate(divide="ignore", invalid="ignore"):
        v = (d11 * d20 - d01 * d21) / area
        w = (d00 * d21 - d01 * d20) / area
    inside = (area > 0) & (v >= 0) & (w >= 0) & (v + w <= 1)
    best = a + np.where(inside, v, 0)[:, None] * ab + np.where(inside, w, 0)[:, None] * ac
    nearest = np.where(inside, 0, np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        along = end - start
        length = _dot(along, along)
        t = np.clip(_dot(p - start, along) / np.where(length > 0, length, 1), 0, 1)
        foot = start + t[:, None] * along
        squared = ((foot - p) ** 2).sum(axis=-1)
        closer = squared < nearest
        best[closer], nearest[closer] = foot[closer], squared[closer]
    return best


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b)


def fitted(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """A copy in the unit sphere, the middle of its bounding box at the origin: pictures know no units.

    Vertices of no face count for nothing, and may lie outside.
    """
    mesh = mesh.copy()
    vertices = mesh.vertices - mesh.vertices[np.unique(mesh.faces)].reshape(-1, 3).mean(axis=0)
    used = vertices[np.unique(mesh.faces)]
    vertices = vertices - (used.min(axis=0) + used.max(axis=0)) / 2
    mesh.vertices = vertices / max(np.linalg.norm(vertices[np.unique(mesh.faces)], axis=1).max(), 1e-300)
    return mesh
