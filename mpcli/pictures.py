"""Arrays to picture and animation files."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

from mpcli.notices import notice

GAP = 2  # pixels between the pictures of a grid
GIF_FPS = 50  # frames a second that viewers show
SIDE = 480  # a grid of tiny images is enlarged by a whole factor up to about this width


def write(path: Path, images: NDArray[np.floating], fps: float) -> None:
    """Write [C, H, W], [N, C, H, W] or [R, K, C, H, W]: a picture, a grid (for .gif and .mp4: frames), R rows of K.

    Raises:
        ValueError: the array has another number of axes or channels.
    """
    if images.ndim not in (3, 4, 5) or images.shape[-3] not in (1, 3, 4):
        raise ValueError(f"images are [C, H, W], [N, C, H, W] or [R, K, C, H, W] with C 1, 3 or 4, not {images.shape}")
    pixels = (np.clip(np.nan_to_num(images), 0, 1) * 255 + 0.5).astype(np.uint8)
    pixels = np.moveaxis(pixels, -3, -1)
    if path.suffix in (".gif", ".mp4"):
        _animate(path, pixels.reshape(-1, *pixels.shape[-3:]), fps)
    else:
        picture = pixels
        if pixels.ndim > 3:
            picture = grid(pixels.reshape(-1, *pixels.shape[-3:]), pixels.shape[1] if pixels.ndim == 5 else None)
        picture = on_white(picture) if path.suffix == ".jpg" else picture
        iio.imwrite(path, picture[..., 0] if picture.shape[-1] == 1 else picture)


def grid(pixels: NDArray[np.uint8], columns: int | None = None) -> NDArray[np.uint8]:
    """[N, H, W, C] as one picture, near square unless told, enlarged by a whole factor where the images are tiny."""
    count, height, width, channels = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    factor = max(1, SIDE // (columns * width))
    pixels = pixels.repeat(factor, 1).repeat(factor, 2)
    height, width = height * factor, width * factor
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, np.uint8)
    for index, image in enumerate(pixels):
        top, left = (GAP + i * (size + GAP) for i, size in zip(divmod(index, columns), (height, width), strict=True))
        sheet[top : top + height, left : left + width] = image
    return sheet


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[..., C] with an alpha channel laid over white; without one unchanged."""
    if pixels.shape[-1] != 4:
        return pixels
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return (pixels[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def gif_pace(count: int, fps: float) -> tuple[list[int], list[int]]:
    """Which of `count` frames a GIF shows, and for how many milliseconds each, so that all together take count / fps.

    It counts hundredths of a second, and viewers show what is to last less than two of them for ten.
    """
    shown = max(1, round(count * min(fps, GIF_FPS) / fps))
    ends = [round(100 * count / fps * (k + 1) / shown) for k in range(shown)]
    return [k * count // shown for k in range(shown)], [10 * (b - a) for a, b in pairwise([0, *ends])]


def _animate(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    frames = on_white(frames)
    if frames.shape[-1] == 1:
        frames = frames.repeat(3, -1)
    if path.suffix == ".gif":
        kept, durations = gif_pace(len(frames), fps)
        if len(kept) < len(frames):
            notice(f"{path.name}: a GIF shows {GIF_FPS} frames a second at most; {len(kept)} of {len(frames)} are kept")
        iio.imwrite(path, frames[kept], duration=durations, loop=0)
        return
    # H.264 wants even sides; one thread and no encoder tag make the same frames the same bytes.
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    exact: list[Any] = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    iio.imwrite(path, frames, fps=fps, codec="libx264", macro_block_size=None, output_params=exact, plugin="FFMPEG")
