"""Point clouds and meshes: each format against what was written into it, real files, and files that are wrong."""

import contextlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets.clouds import lzf
from mpcli.notices import Notice

RANDOM = np.random.RandomState(0)
XYZ = RANDOM.randn(7, 3).astype(np.float32)
NORMALS = RANDOM.randn(7, 3)
NORMALS = (NORMALS / np.linalg.norm(NORMALS, axis=1, keepdims=True)).astype(np.float32)
COLOURS = RANDOM.randint(256, size=(7, 3)).astype(np.uint8)


def rows(*columns):
    return "".join(" ".join(repr(float(v)) for v in row) + "\n" for row in np.concatenate(columns, 1))


def ply(kind, types=("float",) * 6 + ("uchar",) * 3, before="", after="", n=7, data=None):
    names = ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    header = f"ply\nformat {kind} 1.0\ncomment made by a test\n{before}element vertex {n}\n"
    header += "".join(f"property {t} {name}\n" for t, name in zip(types, names, strict=True)) + after + "end_header\n"
    if data is None:
        if kind == "ascii":
            data = rows(XYZ, NORMALS, COLOURS).encode()
        else:
            order = "<" if kind == "binary_little_endian" else ">"
            data = b"".join(
                struct.pack(f"{order}6f3B", *p, *q, *c) for p, q, c in zip(XYZ, NORMALS, COLOURS, strict=True)
            )
    return header.encode() + data


def pcd(kind, data, fields="x y z _ normal_x normal_y normal_z", size="4 4 4 4 4 4 4", types="F F F F F F F", n=7):
    counts = " ".join("1" for _ in fields.split())
    return (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE {size}\nTYPE {types}\nCOUNT {counts}\n"
        f"WIDTH {n}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {n}\nDATA {kind}\n"
    ).encode() + data


COLOURED = rows(XYZ, COLOURS).splitlines(keepends=True)
PADDED = np.concatenate([XYZ, np.zeros((7, 1), np.float32), NORMALS], 1)
FACE = "element face 1\nproperty list uchar int vertex_indices\n"


@pytest.mark.parametrize(
    ("name", "content", "normals", "colours"),
    [
        ("a.ply", ply("ascii"), True, True),
        ("a.ply", ply("binary_little_endian"), True, True),
        ("a.ply", ply("binary_big_endian"), True, True),
        ("a.PLY", ply("ascii").replace(b"\n", b"\r\n"), True, True),
        ("a.ply", ply("ascii", after=FACE) + b"3 0 1 2\n", True, True),
        ("a.ply", ply("binary_little_endian", after=FACE) + b"\3" + bytes(12), True, True),
        ("a.pcd", pcd("ascii", rows(PADDED).encode()), True, False),
        ("a.pcd", pcd("binary", PADDED.astype("<f4").tobytes()), True, False),
        ("a.pcd", pcd("ascii", rows(XYZ).encode(), "x y z", "4 4 4", "F F F"), False, False),
        ("a.xyz", rows(XYZ).encode(), False, False),
        ("a.xyz", ("# x y z\n\n" + rows(XYZ, NORMALS)).encode(), True, False),
        ("a.txt", rows(XYZ).replace(" ", ", ").encode(), False, False),
        ("a.pts", ("7\n" + rows(XYZ)).encode(), False, False),
        ("a.pts", ("7\r\n" + rows(XYZ, COLOURS[:, :1], COLOURS).replace("\n", "\r\n")).encode(), False, True),
        ("a.pts", ("3\n" + "".join(COLOURED[:3]) + "4\n" + "".join(COLOURED[3:])).encode(), False, True),
        ("a.obj", "".join(f"v\t{line}\n" for line in rows(XYZ).splitlines()).encode(), False, False),
        ("a.xyz", rows(XYZ, COLOURS).encode(), False, False),  # not of unit length: no normals
        ("a.obj", ("o cloud\n" + "".join(f"v {line}\n" for line in rows(XYZ).splitlines())).encode(), False, False),
        (
            "a.obj",
            "".join(
                f"v {v}\nvn {n}\n" for v, n in zip(rows(XYZ).splitlines(), rows(NORMALS).splitlines(), strict=True)
            ).encode(),
            True,
            False,
        ),
    ],
)
def test_every_format_gives_what_was_written(tmp_path, name, content, normals, colours):
    (tmp_path / name).write_bytes(content)
    points = datasets.load(f"points:{tmp_path / name}", datasets.Points)
    np.testing.assert_array_equal(points.xyz, XYZ)
    assert points.xyz.dtype == torch.float32 and len(points) == 7
    if normals:
        np.testing.assert_allclose(points.normals, NORMALS, atol=1e-6)
    else:
        assert points.normals is None
    if colours:
        np.testing.assert_allclose(points.colours * 255, COLOURS, atol=1e-4)
    else:
        assert points.colours is None
    torch.testing.assert_close(datasets.load(str(tmp_path / name), datasets.Points).xyz, points.xyz)


