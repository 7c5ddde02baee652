"""`spot`: a cow, closed, of 5856 triangles, that comes with mpcli; `spot:N`: a cloud of N points on it, with normals.

Keenan Crane's model, public domain; its origin and licence stand beside it in `mpcli_data`.

Origin: Keenan Crane's 3D model repository

Licence: CC0, public domain
"""

from importlib.resources import files

import numpy as np
import torch
import trimesh

from mpcli.errors import InputError
from mpcli.kit.datasets.types import Points

MOST = 10_000_000  # points of a cloud


def spot(argument: str) -> trimesh.Trimesh | Points:
    """The mesh, y up and looking to -z, 1.7 units tall; or `argument` points, the same ones every time, evenly by area.

    Raises:
        InputError: the argument is no number of points.
    """
    with files("mpcli_data").joinpath("spot.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        mesh = trimesh.Trimesh(stored["vertices"], stored["faces"], process=False)
    if not argument:
        return mesh
    if not (argument.isdecimal() and 0 < int(argument[:9]) <= MOST and len(argument) < 9):
        raise InputError(f"spot:{argument}: right would be spot, the mesh, or a number of points such as spot:20000")
    return sampled(mesh, int(argument), seed=0)


def sampled(mesh: trimesh.Trimesh, n: int, seed: int) -> Points:
    """`n` points drawn evenly by area from a surface, each with the normal of its triangle."""
    xyz, face = trimesh.sample.sample_surface(mesh, n, seed=seed)
    normals = torch.from_numpy(np.asarray(mesh.face_normals[face], np.float32))
    return Points(torch.from_numpy(np.asarray(xyz, np.float32)), normals, name=f"{n} points of a mesh")
