"""`mesh:FILE`: a triangle mesh in OBJ, PLY, GLB, glTF, STL or OFF, with its texture or colours.

trimesh does the reading; what it would believe of a damaged or hostile file is checked here.
"""

import errno
import io
import json
import re
import struct
import urllib.parse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from trimesh.resolvers import Resolver

from mpcli.errors import InputError
from mpcli.kit.datasets.clouds import PlyElement, ply_header, read_ply
from mpcli.kit.datasets.files import inside, located, read_bytes, there
from mpcli.notices import notice

SUFFIXES = (".obj", ".ply", ".glb", ".gltf", ".stl", ".off")
MAX_FACES = 50_000_000

# The component types and element types of glTF 2.0.
_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def mesh(argument: str) -> trimesh.Trimesh:
    """The mesh of a file; several in one file are put together, each in its place.

    Vertices are those of the file, except that an STL file, which repeats them for each face, gets them shared. A
    texture that is not there is left out, which is told.

    Raises:
        InputError: the format is unknown, the file damaged, refers to files outside its folder, or has no face.
    """
    path = located("mesh", argument, folder=False)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: is of no known format; right would be {', '.join(SUFFIXES)}")
    data = read_bytes(path)
    beside = _Beside(path)
    if suffix in (".glb", ".gltf"):
        _check_gltf(data, path, beside)
    loaded = None
    if suffix == ".ply":
        loaded = _polygons_of_ply(data, path)
    elif suffix == ".stl":
        data = _small_letters(data)
        _check_stl(data, path)
    if loaded is None:
        loaded = _load(_plain_obj(data, path) if suffix == ".obj" else data, suffix, path, beside)
    if beside.refused:
        raise beside.refused
    if beside.missing:
        names = ", ".join(sorted(beside.missing))[:200]
        notice(f"{path}: refers to {names}, not there, and is shown without that texture or material")
    if loaded is None or len(loaded.faces) == 0:
        raise InputError(f"{path}: has no face; right would be a mesh of triangles")
    if loaded.faces.min() < 0 or loaded.faces.max() >= len(loaded.vertices):
        raise InputError(f"{path}: has faces with vertices that it does not have; right would be a whole mesh")
    if not np.isfinite(loaded.vertices).all():
        row = int(np.flatnonzero(~np.isfinite(loaded.vertices).all(axis=1))[0])
        raise InputError(f"{path}: vertex {row} is {loaded.vertices[row].tolist()}; right would be finite coordinates")
    if suffix == ".stl":
        # Minus zero is zero. trimesh's own merging rounds to integers, for which a coordinate may be too large.
        vertices, shared = np.unique(loaded.vertices + 0.0, axis=0, return_inverse=True)
        loaded = trimesh.Trimesh(vertices, shared.reshape(-1)[loaded.faces], process=False)
    return loaded


def has_faces(path: Path) -> bool:
    """Whether a file is a mesh rather than a cloud, by its format; of PLY and OBJ, which hold either, by a look at it.

    Raises:
        InputError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".ply":
        return re.search(rb"\nelement\s+face\s+0*[1-9]", read_bytes(path).partition(b"end_header")[0]) is not None
    if suffix == ".obj":
        return re.search(rb"^\s*f\s", read_bytes(path), re.MULTILINE) is not None
    return suffix in SUFFIXES


def _load(data: bytes, suffix: str, path: Path, beside: "_Beside") -> trimesh.Trimesh | None:
    try:
        with warnings.catch_warnings():
            # What numpy says of text with something else between the numbers; it would read up to there.
            warnings.filterwarnings("error", "string or file could not be read")
            scene = trimesh.load_scene(
                io.BytesIO(_utf8(data, suffix)), file_type=suffix[1:], resolver=beside, process=False
            )
            # A file may place one mesh many times over.
            faces = sum(len(getattr(scene.geometry[name], "faces", ())) for _, name in _placed(scene))
            if faces > MAX_FACES:
                raise ValueError(f"it makes {faces} faces")
            if faces == 0:
                return None
            loaded = scene.to_mesh()
            _check_texture(loaded)
            return loaded
    except Exception as error:  # a damaged mesh fails in as many ways as there are formats
        reason = str(error).partition("\n")[0] or type(error).__name__
        kind = suffix[1:].upper()
        raise InputError(f"{path}: cannot be read as {kind} ({reason}); right would be a whole {kind} file") from error


def _placed(scene: trimesh.Scene) -> list[tuple[Any, str]]:
    return [scene.graph[node] for node in scene.graph.nodes_geometry]


def _check_texture(loaded: trimesh.Trimesh) -> None:
    material = getattr(loaded.visual, "material", None)
    for name in ("image", "baseColorTexture"):
        image = getattr(material, name, None)
        if image is not None:
            image.load()


class _Beside(Resolver):
    """Gives the files that a mesh refers to, as long as they lie in its own folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused: InputError | None = None
        self.missing: set[str] = set()

    def get(self, key: str) -> bytes:
        try:
            path = self._found(str(key).strip())
            return _utf8(read_bytes(path), path.suffix.lower())
        except InputError as error:
            # Readers take a missing file lightly; this is none.
            self.refused = error
            raise
        except FileNotFoundError:
            self.missing.add(str(key).strip())
            raise

    def _found(self, name: str) -> Path:
        """The file of that name, percent-encoded or not, with the slashes of Windows, or in other capitals."""
        folder = self.path.parent
        last = name.replace("\\", "/").rpartition("/")[2]
        spelt = (name, urllib.parse.unquote(name), name.replace("\\", "/"), last if "\\" in name else name)
        for path in (inside(folder, spelling, self.path) for spelling in spelt):
            if there(path) and path.is_file():
                return path
        for path in sorted(folder.iterdir()):
            if last and path.name.lower() == last.lower() and path.is_file():
                return path
        raise FileNotFoundError(errno.ENOENT, f"there is no file {name}")

    def keys(self) -> list[str]:
        return [file.name for file in self.path.parent.iterdir()]

    def namespaced(self, namespace: str) -> Resolver:
        return self

    def write(self, name: str, data: Any) -> None:
        raise NotImplementedError