@pytest.mark.parametrize("key", ["xyz", "points", "vertices"])
def test_arrays(tmp_path, key):
    path = tmp_path / "a.npz"
    np.savez(path, **{key: XYZ.astype(np.float64), "normals": 3 * NORMALS})
    points = datasets.load(f"points:{path}", datasets.Points)
    np.testing.assert_array_equal(points.xyz, XYZ)
    np.testing.assert_allclose(points.normals, NORMALS, atol=1e-6)  # scaled to unit length
    np.save(tmp_path / "a.npy", np.concatenate([XYZ, NORMALS], 1))
    np.testing.assert_allclose(datasets.load(str(tmp_path / "a.npy"), datasets.Points).normals, NORMALS, atol=1e-6)


def test_normals_that_are_all_zero_are_none(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=XYZ, normals=np.zeros((7, 3)))
    assert datasets.load(str(tmp_path / "a.npz"), datasets.Points).normals is None


def test_a_mesh_gives_its_vertices(tmp_path):
    box = trimesh.creation.box()
    for name in ("box.obj", "box.ply"):
        box.export(tmp_path / name)
        points = datasets.load(str(tmp_path / name), datasets.Points)
        assert len(points) == 8
        np.testing.assert_allclose(np.sort(points.xyz, 0), np.sort(box.vertices, 0))


def test_real_clouds_agree_with_each_other(shared_data):
    folder = shared_data / "pointclouds"
    packed, text = (
        datasets.load(str(folder / "spot_20k_clean.npz"), datasets.Points),
        datasets.load(str(folder / "spot_20k_clean.xyz"), datasets.Points),
    )
    torch.testing.assert_close(packed.xyz, text.xyz, atol=1e-6, rtol=0)
    torch.testing.assert_close(packed.normals, text.normals, atol=2e-6, rtol=0)
    bunny = datasets.load(str(folder / "bun0.pcd"), datasets.Points)
    assert bunny.describe() == "bun0.pcd: 397 points with normals"
    torch.testing.assert_close(bunny.xyz[0], torch.tensor([0.0054216, 0.11349, 0.040749]), atol=1e-7, rtol=0)
    torch.testing.assert_close(bunny.normals.norm(dim=1), torch.ones(397))
    assert len(datasets.load(str(folder / "bun4.pcd"), datasets.Points)) == 361
    splats = datasets.load(str(shared_data / "garden" / "garden_init_3dgs_10k.ply"), datasets.Points)
    assert len(splats) == 10000 and splats.normals is None
    mesh = datasets.load(str(shared_data / "nerf-spot" / "gt_mesh.ply"), datasets.Points)
    assert len(mesh) == 2930 and mesh.normals is not None


