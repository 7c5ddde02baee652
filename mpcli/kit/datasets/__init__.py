"""Datasets by name: `digits`, `mnist:DIR`, `points:FILE`, ..., from this distribution and from any other.

A dataset is a function of the text behind the colon, declared in the entry-point group `mpcli.datasets`, that gives an
`Images`, `Table`, `Points`, `Scene` or `trimesh.Trimesh`. A path alone is read as what is asked for.
"""

import difflib
import importlib.metadata
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpcli.errors import Failed, InputError
from mpcli.kit.datasets.types import Images, Points, Scene, Table, shuffled

if TYPE_CHECKING:
    import trimesh

__all__ = ["Images", "Points", "Scene", "Table", "images", "mesh", "points", "scene", "shuffled", "table"]

GROUP = "mpcli.datasets"


def images(spec: str, shape: tuple[int, ...] | None = None) -> Images:
    """Pictures of one size: `digits`, `faces`, `mnist:DIR`, `cifar10:DIR`, `images:DIR`, or a folder.

    Args:
        shape: (channels, height, width) that a trained model needs; None takes any.

    Raises:
        InputError: there is no such dataset, it is not of pictures or of another shape, or it cannot be read.
    """
    found = _load(spec, "images", Images, "images", "digits")
    if shape is not None and tuple(shape) != found.shape:
        has, needs = ("x".join(map(str, sizes)) for sizes in (found.shape, shape))
        raise InputError(f"{spec}: its images are {has}, but the model was trained on {needs}; give data of that shape")
    return found


def table(spec: str) -> Table:
    """Rows of numbers: `moons`, `eight_gaussians`, `pinwheel`, `checkerboard`.

    Raises:
        InputError: there is no such dataset, it is not of rows, or it cannot be read.
    """
    return _load(spec, "a table", Table, None, "moons")


def points(spec: str) -> Points:
    """A point cloud: `points:FILE`, or a file.

    Raises:
        InputError: there is no such dataset, it is no point cloud, or it cannot be read.
    """
    return _load(spec, "a point cloud", Points, "points", "points:FILE")


def mesh(spec: str) -> "trimesh.Trimesh":
    """A triangle mesh: `mesh:FILE`, or a file.

    Raises:
        InputError: there is no such dataset, it is no mesh, or it cannot be read.
    """
    import trimesh

    return _load(spec, "a mesh", trimesh.Trimesh, "mesh", "mesh:FILE")


def scene(spec: str) -> Scene:
    """Pictures with cameras: `blender:DIR`, `colmap:DIR`, or a folder of either layout.

    Raises:
        InputError: there is no such dataset, it is no scene, or it cannot be read.
    """
    folder = Path(spec.rpartition("@")[0] or spec).expanduser()
    bare = "blender" if any(folder.glob("transforms*.json")) else "colmap"
    return _load(spec, "a scene with cameras", Scene, bare, "blender:DIR")


def _load(spec: str, wanted: str, kind: type, bare: str | None, example: str) -> Any:
    entries = _entries()
    name, _, argument = spec.partition(":")
    if name not in entries:
        # A path may end in the @SIZE that some readers take.
        if bare is None or not any(Path(p).expanduser().exists() for p in (spec, spec.rpartition("@")[0]) if p):
            raise InputError(_unknown(spec, name, entries, bare is not None))
        name, argument = bare, spec
    entry = entries[name]
    try:
        reader = entry.load()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        raise Failed(
            f"dataset {name} of {source} does not import: {type(error).__name__}: {error} "
            f"({Path(where.filename).name}, line {where.lineno})"
        ) from error
    data = reader(argument)
    if not isinstance(data, kind):
        raise InputError(f"{spec} is of kind {type(data).__name__}; {wanted} is needed here, such as {example}")
    return data


def _entries() -> dict[str, importlib.metadata.EntryPoint]:
    """Every declared dataset; of two with one name the first keeps it, and ours come first."""

    def order(entry: importlib.metadata.EntryPoint) -> tuple[bool, str]:
        # A distribution whose metadata is damaged has no name.
        distribution = (entry.dist.name if entry.dist else None) or ""
        return distribution != "mpcli", distribution

    found: dict[str, importlib.metadata.EntryPoint] = {}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=order):
        found.setdefault(entry.name, entry)
    return found


def _unknown(spec: str, name: str, entries: dict[str, importlib.metadata.EntryPoint], path_allowed: bool) -> str:
    close = difflib.get_close_matches(name, entries, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(entries))}"
    looks_like_path = path_allowed and ("/" in spec or "." in spec)
    return f"there is no {'file or folder' if looks_like_path else 'dataset'} {spec}: {hint}"
