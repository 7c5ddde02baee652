"""Reading files that nobody vouches for: paths, text, numbers, pictures.

No size, count or path in a file is believed before it is held against the file itself. Whatever is wrong becomes an
`InputError` that names the file, what is wrong in it and what would be right.
"""

import contextlib
import io
import json
import logging
import math
import os
import re
import urllib.parse
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mpcli.errors import InputError
from mpcli.kit.limits import afford
from mpcli.notices import notice

SKIP_MISSING = "@skip-missing"  # behind the folder of a scene: views whose picture is not there are left out

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs it raises too, and is told in our sentence

# Deflate, in PNG as in gzip, cannot shrink anything further than this.
MAX_RATIO = 1032

PICTURES = "PNG, JPEG, BMP, GIF, TIFF, WebP or PPM"
_FORMATS = tuple(PICTURES.upper().replace(" OR", ",").split(", "))

_ORIENTATION = 0x0112  # the EXIF tag
_TURNED = ("JPEG", "WEBP")  # the formats of cameras; Pillow turns TIFF by itself


def no_argument(name: str, argument: str) -> None:
    """Refuse text behind the colon of a dataset that takes none."""
    if argument:
        raise InputError(f"{name}:{argument}: {name} takes nothing behind its name; right would be {name}")


def there(path: Path) -> bool:
    """Whether there is such a file or folder; a name that cannot be one, too long or with a zero byte, is not there."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def near_miss(path: Path) -> Path | None:
    """What is there under nearly this name: other capitals, blanks, slashes, percent signs, another suffix."""
    name = urllib.parse.unquote(str(path).replace("\\", "/")).strip()
    if name != str(path) and there(Path(name)):
        return Path(name)
    try:
        beside = sorted(Path(name).parent.iterdir())
    except (OSError, ValueError):
        return None
    wanted = Path(name).name.lower()
    same = [found for found in beside if found.name.strip().lower() == wanted]
    return next(iter(same or [found for found in beside if wanted and found.stem.lower() == Path(wanted).stem]), None)


def located(name: str, argument: str, *, folder: bool) -> Path:
    """The file or folder behind the colon of a dataset.

    Raises:
        InputError: there is none, or it is of the other kind.
    """
    what = "folder" if folder else "file"
    example = f"{name}:{'DIR' if folder else 'FILE'}"
    if not argument:
        raise InputError(f"{name}: the {what} is missing; right would be {example}")
    path = Path(argument).expanduser()
    if not there(path):
        near = near_miss(path)
        hint = f"did you mean {near}?" if near else f"right would be {example} with an existing {what}"
        raise InputError(f"{path}: there is no such {what}; {hint}")
    if path.is_dir() != folder:
        raise InputError(f"{path}: is a {'file' if folder else 'folder'}; right would be {example} with a {what}")
    return path


def located_with_size(
    name: str, argument: str, *, folder: bool = True, least: int = 1, most: int = 2**14
) -> tuple[Path, int | None]:
    """What is behind the colon, and the number of pixels that may stand behind it: `DIR@SIZE` or `FILE@SIZE`."""
    path, at, size = argument.rpartition("@")
    if not at or there(Path(argument).expanduser()):
        return located(name, argument, folder=folder), None
    if not size.isdecimal() or not least <= int(size) <= most:
        form = f"{name}:{'DIR' if folder else 'FILE'}@64"
        raise InputError(f"{name}:{argument}: {size} is no size; right would be {form}, in pixels")
    return located(name, path, folder=folder), int(size)


def inside(folder: Path, name: str, source: Path) -> Path:
    """The path that `name`, as it stands in `source`, has in `folder`.

    Raises:
        InputError: it leads out of the folder.
    """
    path = folder / name
    if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{source}: refers to {name!r}, outside {folder}; right would be a path inside that folder")
    return path


def read_bytes(path: Path) -> bytes:
    """All of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        afford(path, path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); right would be a readable file") from error


def read_text(path: Path) -> str:
    """All of a UTF-8 text file.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text (byte {error.start}); right would be a UTF-8 text file") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: it cannot be read, is not JSON, or holds something other than an object.
    """
    value = parsed_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a JSON {type(value).__name__}; right would be an object")
    return value


