"""Pictures: the values and splits that the readers promise, real files, and every way a file can be wrong."""

import functools
import gzip
import os
import pickle
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mpcli.errors import InputError
from mpcli.kit import datasets
from mpcli.kit.datasets import cache, folder
from mpcli.kit.datasets.files import read_image, read_npy, read_npz
from mpcli.notices import Notice


def everything(images):
    return torch.cat([part[:] for part in images.parts().values()])


def test_digits_are_scikit_learns_in_the_promised_order():
    from sklearn.datasets import load_digits

    digits, data = datasets.load("digits", datasets.Images), load_digits()
    order = np.random.RandomState(0).permutation(1797)
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1197, 300, 300)
    together = everything(digits)
    np.testing.assert_allclose(together[:, 0].numpy() * 16, data.images[order])
    labels = torch.cat(list(digits.labels.parts().values()))
    np.testing.assert_array_equal(labels, data.target[order])
    assert digits.levels == 17 and digits.shape == (1, 8, 8) and digits.classes == tuple("0123456789")
    assert digits.train.values.dtype == torch.uint8 and torch.equal(digits.train[:] * 16, digits.train.values.float())
    assert digits.describe() == "digits: 1197 train, 300 validation, 300 test images of 1x8x8"
    with pytest.raises(InputError, match="digits:3: digits takes nothing behind its name"):
        datasets.load("digits:3", datasets.Images)


