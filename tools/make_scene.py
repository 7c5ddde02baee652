"""Makes the embedded scene: pictures of the cow `spot`, painted by the formulas below, as Blender exports them.

    python tools/make_scene.py [FOLDER]

50 RGBA views of 64 x 64 pixels (40 train, 5 val, 5 test) by mpcli's own rasteriser, with transforms_*.json beside them:
camera-to-world matrices, OpenGL axes, z up, the object inside the unit sphere. The lamp stands still in the world and
leaves a highlight, so that colour depends on where one looks from.
"""

import json
import math
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import trimesh

from mpcli.kit.cameras import look_at, pinhole
from mpcli.kit.raster import render_mesh

HERE = Path(__file__).resolve().parents[1] / "data" / "mpcli_data"
SIZE = 64  # pixels
FIELD_OF_VIEW = 0.6911112  # radians: what the scenes of the NeRF paper have
DISTANCE = 3.0  # of the camera from the middle of the cow, whose farthest point is at 1
VIEWS = {"train": 40, "val": 5, "test": 5}


def painted(vertices: np.ndarray) -> np.ndarray:
    """Colours [V, 3] in 0..255 at points of the cow, in the coordinates of its file (y up, looking to -z)."""
    x, y, z = np.abs(vertices[:, 0]), vertices[:, 1], vertices[:, 2]

    def ball(cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> np.ndarray:
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1

    side = vertices[:, 0]
    wave = np.sin(7 * side + 5 * z + 0.5) + np.sin(9 * y - 4 * side + 1.0) + np.sin(8 * z - 6 * y + 2.5)
    face = (z < -0.3) & (y > 0.05) & (y < 0.75)
    colours = np.full(vertices.shape, (236, 228, 214))
    for where, colour in (
        ((wave > 1.1) & ~face, (52, 46, 44)),  # patches
        ((z < -0.42) & (y < 0.47) & (y > 0.05), (232, 158, 134)),  # muzzle
        (ball(0.16, 0.34, -0.66, 0.045, 0.045, 0.1), (120, 66, 48)),  # nostrils
        (ball(0.14, 0.58, -0.60, 0.055, 0.085, 0.2), (24, 22, 26)),  # eyes
        (ball(0.13, 0.61, -0.66, 0.022, 0.030, 0.2), (250, 250, 250)),
        (y > 0.79, (176, 96, 46)),  # horns
        (y < -0.60, (70, 60, 56)),  # hooves
    ):
        colours[where] = colour
    return colours.astype(np.uint8)


def cow() -> trimesh.Trimesh:
    """The painted cow, z up, looking to -y, inside the unit sphere."""
    spot = np.load(HERE / "spot.npz")
    mesh = trimesh.Trimesh(spot["vertices"], spot["faces"], process=False)
    for _ in range(3):  # until a vertex is smaller than a pixel, so that the borders of the paint are sharp
        mesh = mesh.subdivide()
    colours = painted(np.asarray(mesh.vertices))
    vertices = mesh.vertices @ np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    vertices = vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    vertices = vertices / np.linalg.norm(vertices, axis=1).max()
    return trimesh.Trimesh(vertices, mesh.faces, process=False, vertex_colors=colours)


def eyes(count: int, turn: float) -> torch.Tensor:
    """Places [count, 3] spread evenly over the sphere around the cow, from somewhat below it to above."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    height = -0.25 + 1.15 * k / count
    angle = turn + k * math.pi * (3 - math.sqrt(5))
    flat = (1 - height**2).sqrt()
    return DISTANCE * torch.stack([flat * angle.cos(), flat * angle.sin(), height], -1)


def seen(mesh: trimesh.Trimesh, poses: torch.Tensor) -> torch.Tensor:
    """Pictures [N, 4, SIZE, SIZE] of the cow from camera poses [N, 4, 4]."""
    cameras = pinhole(poses, FIELD_OF_VIEW, SIZE, SIZE)
    return render_mesh(mesh, cameras, light=(-0.3, -0.5, 0.9), specular=0.25, supersample=4)


def main(folder: Path = HERE / "cow") -> None:
    mesh = cow()
    for number, (part, count) in enumerate(VIEWS.items()):
        poses = look_at(eyes(count, turn=2.0 * number))
        pictures = seen(mesh, poses)
        (folder / part).mkdir(parents=True, exist_ok=True)
        frames = []
        for i, (pose, picture) in enumerate(zip(poses, pictures, strict=True)):
            pixels = (picture.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
            iio.imwrite(folder / part / f"r_{i}.png", pixels, optimize=True)
            matrix = [[round(value, 9) for value in row] for row in pose.tolist()]
            frames.append({"file_path": f"./{part}/r_{i}", "transform_matrix": matrix})
        text = json.dumps({"camera_angle_x": FIELD_OF_VIEW, "frames": frames}, indent=1)
        (folder / f"transforms_{part}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