BINARY = "binary_little_endian"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", b"", "begins with b''; right would be a PLY file"),
        ("a.ply", b"\x89PNG\r\n", "begins with"),
        ("a.ply", ply("ascii")[:60], "its header does not end"),
        ("a.ply", ply("ascii").replace(b"format ascii 1.0", b"format xml 1.0"), "has the header line 'format xml 1.0'"),
        ("a.ply", ply("ascii").replace(b"format ascii 1.0\n", b""), "its header names no known format"),
        ("a.ply", ply("ascii", n=8), "promises 8 points, has 7"),
        ("a.ply", ply("ascii").replace(b"vertex 7", b"vertex -7"), "has the header line 'element vertex -7'"),
        ("a.ply", ply("ascii", n=9 * 10**14), "promises 900000000000000 points, has 7"),
        ("a.ply", ply(BINARY, n=9 * 10**14), "promises 900000000000000 points of 27 bytes and has 189 bytes"),
        ("a.ply", ply(BINARY)[:-1], "promises 7 points of 27 bytes and has 188 bytes"),
        ("a.ply", ply(BINARY, before="element camera 999999\nproperty double x\n"), "and has 0 bytes"),
        ("a.ply", ply(BINARY, before=FACE), "has lists in or before its vertices"),
        ("a.ply", ply("ascii").replace(b"property float nx", b"property float x"), "names a property twice"),
        ("a.ply", ply(BINARY).replace(b"property float nx", b"property float x"), "names a property twice"),
        ("a.ply", ply("ascii").replace(b"float y", b"float up"), "has x up z .* right would be x y z"),
        ("a.ply", ply("ascii").replace(b"vertex", b"point"), "has no element vertex"),
        ("a.ply", ply("ascii", n=0, data=b""), "has no point; right would be at least one"),
        ("a.ply", ply(BINARY, n=0, data=b""), "has no point"),
        ("a.ply", ply("ascii", data=b"1 2 3\n" * 7), "has 3 numbers a point; right would be 9 numbers a line"),
        ("a.ply", ply("ascii", data=b"1 2 3\n" * 3 + b"1 2 3 4\n" * 4), "right would be 9 numbers a line"),
        ("a.ply", ply("ascii", data=b"1 2 3 x 5 6 7 8 9\n" * 7), "right would be 9 numbers a line"),
        ("a.ply", ply("ascii", data=b"1 2 nan 4 5 6 7 8 9\n" * 7), r"point 0 has the xyz \[1.0, 2.0, nan\]"),
        ("a.pcd", b"hello", "has no PCD header"),
        ("a.pcd", pcd("ascii", b"")[:90], "has no PCD header"),
        ("a.pcd", pcd("ascii", rows(PADDED[:5]).encode()), "promises 7 points of 7 numbers and has 5 of 7"),
        ("a.pcd", pcd("ascii", rows(PADDED).encode(), n=0), "promises 0 points of 7 numbers and has 7"),
        ("a.pcd", pcd("ascii", b"", n=0), "has no point"),
        ("a.pcd", pcd("binary", bytes(28 * 7 - 1)), "promises 7 points of 28 bytes and has 195 bytes"),
        ("a.pcd", pcd("binary", b"", n=10**14), "promises 100000000000000 points of 28 bytes and has 0"),
        (
            "a.pcd",
            pcd("binary_compressed", bytes(200)),
            "promises 0 bytes for 0",
        ),
        ("a.pcd", pcd("ascii", b"", size="4 4 4"), "its FIELDS, SIZE, TYPE, COUNT and POINTS do not fit"),
        ("a.pcd", pcd("ascii", b"", types="F F F F F F Q"), "its FIELDS, SIZE, TYPE, COUNT and POINTS do not fit"),
        ("a.pcd", pcd("ascii", b"").replace(b"COUNT 1", b"COUNT 99999999999"), "do not fit"),
        ("a.pcd", pcd("ascii", rows(PADDED).encode(), "a b c d e f g"), "has a b c d e f g for each point"),
        ("a.xyz", b"", "has no point"),
        ("a.xyz", b"# nothing\n\n", "has no point"),
        ("a.xyz", b"1 2\n3 4\n", "has 2 numbers a line; right would be x y z"),
        ("a.xyz", b"1 2 3\n4 5\n", "columns changed from 3 to 2 at row 2.*right would be x y z"),
        ("a.xyz", b"1 2 3\n4 five 6\n", "could not convert string 'five'"),
        ("a.xyz", b"1 2 3\n4 nan 6\n", r"point 1 has the xyz \[4.0, nan, 6.0\]; right would be finite"),
        ("a.xyz", b"1 2 inf\n", r"point 0 has the xyz \[1.0, 2.0, inf\]"),
        ("a.xyz", b"1 2 1e39\n", "point 0 has the xyz"),  # beyond single precision
        ("a.xyz", b"\xff\xfe\x00", "is no text"),
        ("a.pts", b"2\n1 2 3\n", "promises 2 points and has 1; right would be the number of points, then"),
        ("a.pts", b"1 2 3\n4 5 6\n", "has '1 2 3' where a count should be"),
        ("a.pts", b"99999999999999999999\n1 2 3\n", "promises 99999999999999999999 points and has 1"),
        ("a.pts", b"1\n1 2 3 0 256 0 0\n", "has a colour outside 0 to 255"),
        ("a.pts", b"1\n1 2 3 4 5\n", "has 5 numbers a point"),
        ("a.pts", b"0\n", "has no point"),
        ("a.obj", b"f 1 2 3\n", "has no point"),
        ("a.obj", b"v 1 2\n", "has 2 numbers behind v; right would be x y z"),
        ("a.obj", b"v 1 2 3\nv 1 nan 3\n", "point 1 has the xyz"),
        ("a.obj", b"v 1 2 three\n", "could not convert"),
        ("a.npz", b"PK\x03\x04", r"is no readable \.npz"),
        ("a.las", b"LASF", r"is of no known format; right would be \.ply, \.pcd"),
        ("a", b"", "is of no known format"),
    ],
)
def test_clouds_that_are_wrong(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: .*{message}"):
        datasets.load(f"points:{tmp_path / name}", datasets.Points)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": XYZ}, r"holds a; right would be an array xyz \[N, 3\]"),
        ({"xyz": XYZ[:, :2]}, r"its xyz is float32 \[7, 2\]; right would be numbers \[N, 3\]"),
        ({"xyz": XYZ.astype(str)}, r"its xyz is <U32 \[7, 3\]"),
        ({"xyz": XYZ, "normals": NORMALS[:6]}, "has 6 normals for 7 xyz"),
        ({"xyz": XYZ, "normals": NORMALS * np.nan}, r"point 0 has the normals \[nan, nan, nan\]"),
        ({"xyz": XYZ[:0]}, "has no point"),
        ({"xyz": np.array([None])}, "its xyz holds Python objects"),
    ],
)
def test_arrays_that_are_wrong(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=rf"a\.npz: .*{message}"):
        datasets.load(str(tmp_path / "a.npz"), datasets.Points)