def test_faces_come_with_scikit_image(monkeypatch):
    import socket

    def refuse(*_):
        raise AssertionError("a dataset that comes with the package asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    faces = datasets.load("faces", datasets.Images)
    assert (len(faces.train), len(faces.validation), len(faces.test)) == (80, 10, 10)
    assert faces.shape == (1, 25, 25) and faces.labels is None
    # Faces are alike: their mean explains much of them, as it would not of the background behind them in the array.
    assert float((faces.train[:].mean(0) - 0.5).std()) > 0.1
    assert len(everything(faces).unique(dim=0)) == 100


# IDX


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(folder, packed=True, n=24, m=6, names=("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")):
    random = np.random.RandomState(0)
    parts = {}
    for name, count in zip(names, (n, m), strict=True):
        parts[name] = random.randint(256, size=(count, 5, 4)).astype(np.uint8)
        parts[name.replace("images", "labels").replace("idx3", "idx1")] = (np.arange(count) % 7).astype(np.uint8)
    for name, values in parts.items():
        data = idx(values)
        (folder / (name + packed * ".gz")).write_bytes(gzip.compress(data) if packed else data)
    return parts


@pytest.mark.parametrize("packed", [True, False])
def test_idx_values_and_split(tmp_path, packed):
    parts = write_mnist(tmp_path, packed)
    images = datasets.load(f"mnist:{tmp_path}", datasets.Images)
    pictures = parts["train-images-idx3-ubyte"]
    np.testing.assert_array_equal(images.train.values[:, 0], pictures[:22])
    np.testing.assert_array_equal(images.validation.values[:, 0], pictures[22:])
    np.testing.assert_array_equal(images.test.values[:, 0], parts["t10k-images-idx3-ubyte"])
    assert images.labels.train.tolist() == [i % 7 for i in range(22)] and images.labels.validation.tolist() == [1, 2]
    assert images.classes == tuple("0123456") and images.levels == 256


def test_idx_files_are_found_by_what_they_are(tmp_path):
    write_mnist(tmp_path, names=("train-all-images.idx3-ubyte", "t10k-first5000-images-idx3-ubyte"))
    (tmp_path / "t10k-first5000-images-idx3-ubyte").write_bytes(idx(np.zeros((6, 5, 4), np.uint8)))
    images = datasets.load(f"mnist:{tmp_path}", datasets.Images)
    assert len(images.test) == 6 and images.test[:].max() == 0  # the unpacked one of the two was read
    write_mnist(tmp_path, packed=False, names=("train-other-images-idx3-ubyte", "t10k-x-images-idx3-ubyte"))
    with pytest.raises(InputError, match=r"has train-all-images.idx3-ubyte and train-other-images-idx3-ubyte; right"):
        datasets.load(f"mnist:{tmp_path}", datasets.Images)


def test_emnist_is_turned_upright(tmp_path):
    parts = write_mnist(
        tmp_path, names=("emnist-letters-train-images-idx3-ubyte", "emnist-letters-test-images-idx3-ubyte")
    )
    images = datasets.load(f"mnist:{tmp_path}", datasets.Images)
    pictures = parts["emnist-letters-train-images-idx3-ubyte"]
    np.testing.assert_array_equal(images.train.values[:, 0], pictures[:22].swapaxes(1, 2))
    assert images.shape == (1, 4, 5) and len(images.test) == 6


def test_idx_files_in_folders_of_their_names(tmp_path):
    parts = write_mnist(tmp_path, packed=False)
    for name in parts:
        (tmp_path / name).rename(tmp_path / "file")
        (tmp_path / name).mkdir()
        (tmp_path / "file").rename(tmp_path / name / name)
    images = datasets.load(f"mnist:{tmp_path}", datasets.Images)
    np.testing.assert_array_equal(images.test.values[:, 0], parts["t10k-images-idx3-ubyte"])
    for name in parts:  # and once more beside them, as Kaggle has it
        shutil.copy(tmp_path / name / name, tmp_path / name.replace("-idx", ".idx"))
    assert len(datasets.load(f"mnist:{tmp_path}", datasets.Images).train) == 22


def test_real_mnist(shared_data):
    images = datasets.load(f"mnist:{shared_data / 'mnist'}", datasets.Images)
    assert (len(images.train), len(images.validation), len(images.test)) == (55000, 5000, 5000)
    assert images.shape == (1, 28, 28)
    # The mean and deviation that everybody normalises by.
    known = torch.cat([images.train[:], images.validation[:]])
    assert abs(float(known.mean()) - 0.1307) < 1e-4 and abs(float(known.std()) - 0.3081) < 1e-4
    assert images.labels.train[:5].tolist() == [5, 0, 4, 1, 9] and images.labels.test[:4].tolist() == [7, 2, 1, 0]
    assert torch.bincount(torch.cat([images.labels.train, images.labels.validation])).tolist()[0] == 5923


TRAIN = "train-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:-1], r"promises 24 x 5 x 4 values and has fewer"),
        (lambda d: d[:9], "promises more values and has fewer"),
        (lambda d: d[:2], r"begins with 0000; right would be 00000803"),
        (lambda d: b"", "begins with ; right would be 00000803"),
        (lambda d: d + b"\0", "promises 24 x 5 x 4 values and has more"),
        (lambda d: b"\x89PNG" + d[4:], "begins with 89504e47; right would be 00000803"),
        (lambda d: b"\0\0\x0d\x03" + d[4:], "begins with 00000d03"),
        (lambda d: b"\0\0\x08\x01" + d[4:], "begins with 00000801"),
        (lambda d: d[:4] + b"\xff" * 12 + d[16:], "promises 4294967295 x 4294967295 x 4294967295 values and has fewer"),
        (lambda d: d[:4] + struct.pack(">3I", 2**32 - 1, 5, 4) + d[16:], "values and has fewer"),
        (lambda d: d[:4] + struct.pack(">3I", 24, 5, 0), r"pictures"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_idx_that_is_wrong(tmp_path, change, message, packed):
    data = idx(write_mnist(tmp_path, packed)[TRAIN])
    path = tmp_path / (TRAIN + packed * ".gz")
    path.write_bytes(gzip.compress(change(data)) if packed else change(data))
    with pytest.raises(InputError, match=message):
        datasets.load(f"mnist:{tmp_path}", datasets.Images)


def test_gzip_cut_short_or_damaged(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / f"{TRAIN}.gz"
    whole = path.read_bytes()
    for end in (3, 30, len(whole) - 9, len(whole) - 3):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=rf"{TRAIN}\.gz: (its gzip data is damaged|begins with)"):
            datasets.load(f"mnist:{tmp_path}", datasets.Images)
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 255]) + whole[41:])
    with pytest.raises(InputError, match="its gzip data is damaged"):
        datasets.load(f"mnist:{tmp_path}", datasets.Images)