def parsed_json(path: Path) -> Any:
    """Whatever a JSON file holds; a whole number beyond 18 digits becomes a float, which may be infinite.

    Raises:
        InputError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(read_text(path), parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({_reason(error)}); right would be a JSON file") from error


class Npz:
    """The arrays of a .npz file, each read when it is asked for; nothing is unpickled.

    Raises:
        InputError: the file cannot be read, is no .npz, or names a member twice; later, if an array that is asked
            for is damaged, too large, or holds Python objects, which are none of anybody's business until then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        self._members = {member.filename.removesuffix(".npy"): member for member in members}
        if len(self._members) != len(members):
            twice, _ = Counter(member.filename for member in members).most_common(1)[0]
            raise self._wrong(f"it has {twice} twice")

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def __getitem__(self, key: str) -> np.ndarray:
        member = self._members[key]
        with self._opened() as archive, io.BufferedReader(archive.open(member)) as stream:  # type: ignore[type-var]
            return _npy(stream, member.file_size, self.path, f"{self.path}: its {key}")

    def get(self, key: str, default: Any = None) -> Any:
        """The array, or `default` where there is none of that name."""
        return self[key] if key in self._members else default

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except InputError:
            raise
        except Exception as error:  # zipfile, zlib and numpy have many ways of failing on a damaged archive
            raise self._wrong(_reason(error)) from error

    def _wrong(self, reason: str) -> InputError:
        return InputError(f"{self.path}: is no readable .npz ({reason}); right would be what numpy.savez writes")