# Meshes


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb", "stl", "off"])
def test_every_mesh_format_gives_the_same_torus(tmp_path, suffix):
    torus = trimesh.creation.torus(1, 0.3, major_sections=24, minor_sections=12)
    path = tmp_path / f"torus.{suffix}"
    torus.export(path)
    mesh = datasets.load(f"mesh:{path}", trimesh.Trimesh)
    assert isinstance(mesh, trimesh.Trimesh) and mesh.is_watertight
    assert len(mesh.vertices) == len(torus.vertices) and len(mesh.faces) == len(torus.faces)
    assert mesh.volume == pytest.approx(torus.volume, rel=1e-5)
    assert datasets.load(str(path), trimesh.Trimesh).area == pytest.approx(torus.area, rel=1e-5)


@pytest.mark.parametrize("suffix", [".stl", ".off", ".glb"])
def test_the_vertices_of_a_mesh_are_a_cloud(tmp_path, suffix):
    torus = trimesh.creation.torus(1.0, 0.4, 12, 12)
    torus.export(tmp_path / f"torus{suffix}")
    points = datasets.load(str(tmp_path / f"torus{suffix}"), datasets.Points)
    assert len(points) == 144 and points.xyz.norm(dim=1).max() == pytest.approx(1.4, abs=1e-5)


def test_vertices_keep_their_order(tmp_path):
    mesh = trimesh.creation.icosphere(2)
    mesh.vertices[5] = mesh.vertices[6]  # two in one place are not made one
    for suffix in ("ply", "obj"):
        mesh.export(tmp_path / f"m.{suffix}")
        found = datasets.load(str(tmp_path / f"m.{suffix}"), trimesh.Trimesh)
        np.testing.assert_allclose(found.vertices, mesh.vertices, atol=1e-6)
        np.testing.assert_array_equal(found.faces, mesh.faces)


def test_ascii_files(tmp_path):
    box = trimesh.creation.box()
    (tmp_path / "a.ply").write_bytes(trimesh.exchange.ply.export_ply(box, encoding="ascii"))
    (tmp_path / "a.stl").write_text(trimesh.exchange.stl.export_stl_ascii(box))
    for suffix in ("ply", "stl"):
        mesh = datasets.load(str(tmp_path / f"a.{suffix}"), trimesh.Trimesh)
        assert mesh.is_watertight and mesh.volume == pytest.approx(1)


