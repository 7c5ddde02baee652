"""HMAX: what cells are tuned to, what does not move them, and what a linear classifier makes of each layer."""

import csv
import json

import pytest
import torch
from mutants import arguments, larger, result

from mpcli_nets.hmax import HMAX, Config, cells

MUTANTS = {
    "a simple cell without the square": (cells, "distance", result(torch.sqrt)),
    "a complex cell that takes the mean": (
        cells,
        "pooled",
        lambda original: (
            lambda sizes, window: torch.nn.functional.avg_pool2d(
                torch.maximum(*sizes), window, cells.STRIDE, padding=window // 2
            )
        ),
    ),
    "a filter that sees even light": (cells, "gabors", result(lambda bands: [[w + 0.01 for w in b] for b in bands])),
    "C2 of one size alone": (cells, "anywhere", arguments(lambda x, w, sigma: (x[:1] * len(x), w, sigma))),
    "lines of one sign": (cells, "line", lambda original: cells.linear),
    "a tuning too wide": (cells, "tuned", arguments(lambda square, sigma: (square, larger(sigma)))),
}
SMALL = {
    "train": ("--parts", "8", "--examples", "50"),
    "render": ("--moved", "10"),
    "evaluate": ("--moved", "10"),
}


def test_c2_is_the_same_wherever_a_picture_lies_and_pixels_are_not():
    g = torch.Generator().manual_seed(0)
    model = HMAX(Config(parts=20), 2)
    picture = torch.zeros(4, 1, 28, 28)
    picture[..., 8:20, 8:20] = torch.rand(4, 1, 12, 12, generator=g)
    model.imprint(cells.canvas(picture), 0)
    here = model(picture)
    assert here.std(0).max() > 0.01
    for by in ((2, 0), (0, -4), (6, 6), (-6, 2)):
        there = model(torch.roll(picture, by, (2, 3)))
        assert torch.allclose(there, here, atol=1e-5)


def test_every_part_was_cut_out_of_a_picture_and_is_not_blank():
    g = torch.Generator().manual_seed(0)
    picture = torch.rand(3, 1, 28, 28, generator=g) * (torch.arange(28) < 10)
    model = HMAX(Config(parts=30), 2)
    model.imprint(cells.canvas(picture), 7)
    assert model.parts.flatten(1).norm(dim=1).min() > 0
    assert torch.allclose(model(picture).amax(0), torch.ones(30), atol=1e-3)
    again = HMAX(Config(parts=30), 2)
    again.imprint(cells.canvas(picture), 7)
    assert torch.equal(again.parts, model.parts)


def test_cells_see_more_of_the_picture_from_layer_to_layer():
    """How far from its middle a cell still notices a pixel."""
    model = HMAX(Config(parts=1), 2)

    def field(cell):
        x = torch.rand(1, 1, 44, 44, generator=torch.Generator().manual_seed(0), requires_grad=True)
        (g,) = torch.autograd.grad(cell(x), x)
        rows = g[0, 0].abs().sum(1).nonzero()
        return int(rows.max() - rows.min()) + 1

    def s1(x):
        return cells.line(x, model.gabors()[0][0])[0, 0, 22, 22]

    def c1(x):
        return model.c1(model.s1(x))[0][0, 0, 11, 11]

    def s2(x):
        c1 = model.c1(model.s1(x))[0]
        return cells.distance(c1, torch.zeros(1, 4, 4, 4))[0, 0, 13, 13]

    # A C1 cell hands its gradient to the one line that is the greatest.
    assert field(s1) == 7 and field(c1) in (7, 9) and field(s2) > 9


@pytest.mark.learning
def test_c2_hardly_minds_a_shift_and_s1_does(mpcli):
    done = mpcli("train", "hmax", "--parts", 200, "--json")
    assert done.json["metrics"]["accuracy"] >= 0.95
    found = mpcli("evaluate", "hmax", "--json").json["metrics"]
    assert found["c2_shift_0"] - found["c2_shift_4"] <= 0.04
    assert found["s1_shift_0"] - found["s1_shift_4"] >= 0.5
    assert found["accuracy"] == pytest.approx(done.json["metrics"]["accuracy"])


def test_pictures_are_drawn_with_the_table_behind_them(mpcli):
    mpcli("train", "hmax", "--parts", 8, "--examples", 50, "--steps", 2)
    drawn = json.loads(mpcli("render", "hmax", "--moved", 10, "--json").out)
    names = [path.rpartition("/")[2] for path in drawn["artifacts"]]
    assert names == ["fields.png", "cells.png", "shifts.png", "shifts.csv"]
    with open(f"{drawn['run']}/shifts.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["shift"] for row in rows] == ["0", "2", "4", "6"] and set(rows[0]) > {"pixels", "s1", "c1", "c2"}


def test_rows_that_are_no_pictures_are_refused(mpcli):
    refused = mpcli("train", "hmax", "--data", "breast_cancer")
    assert refused.code == 2 and "right would be pictures with classes" in refused.err
