"""Readers of data raise InputError alone: 300 damaged files each, and those that once ended otherwise."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[2] / "tools" / "fuzz.py")
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)

READERS = {reader.name: reader for reader in fuzz.readers()}


@pytest.mark.parametrize("seed", (0, 100, 200))
@pytest.mark.parametrize("name", READERS)
def test_100_damaged_files(name, seed, tmp_path):
    READERS[name].read(_whole(READERS[name], tmp_path))  # what is not damaged is read
    assert [f"seed {number}: {error!r}" for number, error in fuzz.fuzz(READERS[name], tmp_path, 100, seed)] == []


def test_an_exception_of_another_kind_is_found(tmp_path):
    def read(folder):
        (folder / "a").read_bytes().decode()

    reader = fuzz.Reader("a", {"a": "äöü".encode() * 9}, "a", read)
    found = [type(error) for _, error in fuzz.fuzz(reader, tmp_path, 20)]
    assert found and set(found) == {UnicodeDecodeError}


def _whole(reader, folder):
    for name, data in reader.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