def test_several_meshes_in_their_places(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box())
    scene.add_geometry(trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.export(tmp_path / "two.glb")
    mesh = datasets.load(str(tmp_path / "two.glb"), trimesh.Trimesh)
    np.testing.assert_allclose(mesh.bounds, [[-0.5] * 3, [5.5, 0.5, 0.5]])
    assert mesh.volume == pytest.approx(2)


def textured_quad(folder, texture="skin.png", material="quad.mtl"):
    (folder / "quad.obj").write_text(
        f"mtllib {material}\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl m\n"
        "f 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    )
    (folder / "quad.mtl").write_text(f"newmtl m\nmap_Kd {texture}\n")
    Image.new("RGB", (4, 4), (200, 100, 50)).save(folder / "skin.png")
    return folder / "quad.obj"


def test_textures_are_kept(tmp_path):
    mesh = datasets.load(str(textured_quad(tmp_path)), trimesh.Trimesh)
    assert mesh.visual.uv.shape == (4, 2)
    assert mesh.visual.material.image.getpixel((1, 1)) == (200, 100, 50)
    mesh.export(tmp_path / "quad.glb")
    packed = datasets.load(str(tmp_path / "quad.glb"), trimesh.Trimesh)
    assert packed.visual.material.baseColorTexture.getpixel((1, 1))[:3] == (200, 100, 50)
    (tmp_path / "skin.png").unlink()
    # Without its texture it is still a mesh.
    with pytest.warns(Notice, match=r"quad\.obj: refers to skin\.png, not there"):
        assert len(datasets.load(str(tmp_path / "quad.obj"), trimesh.Trimesh).faces) == 2


def test_colours_are_kept(tmp_path):
    box = trimesh.creation.box()
    box.visual.vertex_colors = np.arange(32, dtype=np.uint8).reshape(8, 4)
    box.export(tmp_path / "box.ply")
    np.testing.assert_array_equal(
        datasets.load(str(tmp_path / "box.ply"), trimesh.Trimesh).visual.vertex_colors, box.visual.vertex_colors
    )


@pytest.mark.parametrize(
    ("texture", "material"),
    [
        ("../skin.png", "quad.mtl"),
        ("/etc/hostname", "quad.mtl"),
        ("skin.png", "../inner/quad.mtl"),
        ("a\0b", "quad.mtl"),
    ],
)
def test_references_out_of_the_folder_are_refused(tmp_path, texture, material):
    folder = tmp_path / "inner"
    folder.mkdir()
    path = textured_quad(folder, texture, material)
    if material == "../inner/quad.mtl":
        path.write_text(path.read_text().replace(material, "../other.mtl"))
    (tmp_path / "other.mtl").write_text("newmtl m\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "skin.png")
    with pytest.raises(InputError, match=r"quad\.obj: refers to .*, outside .*inner; right would be a path inside"):
        datasets.load(str(path), trimesh.Trimesh)


def test_a_damaged_texture_is_refused(tmp_path):
    path = textured_quad(tmp_path)
    whole = (tmp_path / "skin.png").read_bytes()
    (tmp_path / "skin.png").write_bytes(whole[:45])
    with pytest.raises(InputError, match=r"quad\.obj: cannot be read as OBJ"):
        datasets.load(str(path), trimesh.Trimesh)


def test_real_meshes(shared_data):
    spot = datasets.load(str(shared_data / "meshes" / "spot" / "spot.obj"), trimesh.Trimesh)
    assert len(spot.faces) == 5856 and spot.visual.material.image.size[0] > 100
    assert spot.volume == pytest.approx(0.71826, abs=1e-5)
    assert len(datasets.load(str(shared_data / "meshes" / "teapot.obj"), trimesh.Trimesh).faces) == 6320
    truth = datasets.load(str(shared_data / "nerf-spot" / "gt_mesh.ply"), trimesh.Trimesh)
    assert truth.is_watertight and len(truth.vertices) == 2930


SOLID = """solid a
 facet normal 0 0 1
  outer loop
   vertex 0 0 0
   vertex 1 0 0
   vertex 0 1 0
  endloop
 endfacet
endsolid a
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tabs.obj", "v\t0\t0\t0\nv\t1\t0\t0\nv\t0\t1\t0\nf\t1\t2\t3\n"),
        ("indented.obj", "  v 0   0 0\n v 1 0 0\n v 0 1 0\n  f 1 2 3\n"),
        ("slashes.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1// 2// 3//\n"),
        ("continued.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 \\\n\t2 3\n"),
        ("capitals.stl", SOLID.upper()),
        ("capital.stl", SOLID.replace("solid", "Solid")),
    ],
)
def test_texts_as_other_programs_write_them(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    mesh = datasets.load(str(tmp_path / name), trimesh.Trimesh)
    assert len(mesh.faces) == 1 and mesh.area == 0.5 and len(mesh.vertices) == 3


def box_as(suffix, **options):
    exported = trimesh.creation.box().export(file_type=suffix, **options)
    return exported if isinstance(exported, bytes) else exported.encode()


def glb(tree, body=b""):
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def bomb(count):
    return glb(
        {
            "asset": {"version": "2.0"},
            "accessors": [{"componentType": 5126, "count": count, "type": "VEC3"}] * 2,
            "bufferViews": [],
            "buffers": [],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
            "nodes": [{"mesh": 0}],
            "scenes": [{"nodes": [0]}],
        }
    )


def polygons(kind, faces):
    """A pyramid's corners, in colour, with faces of any number of corners."""
    corners = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0.5, 0.5, 1)]
    header = f"ply\nformat {kind} 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
    header += "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nproperty uchar flag\nend_header\n"
    order = "<" if kind == BINARY else ">"
    body = b"".join(struct.pack(f"{order}3f3B", *corner, 10, 20, 30) for corner in corners)
    return header.encode() + body + b"".join(struct.pack(f"{order}B{len(f)}iB", len(f), *f, 7) for f in faces)


@pytest.mark.parametrize("kind", ["binary_little_endian", "binary_big_endian"])
def test_polygons_become_triangles(tmp_path, kind):
    (tmp_path / "a.ply").write_bytes(polygons(kind, [[0, 3, 2, 1], [0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]))
    mesh = datasets.load(str(tmp_path / "a.ply"), trimesh.Trimesh)
    assert mesh.is_watertight and mesh.volume == pytest.approx(1 / 3) and len(mesh.faces) == 6
    assert mesh.visual.vertex_colors[0].tolist() == [10, 20, 30, 255]
    (tmp_path / "a.ply").write_bytes(polygons(kind, [[0, 3, 2, 1], [0, 1, 4, 3]]))
    assert len(datasets.load(str(tmp_path / "a.ply"), trimesh.Trimesh).faces) == 4


def test_names_in_another_encoding(tmp_path):
    path = textured_quad(tmp_path)
    path.write_bytes("# Körper\n".encode("latin1") + path.read_bytes())
    (tmp_path / "quad.mtl").write_bytes("# Haut, schön\n".encode("latin1") + (tmp_path / "quad.mtl").read_bytes())
    mesh = datasets.load(str(path), trimesh.Trimesh)
    assert len(mesh.faces) == 2 and mesh.visual.material.image is not None
    assert len(datasets.load(str(path), datasets.Points)) == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.obj", b"", "has no face"),
        ("a.obj", b"f 1 2 3\n", "has faces and no vertex; right would be a whole mesh"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "has no face; right would be a mesh of triangles"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "cannot be read as OBJ"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n", r"vertex 2 is \[0.0, nan, 0.0\]; right would be finite"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 inf 0\nf 1 2 3\n", "vertex 2 is"),
        ("a.obj", b"v 0 0 0\nv 1 zero 0\nv 0 1 0\nf 1 2 3\n", "cannot be read as OBJ"),
        ("a.ply", ply("ascii"), "has no face"),
        ("a.ply", ply("binary_little_endian"), "has no face"),
        ("a.ply", box_as("ply")[:-4], "is cut short at byte 460; right would be a whole PLY file"),
        (
            "a.ply",
            box_as("ply", encoding="ascii")[:-30],
            "promises 20 lines and has 17; right would be a whole file",
        ),
        (
            "a.ply",
            box_as("ply", encoding="ascii")[:-3],
            "has the line '3 7 5' for a face; right would be as its header",
        ),
        ("a.ply", box_as("ply").replace(b"vertex 8", b"vertex 99999999"), "is cut short at byte 471"),
        ("a.ply", polygons(BINARY, [[0, 1, 2, 3], [0, 4, 1]])[:-1], "is cut short at byte"),
        ("a.ply", polygons(BINARY, [[0, 1, 2, 3], [0, 4, 9]]), "has faces with vertices that it does not have"),
        ("a.ply", polygons(BINARY, [[0, 1, 2, 3], [0, 4, -1]]), "has faces with vertices that it does not have"),
        ("a.ply", polygons(BINARY, [[0, 1], [0]]), "has no face"),
        (
            "a.ply",
            box_as("ply", encoding="ascii").replace(b"vertex 8", b"vertex 99999999999"),
            "promises 100000000011 lines",
        ),
        ("a.ply", b"ply\n", "its header does not end"),
        ("a.ply", b"solid\n", "begins with"),
        ("a.stl", box_as("stl")[:-10], "promises 12 triangles of 50 bytes and has 590 bytes"),
        ("a.stl", box_as("stl")[:80] + b"\xff" * 4 + box_as("stl")[84:], "promises 4294967295 triangles of 50 bytes"),
        ("a.stl", b"", "promises 0 triangles of 50 bytes and has 0 bytes"),
        ("a.stl", b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0", "has no face"),
        ("a.stl", box_as("stl")[:80] + bytes(4), "has no face"),
        ("a.off", b"OFF\n8 12 0\n0 0 0\n", "cannot be read as OFF"),
        ("a.off", b"OFF\n99999999999 12 0\n0 0 0\n", "cannot be read as OFF"),
        ("a.glb", b"glTF", "has 4 bytes; right would be a whole GLB file"),
        ("a.glb", box_as("glb")[:-8], "cannot be read as GLB"),
        ("a.glb", box_as("glb")[:200], "its JSON cannot be read"),
        ("a.glb", b"hello, this is no glb file", "its JSON cannot be read"),
        ("a.glb", bomb(10**12), "promises 24000000000000 bytes from"),
        ("a.glb", bomb(-5), "cannot be read as GLB"),
        ("a.glb", glb({"accessors": "many"}), "its JSON cannot be read"),
        ("a.glb", glb({"asset": {"version": "2.0"}}), "has no face"),
        ("a.gltf", b"{", "its JSON cannot be read"),
        ("a.gltf", b'{"buffers": [{"uri": "gone.bin", "byteLength": 3}]}', "its JSON cannot be read"),
        ("a.fbx", b"Kaydara", r"is of no known format; right would be \.obj"),
    ],
)
def test_meshes_that_are_wrong(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: ({message})"):
        datasets.load(f"mesh:{tmp_path / name}", trimesh.Trimesh)


def test_a_mesh_placed_too_often_is_refused(tmp_path):
    sphere = trimesh.creation.icosphere(5)  # 20480 faces
    sphere.export(tmp_path / "one.glb")
    data = (tmp_path / "one.glb").read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + length])
    mesh_node = next(node for node in tree["nodes"] if "mesh" in node)
    tree["nodes"] = [{"mesh": mesh_node["mesh"], "name": f"n{i}"} for i in range(2600)]
    tree["scenes"] = [{"nodes": list(range(2600))}]
    tree["scene"] = 0
    (tmp_path / "many.glb").write_bytes(glb(tree, data[28 + length :]))
    with pytest.raises(InputError, match=r"many\.glb: cannot be read as GLB \(it makes 53248000 faces\)"):
        datasets.load(str(tmp_path / "many.glb"), trimesh.Trimesh)