def read_npz(path: Path) -> Npz:
    """The arrays of a .npz file, each read when it is asked for.

    Raises:
        InputError: as `Npz` says.
    """
    return Npz(path)


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, without unpickling anything.

    Raises:
        InputError: it cannot be read, is no .npy, is cut short, is too large, or holds Python objects.
    """
    try:
        with path.open("rb") as stream:
            return _npy(stream, os.fstat(stream.fileno()).st_size, path, f"{path}: it")
    except InputError:
        raise
    except Exception as error:  # numpy parses the header as Python, which fails in its own ways
        raise InputError(
            f"{path}: is no readable .npy ({_reason(error)}); right would be what numpy.save writes"
        ) from error


def _npy(stream: io.BufferedIOBase, size: int, path: Path, where: str) -> np.ndarray:
    """The array in a stream of `size` bytes, whose header is held against them first."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise InputError(f"{where} holds Python objects, which are not read; right would be an array of numbers")
    follow, wanted = size - stream.tell(), math.prod(shape) * dtype.itemsize
    if follow != wanted or dtype.itemsize == 0 or min(shape, default=1) < 0:
        raise ValueError(f"its header promises {shape} of {dtype}, and {follow} bytes follow")
    afford(path, wanted, "an array")
    body = bytearray(wanted)
    filled = memoryview(body)
    while filled and (count := stream.readinto(filled)):
        filled = filled[count:]
    if filled or stream.read(1):
        raise ValueError(f"it is {len(filled)} bytes short")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def read_numbers(text: str, path: Path, what: str) -> np.ndarray:
    """The numbers of a text, one row a line, as float64 [rows, columns].

    Raises:
        InputError: something is no number, or the rows differ in length.
    """
    if _decimal_commas(text):
        notice(f"{path}: 1,5 is read as 1.5, a comma as the decimal point")
        text = text.replace(",", ".").replace(";", " ")
    text = text.replace(",", " ")
    if not any(line.strip() and not line.lstrip().startswith("#") for line in io.StringIO(text)):
        return np.zeros((0, 0))
    try:
        return np.loadtxt(io.StringIO(text), ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: {error}; right would be {what}") from error


def _decimal_commas(text: str) -> bool:
    """Whether numbers are written 1,5 as in much of Europe: one comma inside a word, several words a line, no point."""
    lines = [line for line in text[:20_000].splitlines()[:100] if line.strip() and not line.lstrip().startswith("#")]
    words = [word for line in lines for word in line.replace(";", " ").split()]
    with_comma = [word for word in words if "," in word]
    return (
        len(words) > len(lines)
        and bool(with_comma)
        and all(re.fullmatch(r"[-+]?\d+,\d+([eE][-+]?\d+)?", word) for word in with_comma)
        and not any("." in word for word in words)
    )


def open_image(path: Path) -> Image.Image:
    """A picture, its size known and its pixels not yet read.

    Raises:
        InputError: it is none, has 32 bits a channel, or claims more pixels than its file can hold.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such picture; right would be an existing {PICTURES} file")
    # Pillow's own limit would warn and then refuse by the number of pixels alone; the one here is that of `afford`.
    pixels, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        image = Image.open(path, formats=_FORMATS)
    except Exception as error:
        raise InputError(f"{path}: is no picture of a known format; right would be {PICTURES}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = pixels
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        image.close()
        raise InputError(f"{path}: has 32 bits a channel; right would be 8 or 16")
    width, height = image.size
    values, most = width * height * len(image.getbands()), MAX_RATIO * 8 * path.stat().st_size
    if image.format in ("PNG", "JPEG") and values > most:
        image.close()
        raise InputError(
            f"{path}: claims {width}x{height} pixels in {path.stat().st_size} bytes; right would be a whole picture"
        )
    try:
        afford(path, 4 * width * height, f"a picture of {width}x{height} pixels")
    except InputError:
        image.close()
        raise
    return image


def upright_size(image: Image.Image, path: Path) -> tuple[int, int]:
    """The (width, height) of a picture when it is turned as its camera noted.

    Raises:
        InputError: the note cannot be read.
    """
    if image.format not in _TURNED:
        return image.size
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:
        raise InputError(f"{path}: has damaged EXIF data ({_reason(error)}); right would be a whole picture") from error
    return (image.height, image.width) if turned else image.size


def one_size(sizes: dict[Path, tuple[int, int]], hint: str = "") -> tuple[int, int]:
    """The (width, height) that all pictures have.

    Raises:
        InputError: one differs from what most of them have.
    """
    (usual, _), *others = Counter(sizes.values()).most_common()
    if others:
        path, (width, height) = next((path, size) for path, size in sizes.items() if size != usual)
        raise InputError(
            f"{path}: is {width}x{height} and most others are {usual[0]}x{usual[1]}; right would be one size{hint}"
        )
    return usual


def read_image(path: Path, mode: str, *, upright: bool = False) -> Image.Image:
    """The picture as "L", "RGB" or "RGBA"; `upright` turns it as its camera noted.

    Where alpha is not asked for, a transparent picture is laid on white. Of 16 bits the upper 8 are
    kept, and of an animation the first frame, which is told.

    Raises:
        InputError: it is no picture of a known format, is damaged, or has 16 bits of which the upper 8 say nothing.
    """
    with open_image(path) as image:
        try:
            if (frames := getattr(image, "n_frames", 1)) > 1:
                notice(f"{path}: has {frames} frames, of which the first is read")
            image.load()
            found = ImageOps.exif_transpose(image) if upright and image.format in _TURNED else image
            if found.mode.startswith("I"):
                numbers = np.asarray(found)
                if 0 < numbers.max() < 256:
                    raise InputError(
                        f"{path}: has 16 bits a channel and nothing above {numbers.max()}, as numbers of objects are "
                        "kept; right would be a picture"
                    )
                found = Image.fromarray((numbers >> 8).astype(np.uint8))
            if has_alpha(found) and mode != "RGBA":
                found = found.convert("RGBA")
                found = Image.alpha_composite(Image.new("RGBA", found.size, "white"), found)
            return found.convert(mode)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path}: is damaged ({_reason(error)}); right would be a whole picture") from error


def planes(image: Image.Image) -> np.ndarray:
    """The bytes [C, H, W] of a picture, as a view."""
    return np.moveaxis(np.atleast_3d(np.asarray(image)), 2, 0)


def is_grey(image: Image.Image) -> bool:
    """Whether a picture has one channel, of as many bits as may be."""
    return image.mode in ("1", "L") or image.mode.startswith("I")


def has_alpha(image: Image.Image) -> bool:
    """Whether a picture has transparency in any of the ways it can have it."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
