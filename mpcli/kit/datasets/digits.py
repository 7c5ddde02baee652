"""`digits`: 1797 handwritten digits of 8x8 pixels with 17 levels of grey, which come with scikit-learn.

Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.

Licence: CC BY 4.0
"""

import numpy as np
import torch

from mpcli.kit.datasets.files import no_argument
from mpcli.kit.datasets.split import Split
from mpcli.kit.datasets.types import Images, Pictures

SIZES = [1197, 300, 300]


def digits(argument: str) -> Images:
    """1197 digits for training, 300 for validation and 300 for testing, in the order of a fixed permutation."""
    from sklearn.datasets import load_digits

    no_argument("digits", argument)
    data = load_digits()
    order = np.random.RandomState(0).permutation(1797)
    pixels = torch.from_numpy(data.images[order, None].astype(np.uint8))  # 0 to 16
    labels = torch.from_numpy(data.target[order]).long()
    return Images(
        *(Pictures(part, levels=17) for part in pixels.split(SIZES)),
        labels=Split(*labels.split(SIZES)),
        classes=tuple("0123456789"),
        name="digits",
    )
