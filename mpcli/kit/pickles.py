"""Reading the arrays out of a pickle without executing it.

A pickle is a program: it names functions and calls them with arguments of its own. Here every name that data needs
(numpy arrays, scipy.sparse matrices, chumpy expressions, a few containers) stands for an inert record that only keeps
what it was called with, every other name is refused, and the arrays are built from the records afterwards, with every
shape held against the bytes that are there.

The format: Python's pickletools, which documents each opcode.
"""

import io
import math
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from mpcli.errors import InputError
from mpcli.kit.limits import afford


class Record:
    """An object of a pickle that was not made: the name of its class, its arguments and its state."""

    name = "object"
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> "Record":
        # Not in __init__, which a pickle need not call.
        record = super().__new__(cls)
        record.args = args
        record.state = None
        return record

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<{self.name} from a pickle>"


class _Ordered(dict):
    """Stands for collections.OrderedDict, which a pickle fills by item assignment."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("an OrderedDict with attributes")


_NUMPY = tuple(f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric"))
_BUILTINS = ("object", "set", "frozenset", "bytes", "bytearray")
_KNOWN = {
    *((module, name) for module in _NUMPY for name in ("_reconstruct", "scalar", "_frombuffer")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.matrixlib.defmatrix", "matrix"),
    ("_codecs", "encode"),
    *((module, name) for module in ("copyreg", "copy_reg") for name in ("_reconstructor", "__newobj__")),
    *((module, name) for module in ("builtins", "__builtin__") for name in _BUILTINS),
}
_SPARSE = re.compile(r"scipy\.sparse\.(_?(csc|csr))\.(csc|csr)_(matrix|array)")
_CHUMPY = re.compile(r"(chumpy|ch|chumpy\.\w+)\.\w+")
_PLAIN_DTYPE = re.compile(r"[?bBhHiIlLqQefdFD]|b1|[iu][1248]|f[248]|c(8|16)|[SU][1-9]\d{0,5}|O8?")


def load(path: Path) -> Any:
    """The contents of a pickle as plain Python values, numpy arrays and scipy.sparse matrices.

    Reads pickles of Python 2 (its strings as Latin-1) and 3. A chumpy array gives its values; a chumpy expression of
    another kind stays an inert `Record` with its class's name.

    Raises:
        InputError: the file cannot be read, is no pickle, is cut short, would run code, or contradicts itself.
    """
    try:
        afford(path, path.stat().st_size)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); right would be a readable file") from error
    try:
        _check_sizes(data)
        return _Builder(budget=4 * len(data)).value(_Reader(data).load())
    except _Refused as error:
        raise InputError(
            f"{path}: this pickle would run `{error}`; right would be one that holds only arrays, numbers and text"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply; right would be a flat dictionary of arrays") from error
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: is no whole pickle of arrays ({reason}); right would be one") from error


class _Refused(Exception):
    pass


def _check_sizes(data: bytes) -> None:
    """Walk over the opcodes without acting on them: every length must fit the data, every memo number its place.

    The unpickler itself allocates by both before it reads on.
    """
    position, count = 0, 0
    while position < len(data):
        opcode = _OPCODES.get(data[position])
        if opcode is None:
            raise ValueError(f"byte {position} is no opcode")
        start = position + 1
        position = _end_of_argument(data, start, opcode.arg)
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            argument = data[start:position]
            number = int(argument) if opcode.name == "PUT" else int.from_bytes(argument, "little")
            if not 0 <= number <= count:
                raise ValueError(f"memo number {number} after {count} opcodes")
        if opcode.name == "STOP":
            return
        count += 1
    raise ValueError("cut short")


def _end_of_argument(data: bytes, start: int, argument: pickletools.ArgumentDescriptor | None) -> int:
    if argument is None:
        return start
    if argument.n == pickletools.UP_TO_NEWLINE:
        for _ in range(2 if argument is pickletools.stringnl_noescape_pair else 1):
            newline = data.find(b"\n", start)
            if newline < 0:
                raise ValueError("cut short")
            start = newline + 1
        return start
    if argument.n >= 0:
        end = start + argument.n
    else:
        width = _COUNT_BYTES[argument.n]
        signed = argument.n == pickletools.TAKEN_FROM_ARGUMENT4
        length = int.from_bytes(data[start : start + width], "little", signed=signed)
        if length < 0:
            raise ValueError(f"a length of {length}")
        end = start + width + length
    if end > len(data):
        raise ValueError("cut short")
    return end


_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_COUNT_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        # Classes of this file alone: whatever a pickle could do to one ends with it.
        self.classes: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str, /) -> type:
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return _Ordered
        if (module, name) in _KNOWN or _SPARSE.fullmatch(full) or _CHUMPY.fullmatch(full):
            return self.classes.setdefault(full, type("Record", (Record,), {"name": full}))
        raise _Refused(full)


class _Builder:
    """Turns what the unpickler left into values; each object once, so that sharing stays sharing.

    `budget` bounds the bytes of all arrays: a few opcodes can make another array of the bytes of an earlier one. It
    bounds the entries of what is nested too, counted as if nothing were shared: ten lists of ten lists of ... are short
    here, and endless to whoever walks over them.
    """

    def __init__(self, budget: int) -> None:
        self._done: dict[int, tuple[Any, Any]] = {}
        self._entries: dict[int, int] = {}
        self._budget = budget
        self._most = 16 * budget + 1000

    def spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise ValueError("it asks for more bytes than it holds")

    def value(self, item: Any) -> Any:
        if item is None or isinstance(item, (bool, int, float, complex, str, bytes, bytearray)):
            return item
        if id(item) in self._done:
            result = self._done[id(item)][1]
            if result is _CYCLE:
                raise ValueError("an object that contains itself")
            return result
        # The item is kept beside its value, for an id is only good as long as its object lives.
        if isinstance(item, dict):
            result = {}
            self._done[id(item)] = (item, result)
            result.update((self.value(k), self.value(v)) for k, v in item.items())
        elif isinstance(item, list):
            result = []
            self._done[id(item)] = (item, result)
            result.extend(map(self.value, item))
        elif isinstance(item, (tuple, set, frozenset)):
            self._done[id(item)] = (item, _CYCLE)
            result = type(item)(map(self.value, item))
        elif isinstance(item, Record):
            self._done[id(item)] = (item, _CYCLE)
            result = self.record(item)
        else:
            raise ValueError(f"a {type(item).__name__} where a value was expected")
        self._done[id(item)] = (item, result)
        self._count(item)
        return result

    def _count(self, item: Any) -> None:
        parts = [*item.keys(), *item.values()] if isinstance(item, dict) else item
        if isinstance(item, (dict, list, tuple, set, frozenset)):
            self._entries[id(item)] = 1 + sum(self._entries.get(id(part), 1) for part in parts)
            if self._entries[id(item)] > self._most:
                raise ValueError("its lists hold each other over and over")

    def record(self, item: Record) -> Any:
        module, _, name = item.name.rpartition(".")
        args = item.args
        if name in ("_reconstructor", "__newobj__"):
            item = _renamed(item, _class_name(args[0]))
            module, _, name = item.name.rpartition(".")
            args = ()
        if name == "_reconstruct" or item.name in ("numpy.ndarray", "numpy.matrixlib.defmatrix.matrix"):
            _, shape, dtype, fortran, data = item.state
            return self.array(shape, dtype, data, "F" if fortran else "C")
        if name == "_frombuffer":
            data, dtype, shape, order = args
            return self.array(shape, dtype, data, "F" if order == "F" else "C")
        if name == "scalar" and module.startswith("numpy"):
            dtype, data = args
            return self.array((), dtype, data, "C")[()]
        if item.name == "numpy.dtype":
            return _dtype(item)
        if item.name == "_codecs.encode":
            text, encoding = args
            if encoding != "latin1":
                raise ValueError(f"bytes in the encoding {encoding!r}")
            return text.encode("latin1")
        if name in ("set", "frozenset"):
            return {"set": set, "frozenset": frozenset}[name](*(self.value(a) for a in args[:1]))
        if name in ("bytes", "bytearray"):
            # A number in place of the bytes would ask for so many zeros.
            return {"bytes": bytes, "bytearray": bytearray}[name](b"".join(map(self.value, args)))
        if _SPARSE.fullmatch(item.name):
            return self.sparse(item, name[:3])
        if item.name in ("chumpy.ch.Ch", "chumpy.Ch", "ch.Ch"):
            return np.asarray(self.value(item.state["x"]))
        if item.name == "chumpy.reordering.Select":
            source, index = (np.ravel(self.value(item.state[key])) for key in ("a", "idxs"))
            self.spend(len(index) * source.itemsize)
            chosen = source[index]
            return chosen.reshape(self.value(item.state["preferred_shape"]))
        if _CHUMPY.fullmatch(item.name):
            return item
        raise ValueError(f"a bare {item.name}")

    def array(self, shape: Any, dtype: Any, data: Any, order: Any) -> np.ndarray:
        kind, shape, data = self.value(dtype), self.value(shape), self.value(data)
        if not isinstance(kind, np.dtype):
            raise ValueError("an array without a type")
        if not isinstance(shape, tuple) or len(shape) > 32 or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError("an array without a shape")
        count = math.prod(shape)
        self.spend(count * kind.itemsize)
        if kind.hasobject:
            if not isinstance(data, list) or len(data) != count:
                raise ValueError(f"an array of shape {shape} without its {count} objects")
            objects = np.empty(count, object)
            for i, entry in enumerate(data):
                objects[i] = entry
            return objects.reshape(shape, order=order)
        # A Python 2 string was read as Latin-1: one character a byte.
        raw = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(raw, (bytes, bytearray)) or len(raw) != count * kind.itemsize:
            raise ValueError(f"an array of shape {shape} and type {kind} whose bytes do not fit")
        return np.frombuffer(raw, kind).reshape(shape, order=order).copy(order=order)

    def sparse(self, item: Record, layout: str) -> Any:
        import scipy.sparse

        state = self.value(item.state)
        parts = tuple(state[key] for key in ("data", "indices", "indptr"))
        shape = state["_shape"] if "_shape" in state else state["shape"]
        self.spend(sum(part.nbytes for part in parts))
        kind = {"csc": scipy.sparse.csc_matrix, "csr": scipy.sparse.csr_matrix}[layout]
        matrix = kind(parts, shape=shape)
        # scipy's compiled loops follow the indices without looking.
        matrix.check_format(full_check=True)
        return matrix


_CYCLE = object()


def _class_name(item: Any) -> str:
    if not (isinstance(item, type) and issubclass(item, Record)):
        raise ValueError("an object without a class")
    return item.name


def _renamed(item: Record, name: str) -> Record:
    record = type("Record", (Record,), {"name": name})()
    record.state = item.state
    return record


def _dtype(item: Record) -> np.dtype:
    code = item.args[0]
    if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
        raise ValueError(f"an array of type {code!r}")
    if code.startswith("O"):
        return np.dtype(object)
    order = "="
    if item.state is not None:
        _, order, subarray, names, fields = item.state[:5]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in (subarray, names, fields)):
            raise ValueError("an array of records")
    return np.dtype(code).newbyteorder(cast(Literal["<", ">", "=", "|"], order))
