"""Arrays to files."""

import time

import numpy as np

from mpcli.kit.arrays import write_npz


def test_the_same_arrays_are_the_same_bytes_at_any_time(tmp_path, monkeypatch):
    arrays = {"x": np.arange(12.0).reshape(3, 4), "word": "neutral", "n": 3}
    write_npz(tmp_path / "a.npz", **arrays)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_npz(tmp_path / "b.npz", **arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = np.load(tmp_path / "a.npz", allow_pickle=False)
    assert np.array_equal(read["x"], arrays["x"])
    assert str(read["word"]) == "neutral"
    assert read["n"] == 3
