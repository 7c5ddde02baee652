"""`points:FILE`: a point cloud in PLY, PCD, XYZ, PTS, NPZ, NPY or OBJ, or the vertices of a mesh.

Normals and colours are kept where the file has them. Of a mesh file the vertices are the points.

Turk, The PLY Polygon File Format, 1994. Rusu and Cousins, 3D is here: Point Cloud Library (PCL), ICRA 2011.
"""

import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mpcli.errors import InputError
from mpcli.kit.datasets.files import located, read_bytes, read_npy, read_npz, read_numbers, read_text
from mpcli.kit.datasets.types import Points
from mpcli.kit.limits import afford
from mpcli.notices import notice

Columns = dict[str, np.ndarray]

_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


def points(argument: str) -> Points:
    """The points of a file; normals are scaled to unit length, and dropped where all of them are zero.

    Raises:
        InputError: the format is unknown, the file damaged, there is no point, or a coordinate is not finite.
    """
    path = located("points", argument, folder=False)
    readers = {
        ".ply": read_ply,
        ".pcd": _read_pcd,
        ".xyz": _read_xyz,
        ".txt": _read_xyz,
        ".pts": _read_pts,
        ".npz": _read_npz,
        ".npy": _read_npy,
        ".obj": _read_obj,
        **dict.fromkeys((".stl", ".off", ".glb", ".gltf"), _read_mesh),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: is of no known format; right would be {', '.join(readers)}")
    return _checked(reader(path), path)


def _checked(columns: Columns, path: Path) -> Points:
    scale = _white(columns["colours"]) if "colours" in columns else 1
    _survives_float32(columns["xyz"], path)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        columns = {what: np.ascontiguousarray(values, np.float32) for what, values in columns.items()}
    if len(columns["xyz"]) == 0:
        raise InputError(f"{path}: has no point; right would be at least one")
    for what, values in columns.items():
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise InputError(f"{path}: point {row} has the {what} {values[row].tolist()}; right would be finite")
    found = {what: torch.from_numpy(values) for what, values in columns.items()}
    normals, colours = found.get("normals"), found.get("colours")
    if normals is not None:
        length = normals.double().norm(dim=1, keepdim=True)
        normals = (normals / torch.where(length > 0, length, 1)).float() if (length > 0).any() else None
    if colours is not None:
        colours = (colours / scale).clamp(0, 1)
    return Points(found["xyz"], normals, colours, name=path.name)


def _white(colours: np.ndarray) -> float:
    """The number that stands for full brightness: the largest of a whole type, and 1 or 255 of real numbers."""
    if colours.dtype.kind in "ui":
        return float(np.iinfo(colours.dtype).max) if colours.dtype.itemsize < 4 else 255.0
    return 255.0 if len(colours) and 1 < colours.max() <= 255 else 1.0


def _survives_float32(xyz: np.ndarray, path: Path) -> None:
    """Refuse coordinates so far from the origin that float32 has too few steps over the extent of the cloud."""
    xyz = np.asarray(xyz, np.float64)
    if len(xyz) < 2 or not np.isfinite(xyz).all():
        return
    extent, farthest = float(np.ptp(xyz, axis=0).max()), float(np.abs(xyz).max())
    if 0 < extent < farthest * 2**-23 * 2000:
        near = np.floor(xyz.min(axis=0)).tolist()
        raise InputError(
            f"{path}: its points lie within {extent:g} at up to {farthest:g} from the origin, too far for float32; "
            f"right would be coordinates from which ({', '.join(f'{value:.0f}' for value in near)}) is subtracted"
        )


@dataclass(frozen=True)
class PlyProperty:
    """One property of a PLY element, with numpy's names of types; a list has the type of its length as well."""

    name: str
    code: str
    length: str = ""


@dataclass(frozen=True)
class PlyElement:
    """One element of a PLY header: how many rows it has, and what is in each."""

    name: str
    count: int
    properties: tuple[PlyProperty, ...] = ()

    @property
    def lists(self) -> bool:
        """Whether its rows may differ in length."""
        return any(part.length for part in self.properties)

    @property
    def row_bytes(self) -> int:
        """The length of a row that has no list."""
        return sum(np.dtype(part.code).itemsize for part in self.properties)


def ply_header(data: bytes, path: Path) -> tuple[str, list[PlyElement], int]:
    """The format of a PLY file (ascii, binary_little_endian, binary_big_endian), its elements, and where data begins.

    Raises:
        InputError: the header is not that of a PLY file.
    """
    right = "right would be a PLY file, whose header begins with ply and ends with end_header"
    if not data.startswith(b"ply"):
        raise InputError(f"{path}: begins with {data[:8]!r}; {right}")
    found = data.find(b"\nend_header")
    end = data.find(b"\n", found + 1)
    if found < 0 or end < 0:
        raise InputError(f"{path}: its header does not end; {right}")
    kind, elements = "", []
    for line in data[:found].decode("latin1").splitlines()[1:]:
        match line.split():
            case ["format", ("ascii" | "binary_little_endian" | "binary_big_endian") as name, "1.0"]:
                kind = name
            case ["element", name, count] if count.isdecimal() and len(count) < 16:
                elements.append(PlyElement(name, int(count)))
            case ["property", kind_of, name] if elements and kind_of in _PLY_TYPES:
                _add(elements, PlyProperty(name, _PLY_TYPES[kind_of]))
            case ["property", "list", length, kind_of, name] if (
                elements and kind_of in _PLY_TYPES and _PLY_TYPES.get(length, "f")[0] in "iu"
            ):
                _add(elements, PlyProperty(name, _PLY_TYPES[kind_of], _PLY_TYPES[length]))
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise InputError(f"{path}: has the header line {line.strip()[:80]!r}; {right}")
    if not kind:
        raise InputError(f"{path}: its header names no known format; {right}")
    return kind, elements, end + 1


def _add(elements: list[PlyElement], part: PlyProperty) -> None:
    elements[-1] = replace(elements[-1], properties=(*elements[-1].properties, part))


def read_ply(path: Path) -> Columns:
    """The xyz, normals and colours of the vertices of a PLY file, as far as it has them.

    Raises:
        InputError: it is no PLY file, or is cut short.
    """
    data = read_bytes(path)
    kind, elements, start = ply_header(data, path)
    before = []
    for element in elements:
        if element.name == "vertex":
            break
        before.append(element)
    else:
        raise InputError(f"{path}: has no element vertex; right would be one with the properties x, y and z")
    if any(part.lists for part in (*before, element)):
        raise InputError(f"{path}: has lists in or before its vertices; right would be vertices of plain numbers first")
    names = _unique([part.name for part in element.properties], path)
    if kind == "ascii":
        lines = data[start:].decode("latin1").splitlines()
        rows = [line for line in lines if line.strip()]
        skipped = sum(part.count for part in before)
        rows = rows[skipped : skipped + element.count]
        if len(rows) != element.count:
            raise InputError(f"{path}: promises {element.count} points, has {len(rows)}; right would be a whole file")
        what = f"{len(names)} numbers a line: {' '.join(names)}"
        table = read_numbers("\n".join(rows), path, what)
        if element.count and table.shape != (element.count, len(names)):
            raise InputError(f"{path}: has {table.shape[1]} numbers a point; right would be {what}")
        columns = {}
        if element.count:
            columns = {part.name: table[:, i].astype(part.code) for i, part in enumerate(element.properties)}
    else:
        order = "<" if kind == "binary_little_endian" else ">"
        start += sum(part.count * part.row_bytes for part in before)
        fields = [(part.name, order + part.code) for part in element.properties]
        columns = _structured(data, start, element.count, fields, path)
    return _from_columns(columns, names, element.count, path)


def _unique(names: list[str], path: Path) -> list[str]:
    if len(set(names)) != len(names):
        raise InputError(f"{path}: names a property twice ({' '.join(names)[:80]}); right would be a name each")
    return names


def _structured(data: bytes, start: int, count: int, fields: list[tuple[str, str]], path: Path) -> Columns:
    layout = np.dtype(fields)
    if count * layout.itemsize > len(data) - start:
        raise InputError(
            f"{path}: promises {count} points of {layout.itemsize} bytes and has {max(0, len(data) - start)} bytes; "
            "right would be a whole file"
        )
    rows = np.frombuffer(data, layout, count, start) if count else np.zeros(0, layout)
    return {name: rows[name] for name, _ in fields}


def _from_columns(columns: Columns, names: list[str], count: int, path: Path) -> Columns:
    if not {"x", "y", "z"} <= set(names):
        raise InputError(f"{path}: has {' '.join(names) or 'nothing'} for each point; right would be x y z and more")
    if count == 0:
        return {"xyz": np.zeros((0, 3))}
    found = {"xyz": ("x", "y", "z")}
    for normal in (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")):
        if set(normal) <= set(names):
            found["normals"] = normal
    for colour in (("red", "green", "blue"), ("r", "g", "b")):
        if set(colour) <= set(names):
            found["colours"] = colour
    return {what: np.stack([columns[name] for name in axes], axis=1) for what, axes in found.items()}


def _read_pcd(path: Path) -> Columns:
    data = read_bytes(path)
    header: dict[str, list[str]] = {}
    stream = io.BytesIO(data)
    while "DATA" not in header:
        line = stream.readline(4096)
        if not line or b"\0" in line:
            raise InputError(f"{path}: has no PCD header; right would be one from VERSION to DATA")
        key, *values = line.decode("latin1").split() or [""]
        if not key.startswith("#"):
            header[key] = values
    names = header.get("FIELDS", [])
    counts = header.get("COUNT", ["1"] * len(names))
    sizes, types = header.get("SIZE", []), header.get("TYPE", [])
    number = header.get("POINTS") or header.get("WIDTH") or [""]
    codes = [{"F": "f", "I": "i", "U": "u"}.get(t, "?") + s for t, s in zip(types, sizes, strict=False)]
    legal = {"f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}
    if (
        not (len(names) == len(codes) == len(counts) > 0)
        or not set(codes) <= legal
        or not all(c.isdecimal() and 0 < int(c[:6]) < 10**5 for c in counts)
        or not (number[0].isdecimal() and len(number[0]) < 16)
    ):
        raise InputError(f"{path}: its FIELDS, SIZE, TYPE, COUNT and POINTS do not fit; right would be a PCD header")
    # A field of several numbers, such as a histogram, is no coordinate: its columns only take their place.
    fields = [
        (name if width == 1 else f"{name}[{i}]", code)
        for name, code, width in zip(names, codes, map(int, counts), strict=True)
        for i in range(width)
    ]
    # PCL pads with fields called _, which may repeat.
    fields = [(name if name != "_" else f"_{i}", code) for i, (name, code) in enumerate(fields)]
    names = _unique([name for name, _ in fields], path)
    count, start = int(number[0]), stream.tell()
    if header["DATA"] == ["ascii"]:
        table = read_numbers(data[start:].decode("latin1"), path, f"{len(fields)} numbers a line")
        if len(table) != count or (count and table.shape[1] != len(fields)):
            raise InputError(
                f"{path}: promises {count} points of {len(fields)} numbers and has {len(table)} of "
                f"{table.shape[1] if len(table) else 0}; right would be a whole file"
            )
        columns = {name: table[:, i] for i, (name, _) in enumerate(fields)} if count else {}
    elif header["DATA"] == ["binary"]:
        columns = _structured(data, start, count, [(name, "<" + code) for name, code in fields], path)
    elif header["DATA"] == ["binary_compressed"]:
        columns = _compressed(data, start, count, [(name, "<" + code) for name, code in fields], path)
    else:
        found = " ".join(header["DATA"])[:40]
        raise InputError(f"{path}: its DATA is {found}; right would be ascii, binary or binary_compressed")
    columns = _without_gaps(columns, path)
    count = len(columns["x"]) if "x" in columns else count
    return _from_columns(columns, names, count, path)


def _compressed(data: bytes, start: int, count: int, fields: list[tuple[str, str]], path: Path) -> Columns:
    """The columns of binary_compressed: two lengths, then all values of a field after all of the one before."""
    packed, unpacked = struct.unpack_from("<II", data, start) if len(data) >= start + 8 else (0, 0)
    wanted = count * np.dtype(fields).itemsize
    if unpacked != wanted or packed != len(data) - start - 8:
        raise InputError(
            f"{path}: promises {packed} bytes for {unpacked}, has {max(0, len(data) - start - 8)}, and {count} points "
            f"need {wanted}; right would be a whole file"
        )
    afford(path, wanted, "its data")
    plain, columns, place = lzf(data[start + 8 :], wanted, path), {}, 0
    for name, code in fields:
        columns[name] = np.frombuffer(plain, code, count, place)
        place += columns[name].nbytes
    return columns


def lzf(data: bytes, size: int, path: Path) -> bytes:
    """The `size` bytes that LibLZF compressed: runs of literals, and copies of what came up to 8191 bytes before.

    Raises:
        InputError: it is cut short, goes back too far, or gives another number of bytes.
    """
    plain, place = bytearray(), 0
    try:
        while place < len(data) and len(plain) <= size:
            control = data[place]
            place += 1
            if control < 32:
                run = data[place : place + control + 1]
                if len(run) <= control:
                    raise IndexError
                plain += run
                place += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[place]
                place += 1
            back = ((control & 31) << 8) + data[place] + 1
            place += 1
            if back > len(plain):
                raise IndexError
            copied = plain[len(plain) - back : len(plain) - back + length + 2]
            # A copy may reach into itself, and then repeats.
            plain += (copied * ((length + 2) // len(copied) + 1))[: length + 2]
    except IndexError:
        plain = bytearray()
    if len(plain) != size:
        raise InputError(f"{path}: its compressed data is damaged; right would be what PCL writes")
    return bytes(plain)


def _without_gaps(columns: Columns, path: Path) -> Columns:
    """The rows with a place: depth cameras write nan for the pixels where they saw nothing."""
    if not {"x", "y", "z"} <= set(columns):
        return columns
    xyz = np.stack([np.asarray(columns[axis], np.float64) for axis in "xyz"], axis=1)
    seen = np.logical_not(np.isnan(xyz).all(axis=1))
    if not seen.all() and seen.any():
        notice(f"{path}: {int((~seen).sum())} of {len(seen)} points are nan, where nothing was seen, and are left out")
        return {name: values[seen] for name, values in columns.items()}
    return columns


def _read_xyz(path: Path) -> Columns:
    what = "x y z in every line, with the normal or more behind"
    table = read_numbers(read_text(path), path, what)
    if len(table) == 0:
        return {"xyz": np.zeros((0, 3))}
    if table.shape[1] < 3:
        raise InputError(f"{path}: has {table.shape[1]} numbers a line; right would be {what}")
    columns = {"xyz": table[:, :3]}
    behind = table[:, 3:6]
    # The format does not say what follows the coordinates: normals show by their length.
    if behind.shape[1] == 3 and np.abs(np.linalg.norm(behind, axis=1) - 1).max() < 1e-2:
        columns["normals"] = behind
    return columns


def _read_pts(path: Path) -> Columns:
    """Scans behind one another, each a count and so many lines of x y z, intensity, red green blue."""
    what = "the number of points, then as many lines of x y z, or x y z and intensity, with red green blue behind"
    lines, rows, place = [line for line in read_text(path).splitlines() if line.strip()], list[str](), 0
    while place < len(lines):
        count = lines[place].strip()
        if not count.isdecimal():
            raise InputError(f"{path}: has {count[:40]!r} where a count should be; right would be {what}")
        following = lines[place + 1 : place + 1 + int(count[:16])]
        if len(following) < int(count[:16]):
            raise InputError(f"{path}: promises {count[:40]} points and has {len(following)}; right would be {what}")
        rows += following
        place += 1 + len(following)
    table = read_numbers("\n".join(rows), path, what)
    if len(table) == 0:
        return {"xyz": np.zeros((0, 3))}
    if table.shape[1] not in (3, 4, 6, 7):
        raise InputError(f"{path}: has {table.shape[1]} numbers a point; right would be {what}")
    columns = {"xyz": table[:, :3]}
    if table.shape[1] > 5:
        colours = table[:, -3:]
        if not ((colours >= 0) & (colours <= 255)).all():
            raise InputError(f"{path}: has a colour outside 0 to 255; right would be {what}")
        columns["colours"] = colours.astype(np.uint8)
    return columns


def _read_npz(path: Path) -> Columns:
    arrays = read_npz(path)
    columns = {}
    names = {"xyz": ("xyz", "points", "vertices"), "normals": ("normals",), "colours": ("colours", "colors")}
    for what, keys in names.items():
        for key in keys:
            if key in arrays and what not in columns:
                columns[what] = _three(arrays[key], f"its {key}", path)
    if "xyz" not in columns:
        raise InputError(f"{path}: holds {', '.join(arrays) or 'nothing'}; right would be an array xyz [N, 3]")
    for what, values in columns.items():
        if len(values) != len(columns["xyz"]):
            raise InputError(f"{path}: has {len(values)} {what} for {len(columns['xyz'])} xyz; right would be one each")
    return columns


def _read_npy(path: Path) -> Columns:
    array = read_npy(path)
    if array.ndim == 2 and array.shape[1] == 6:
        return {"xyz": _three(array[:, :3], "it", path), "normals": array[:, 3:]}
    return {"xyz": _three(array, "it", path)}


def _three(array: np.ndarray, what: str, path: Path) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {what} is {array.dtype} {list(array.shape)}; right would be numbers [N, 3]")
    return array


def _read_mesh(path: Path) -> Columns:
    from mpcli.kit.datasets.meshes import mesh  # which reads PLY with what is here

    return {"xyz": np.asarray(mesh(str(path)).vertices)}


def _read_obj(path: Path) -> Columns:
    lines: dict[str, list[str]] = {"v": [], "vn": [], "f": []}
    # Names and comments may be in any encoding; only numbers are read.
    for line in read_bytes(path).decode("latin1").splitlines():
        key, *rest = line.split(None, 1)[:2] or [""]
        if key in lines:
            lines[key] += rest
    vertices = read_numbers("\n".join(lines["v"]), path, "three numbers behind every v")
    if len(vertices) == 0:
        return {"xyz": np.zeros((0, 3))}
    if vertices.shape[1] < 3:
        raise InputError(f"{path}: has {vertices.shape[1]} numbers behind v; right would be x y z")
    columns = {"xyz": vertices[:, :3]}
    if vertices.shape[1] == 6:
        columns["colours"] = vertices[:, 3:]
    # In a mesh the faces say which normal belongs to which vertex; in a cloud it is their order.
    if not lines["f"] and len(lines["vn"]) == len(vertices):
        normals = read_numbers("\n".join(lines["vn"]), path, "three numbers behind every vn")
        if normals.shape[1] == 3:
            columns["normals"] = normals
    return columns
