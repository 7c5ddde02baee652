"""How well masks are predicted, picture by picture: overlap, overlap of boundaries, objects found."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed
from torch import Tensor

from mpcli.kit.datasets.masks import numbered

BOUNDARY = 2  # pixels that belong to the boundary of a mask, inside it
APART = 5  # pixels between the middles of two objects, at least
SMOOTH = 1.0  # pixels: a Gaussian over distances, so that one object has one middle


def dice(said: Tensor, true: Tensor) -> float:
    """2 |A and B| / (|A| + |B|) of masks [H, W], bool; 1 where both are empty."""
    both = int(said.sum() + true.sum())
    return 2 * int((said & true).sum()) / both if both else 1.0


def boundary(mask: Tensor) -> Tensor:
    """The pixels of a mask [H, W] that are within 2 of what is outside it; outside the picture nothing is inside."""
    inner = ndimage.binary_erosion(mask.cpu().numpy(), iterations=BOUNDARY)
    return mask & ~torch.from_numpy(inner).to(mask.device)


def boundary_iou(said: Tensor, true: Tensor) -> float:
    """Intersection over union of the boundaries of two masks [H, W], bool; 1 where both are empty.

    Cheng, Girshick, Dollar, Berg and Kirillov, Boundary IoU, 2021. arXiv:2103.16562
    """
    a, b = boundary(said), boundary(true)
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def over_classes(measure: Callable[[Tensor, Tensor], float], said: Tensor, true: Tensor, classes: int) -> float:
    """The mean over all classes but the first, of class numbers [H, W]."""
    return sum(measure(said == k, true == k) for k in range(1, classes)) / (classes - 1)


def objects(mask: Tensor) -> Tensor:
    """The number of its object at each pixel of a mask [H, W], int32, 0 outside.

    The watershed of the distance to what is outside, flooded from its peaks: what touches falls apart at its necks.
    """
    inside = mask.cpu().numpy()
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), SMOOTH)
    pieces, _ = ndimage.label(inside)
    peaks = peak_local_max(distance, min_distance=APART, labels=pieces, exclude_border=False)
    seeds = np.zeros(inside.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return torch.from_numpy(watershed(-distance, seeds, mask=inside).astype(np.int32))


def average_precision(said: Tensor, true: Tensor, least: float = 0.5) -> float:
    """TP / (TP + FP + FN) of object numbers [H, W]: an object is found where its IoU with one is above `least`.

    From a half on no object can have two such partners. 1 where there are none at all.

    Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, Nature Methods, 2019.
    """
    a, b = (numbered(x.numpy()).long() for x in (said, true))
    n, m = int(a.max()), int(b.max())
    if n + m == 0:
        return 1.0
    both = torch.bincount((a * (m + 1) + b).flatten(), minlength=(n + 1) * (m + 1)).reshape(n + 1, m + 1).double()
    union = both.sum(1, keepdim=True) + both.sum(0, keepdim=True) - both
    found = int((both[1:, 1:] > least * union[1:, 1:]).sum())
    return found / (n + m - found)
