"""The files that a verb writes: models, pictures, meshes and others, each whole or not at all."""

import contextlib
import csv
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpcli import files
from mpcli.errors import InputError

if TYPE_CHECKING:
    import trimesh
    from matplotlib.figure import Figure
    from torch import Tensor, nn

ANIMATIONS = (".gif", ".mp4")
IMAGES = (".png", ".jpg", *ANIMATIONS)
FIGURES = (".png", ".jpg", ".pdf", ".svg")
MESHES = (".ply", ".obj", ".glb", ".stl")
# Who wrote a picture and when would make the same command write other bytes.
_UNDATED: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}


class Artifacts:
    """What a verb writes to a directory; the first is the main one, and goes where `--out` says.

    Attributes:
        dir: the run directory.
        suffix: the suffix that `--out` asks for (".png"), or "".
        artifacts: the files written, the main one first.
        saved: whether a model was saved.
    """

    def __init__(self, directory: Path, out: Path | None = None) -> None:
        self.dir = directory
        self.artifacts: list[Path] = []
        self.saved = False
        self._out = out

    @property
    def suffix(self) -> str:
        return self._out.suffix.lower() if self._out else ""

    def save(self, model: "nn.Module", config: Any, **extras: Any) -> None:
        """Keep a trained model: its weights as safetensors, and what `Trained.load` needs to build it again.

        Args:
            model: the module whose state_dict is kept.
            config: the dataclass that is the model's first argument.
            extras: the model's further arguments by name; JSON values (a shape, a number of classes).
        """
        from safetensors.torch import save

        # Cloned because safetensors refuses tensors that share memory, as tied weights do.
        weights = save({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()})
        about = {
            "model": type(model).__name__,
            "config": dataclasses.asdict(config),
            "extras": extras,
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        files.write(self.dir / "model.safetensors", weights)
        files.write_json(self.dir / "model.json", about)
        self.saved = True

    def image(self, name: str, images: "Tensor", fps: float = 25.0) -> Path:
        """Write images: a picture, a grid of pictures, or the frames of an animation.

        Args:
            name: file name in the run; a suffix in `--out` takes the place of its suffix for the main artifact.
            images: [C, H, W], [N, C, H, W] laid out as a grid (frames for .gif and .mp4), or [R, K, C, H, W] as R
                rows of K; C is 1, 3 or 4; values in [0, 1], those outside clipped.
            fps: frames a second of an animation.

        Raises:
            InputError: `--out` names a format that cannot be written.
        """
        from mpcli import pictures

        path = self._target(name, IMAGES)
        with self._whole(path) as partial:
            pictures.write(partial, images.detach().cpu().numpy(), fps)
        return path

    def mesh(self, name: str, mesh: "trimesh.Trimesh") -> Path:
        """Write a mesh as PLY, OBJ, GLB or STL.

        Raises:
            InputError: `--out` names a format that cannot be written.
        """
        path = self._target(name, MESHES)
        with self._whole(path) as partial:
            mesh.export(partial)
        return path

    def figure(self, name: str, figure: "Figure") -> Path:
        """Write a matplotlib figure as PNG, JPEG, PDF or SVG, at 120 dots an inch.

        Raises:
            InputError: `--out` names a format that cannot be written.
        """
        import matplotlib

        path = self._target(name, FIGURES)
        # SVG names its parts by random numbers unless they are salted.
        with self._whole(path) as partial, matplotlib.rc_context({"svg.hashsalt": "mpcli"}):
            figure.savefig(partial, dpi=120, metadata=_UNDATED.get(path.suffix.lower()))
        return path

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
        """Write rows of numbers and text as CSV under a line of column names.

        Raises:
            InputError: `--out` asks for another format than the one of `name`.
        """
        path = self._target(name, (Path(name).suffix,))
        with self._whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            # A number of numpy or torch is written as Python writes it.
            writer.writerows([cell.item() if hasattr(cell, "item") else cell for cell in row] for row in rows)
        return path

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A temporary path to write any other file to; it takes its name when the block ends without an error.

        Raises:
            InputError: `--out` asks for another format than the one of `name`.
        """
        path = self._target(name, (Path(name).suffix,))
        with self._whole(path) as partial:
            yield partial

    def _target(self, name: str, suffixes: tuple[str, ...]) -> Path:
        inside = self.dir / name
        for folder in inside.relative_to(self.dir).parents:
            if folder.name and (self.dir / folder).is_symlink():
                raise InputError(f"{self.dir / folder}: is a link, which a run does not write through; remove it")
        if self._out is None or self.artifacts:
            return inside
        if self.suffix not in suffixes:
            raise InputError(f"--out {self._out}: this result can be written as {', '.join(suffixes)}")
        return self._out

    @contextlib.contextmanager
    def _whole(self, path: Path) -> Iterator[Path]:
        """A kill or an error while writing leaves no half file under the real name."""
        with files.naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
            try:
                yield partial
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        if path not in self.artifacts:
            self.artifacts.append(path)
