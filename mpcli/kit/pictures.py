"""Pictures that say what they show: tiles of images and maps of densities, under a heading, as matplotlib figures.

A figure is measured in pixels, at 120 to an inch, as `Run.figure` writes it. Images in it are laid out in whole pixels
and drawn without resampling, so that each pixel of an image is a square of whole pixels of the picture.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from torch import Tensor

DPI = 120  # pixels an inch, as written by `Run.figure`
HEADING = 10.0  # size of the heading, points
NAME = 8.0  # size of the names of rows, columns and lines, points
MARGIN = 8  # pixels around everything
GAP = 2  # pixels of frame around each image of a sheet
SHEET = 640  # pixels along a side up to which a sheet of small images is enlarged
SEEN = 48  # pixels along the longer side that an image has at least, however many there are
TILE = 160  # pixels along a side up to which one image is enlarged
PANEL = 340  # pixels along the longer side of a map of the plane

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of an image, from its top left corner


def figure(heading: str = "", width: int = 840, height: int = 480) -> Figure:
    """An empty figure of that many pixels under a heading, whose axes arrange themselves."""
    made = Figure(_inches(width, height), dpi=DPI, layout="constrained")
    if heading := wrapped(heading, width - 2 * MARGIN):
        made.suptitle(heading, fontsize=HEADING)
    return made


def tiles(
    images: Tensor,
    heading: str = "",
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    *,
    across: int | None = None,
    marks: Sequence[tuple[int, int, Box]] = (),
    scale: tuple[str, float, float, str] | None = None,
) -> Figure:
    """A sheet of images, the small ones enlarged by a whole factor, with names over its columns and beside its rows.

    Args:
        images: [N, C, H, W] laid out near square or `across` a row, or [R, K, C, H, W] as R rows of K; C is 1 (grey),
            3, or 4 (laid over white); values in [0, 1], those outside clipped.
        heading: what the picture shows, on lines of its own, wrapped to the width of the picture.
        columns: a name over each column; an empty one lets the name before it stand over this column too.
        rows: a name beside each row.
        across: images a row of [N, C, H, W].
        marks: rectangles to draw on images: row, column and box in pixels of the image.
        scale: what colours mean, as a bar on the right: name, lowest, highest, colour map of matplotlib.

    Raises:
        ValueError: the images have another number of axes or channels.
    """
    if images.ndim not in (4, 5) or images.shape[-3] not in (1, 3, 4) or not images.numel():
        raise ValueError(f"images are [N, C, H, W] or [R, K, C, H, W] with C 1, 3 or 4, not {list(images.shape)}")
    across = images.shape[1] if images.ndim == 5 else across or math.ceil(math.sqrt(len(images)))
    pixels = _pixels(images.reshape(-1, *images.shape[-3:]))
    across = min(across, len(pixels))
    down = math.ceil(len(pixels) / across)
    tall, wide = pixels.shape[1:3]
    room = min(SHEET // (across * wide), SHEET // (down * tall), TILE // max(wide, tall))
    factor = max(room, math.ceil(SEEN / max(wide, tall)))
    sheet = _sheet(pixels.repeat(factor, 1).repeat(factor, 2), across)
    step_x, step_y = factor * wide + GAP, factor * tall + GAP

    left = MARGIN + (max(map(_width, rows)) + MARGIN if any(rows) else 0)
    spans = _spans(columns, across)
    names = [wrapped(name, (last - first) * step_x, break_words=False) for name, first, last in spans]
    # A name with a word that is wider than its column is turned by a right angle.
    turned = [_width(text) > (last - first) * step_x for text, (_, first, last) in zip(names, spans, strict=True)]
    names = [name if turn else text for text, turn, (name, _, _) in zip(names, turned, spans, strict=True)]
    sizes = [_width(text) if turn else _height(text) for text, turn in zip(names, turned, strict=True)]
    over = max(sizes) + MARGIN if sizes else 0
    width = left + sheet.shape[1] + MARGIN + (90 if scale else 0)
    heading = wrapped(heading, width - 2 * MARGIN)
    top = MARGIN + (_height(heading, HEADING) + MARGIN if heading else 0) + over
    height = top + sheet.shape[0] + MARGIN

    made = Figure(_inches(width, height), dpi=DPI)
    made.figimage(sheet, left, MARGIN)
    if heading:
        made.text(0.5, 1 - MARGIN / height, heading, size=HEADING, ha="center", va="top")
    for name, turn, (_, first, last) in zip(names, turned, spans, strict=True):
        x, y = left + GAP / 2 + (first + last) / 2 * step_x, top - MARGIN / 2
        made.text(x / width, 1 - y / height, name, size=NAME, ha="center", va="bottom", rotation=90 if turn else 0)
    for row, name in enumerate(rows[:down]):
        x, y = left - MARGIN, top + GAP / 2 + (row + 0.5) * step_y
        made.text(x / width, 1 - y / height, name, size=NAME, ha="right", va="center")
    if scale:
        name, low, high, colours = scale
        tall = min(sheet.shape[0], 2 * TILE)
        x, y = left + sheet.shape[1] + MARGIN, MARGIN + (sheet.shape[0] - tall) / 2
        bar = made.add_axes((x / width, y / height, 12 / width, tall / height))
        made.colorbar(ScalarMappable(Normalize(low, high), colours), bar).set_label(name, size=NAME)
        bar.tick_params(labelsize=NAME)
    for row, column, (x0, y0, x1, y1) in marks:
        x, y = left + GAP + column * step_x, top + GAP + row * step_y
        corner = (x + factor * x0) / width, 1 - (y + factor * y1) / height
        size = factor * (x1 - x0) / width, factor * (y1 - y0) / height
        made.add_artist(Rectangle(corner, *size, fill=False, edgecolor="tab:orange", linewidth=1.2))
    return made


def density(
    log_density: Float[Tensor, "height width"],
    points: Float[Tensor, "n 2"],
    low: tuple[float, float],
    high: tuple[float, float],
    heading: str = "",
    *,
    target: Tensor | None = None,
    target_name: str = "target",
) -> Figure:
    """Panels of one box of the plane, y upwards: a density, and points drawn from it, beside what they are to match.

    Args:
        log_density: of the model on a grid, see `mpcli.kit.densities.on_grid`.
        points: draws of the model.
        low, high: the corners of the box.
        target: a log-density [height, width] on the same grid, shown in the same colours, or data [M, 2].
        target_name: what stands over its panel.
    """
    model = log_density.exp().cpu().numpy()
    panels: list[tuple[str, np.ndarray]] = [("density of the model", model), ("samples", points.cpu().numpy())]
    if target is not None and target.shape == log_density.shape:
        panels.insert(0, (target_name, target.exp().cpu().numpy()))
    elif target is not None:
        panels.append((target_name, target.cpu().numpy()))
    box = np.subtract(high, low)
    wide, tall = (max(1, round(PANEL * side / box.max())) for side in box)
    left, gap, bar, below = 56, 28, 80, 36  # pixels for the numbers of the axes and of the colours
    maps = [values for _, values in panels if values.shape == model.shape]
    # The square root shows the thin parts too, as eyes and print do not tell the darkest tenth apart.
    norm = PowerNorm(0.5, 0, max(values.max() for values in maps))

    width = left + len(panels) * (wide + gap) + bar
    heading = wrapped(heading, width - 2 * MARGIN)
    height = below + tall + 30 + (_height(heading, HEADING) + MARGIN if heading else 0)
    made = Figure(_inches(width, height), dpi=DPI)
    if heading:
        made.text(0.5, 1 - MARGIN / height, heading, size=HEADING, ha="center", va="top")
    x = left
    for index, (name, values) in enumerate(panels):
        axes: Axes = made.add_axes((x / width, below / height, wide / width, tall / height))
        axes.set_title(name, size=NAME + 1)
        x += wide + gap
        if values.shape == model.shape:
            image = axes.imshow(
                values, "magma", norm=norm, origin="lower", extent=(low[0], high[0], low[1], high[1]), aspect="auto"
            )
        else:
            axes.plot(*values.T, ".", color="#3b0f70", markersize=2, markeredgewidth=0, alpha=0.6)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.tick_params(labelsize=NAME, labelleft=index == 0)
        if index + 1 == len(maps):
            scale = made.add_axes(((x - gap + 6) / width, below / height, 12 / width, tall / height))
            made.colorbar(image, scale).ax.tick_params(labelsize=NAME)
            x += bar - gap
    return made


def frame(made: Figure) -> Float[Tensor, "3 height width"]:
    """A figure as an image, for an animation."""
    canvas = FigureCanvasAgg(made)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1) / 255


def wrapped(text: str, width: float, size: float = HEADING, *, break_words: bool = True) -> str:
    """The text on lines of at most `width` pixels, broken between words, or inside one that is too long alone."""
    lines = []
    for paragraph in text.strip().splitlines():
        line = ""
        for word in paragraph.split():
            while break_words and _width(word, size) > width and len(word) > 1:
                fits = max((n for n in range(1, len(word)) if _width(word[:n], size) <= width), default=1)
                lines += [line, word[:fits]] if line else [word[:fits]]
                line, word = "", word[fits:]
            longer = f"{line} {word}".strip()
            if line and _width(longer, size) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)


def _inches(width: float, height: float) -> tuple[float, float]:
    # A hair more than whole, as the number of pixels is cut, not rounded.
    return (width + 1e-3) / DPI, (height + 1e-3) / DPI


def _width(text: str, size: float = NAME) -> int:
    """Pixels that the longest line of a text takes."""
    font = FontProperties(size=size)
    lines = [text_to_path.get_text_width_height_descent(line, font, False)[0] for line in text.splitlines()]
    return math.ceil(max(lines, default=0.0) * DPI / 72)


def _height(text: str, size: float = NAME) -> int:
    """Pixels that the lines of a text take."""
    return math.ceil(len(text.splitlines()) * 1.2 * size * DPI / 72)


def _spans(columns: Sequence[str], across: int) -> list[tuple[str, int, int]]:
    """Name, first column and the one after the last of each name that is not empty."""
    starts = [index for index, name in enumerate(columns[:across]) if name]
    return [(columns[i], i, end) for i, end in zip(starts, [*starts[1:], across], strict=True)] if starts else []


def _pixels(images: Float[Tensor, "n c h w"]) -> np.ndarray:
    """[n, h, w, 3] of bytes."""
    images = images.detach().cpu().float().nan_to_num().clamp(0, 1)
    if images.shape[1] == 4:
        images = images[:, :3] * images[:, 3:] + 1 - images[:, 3:]
    bytes_ = (images * 255 + 0.5).to(torch.uint8)
    return bytes_.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def _sheet(pixels: np.ndarray, across: int) -> np.ndarray:
    """Images [n, h, w, 3], each in a thin grey frame, as one picture."""
    count, tall, wide, _ = pixels.shape
    sheet = np.full((math.ceil(count / across) * (tall + GAP) + GAP, across * (wide + GAP) + GAP, 3), 255, np.uint8)
    for index, image in enumerate(pixels):
        row, column = divmod(index, across)
        top, left = row * (tall + GAP), column * (wide + GAP)
        sheet[top : top + tall + 2 * GAP, left : left + wide + 2 * GAP] = 190
        sheet[top + GAP : top + GAP + tall, left + GAP : left + GAP + wide] = image
    return sheet
