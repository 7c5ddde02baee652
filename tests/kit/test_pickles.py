"""Arrays come out of every pickle that Python and numpy have written; nothing else ever runs or allocates."""

import collections
import io
import os
import pickle
import struct
import sys
import tracemalloc
import types
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse

from mpcli.errors import InputError
from mpcli.kit import pickles


def written(tmp_path, data):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return path


def same(left, right):
    if isinstance(right, np.ndarray):
        assert type(left) is np.ndarray and left.dtype == right.dtype and left.shape == right.shape
        np.testing.assert_array_equal(left, right)
    elif isinstance(right, dict):
        assert list(left) == list(right)
        for key in right:
            same(left[key], right[key])
    elif isinstance(right, list):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            same(a, b)
    elif scipy.sparse.issparse(right):
        assert left.format == right.format and left.shape == right.shape
        np.testing.assert_array_equal(left.toarray(), right.toarray())
    else:
        assert left == right and type(left) is type(right)


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj):
        if self.bin:
            self.write(b"T" + struct.pack("<i", len(obj)) + obj)
        else:
            self.write(b"S" + repr(obj)[1:].encode() + b"\n")
        self.memoize(obj)

    dispatch[bytes] = save_bytes


def python2(value, protocol):
    stream = io.BytesIO()
    Python2Pickler(stream, protocol, fix_imports=True).dump(value)
    return stream.getvalue().replace(b"numpy._core", b"numpy.core")


EVERYTHING = {
    "floats": np.arange(24.0).reshape(2, 3, 4) / 7,
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "big_endian": np.arange(5, dtype=">i2"),
    "bytes": np.frombuffer(bytes(range(256)), np.uint8),
    "bools": np.array([True, False]),
    "text": np.array(["knee", "ankle"]),
    "empty": np.zeros((0, 3)),
    "single": np.array(3.5),
    "scalar": np.float64(2.5),
    "objects": np.array([[1, 2], "x", None, np.arange(3)], dtype=object),
    "csc": scipy.sparse.csc_matrix(np.array([[0, 1.5, 0], [2, 0, 0]])),
    "csr": scipy.sparse.csr_matrix(np.array([[0, 1, 0], [0, 0, 4]], dtype=np.float32)),
    "nested": [{"a": (1, 2.5, "b", None, True)}, {1, 2}, frozenset("ab"), 10**30, -1],
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
}


@pytest.mark.parametrize("protocol", range(6))
def test_reads_what_python_writes(tmp_path, protocol):
    found = pickles.load(written(tmp_path, pickle.dumps(EVERYTHING, protocol)))
    objects = found.pop("objects")
    expected = {k: v for k, v in EVERYTHING.items() if k != "objects"} | {"ordered": {"b": 1, "a": 2}}
    same(found, expected)
    assert objects.dtype == object and objects[:3].tolist() == [[1, 2], "x", None] and objects[3].tolist() == [0, 1, 2]
    found["floats"][0] = 1  # writable, as any array


@pytest.mark.parametrize("protocol", range(3))
def test_reads_what_python_2_wrote(tmp_path, protocol):
    value = {"weights": np.linspace(-1, 1, 7), "f": np.arange(6, dtype=np.uint32).reshape(2, 3), "latin": b"caf\xe9"}
    found = pickles.load(written(tmp_path, python2(value, protocol)))
    same(found, value | {"latin": "café"})


def test_bytes_of_python_3_in_an_old_protocol(tmp_path):
    found = pickles.load(written(tmp_path, pickle.dumps({b"data": b"\x00\xff", b"labels": [1]}, 2)))
    assert found == {b"data": b"\x00\xff", b"labels": [1]}


@pytest.fixture
def chumpy(monkeypatch):
    """A stand-in for the chumpy package, whose objects pickle their attributes and a set of names, as chumpy's do."""

    def make(module, name, **attributes):
        for part in ("chumpy", module):
            if part not in sys.modules:
                monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
                sys.modules[part].__path__ = []
        if not hasattr(sys.modules[module], name):
            setattr(sys.modules[module], name, type(name, (), {"__module__": module}))
        made = getattr(sys.modules[module], name)()
        made.__dict__.update(attributes, _dirty_vars={"x"}, _itr=None, _status="new")
        return made

    return make


@pytest.mark.parametrize("protocol", range(6))
def test_reads_chumpy_without_chumpy(tmp_path, monkeypatch, chumpy, protocol):
    x = np.arange(24.0).reshape(4, 3, 2)
    ch = chumpy("chumpy.ch", "Ch", x=x)
    chosen = np.arange(0, 24, 2)
    select = chumpy("chumpy.reordering", "Select", a=ch, idxs=chosen, preferred_shape=(4, 3))
    other = chumpy("chumpy.ch_ops", "add", a=ch, b=ch)
    write = pickle.dumps if protocol > 2 else python2
    data = write({"shapedirs": ch, "again": ch, "hands": select, "v_posed": other}, protocol)
    for name in [name for name in sys.modules if name.startswith("chumpy")]:
        monkeypatch.delitem(sys.modules, name)
    found = pickles.load(written(tmp_path, data))
    same(found["shapedirs"], x)
    assert found["again"] is found["shapedirs"]
    same(found["hands"], x.ravel()[chosen].reshape(4, 3))
    assert isinstance(found["v_posed"], pickles.Record) and "chumpy.ch_ops.add" in repr(found["v_posed"])
    assert "chumpy" not in sys.modules


