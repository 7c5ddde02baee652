"""Filters against scipy.signal and scikit-image, on a picture of 512x512 in float64.

    correlate     a kernel of 7x7, same size: scipy.signal.correlate2d
    match         a template of 32x32, normalised: skimage.feature.match_template

`python benchmarks/filters.py [--only TEXT]`; how far both sides differ goes to standard error.
"""

import sys
from typing import Any

from protocol import compare, cpu_seconds

SIDE = 512


def drawn(*shape: int) -> Any:
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def correlate() -> float:
    from mpcli_nets.filters import linear

    image, k = drawn(SIDE, SIDE), drawn(7, 7)
    return cpu_seconds(lambda: linear.correlate(image, k))


def correlate_of_scipy() -> float:
    from scipy.signal import correlate2d

    from mpcli_nets.filters import linear

    image, k = drawn(SIDE, SIDE), drawn(7, 7)
    off = abs(correlate2d(image.numpy(), k.numpy(), "same") - linear.correlate(image, k).numpy()).max()
    print(f"  correlate: off by {off:.1e}", file=sys.stderr)
    return cpu_seconds(lambda: correlate2d(image.numpy(), k.numpy(), "same"))


def match() -> float:
    from mpcli_nets.filters import linear

    image = drawn(SIDE, SIDE)
    return cpu_seconds(lambda: linear.match(image, image[100:132, 200:232]))


def match_of_skimage() -> float:
    from skimage.feature import match_template

    from mpcli_nets.filters import linear

    image = drawn(SIDE, SIDE)
    part = image[100:132, 200:232]
    off = abs(match_template(image.numpy(), part.numpy()) - linear.match(image, part).numpy()).max()
    print(f"  match: off by {off:.1e}", file=sys.stderr)
    return cpu_seconds(lambda: match_template(image.numpy(), part.numpy()))


def main() -> None:
    """Ask every question."""
    compare("correlation, 512x512 with 7x7", correlate, correlate_of_scipy, packages=("scipy",))
    compare("matching, 512x512 with 32x32", match, match_of_skimage, packages=("scikit-image",))


if __name__ == "__main__":
    main()