def _utf8(data: bytes, suffix: str) -> bytes:
    """Text files whose names and comments are in another encoding, such that they can be read at all."""
    if suffix not in (".obj", ".mtl", ".off"):
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("latin1").encode()
    return data


def _plain_obj(data: bytes, path: Path) -> bytes:
    """An OBJ file as trimesh understands it: a blank between words, none before them, and faces that count from 1.

    A negative number counts back from the line it stands in; trimesh counts back from the end of the file.
    """
    if re.search(rb"^\s*v\s", data, re.MULTILINE) is None and re.search(rb"^\s*f\s", data, re.MULTILINE):
        raise InputError(f"{path}: has faces and no vertex; right would be a whole mesh")
    if re.search(rb"^[ \t]+\S|\t|^f\s.*(-|/\s|/$)", data, re.MULTILINE) is None:
        return data
    lines, counts = [], {b"v": 0, b"vt": 0, b"vn": 0}
    for line in re.sub(rb"\\[ \t]*\r?\n", b" ", data).splitlines():
        words = line.split()
        if words and words[0] in counts:
            counts[words[0]] += 1
        if words and words[0] == b"f":
            words[1:] = [_corner(word, tuple(counts.values())) for word in words[1:]]
        # Names of files and materials may have blanks of their own.
        numbers = words and (words[0] in counts or words[0] == b"f")
        lines.append(b" ".join(words) if numbers else line.strip().replace(b"\t", b" "))
    return b"\n".join(lines) + b"\n"


def _corner(word: bytes, counts: tuple[int, ...]) -> bytes:
    numbers = []
    for text, count in zip(word.rstrip(b"/").split(b"/"), counts, strict=False):
        back = re.fullmatch(rb"-\d{1,9}", text)
        numbers.append(b"%d" % (count + 1 + int(text)) if back and count + int(text) >= 0 else text)
    return b"/".join(numbers)


def _polygons_of_ply(data: bytes, path: Path) -> trimesh.Trimesh | None:
    """The mesh of a binary PLY file whose polygons differ in their number of corners, which trimesh does not read.

    None where they do not differ. Text is only checked to be whole.
    """
    kind, elements, start = ply_header(data, path)
    if kind == "ascii":
        _check_ply_text(data[start:], elements, path)
        return None
    order, differ = "<" if kind == "binary_little_endian" else ">", False
    faces: list[tuple[int, ...]] = []
    for element in elements:
        if not element.lists:
            start += element.count * element.row_bytes
        elif (size := _equal_rows(data, start, order, element, path)) is not None:
            start += size
        else:
            differ = True
            for _ in range(element.count):
                start, lists = _row(data, start, order, element, path)
                corners = lists.get("vertex_indices", lists.get("vertex_index", []))
                if element.name == "face":
                    faces += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    if not differ:
        return None
    columns = read_ply(path)
    return trimesh.Trimesh(columns["xyz"], faces, vertex_colors=columns.get("colours"), process=False)


