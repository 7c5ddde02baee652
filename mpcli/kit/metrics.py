"""How good a result is: the measures that runs report, each with its definition and its unit.

Images are [..., C, H, W] in [0, 1]; points and meshes are in the scene's own unit; joints and vertices of bodies are in
metres and their errors in millimetres. A measure over a batch gives one value an example: take the mean yourself.
"""

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Real
from scipy.spatial import KDTree
from skimage.metrics import structural_similarity
from torch import Tensor

from mpcli.errors import InputError
from mpcli.kit import meshes

SSIM_WINDOW = 11  # pixels: a Gaussian of sigma 1.5 cut at 3.5 sigma


def psnr(image: Float[Tensor, "*batch C H W"], reference: Float[Tensor, "*batch C H W"]) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio -10 log10(mean squared error) in dB, for a peak of 1; infinite for equal images."""
    return -10 * torch.log10((image - reference).square().mean(dim=(-3, -2, -1)))


def ssim(image: Float[Tensor, "*batch C H W"], reference: Float[Tensor, "*batch C H W"]) -> Float[Tensor, "*batch"]:
    """Structural similarity in [-1, 1], 1 for equal images.

    Computed by scikit-image with the choices of the original paper: a Gaussian window of sigma 1.5 (11x11), population
    covariances (divided by N), K1 = 0.01, K2 = 0.03, data range 1, each channel by itself, then the mean over channels
    and over all pixels whose window lies inside the image.

    Wang, Bovik, Sheikh and Simoncelli, Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE
    Transactions on Image Processing 13(4), 2004.

    Raises:
        InputError: the images are smaller than the window.
    """
    *batch, channels, height, width = image.shape
    if min(height, width) < SSIM_WINDOW:
        raise InputError(
            f"images of {width}x{height} pixels are too small for SSIM; its window needs {SSIM_WINDOW}x{SSIM_WINDOW}"
        )
    values = [
        structural_similarity(a, b, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5,
                              use_sample_covariance=False)
        for a, b in zip(
            image.detach().cpu().double().reshape(-1, channels, height, width).numpy(),
            reference.detach().cpu().double().reshape(-1, channels, height, width).numpy(),
            strict=True,
        )
    ]  # fmt: skip
    return torch.tensor(values, dtype=image.dtype, device=image.device).reshape(batch)


def iou(a: Bool[Tensor, "*shape"], b: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Intersection over union |a and b| / |a or b| of occupancies (voxels, masks, points); 1 where both are empty."""
    union = (a | b).sum()
    return torch.where(union > 0, (a & b).sum() / union.clamp(min=1), torch.ones((), device=a.device))


def chamfer(a: Real[Tensor | np.ndarray, "N 3"], b: Real[Tensor | np.ndarray, "M 3"]) -> float:
    """Chamfer distance of two point sets: the symmetric mean of nearest distances, in the unit of the points.

        1/2 ( 1/N sum_i min_j |a_i - b_j|  +  1/M sum_j min_i |a_i - b_j| )

    Distances are not squared, and the two directions are averaged: two copies of a set moved by little are as far apart
    as the move. Sample meshes evenly before (trimesh.sample.sample_surface).

    Raises:
        InputError: a set is empty or holds a value that is not finite.
    """
    first, second = _points(a, "first"), _points(b, "second")
    there = KDTree(second).query(first)[0].mean()
    back = KDTree(first).query(second)[0].mean()
    return float(there + back) / 2


def point_to_surface(points: Real[Tensor | np.ndarray, "N 3"], mesh: trimesh.Trimesh) -> Float[np.ndarray, " N"]:
    """Distance of each point to the nearest point of the triangles (not of the vertices), unsigned, [N].

    Raises:
        InputError: there are no points or faces, or a value is not finite.
    """
    return meshes.closest_point(mesh, _points(points, "queried"))[1]


def mpjpe(
    predicted: Float[Tensor, "*batch J 3"], true: Float[Tensor, "*batch J 3"], aligned: bool = False
) -> Float[Tensor, "*batch"]:
    """Mean per-joint position error in millimetres, for joints in metres.

    `aligned` first moves the prediction onto the truth by the best similarity transform (called PA-MPJPE).
    """
    if aligned:
        predicted = procrustes(predicted, true)
    return 1000 * (predicted - true).norm(dim=-1).mean(dim=-1)


def pve(predicted: Float[Tensor, "*batch V 3"], true: Float[Tensor, "*batch V 3"]) -> Float[Tensor, "*batch"]:
    """Mean per-vertex error in millimetres, for corresponding vertices in metres."""
    return 1000 * (predicted - true).norm(dim=-1).mean(dim=-1)


def procrustes(source: Float[Tensor, "*batch N 3"], target: Float[Tensor, "*batch N 3"]) -> Float[Tensor, "*batch N 3"]:
    """`source` moved onto `target` by the scale, rotation and translation with the least sum of squared distances.

    With U S V^T the singular value decomposition of the cross-covariance of target and source, R = U D V^T and
    s = tr(S D) / var(source), where D = diag(1, 1, det(U V^T)) keeps R a rotation and no reflection.

    Umeyama, Least-Squares Estimation of Transformation Parameters Between Two Point Patterns, IEEE Transactions on
    Pattern Analysis and Machine Intelligence 13(4), 1991.
    """
    centre, goal = source.mean(dim=-2, keepdim=True), target.mean(dim=-2, keepdim=True)
    x, y = source - centre, target - goal
    u, s, vt = torch.linalg.svd(y.mT @ x)
    d = torch.ones_like(s)
    d[..., -1] = torch.linalg.det(u @ vt).sign()
    rotation = (u * d[..., None, :]) @ vt
    scale = (s * d).sum(dim=-1) / x.square().sum(dim=(-2, -1)).clamp(min=torch.finfo(x.dtype).tiny)
    return scale[..., None, None] * (x @ rotation.mT) + goal


def _points(points: Tensor | np.ndarray, name: str) -> np.ndarray:
    array = points.detach().cpu().numpy() if isinstance(points, Tensor) else np.asarray(points)
    if not len(array):
        raise InputError(f"the {name} point set is empty; a distance needs at least one point")
    if not np.isfinite(array).all():
        raise InputError(f"the {name} point set holds NaN or infinity; coordinates must be finite")
    return array.astype(np.float64)
