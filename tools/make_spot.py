"""Make spot.npz, the embedded mesh, from spot.obj of Keenan Crane's model repository (see LICENSE-spot.txt).

    python tools/make_spot.py SPOT.obj

Kept are the positions (float32) and the triangles (int32), in the order of the file; texture coordinates are left out.
"""

import sys
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data" / "mpcli_data"


def main(source: str) -> None:
    vertices, faces = [], []
    for line in Path(source).read_text(encoding="utf-8").splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(number) for number in rest])
        elif kind == "f":
            faces.append([int(corner.partition("/")[0]) - 1 for corner in rest])
    target = DATA / "spot.npz"
    np.savez_compressed(target, vertices=np.array(vertices, np.float32), faces=np.array(faces, np.int32))
    print(f"{target}: {len(vertices)} vertices, {len(faces)} faces, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
