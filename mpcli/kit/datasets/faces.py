"""`faces`: 100 grey faces of 25x25 pixels, which come with scikit-image.

A part of Huang, Ramesh, Berg and Learned-Miller, Labeled Faces in the Wild, University of Massachusetts, 2007.

Licence: none is stated by its authors, who give it for research
"""

import numpy as np
import torch

from mpcli.kit.datasets.files import no_argument
from mpcli.kit.datasets.types import Images, Pictures


def faces(argument: str) -> Images:
    """80 faces for training, 10 for validation and 10 for testing, in the order of a fixed permutation."""
    from skimage.data import lfw_subset

    no_argument("faces", argument)
    # The second hundred of the array is background.
    order = np.random.RandomState(0).permutation(100)
    # The array was scaled as real numbers; its pictures had bytes.
    pixels = torch.from_numpy(lfw_subset()[order, None]).mul(255).round().byte()
    return Images(*map(Pictures, pixels.split([80, 10, 10])), name="faces")