def test_gltf_may_not_read_other_folders(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(100))
    (folder / "a.gltf").write_text(json.dumps({"buffers": [{"uri": "../secret.bin", "byteLength": 100}]}))
    with pytest.raises(InputError, match=r"a\.gltf: refers to '\.\./secret\.bin', outside"):
        datasets.load(str(folder / "a.gltf"), trimesh.Trimesh)


# PCD as PCL compresses it


def test_lzf_repeats_what_came_before():
    # Three literals, a copy of 3 from 3 back, and one of 9 from 1 back, which reaches into itself.
    assert lzf(b"\2abc" + bytes([1 << 5, 2]) + bytes([7 << 5, 0, 0]), 15, Path("a")) == b"abcabc" + b"c" * 9
    for wrong in (b"\2ab", bytes([1 << 5, 2]), b"\2abc", b"\2abc" + bytes([1 << 5])):
        with pytest.raises(InputError, match="its compressed data is damaged"):
            lzf(wrong, 6, Path("a"))


@pytest.mark.parametrize("gap", [False, True])
def test_a_compressed_pcd_and_one_with_gaps(tmp_path, gap):
    xyz = np.arange(24, dtype="<f4").reshape(8, 3)
    if gap:
        xyz[3] = np.nan
    plain = xyz.T.tobytes()
    packed = b"".join(bytes([len(plain[i : i + 32]) - 1]) + plain[i : i + 32] for i in range(0, len(plain), 32))
    head = b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 8\nHEIGHT 1\nPOINTS 8\nDATA binary_compressed\n"
    (tmp_path / "a.pcd").write_bytes(head + struct.pack("<II", len(packed), len(plain)) + packed)
    told = pytest.warns(Notice, match="1 of 8 points are nan") if gap else contextlib.nullcontext()
    with told:
        found = datasets.load(str(tmp_path / "a.pcd"), datasets.Points)
    np.testing.assert_array_equal(found.xyz.numpy(), xyz[~np.isnan(xyz[:, 0])])