class Runs:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_runs(tmp_path, protocol):
    flag = tmp_path / "flag"
    data = pickle.dumps({"v_template": np.zeros(3), "x": Runs(os.system, f"touch {flag}")}, protocol)
    with pytest.raises(InputError, match=r"file\.pkl: this pickle would run `(posix|os|nt)\.system`; right would be"):
        pickles.load(written(tmp_path, data))
    assert not flag.exists()
    pickle.loads(data)
    assert flag.exists()  # it was a real one


@pytest.mark.parametrize(
    "call",
    [
        (eval, "1"),
        (getattr, object, "__subclasses__"),
        (__import__, "os"),
        (np.load, "x"),
        (np.fromfile, "x"),
        (np.lib.format.open_memmap, "x"),
        (type("numpy.core", (), {}), 1),
        (collections.defaultdict, list),
        (scipy.sparse.csc_matrix.__mro__[-1].__subclasses__,),
        (range, 10),
    ],
    ids=lambda call: getattr(call[0], "__name__", "call"),
)
def test_names_beside_the_list_are_refused(tmp_path, call):
    try:
        data = pickle.dumps(Runs(*call))
    except (pickle.PicklingError, AttributeError):
        data = b"ctests\n" + call[0].__name__.encode() + b"\n."
    with pytest.raises(InputError, match="would run"):
        pickles.load(written(tmp_path, data))


def test_dotted_names_lead_nowhere(tmp_path):
    for module, name in [("numpy", "ndarray.tofile"), ("builtins", "set.__class__"), ("chumpy.ch", "Ch.__init__.x")]:
        text = [b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)]
        with pytest.raises(InputError, match="would run"):
            pickles.load(written(tmp_path, b"\x80\x04" + text[0] + text[1] + b"\x93."))


