"""What is drawn of a fit."""

import torch
import trimesh

from mpcli.kit.cameras import Cameras
from mpcli_bodies.smplify.picture import SIDE, figure

BALL = trimesh.creation.icosphere(radius=0.5).apply_translation([1.0, 0.5, -4.0])
CAMERA = Cameras(torch.eye(4)[None], torch.full((1, 2), 400.0), torch.full((1, 2), 300.0), 600, 600)
SEEN = torch.tensor([[400.0, 250.0], [420.0, 230.0]])


def test_without_a_photograph_body_and_points_fill_the_picture():
    drawn = figure(BALL, CAMERA, SEEN, SEEN + 5, None, "smplify: 30 mm")
    (axes,) = drawn.axes
    picture = axes.images[0].get_array()
    assert SIDE - 1 <= max(picture.shape[:2]) <= SIDE + 1
    body = abs(picture[..., 0] - 0.93) > 0.01
    assert body.any(0).mean() > 0.85 and body.any(1).mean() > 0.85
    # The ball's middle is at pixel (400, 250), the first point: it lies in the middle of the body.
    (x, y), (u, v) = (lines.get_xydata()[0] for lines in (axes.lines[0], axes.lines[-1]))
    assert abs(x - body.shape[1] / 2) < 12 and abs(y - body.shape[0] / 2) < 12
    assert u - x == v - y > 5  # enlarged
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["observed", "fitted"]
    assert drawn.get_suptitle() == "smplify: 30 mm"


def test_a_photograph_is_shown_whole():
    drawn = figure(BALL, CAMERA, SEEN, None, torch.rand(3, 600, 600), "")
    assert drawn.axes[0].images[0].get_array().shape == (600, 600, 3)
    assert drawn.axes[0].lines[0].get_xydata().tolist() == SEEN.tolist()
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["observed"]