# Numbers keep their meaning


@pytest.mark.parametrize("text", ["1,5 2,25 3\n-4,5 5 6e1\n", "1,5;2,25;3\n-4,5;5;6e1\n"])
def test_decimal_commas(tmp_path, text):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.warns(Notice, match=r"1,5 is read as 1\.5"):
        found = datasets.load(str(tmp_path / "a.xyz"), datasets.Points)
    assert found.xyz.tolist() == [[1.5, 2.25, 3.0], [-4.5, 5.0, 60.0]]


@pytest.mark.parametrize("text", ["1,5,2\n2,3,4\n", "1, 5, 2\n2, 3, 4\n", "1.5,5,2 \n2,3,4\n"])
def test_commas_between_numbers(tmp_path, text):
    (tmp_path / "a.xyz").write_text(text)
    assert datasets.load(str(tmp_path / "a.xyz"), datasets.Points).xyz[1].tolist() == [2, 3, 4]


def test_coordinates_too_far_for_float32(tmp_path):
    xyz = RANDOM.rand(50, 3) + np.array([694386.2, 5155487.5, 381.0])
    np.save(tmp_path / "a.npy", xyz)
    with pytest.raises(InputError, match=r"too far for float32; right .* \(694386, 5155487, 381\) is subtracted"):
        datasets.load(str(tmp_path / "a.npy"), datasets.Points)
    np.save(tmp_path / "a.npy", xyz - [694386, 5155487, 381])
    assert len(datasets.load(str(tmp_path / "a.npy"), datasets.Points)) == 50


