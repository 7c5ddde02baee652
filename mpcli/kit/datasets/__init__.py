"""Datasets by name: `digits`, `mnist:DIR`, `points:FILE`, ..., from this distribution and from any other.

A dataset is a function of the text behind the colon, declared in the entry-point group `mpcli.datasets`, that gives
data of one kind: `Images`, `Segmentation`, `Boxes`, `Gazes`, `Table`, `Points`, `Scene`, `trimesh.Trimesh`, or any
`Split`. A page says which it takes.
"""

import difflib
import importlib.metadata
import traceback
from pathlib import Path
from typing import Any, TypeVar, overload

from mpcli.errors import Failed, InputError
from mpcli.kit.datasets.boxes import Boxed, Boxes
from mpcli.kit.datasets.door import admit
from mpcli.kit.datasets.eyes import Gazes
from mpcli.kit.datasets.files import SKIP_MISSING, near_miss, there
from mpcli.kit.datasets.masks import Masked, Segmentation
from mpcli.kit.datasets.split import Paired, Part, Split, shuffled
from mpcli.kit.datasets.types import Images, Pictures, Points, Scene, Table

__all__ = [
    "Boxed",
    "Boxes",
    "Gazes",
    "Images",
    "Masked",
    "Paired",
    "Part",
    "Pictures",
    "Points",
    "Scene",
    "Segmentation",
    "Split",
    "Table",
    "load",
    "shuffled",
]

GROUP = "mpcli.datasets"

# What a kind is called, and an example of it.
WORDS = {
    "Boxes": ("pictures with boxes", "boxes:FILE.json"),
    "Gazes": ("eyes with directions", "eyes"),
    "Images": ("pictures", "digits"),
    "Points": ("a point cloud", "points:FILE"),
    "Segmentation": ("pictures with masks", "segmentation:DIR"),
    "Scene": ("a scene with cameras", "blender:DIR"),
    "Table": ("rows of numbers", "moons"),
    "Trimesh": ("a mesh", "mesh:FILE"),
}

K = TypeVar("K")
L = TypeVar("L")


@overload
def load(spec: str, first: type[K], /, *, shape: tuple[int, ...] | None = None) -> K: ...


@overload
def load(spec: str, first: type[K], second: type[L], /, *, shape: tuple[int, ...] | None = None) -> K | L: ...


def load(spec: str, /, *kinds: type, shape: tuple[int, ...] | None = None) -> Any:
    """The dataset that `spec` names, of one of `kinds`.

    Args:
        spec: `NAME` or `NAME:TEXT`, or the path of a file or folder, which is read as what `kinds` ask for.
        shape: (channels, height, width) of the pictures that a trained model needs; None takes any.

    Raises:
        InputError: there is no such dataset, it is of none of the kinds or of another shape, it cannot be read, or
            it is not as `door.admit` says.
    """
    data = _read(spec, kinds)
    if not isinstance(data, kinds):
        words = [WORDS.get(kind.__name__, (kind.__name__, "")) for kind in kinds]
        wanted, examples = (" or ".join(filter(None, of)) for of in zip(*words, strict=True))
        such = f", such as {examples}" if examples else ""
        raise InputError(f"{spec} is of kind {type(data).__name__}; right would be {wanted}{such}")
    admit(spec, data)
    if shape is not None and isinstance(data, (Images, Boxes, Gazes)) and tuple(shape) != data.shape:
        has, needs = ("x".join(map(str, sizes)) for sizes in (data.shape, shape))
        raise InputError(f"{spec}: its images are {has}, but the model was trained on {needs}; give data of that shape")
    return data


def _read(spec: str, kinds: tuple[type, ...]) -> Any:
    entries = _entries()
    name, _, argument = spec.partition(":")
    if name not in entries:
        # A path may end in the @SIZE and @skip-missing that some readers take.
        whole = spec.removesuffix(SKIP_MISSING)
        path = next((p for p in (spec, whole, whole.rpartition("@")[0]) if p and there(Path(p).expanduser())), None)
        reader = _reader_of_path(Path(path).expanduser(), {kind.__name__ for kind in kinds}) if path else None
        if path and reader is None:
            what = "a folder" if Path(path).expanduser().is_dir() else "a file of another name"
            raise InputError(f"{path}: is {what}; right would be a .csv or .tsv file, or table:FILE")
        if reader is None:
            raise InputError(_unknown(spec, name, entries))
        name, argument = reader, spec
    entry = entries[name]
    try:
        function = entry.load()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        raise Failed(
            f"dataset {name} of {source} does not import: {type(error).__name__}: {error} "
            f"({Path(where.filename).name}, line {where.lineno})"
        ) from error
    return function(argument)


def _reader_of_path(path: Path, kinds: set[str]) -> str | None:
    """The dataset that reads a file or folder as one of the kinds."""
    if "Scene" in kinds:
        return "blender" if path.name == "transforms.json" or any(path.glob("transforms*.json")) else "colmap"
    if {"Points", "Trimesh"} <= kinds:
        from mpcli.kit.datasets.meshes import has_faces

        return "mesh" if has_faces(path) else "points"
    if "Table" in kinds and path.suffix.lower() in (".csv", ".tsv"):
        return "table"
    readers = {
        "Images": "images",
        "Segmentation": "segmentation",
        "Boxes": "boxes",
        "Points": "points",
        "Trimesh": "mesh",
    }
    return next((reader for kind, reader in readers.items() if kind in kinds), None)


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


def _unknown(spec: str, name: str, entries: dict[str, importlib.metadata.EntryPoint]) -> str:
    near = near_miss(Path(spec).expanduser()) if "/" in spec or "." in spec or "\\" in spec else None
    if near:
        return f"there is no file or folder {spec}: did you mean {near}?"
    close = difflib.get_close_matches(name, entries, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(entries))}"
    looks_like_path = "/" in spec or "." in spec
    return f"there is no {'file or folder' if looks_like_path else 'dataset'} {spec}: {hint}"