def test_idx_labels_and_pictures_must_match(tmp_path):
    write_mnist(tmp_path, packed=False)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(23, np.uint8)))
    with pytest.raises(InputError, match="train-labels-idx1-ubyte: has 23 labels for 24 pictures"):
        datasets.load(f"mnist:{tmp_path}", datasets.Images)
    labels.unlink()
    with pytest.raises(InputError, match=r"has no file train\*labels-idx1-ubyte, gzipped or not"):
        datasets.load(f"mnist:{tmp_path}", datasets.Images)
    write_mnist(tmp_path, packed=False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((6, 4, 4), np.uint8)))
    with pytest.raises(InputError, match="train are 4x5 and those of t10k 4x4"):
        datasets.load(f"mnist:{tmp_path}", datasets.Images)
    write_mnist(tmp_path, packed=False, n=11)
    with pytest.raises(InputError, match="11 training pictures are too few"):
        datasets.load(f"mnist:{tmp_path}", datasets.Images)


# CIFAR


def write_cifar(folder, binary, n=20, batches=2, test=True):
    random = np.random.RandomState(0)
    made = []
    for name in [f"data_batch_{i + 1}" for i in range(batches)] + ["test_batch"] * test:
        pixels, labels = random.randint(256, size=(n, 3072)).astype(np.uint8), random.randint(10, size=n)
        if binary:
            data = np.concatenate([labels[:, None].astype(np.uint8), pixels], 1).tobytes()
        else:
            data = pickle.dumps({b"data": pixels, b"labels": labels.tolist(), b"filenames": [b"x.png"] * n}, 2)
        (folder / (name + binary * ".bin")).write_bytes(data)
        made.append((pixels, labels))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    if binary:
        (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    else:
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    return np.concatenate([m[0] for m in made]), np.concatenate([m[1] for m in made])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("test", [True, False])
def test_cifar_values_and_split(tmp_path, binary, test):
    pixels, labels = write_cifar(tmp_path, binary, test=test)
    images = datasets.load(f"cifar10:{tmp_path}", datasets.Images)
    sizes = [len(images.train), len(images.validation), len(images.test)]
    assert sizes == ([36, 4, 20] if test else [32, 4, 4])
    together = everything(images)
    # Written class by class, one file would leave whole classes out of training.
    order = np.arange(60) if test else np.random.RandomState(0).permutation(40)
    pixels, labels = pixels[order], labels[order]
    np.testing.assert_array_equal((together * 255).round().byte().reshape(-1, 3072), pixels)
    assert torch.cat(list(images.labels.parts().values())).tolist() == labels.tolist()
    assert images.classes[3] == "cat" and len(images.classes) == 10
    # Planes of red, green and blue, row by row.
    assert float(images.train[0, 1, 2, 3]) == pytest.approx(pixels[0, 1024 + 2 * 32 + 3] / 255)


def test_real_pictures_in_the_cifar_layout(shared_data):
    images = datasets.load(f"cifar10:{shared_data / 'cifar-layout'}", datasets.Images)
    assert (len(images.train), len(images.validation), len(images.test)) == (969, 120, 120)
    assert images.shape == (3, 32, 32) and images.classes[0] == "Activities" and len(images.classes) == 8
    # Emoji lie on one background: the corners are alike, the middles are not.
    assert float(images.train[:, :, 0, 0].std()) < 0.2 < float(images.train[:, :, 16, 16].std())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [1]}, r"has no data of bytes \[N, 3072\]"),
        ({"data": np.zeros((2, 3072)), "labels": [1, 2]}, "has no data of bytes"),
        ({"data": np.zeros((2, 3000), np.uint8), "labels": [1, 2]}, "has no data of bytes"),
        ({"data": np.zeros(3072, np.uint8), "labels": [1]}, "has no data of bytes"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "has no list of 2 labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, -1]}, "has no list of 2 labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, "2"]}, "has no list of 2 labels"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "has no list of 2 labels"),
        ([1, 2], "holds a list; right would be a dictionary"),
        ({"data": print}, r"this pickle would run `builtins\.print`"),
    ],
)
def test_cifar_pickle_that_is_wrong(tmp_path, content, message):
    write_cifar(tmp_path, binary=False)
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=rf"data_batch_2: {message}"):
        datasets.load(f"cifar10:{tmp_path}", datasets.Images)