@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 255), (np.float32, 1)])
def test_white_is_the_largest_number(tmp_path, kind, white):
    np.savez(tmp_path / "a.npz", xyz=np.eye(3), colours=np.array([[0, 0, 0], [white, 0, white], [0, 0, 0]], kind))
    assert datasets.load(str(tmp_path / "a.npz"), datasets.Points).colours[1].tolist() == [1, 0, 1]


# What other programs write into OBJ and glTF


def test_negative_indices_count_back_from_their_line(tmp_path):
    triangle = "v {0} 0 0\nv {1} 0 0\nv {0} 1 0\nf -3 -2 -1\n"
    (tmp_path / "a.obj").write_text(triangle.format(0, 1) + triangle.format(2, 3))
    found = datasets.load(str(tmp_path / "a.obj"), trimesh.Trimesh)
    assert found.triangles[:, :, 0].min(1).tolist() == [0, 2]


@pytest.mark.parametrize("name", ["t.png", "T.PNG", r"C:\pictures\t.png", "t%2Epng"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_texture_under_the_name_that_another_machine_gave_it(tmp_path, name, is_there):
    Image.new("RGB", (4, 4), (200, 10, 10)).save(tmp_path / "t.png")
    if not is_there:
        (tmp_path / "t.png").unlink()
    (tmp_path / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"
    )
    told = contextlib.nullcontext() if is_there else pytest.warns(Notice, match=r"refers to .*, not there")
    with told:
        found = datasets.load(str(tmp_path / "a.obj"), trimesh.Trimesh)
    assert (getattr(found.visual.material, "image", None) is not None) == is_there


def test_a_gltf_names_its_buffers_percent_encoded(tmp_path):
    files = trimesh.creation.box().export(file_type="gltf")
    tree = json.loads(files["model.gltf"])
    for number, buffer in enumerate(tree["buffers"]):
        (tmp_path / f"my box {number}.bin").write_bytes(files[buffer["uri"]])
        buffer["uri"] = f"my%20box%20{number}.bin"
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    assert len(datasets.load(str(tmp_path / "a.gltf"), trimesh.Trimesh).faces) == 12


@pytest.mark.parametrize(
    "name", ["CLOUD.xyz", "cloud.XYZ", "cloud.ply", "clo%75d.xyz", "cloud.xyz ", r"inner\..\cloud.xyz"]
)
@pytest.mark.parametrize("prefix", ["points:", ""])
def test_a_name_that_is_nearly_right(tmp_path, monkeypatch, name, prefix):
    (tmp_path / "inner").mkdir()
    (tmp_path / "cloud.xyz").write_text("0 0 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"did you mean .*cloud\.xyz\?"):
        datasets.load(f"{prefix}{name}", datasets.Points)


@pytest.mark.parametrize("prefix", ["points:", ""])
def test_a_name_too_long_for_any_file(prefix):
    with pytest.raises(InputError, match="there is no"):
        datasets.load(prefix + "a" * 5000 + ".xyz", datasets.Points)