def array_pickle(shape, code, data, *, state=(3, "<", None, None, None, -1, -1, 0), subtype="numpy\nndarray"):
    """A hand-made array, whose parts need not agree."""
    stream = io.BytesIO()
    pickler = pickle._Pickler(stream, 2)
    pickler.fast = True  # no memo
    stream.write(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(c" + subtype.encode() + b"\nK\x00\x85U\x01btR(K\x01")
    pickler.save(shape)
    stream.write(b"cnumpy\ndtype\n(")
    pickler.save(code)
    stream.write(b"K\x00K\x01tR")
    pickler.save(state)
    stream.write(b"b\x89")
    pickler.save(data)
    stream.write(b"tb.")
    return stream.getvalue()


def test_the_hand_made_array_is_one_when_its_parts_agree(tmp_path):
    same(pickles.load(written(tmp_path, array_pickle((2, 2), "f4", "\0" * 16))), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize(
    "data",
    [
        array_pickle((2, 3), "f4", "\0" * 16),  # too few bytes
        array_pickle((1,), "f4", "\0" * 16),  # too many
        array_pickle((2**40,), "f8", "\0"),
        array_pickle((2**63, 2**63), "f8", ""),
        array_pickle((-1, -4), "f4", "\0" * 16),
        array_pickle((4.0,), "f4", "\0" * 16),
        array_pickle([4], "f4", "\0" * 16),
        array_pickle((2**50,), "S0", ""),
        array_pickle((1,), "V4", "\0" * 4),
        array_pickle((1,), "M8[s]", "\0" * 8),
        array_pickle((1,), "f4,f4", "\0" * 8),
        array_pickle((2,), "O8", "\0" * 16),  # pointers made of bytes
        array_pickle((2**40,), "O", [1]),
        array_pickle((4,), "f4", "\0" * 16, state=(3, "x", None, None, None, -1, -1, 0)),
        array_pickle((4,), "f4", "\0" * 16, state=(3, "<", None, ("a",), {"a": 1}, 4, 4, 63)),
        array_pickle((4,), "f4", "\0" * 16, state=(3, "<", ("f4", (1,)), None, None, 4, 4, 0)),
        array_pickle((4,), "f4", "\0" * 16, state=5),
        array_pickle((4,), "f4", ["\0"] * 16),
        array_pickle((4,), "f4", 16),
        array_pickle((1,), 7, "\0"),
        pickle.dumps(Runs(bytes, 2**40)),
        pickle.dumps(Runs(bytearray, 2**40)),
    ],
)
def test_an_array_that_contradicts_itself(tmp_path, data):
    tracemalloc.start()
    with pytest.raises(InputError, match=r"file\.pkl: is no whole pickle of arrays"):
        pickles.load(written(tmp_path, data))
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def test_flags_of_a_type_are_not_believed(tmp_path):
    # Flags that make numpy treat plain floats as object pointers.
    data = array_pickle((2,), "f8", "A" * 16, state=(3, "<", None, None, None, 8, 8, 63))
    found = pickles.load(written(tmp_path, data))
    assert found.dtype == np.float64 and not found.dtype.hasobject and found.dtype.flags == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02N" + b"r\xff\xff\xff\x7f.",  # a memo of 2^31 places
        b"N" + b"p2147483647\n.",
        b"Np-5\n.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # a bytearray of 1 TB
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b".",
        b"\x80\x02B" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x02T" + struct.pack("<i", -1) + b".",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    ],
)
def test_lengths_in_the_file_are_not_believed(tmp_path, data):
    tracemalloc.start()
    with pytest.raises(InputError, match=r"file\.pkl"):
        pickles.load(written(tmp_path, data))
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_one_string_cannot_become_a_thousand_arrays(tmp_path):
    text = b"\x80\x02T" + struct.pack("<i", 2**16) + bytes(2**16) + b"q\x010"
    one = array_pickle((2**16,), "u1", "")[2:-1]
    assert one.endswith(b"X\0\0\0\0tb")
    one = one.removesuffix(b"X\0\0\0\0tb") + b"h\x01tb"
    found = pickles.load(written(tmp_path, text + b"(" + 2 * one + b"t."))
    assert [array.nbytes for array in found] == [2**16, 2**16]
    with pytest.raises(InputError, match="more bytes than it holds"):
        pickles.load(written(tmp_path, text + b"(" + 1000 * one + b"t."))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cut_short_anywhere(tmp_path, protocol):
    data = pickle.dumps({"a": np.arange(5.0), "b": [1, 2, "three"]}, protocol)
    for end in range(len(data)):
        with pytest.raises(InputError, match=r"file\.pkl"):
            pickles.load(written(tmp_path, data[:end]))


def test_any_damaged_byte_is_read_or_refused(tmp_path):
    data = pickle.dumps({"a": np.arange(5.0), "m": scipy.sparse.csc_matrix(np.eye(3)), "s": {1, "x"}}, 2)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(800):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        try:
            pickles.load(written(tmp_path, bytes(damaged)))
        except InputError:
            refused += 1
    assert 150 < refused < 800


@pytest.mark.parametrize("key", ["indices", "indptr", "data", "_shape"])
def test_sparse_matrices_with_indices_outside(tmp_path, key):
    matrix = scipy.sparse.csc_matrix(np.eye(3))
    wrong = {"indices": np.array([0, 1, 2**30], np.int32), "indptr": np.array([0, 1, 2, 99], np.int32)}
    matrix.__dict__[key] = wrong.get(key, np.zeros(2) if key == "data" else (2, 2))
    with pytest.raises(InputError, match="no whole pickle"):
        pickles.load(written(tmp_path, pickle.dumps(matrix)))


def test_lists_that_contain_themselves_and_each_other(tmp_path):
    shared = ["leaf"]
    found = pickles.load(written(tmp_path, pickle.dumps([shared, shared])))
    assert found[0] is found[1]
    for _ in range(60):
        shared = [shared, shared]  # 2^60 leaves for whoever walks over it
    with pytest.raises(InputError, match="its lists hold each other over and over"):
        pickles.load(written(tmp_path, pickle.dumps(shared)))
    loop = []
    loop.append(loop)
    found = pickles.load(written(tmp_path, pickle.dumps(loop)))
    assert found[0] is found
    knot = ([],)
    knot[0].append(knot)
    with pytest.raises(InputError, match="contains itself"):
        pickles.load(written(tmp_path, pickle.dumps(knot)))


def test_nested_too_deeply(tmp_path):
    data = b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"."
    with pytest.raises(InputError, match="nested too deeply"):
        pickles.load(written(tmp_path, data))


def test_a_class_cannot_be_changed_by_a_pickle(tmp_path):
    # BUILD applied to the class itself, with attributes to set on it.
    data = b"\x80\x02cchumpy.ch\nCh\nN}U\x0c__setstate__K\x01s\x86b."
    with pytest.raises(InputError):
        pickles.load(written(tmp_path, data))
    data = b"\x80\x02ccollections\nOrderedDict\nN}U\x0c__setstate__K\x01s\x86b."
    with pytest.raises(InputError):
        pickles.load(written(tmp_path, data))
    assert callable(pickles.Record.__setstate__)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n", b"\x80\x02", b"\x80\xff."])
def test_no_pickle_at_all(tmp_path, data):
    with pytest.raises(InputError, match=r"file\.pkl: is no whole pickle of arrays"):
        pickles.load(written(tmp_path, data))


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        pickles.load(tmp_path / "none.pkl")
    with pytest.raises(InputError, match="cannot be read"):
        pickles.load(tmp_path)
