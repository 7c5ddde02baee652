"""What a run writes for people: tables, figures, the heading of a picture, curves."""

import csv
import json
import warnings
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from toy import TRAINER

from mpcli import curves, store
from mpcli.errors import InputError
from mpcli.run import Run, Trained


@pytest.fixture
def toy(book):
    return book(toy=TRAINER)


def drawing(height: float = 1.0) -> Figure:
    figure = Figure((2, 1))
    figure.subplots().plot([0, height])
    return figure


def test_a_table_holds_the_numbers_exactly(tmp_path):
    run = Run(tmp_path)
    path = run.table("a/t.csv", ["x", "y"], [[np.float32(0.1), torch.tensor(2)], [0.1, "two, three"]])
    assert path.read_bytes() == b'x,y\n0.10000000149011612,2\n0.1,"two, three"\n'
    assert list(csv.reader(path.read_text().splitlines()))[2] == ["0.1", "two, three"]
    assert run.artifacts == [path]
    with pytest.raises(InputError, match=r"\.csv"):
        Run(tmp_path, out=tmp_path / "t.png").table("t.csv", ["x"], [])
    assert Run(tmp_path, out=tmp_path / "u.csv").table("t.csv", ["x"], []).name == "u.csv"


@pytest.mark.parametrize("suffix", ["png", "jpg", "pdf", "svg"])
def test_a_figure_is_written_in_the_format_of_out_with_the_same_bytes(tmp_path, suffix):
    first, second = (
        Run(tmp_path, out=tmp_path / f"{name}.{suffix}").figure("f.png", drawing()).read_bytes() for name in "ab"
    )
    assert first == second
    start = {"png": b"\x89PNG", "jpg": b"\xff\xd8", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert first.startswith(start)
    assert b"date" not in first.lower() and b"Software" not in first
    if suffix == "png":
        assert iio.imread(tmp_path / "a.png").shape[:2] == (120, 240)
    with pytest.raises(InputError, match=r"\.svg"):
        Run(tmp_path, out=tmp_path / "f.gif").figure("f.png", drawing())


def test_the_main_metric_is_the_first_that_is_known():
    assert store.main_metric({"seconds": 3.0, "elbo": -80.0, "nll": 85.21}) == ("nll", 85.21)
    assert store.main_metric({"loss": 1.0}) is None
    assert store.in_words("return_mean", 12345.6) == "12346 mean return"


def test_a_heading_says_what_is_known(toy, mpcli, tmp_path):
    assert store.heading("vae", {"data": "digits"}, {"nll": 85.21}) == "vae on digits: 85.2 nats"
    assert store.heading("vae", {"data": "mnist:/a/b"}, {}) == "vae on mnist:b"
    assert store.heading("mesh", {"data": "/a/b/cow.ply"}, {}) == "mesh on cow.ply"
    assert store.heading("dqn", {"env": "ALE/Pong-v5"}, {"return_mean": 20.5}) == "dqn on ALE/Pong-v5: 20.5 mean return"
    run = Run(tmp_path, page="vae", options={"data": "digits"})
    run.result(psnr=21.26)
    assert run.heading == "vae on digits: 21.3 dB"
    assert Run(tmp_path).heading == ""
    trained = mpcli("train", "toy", "--steps", 2).path
    assert Trained(trained).heading == "toy"
    record = json.loads((trained / "run.json").read_text())
    (trained / "run.json").write_text(json.dumps(record | {"result": {"accuracy": 0.5}}))
    assert Trained(trained).heading == "toy: 0.5 accuracy"
    (trained / "run.json").unlink()
    assert Trained(trained).heading == ""


def test_training_draws_what_it_logged(toy, mpcli):
    result = mpcli("train", "toy", "--json").json
    (path,) = result["artifacts"]
    assert path == f"{result['run']}/curves.png"
    assert iio.imread(path).std() > 5
    again = mpcli("train", "toy", "--json").json["artifacts"][0]
    assert Path(again).read_bytes() == Path(path).read_bytes()
    short = mpcli("train", "toy", "--steps", 1)
    assert not (short.path / "curves.png").exists()
    assert short.out == f"{short.path}\n"


def test_curves_that_cannot_be_drawn_lose_no_training(toy, mpcli, monkeypatch):
    def broken(*_):
        raise RuntimeError("no fonts here")

    monkeypatch.setattr(curves, "figure", broken)
    result = mpcli("train", "toy")
    assert result.code == 0
    assert "curves.png was not drawn: no fonts here" in result.err
    assert json.loads((result.path / "run.json").read_text())["status"] == "done"


def test_a_curve_holds_what_was_logged_where_it_was():
    logged = {1: {"loss": 3.0}, 2: {"loss": 2.0, "return": 5.0}, 4: {"return": 6.0}}
    found = curves.of_run(logged)
    assert found["loss"] == curves.Curve([1, 2], [[3.0, 2.0]])
    assert found["return"] == curves.Curve([2, 4], [[5.0, 6.0]])
    figure = curves.figure({f"metric{i}": found["loss"] for i in range(9)}, "vae on digits")
    assert len(figure.axes) == 6
    assert figure.get_suptitle() == "vae on digits"
    line = figure.axes[0].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], [3.0, 2.0])


def test_a_curve_of_seeds_begins_where_each_has_something_to_show():
    found = curves.of_seeds(
        [{1: {"a": 1.0}, 2: {"a": 2.0, "b": 5.0}}, {1: {"a": 3.0, "b": 7.0}, 2: {"a": 4.0, "b": 6.0}}]
    )
    assert found["b"] == curves.Curve([2], [[5.0], [6.0]]) and list(found["a"].steps) == [1, 2]


def test_the_band_spans_the_seeds():
    found = curves.of_seeds([{1: {"a": 1.0, "b": 0.0}, 2: {"a": 2.0}}, {1: {"a": 3.0}, 2: {"a": 5.0}, 3: {"a": 0.0}}])
    assert found == {"a": curves.Curve([1, 2], [[1.0, 2.0], [3.0, 5.0]])}
    (axes,) = curves.figure(found, "").axes
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (1.0, 5.0)
    median = axes.lines[-1]
    assert list(median.get_ydata()) == [2.0, 3.5]


@pytest.mark.parametrize("fps", [7.0, 24.0, 30.0, 60.0, 120.0])
def test_a_gif_takes_its_time(tmp_path, fps):
    # It counts hundredths of a second, and viewers show a frame of less than two of them ten times as long.
    frames = torch.rand(round(2 * fps), 1, 6, 6, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        path = Run(tmp_path, out=tmp_path / "m.gif").image("m.gif", frames, fps=fps)
    assert bool(told) == (fps > 50) and all("50 frames a second" in str(warning.message) for warning in told)
    with Image.open(path) as gif:
        lasts = [gif.info["duration"] for frame in range(gif.n_frames) if gif.seek(frame) is None]
        assert min(lasts) >= 20 and sum(lasts) == pytest.approx(2000, abs=10)
        shown = [np.asarray(gif.convert("L")) for frame in (0, gif.n_frames - 1) if gif.seek(frame) is None]
    last = frames[(gif.n_frames - 1) * len(frames) // gif.n_frames]
    for seen, frame in zip(shown, (frames[0], last), strict=True):
        assert np.abs(seen / 255 - frame[0].numpy()).max() < 0.02