def test_cifar_files_that_are_wrong(tmp_path):
    with pytest.raises(InputError, match="has no data_batch_"):
        datasets.load(f"cifar10:{tmp_path}", datasets.Images)
    write_cifar(tmp_path, binary=True)
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"data_batch_1.bin: has 61455 bytes; right would be 3073"):
        datasets.load(f"cifar10:{tmp_path}", datasets.Images)
    path.write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(InputError, match="has 10 classes and the label 11"):
        datasets.load(f"cifar10:{tmp_path}", datasets.Images)


# Folders


def picture(path, size=(6, 4), mode="RGB", seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.RandomState(seed).randint(256, size=(size[1], size[0], channels)).astype(np.uint8)
    Image.fromarray(values if channels > 1 else values[:, :, 0], mode=None).save(path, **options)
    return values


def test_a_folder_of_pictures(tmp_path):
    written = [picture(tmp_path / f"{i:02d}.png", seed=i) for i in range(20)]
    picture(tmp_path / ".hidden.png", size=(1, 1))
    (tmp_path / "readme.txt").write_text("not a picture")
    images = datasets.load(f"images:{tmp_path}", datasets.Images)
    assert (len(images.train), len(images.validation), len(images.test)) == (16, 2, 2)
    order = np.random.RandomState(0).permutation(20)
    together = everything(images)
    expected = np.stack([written[i] for i in order]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal((together * 255).round().byte(), expected)
    assert images.shape == (3, 4, 6) and images.labels is None and images.classes == ()
    assert torch.equal(datasets.load(str(tmp_path), datasets.Images).train[:], images.train[:])


def test_classes_may_lie_in_other_folders(tmp_path):
    for number in range(12):
        folder = tmp_path / ("Greek", "Latin")[number % 2] / f"character0{number // 2 % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(folder / f"{number}.png")
    given = datasets.load(f"images:{tmp_path}", datasets.Images)
    assert given.classes == ("Greek/character00", "Greek/character01", "Latin/character00", "Latin/character01")
    for part, labels in zip(given.parts().values(), given.labels.parts().values(), strict=True):
        for image, label in zip(part[:], labels, strict=True):
            number = round(float(image[0, 0, 0]) * 255)
            assert int(label) == 2 * (number % 2) + number // 2 % 2


def test_subfolders_are_classes(tmp_path):
    for i in range(12):
        picture(tmp_path / ("cat" if i % 3 else "dog") / f"{i}.png", mode="L", seed=i)
    images = datasets.load(f"images:{tmp_path}", datasets.Images)
    assert images.classes == ("cat", "dog") and images.shape == (1, 4, 6)
    labels = torch.cat(list(images.labels.parts().values()))
    together = everything(images)
    for label, pixels in zip(labels, together, strict=True):
        sources = [tmp_path / images.classes[label] / f"{i}.png" for i in range(12)]
        found = [np.array(Image.open(path)) for path in sources if path.exists()]
        assert any(np.array_equal((pixels[0] * 255).round().byte(), values) for values in found)


def test_a_split_in_the_folder_is_kept(tmp_path):
    for part, n in [("train", 8), ("val", 2), ("test", 3)]:
        for i in range(n):
            picture(tmp_path / part / "ab"[i % 2] / f"{i}.png", seed=i)
    images = datasets.load(f"images:{tmp_path}", datasets.Images)
    assert (len(images.train), len(images.validation), len(images.test)) == (8, 2, 3)
    assert images.labels.test.tolist() == [0, 0, 1] and images.classes == ("a", "b")
    for path in (tmp_path / "val").rglob("*.png"):
        path.unlink()
    images = datasets.load(f"images:{tmp_path}", datasets.Images)
    assert (len(images.train), len(images.validation), len(images.test)) == (7, 1, 3)
    picture(tmp_path / "test" / "new" / "x.png")
    with pytest.raises(InputError, match=r"x\.png: is in none of the classes of train; right would be a, b"):
        datasets.load(f"images:{tmp_path}", datasets.Images)


def test_grey_colour_and_transparency_come_together(tmp_path):
    picture(tmp_path / "0.png", mode="L")
    grey = datasets_of(tmp_path, picture(tmp_path / "1.png", mode="L"), picture(tmp_path / "2.png", mode="L"))
    assert grey.shape == (1, 4, 6)
    picture(tmp_path / "2.jpg", mode="RGB")
    assert datasets_of(tmp_path).shape == (3, 4, 6)
    Image.new("RGBA", (6, 4), (10, 20, 30, 0)).save(tmp_path / "3.png")  # fully transparent: white
    Image.new("P", (6, 4), 5).save(tmp_path / "4.png")
    images = datasets_of(tmp_path)
    together = everything(images)
    assert (together == 1).flatten(1).all(1).sum() == 1


def datasets_of(folder, *_):
    return datasets.load(f"images:{folder}", datasets.Images)


def test_a_photograph_is_turned_as_its_camera_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for i in range(3):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{i}.jpg", exif=exif)
    assert datasets.load(f"images:{tmp_path}", datasets.Images).shape == (3, 20, 10)


def test_cutting_and_scaling(tmp_path):
    for i in range(4):
        picture(tmp_path / f"{i}.png", size=(31 if i == 2 else 30, 20))
    with pytest.raises(InputError, match=r"2\.png: is 31x20 and most others are 30x20; right would be one size, or im"):
        datasets.load(f"images:{tmp_path}", datasets.Images)
    assert datasets.load(f"images:{tmp_path}@8", datasets.Images).shape == (3, 8, 8)
    assert datasets.load(f"{tmp_path}@8", datasets.Images).shape == (3, 8, 8)
    for size in ("0", "x", "99999", "-3", ""):
        with pytest.raises(InputError, match=rf"{size} is no size; right would be images:DIR@64"):
            datasets.load(f"images:{tmp_path}@{size}", datasets.Images)
    # A white square in the middle of black stays white: what is cut is the middle.
    for i in range(4):
        canvas = np.zeros((20, 60), np.uint8)
        canvas[:, 10:50] = 255
        Image.fromarray(canvas).save(tmp_path / f"{i}.png")
    assert float(datasets.load(f"images:{tmp_path}@8", datasets.Images).train[:].min()) > 0.99


@pytest.fixture
def small_memory(tmp_path_factory, monkeypatch):
    """A machine whose memory would be full of four pictures of 6x4 in RGB; the folder of its cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MPCLI_CACHE", str(folder))
    monkeypatch.setattr(cache, "free_memory", lambda: 4 * 72)
    return folder


def cached(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_pictures_that_memory_should_not_hold_stay_on_disk(tmp_path, small_memory, monkeypatch):
    for i in range(20):
        picture(tmp_path / "ab"[i % 2] / f"{i:02d}.png", seed=i)
    on_disk = datasets.load(str(tmp_path), datasets.Images)
    (file,) = cached(small_memory)
    assert file.stat().st_size == 64 + 20 * 72
    with monkeypatch.context() as patch:
        patch.setattr(cache, "free_memory", lambda: 10**9)
        in_memory = datasets.load(str(tmp_path), datasets.Images)
    assert torch.equal(everything(on_disk), everything(in_memory)) and on_disk.classes == in_memory.classes
    assert torch.equal(on_disk.labels.test, in_memory.labels.test)
    for step in range(3):
        assert torch.equal(on_disk.batches(5, 0)(step), in_memory.batches(5, 0)(step))
    # It is the file that is read, not a copy of it; and what is done to the tensor does not reach it.
    on_disk.train.values[0] = 7
    assert torch.equal(everything(datasets.load(str(tmp_path), datasets.Images)), everything(in_memory))
    with file.open("r+b") as opened:
        opened.seek(64)
        opened.write(bytes([1, 2, 3]))
    assert datasets.load(str(tmp_path), datasets.Images).train.values.flatten()[:3].tolist() == [1, 2, 3]


def test_pictures_on_disk_are_decoded_once_and_again_when_a_file_changes(tmp_path, small_memory, monkeypatch):
    for i in range(20):
        picture(tmp_path / f"{i:02d}.png", seed=i)
    before, read = everything(datasets.load(str(tmp_path), datasets.Images)), []
    monkeypatch.setattr(
        folder, "read_image", lambda path, *_, **more: read.append(path) or read_image(path, *_, **more)
    )
    assert torch.equal(everything(datasets.load(str(tmp_path), datasets.Images)), before) and not read
    picture(tmp_path / "03.png", seed=99)
    os.utime(tmp_path / "03.png", ns=(0, 0))
    after = everything(datasets.load(str(tmp_path), datasets.Images))
    assert len(read) == 20 and (after != before).flatten(1).any(1).sum() == 1
    assert datasets.load(f"{tmp_path}@3", datasets.Images).shape == (3, 3, 3) and len(cached(small_memory)) == 3


def test_decoding_a_folder_shows_how_far_it_is(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(folder, "watched", lambda items, what: (seen.append((len(items), what)), items)[1])
    for number in range(5):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(tmp_path / f"{number}.png")
    datasets.load(f"images:{tmp_path}", datasets.Images)
    assert seen == [(5, "decoding pictures")]


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[:-1], lambda whole: whole + b"x", lambda whole: b"", lambda whole: b"x" + whole[1:]],
    ids=["cut short", "longer", "empty", "foreign"],
)
def test_a_damaged_file_of_pictures_is_made_again(tmp_path, small_memory, damage):
    for i in range(20):
        picture(tmp_path / f"{i:02d}.png", seed=i)
    before = everything(datasets.load(str(tmp_path), datasets.Images))
    (file,) = cached(small_memory)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert torch.equal(everything(datasets.load(str(tmp_path), datasets.Images)), before)
    assert file.read_bytes() == whole and cached(small_memory) == [file]


def test_a_picture_that_is_damaged_leaves_nothing_behind(tmp_path, small_memory):
    for i in range(20):
        picture(tmp_path / f"{i:02d}.png", seed=i)
    path = tmp_path / "07.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"07\.png: is damaged"):
        datasets.load(str(tmp_path), datasets.Images)
    assert cached(small_memory) == []


def test_a_cache_that_cannot_be_written(tmp_path, small_memory, monkeypatch):
    for i in range(20):
        picture(tmp_path / f"{i:02d}.png", seed=i)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MPCLI_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        InputError, match=r"cannot be written \(Not a directory\); right would be a folder with .* in MPC"
    ):
        datasets.load(str(tmp_path), datasets.Images)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    for name, value, expected in [
        ("MPCLI_CACHE", "", "/home/ada/.cache/mpcli"),
        ("XDG_CACHE_HOME", "/c", "/c/mpcli"),
        ("MPCLI_CACHE", "~/here", "/home/ada/here"),
    ]:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv(name, value)
        assert str(cache.folder()) == expected
    assert cache.free_memory() > 2**20


def test_real_pictures(shared_data):
    images = datasets.load(f"images:{shared_data / 'nuclei-dsb2018' / 'images'}", datasets.Images)
    assert (len(images.train), len(images.validation), len(images.test)) == (64, 8, 8)
    assert images.shape[1:] == (256, 256) and images.train.values.min() < images.train.values.max()
    with pytest.raises(InputError, match=r"16 bits a channel and nothing above \d+, as numbers of objects are"):
        # Numbers of objects as uint16.
        datasets.load(f"images:{shared_data / 'nuclei-dsb2018' / 'instances'}", datasets.Images)


def png(width, height, body):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: b"hello", "is no picture of a known format; right would be PNG, JPEG"),
        (lambda whole: b"", "is no picture"),
        (lambda whole: b"GIF89a" + whole[6:], "(is no picture|is damaged|a picture of)"),
        (lambda whole: whole[: len(whole) // 2], "is damaged"),
        (lambda whole: whole[:20], "is no picture"),
        (lambda whole: whole[:60] + b"\xff" * 30 + whole[90:], "is damaged"),
        (lambda whole: png(6, 4, zlib.compress(bytes(5))), "is damaged"),
        (lambda whole: png(60000, 60000, zlib.compress(bytes(5))), "(claims 60000x60000 pixels|is no picture)"),
        (lambda whole: png(8000, 8000, zlib.compress(bytes(5))), "claims 8000x8000 pixels in"),
    ],
)
def test_a_png_that_is_none(tmp_path, content, message):
    for i in range(5):
        picture(tmp_path / f"{i}.png", seed=i)
    path = tmp_path / "2.png"
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(InputError, match=rf"2\.png: {message}"):
        datasets.load(f"images:{tmp_path}", datasets.Images)


def test_folders_that_are_wrong(tmp_path):
    with pytest.raises(InputError, match="has no picture; right would be PNG, JPEG"):
        datasets.load(f"images:{tmp_path}", datasets.Images)
    picture(tmp_path / "0.png")
    with pytest.raises(InputError, match="1 pictures are too few"):
        datasets.load(f"images:{tmp_path}", datasets.Images)
    picture(tmp_path / "inner" / "1.png")
    with pytest.raises(InputError, match=r"has pictures both beside and in subfolders \(0\.png, inner/1\.png\)"):
        datasets.load(f"images:{tmp_path}", datasets.Images)


# Arrays


def test_arrays_are_read_back(tmp_path):
    values = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.ones((2, 3), np.int16)), "c": np.array("x")}
    for name, save in (("plain", np.savez), ("packed", np.savez_compressed)):
        save(tmp_path / f"{name}.npz", **values)
        found = read_npz(tmp_path / f"{name}.npz")
        assert list(found) == ["a", "b", "c"]
        for key, value in values.items():
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == value.dtype
    np.save(tmp_path / "a.npy", values["a"])
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), values["a"])


def test_arrays_that_are_wrong(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(100), b=np.array([{}], dtype=object))
    found = read_npz(path)  # what nobody asks for does no harm
    assert list(found) == ["a", "b"] and not found["a"].any()
    with pytest.raises(InputError, match=r"a\.npz: its b holds Python objects, which are not read; right would be"):
        found["b"]
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a.npy", b"")
    with pytest.raises(InputError, match=r"a\.npz: is no readable \.npz \(it has a\.npy twice\)"):
        read_npz(path)
    np.savez(path, a=np.zeros(100))
    whole = path.read_bytes()
    for end in (0, 10, 400, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"a\.npz: is no readable \.npz"):
            read_npz(path)["a"]
    array = tmp_path / "a.npy"
    np.save(array, np.zeros(100))
    whole = array.read_bytes()
    for wrong in (whole[:-1], whole + b"x", whole[:20], b"", whole.replace(b"(100,)", b"(2**9)"), b"hello"):
        array.write_bytes(wrong)
        with pytest.raises(InputError, match=r"a\.npy: is no readable \.npy"):
            read_npy(array)
    array.write_bytes(whole.replace(b"(100,), }      ", b"(10000000000,)}"))
    with pytest.raises(InputError, match=r"promises \(10000000000,\) of float64, and 800 bytes follow"):
        read_npy(array)


def test_sizes_are_held_against_the_limit_before_they_are_paid_for(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(40_000))
    np.save(tmp_path / "a.npy", np.zeros(40_000))
    Image.new("1", (1000, 1000)).save(tmp_path / "a.png")
    assert len(read_npz(tmp_path / "a.npz")["a"]) == len(read_npy(tmp_path / "a.npy")) == 40_000
    monkeypatch.setenv("MPCLI_MAX_BYTES", "200000")
    readers = (lambda path: read_npz(path)["a"], read_npy, functools.partial(read_image, mode="L"))
    for name, read in zip(("a.npz", "a.npy", "a.png"), readers, strict=True):
        with pytest.raises(InputError, match=rf"{name}: .* asks for \d+ bytes of memory and the limit is 200000"):
            read(tmp_path / name)
    monkeypatch.setenv("MPCLI_MAX_BYTES", "much")
    with pytest.raises(InputError, match="MPCLI_MAX_BYTES: 'much' is no number of bytes"):
        read_npy(tmp_path / "a.npy")


def test_pictures_of_other_formats_are_counted_and_told(tmp_path):
    for i in range(12):
        picture(tmp_path / ("cats" if i < 6 else "dogs") / f"{i}.png")
    (tmp_path / "birds").mkdir()
    for i in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / "birds" / f"{i}.tga")
    with pytest.warns(Notice, match=r"3 pictures \(\.tga\) are left out"):
        assert datasets.load(f"images:{tmp_path}", datasets.Images).classes == ("cats", "dogs")


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".webp", ".ppm", ".gif"])
def test_other_formats_of_pictures(tmp_path, suffix):
    stack = np.random.RandomState(0).randint(256, size=(6, 4, 5, 3)).astype(np.uint8)
    for i, values in enumerate(stack):
        Image.fromarray(values).save(tmp_path / f"{i}{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    found = everything(datasets.load(f"images:{tmp_path}", datasets.Images)) * 255
    expected = torch.from_numpy(stack).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(found[found[:, 0, 0, 0].argsort()], expected[expected[:, 0, 0, 0].argsort()])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_of_grey(tmp_path, suffix):
    values = np.linspace(0, 65535, 20).reshape(4, 5).astype(np.uint16)
    for i in range(4):
        if suffix == ".pgm":
            (tmp_path / f"{i}.pgm").write_bytes(b"P5 5 4 65535\n" + values.astype(">u2").tobytes())
        else:
            Image.fromarray(values).save(tmp_path / f"{i}{suffix}")
    images = datasets.load(f"images:{tmp_path}", datasets.Images)
    assert images.shape == (1, 4, 5)
    np.testing.assert_array_equal(images.train.values[0, 0], values >> 8)
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "0.tif")
    (tmp_path / "0.png").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"0\.tif: has 32 bits a channel; right would be 8 or 16"):
        datasets.load(f"images:{tmp_path}", datasets.Images)


def test_of_an_animation_the_first_frame_is_read_and_told(tmp_path):
    frames = [Image.new("L", (4, 4), shade) for shade in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(Notice, match=r"a\.gif: has 2 frames, of which the first is read"):
        assert np.asarray(read_image(tmp_path / "a.gif", "L")).max() == 10