def _equal_rows(data: bytes, start: int, order: str, element: PlyElement, path: Path) -> int | None:
    """The bytes of all rows of an element with lists, or None where the lists differ in length."""
    if element.count == 0:
        return 0
    _, lists = _row(data, start, order, element, path)
    fields: list[Any] = []
    for i, part in enumerate(element.properties):
        if part.length:
            fields += [(f"length {i}", order + part.length), (f"{i}", order + part.code, (len(lists[part.name]),))]
        else:
            fields.append((f"{i}", order + part.code))
    layout = np.dtype(fields)
    if start + element.count * layout.itemsize > len(data):
        return None
    rows = np.frombuffer(data, layout, element.count, start)
    lengths = [rows[f"length {i}"] for i, part in enumerate(element.properties) if part.length]
    return rows.nbytes if all((length == length[0]).all() for length in lengths) else None


def _row(data: bytes, start: int, order: str, element: PlyElement, path: Path) -> tuple[int, dict[str, list[int]]]:
    """Where a row ends, and its lists."""
    lists = {}
    for part in element.properties:
        length = 1
        if part.length:
            length = _taken(data, start, order + part.length, 1, path)[0]
            start += int(part.length[1])
        values = _taken(data, start, order + part.code, length, path)
        start += length * int(part.code[1])
        if part.length:
            lists[part.name] = values
    return start, lists


def _taken(data: bytes, start: int, code: str, count: int, path: Path) -> list[int]:
    size = int(code[2])
    if count < 0 or start + count * size > len(data):
        raise InputError(f"{path}: is cut short at byte {len(data)}; right would be a whole PLY file")
    return np.frombuffer(data, code, count, start).tolist()


def _check_ply_text(data: bytes, elements: list[PlyElement], path: Path) -> None:
    lines = [line.split() for line in data.splitlines() if line.strip()]
    promised = sum(element.count for element in elements)
    if len(lines) < promised:
        raise InputError(f"{path}: promises {promised} lines and has {len(lines)}; right would be a whole file")
    remaining = iter(lines)
    for element in elements:
        for _ in range(element.count):
            line, used = next(remaining), 0
            for part in element.properties:
                length = line[used] if part.length and used < len(line) else b"0"
                used += 1 + (int(length) if length.isdigit() else len(line))
            if used != len(line):
                text = b" ".join(line)[:40].decode("latin1")
                raise InputError(
                    f"{path}: has the line {text!r} for a {element.name}; right would be as its header says"
                )


def _small_letters(data: bytes) -> bytes:
    """A text STL file as trimesh understands it, which takes one in capitals for a binary one."""
    small = data.lower() if data.lstrip()[:5] in (b"SOLID", b"Solid") else b""
    return small if b"facet" in small else data


def _check_stl(data: bytes, path: Path) -> None:
    triangles = struct.unpack_from("<I", data, 80)[0] if len(data) >= 84 else 0
    if len(data) != 84 + 50 * triangles and not (data.lstrip().startswith(b"solid") and b"facet" in data):
        raise InputError(
            f"{path}: promises {triangles} triangles of 50 bytes and has {max(0, len(data) - 84)} bytes; "
            "right would be a whole STL file"
        )


def _check_gltf(data: bytes, path: Path, beside: _Beside) -> None:
    """Accessors may ask for zeros of any number, and for the same bytes any number of times."""
    text = data
    if data.startswith(b"glTF"):
        if len(data) < 20:
            raise InputError(f"{path}: has {len(data)} bytes; right would be a whole GLB file")
        text = data[20 : 20 + struct.unpack_from("<I", data, 12)[0]]
    try:
        tree = json.loads(text)
        available = len(data)
        for buffer in tree.get("buffers", []):
            uri = buffer.get("uri", "data:")
            available += 0 if uri.startswith("data:") else len(beside.get(uri))
        asked = sum(max(0, view["byteLength"]) for view in tree.get("bufferViews", []))
        for accessor in tree.get("accessors", []):
            asked += max(0, accessor["count"]) * _BYTES[accessor["componentType"]] * _COLUMNS[accessor["type"]]
    except InputError:
        raise
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: its JSON cannot be read ({reason}); right would be a whole glTF file") from error
    # Views and accessors each cover the data about once.
    if not asked <= 16 * available:
        raise InputError(f"{path}: promises {asked} bytes from {available}; right would be a whole glTF file")
