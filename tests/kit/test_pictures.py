"""Sheets of images are exact to the pixel, say what they show, and nothing runs out of the picture."""

import io

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mpcli.kit import pictures
from mpcli.run import Run


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=pictures.DPI)
    return file.getvalue()


def read(figure: Figure) -> np.ndarray:
    return iio.imread(png(figure))[..., :3]


def places(picture: np.ndarray, tile: np.ndarray) -> list[tuple[int, int]]:
    """Where in the picture a block of pixels stands: all (top, left)."""
    corners = np.argwhere((picture[: 1 - len(tile), : 1 - tile.shape[1]] == tile[0, 0]).all(-1))
    return [
        (top, left)
        for top, left in corners.tolist()
        if np.array_equal(picture[top : top + len(tile), left : left + tile.shape[1]], tile)
    ]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize(("size", "factor"), [((2, 3, 1, 8, 8), 20), ((7, 3, 20, 30), 5), ((4, 4, 90, 170), 1)])
def test_each_pixel_of_an_image_is_a_square_of_whole_pixels(size, factor):
    images = torch.rand(size, generator=torch.Generator().manual_seed(0))
    if size[-3] == 4:
        images[:, 3] = images[:, 3].round()
    figure = pictures.tiles(images, "a heading", ["one", "two", "three"], ["first", "second"])
    picture = read(figure)
    assert picture.shape[:2] == tuple(round(side * pictures.DPI) for side in figure.get_size_inches())[::-1]
    across = size[1] if len(size) == 5 else {7: 3, 4: 2}[size[0]]
    found = []
    for image in images.reshape(-1, *size[-3:]):
        if len(image) == 4:
            image = image[:3] * image[3] + (1 - image[3])
        pixels = (image * 255 + 0.5).byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
        (place,) = places(picture, pixels.repeat(factor, 0).repeat(factor, 1))
        found.append(place)
    step = factor * np.array(size[-2:]) + pictures.GAP
    expected = [np.array(divmod(i, across)) * step + found[0] for i in range(len(found))]
    assert np.array_equal(found, expected)


def test_headings_and_names_stand_in_the_picture():
    names, rows = ["data", "draws at temperature 1", "", "true"], ["8", "a longer name of a row"]
    figure = pictures.tiles(torch.rand(2, 4, 1, 8, 8), "vae on digits: 85 nats\nreconstructions", names, rows)
    assert texts(figure) == ["vae on digits: 85 nats\nreconstructions", *(n for n in names if n), *rows]
    first, spanning, last = (figure.texts[i].get_position()[0] for i in (1, 2, 3))
    assert spanning == pytest.approx((first + last) / 2)


@pytest.mark.parametrize("heading", ["a heading of quite a lot of words " * 4, "one/" * 60])
@pytest.mark.parametrize("columns", [["a", "a name", "supercalifragilistic"], []])
def test_nothing_runs_out_of_the_picture_or_into_another(heading, columns):
    figures = [
        pictures.tiles(torch.zeros(3, 3, 1, 28, 28), heading, columns, ["first", "second", "the third row"]),
        pictures.density(torch.zeros(9, 9), torch.zeros(5, 2), (0.0, 0.0), (1.0, 1.0), heading),
        pictures.figure(heading, 400, 300),
    ]
    for figure in figures:
        boxes = [text.get_window_extent() for text in figure.texts]
        sheet = [image.get_extent() for image in figure.images]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
        for left, _, bottom, top in sheet:
            low, high = min(bottom, top), max(bottom, top)
            assert all(box.x1 <= left or box.y0 >= high or box.y1 <= low for box in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        blank = read(figure)
        assert all((edge == 255).all() for edge in (blank[0], blank[-1], blank[:, 0], blank[:, -1]))


def test_a_mark_frames_its_box():
    box = (4, 0, 8, 8)
    figure = pictures.tiles(torch.zeros(1, 2, 1, 8, 8), marks=[(0, 1, box)])
    picture = read(figure).astype(int)
    orange = (picture[..., 0] - picture[..., 2]) > 100
    rows, columns = np.nonzero(orange)
    left = pictures.MARGIN + 2 * pictures.GAP + 20 * 8  # of the second image, each of whose pixels is 20 wide
    assert abs(columns.min() - (left + 80)) <= 1 and abs(columns.max() - (left + 160)) <= 1
    assert abs(rows.max() - rows.min() - 160) <= 2


def test_the_same_picture_has_the_same_bytes(tmp_path):
    def drawn(name: str) -> bytes:
        images = torch.linspace(0, 1, 256).reshape(4, 1, 8, 8)
        return Run(tmp_path).figure(name, pictures.tiles(images, "four", ["a", "b"])).read_bytes()

    assert drawn("a.png") == drawn("b.png")
    assert drawn("a.pdf") == drawn("b.pdf")


def test_a_map_shows_density_where_it_is_and_target_in_the_same_colours():
    x = torch.linspace(-2, 2, 40)
    log_p = -((x[None, :] - 1) ** 2 + (x[:, None] + 1) ** 2) * 4
    figure = pictures.density(
        log_p, torch.tensor([[1.0, -1.0]]), (-2.0, -2.0), (2.0, 2.0), "planar on u1", target=log_p + 1, target_name="U"
    )
    target, model, _, samples = figure.axes
    assert [axes.get_title() for axes in (target, model, samples)] == ["U", "density of the model", "samples"]
    (shown,), (wanted,) = model.images, target.images
    assert shown.norm is wanted.norm and shown.norm.vmax == pytest.approx(float((log_p + 1).max().exp()))
    assert shown.get_extent() == [-2, 2, -2, 2] and shown.origin == "lower"
    assert np.array_equal(samples.lines[0].get_xydata(), [[1.0, -1.0]])
    assert {axes.get_xlim() for axes in (target, model, samples)} == {(-2.0, 2.0)}
    data = pictures.density(log_p, torch.zeros(3, 2), (-2.0, -2.0), (2.0, 2.0), target=torch.zeros(7, 2))
    assert [axes.get_title() for axes in data.axes] == ["density of the model", "", "samples", "target"]
    assert len(data.axes[3].lines[0].get_xdata()) == 7


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 8, 8\]"):
        pictures.tiles(torch.zeros(2, 8, 8))
    with pytest.raises(ValueError, match="C 1, 3 or 4"):
        pictures.tiles(torch.zeros(1, 2, 8, 8))
