"""The memory that many pictures take: bytes that become floats a batch at a time, against all of them as float32.

    python benchmarks/pictures_memory.py [--pictures 200000]

`mpcli train vae` for 50 steps of 128, and the ELBO of the test pictures, on 200 000 pictures of 64x64: grey in an IDX
file, and as many JPEG files in RGB. The peer is the same page on tensors of float32, decoded into memory of the right
size at once, as careful code would. Each row is one fresh process: its CPU time, and the peak of its resident memory.

A folder whose bytes would fill more than a quarter of the free memory is decoded into a file once. So that this is
what is measured whatever the machine, ours is told that 4 GiB are free. Then the same folder is read again.

Pages of a mapped file count as resident once they are touched, though the system may take them back at any time.
"""

import argparse
import gzip
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from protocol import ONE_THREAD, machine

SIDE = 64
TRAIN = ["train", "vae", "--steps", "50", "--importance", "1", "--quiet", "--device", "cpu"]


def write_idx(folder: Path, pictures: int) -> None:
    import numpy as np

    folder.mkdir()
    for name, n in (("train", pictures), ("t10k", pictures // 10)):
        with (folder / f"{name}-images-idx3-ubyte").open("wb") as file:
            file.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", n, SIDE, SIDE))
            for first in range(0, n, 1000):
                count = min(1000, n - first)
                file.write(
                    np.random.RandomState(first).randint(256, size=(count, SIDE, SIDE), dtype=np.uint8).tobytes()
                )
        with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz", "wb") as packed:
            packed.write(bytes([0, 0, 8, 1]) + struct.pack(">I", n) + bytes(n))


def write_folder(folder: Path, pictures: int) -> None:
    import numpy as np
    from PIL import Image

    random = np.random.RandomState(0)
    folder.mkdir()
    for i in range(pictures):
        coarse = random.randint(256, size=(5, 5, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(folder / f"{i:06d}.jpg")


def ours(spec: str) -> None:
    from mpcli.cli import run
    from mpcli.kit.datasets import cache

    cache.free_memory = lambda: 4 << 30
    assert run([*TRAIN, "--data", spec, "--out", tempfile.mkdtemp()]) == 0


def peer(spec: str) -> None:
    import numpy as np
    import torch
    from PIL import Image

    from mpcli.cli import run
    from mpcli.kit import datasets

    name, _, place = spec.partition(":")
    if name == "mnist":
        parts = []
        for path in (Path(place) / "train-images-idx3-ubyte", Path(place) / "t10k-images-idx3-ubyte"):
            stored = np.memmap(path, np.uint8, "r", 16).reshape(-1, 1, SIDE, SIDE)
            floats = torch.empty(stored.shape)
            for first in range(0, len(stored), 1000):
                floats[first : first + 1000] = torch.from_numpy(stored[first : first + 1000].astype(np.float32) / 255)
            parts.append(floats)
        held_out = len(parts[0]) // 12
        parts = [parts[0][:-held_out], parts[0][-held_out:], parts[1]]
    else:
        paths = sorted(Path(place).iterdir())
        floats = torch.empty(len(paths), 3, SIDE, SIDE)
        for i, path in enumerate(paths):
            with Image.open(path) as image:
                floats[i] = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        tenth = len(paths) // 10
        parts = list(floats.split([len(paths) - 2 * tenth, tenth, tenth]))
    images = datasets.Images(*map(datasets.Pictures, parts))
    datasets.load = lambda *_, **__: images
    assert run([*TRAIN, "--data", spec, "--out", tempfile.mkdtemp()]) == 0


def measured(side: str, spec: str, folder: Path) -> str:
    command = [sys.executable, __file__, "--side", side, spec]
    environment = os.environ | ONE_THREAD | {"MPCLI_CACHE": str(folder / "cache"), "TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return f"{peak:.0f} MB, {seconds:.0f} s"


def main(pictures: int) -> None:
    print(f"{machine(['pillow'])}\n\n| {pictures} pictures of {SIDE}x{SIDE} | ours | float32 |\n|-|-|-|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_idx(folder / "idx", pictures)
        write_folder(folder / "jpeg", pictures)
        idx, jpeg = f"mnist:{folder / 'idx'}", f"images:{folder / 'jpeg'}"
        for name, spec, peers in (("IDX, grey", idx, True), ("JPEG, RGB", jpeg, True), ("the same again", jpeg, False)):
            found = [measured(side, spec, folder) for side in ("ours", *["peer"] * peers)]
            print(f"| {name} | {' | '.join(found)} |{'' if peers else ' |'}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200_000)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, spec = options.side
        globals()[side](spec)
        # Linux gives KiB.
        print(json.dumps([time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6]))
    else:
        main(options.pictures)
