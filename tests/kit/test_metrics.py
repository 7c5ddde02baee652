"""Every measure against a closed form, an independent formula or a trusted library."""

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from skimage.metrics import peak_signal_noise_ratio

from mpcli.errors import InputError
from mpcli.kit import metrics


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_psnr_of_a_known_error():
    image = noise(3, 8, 9)
    assert metrics.psnr(image + 0.1, image).item() == pytest.approx(20)
    assert metrics.psnr(image + 0.01, image).item() == pytest.approx(40)
    assert metrics.psnr(image, image).item() == math.inf


def test_psnr_is_that_of_scikit_image_for_each_image_of_a_batch():
    a, b = noise(2, 4, 3, 8, 9), noise(2, 4, 3, 8, 9, seed=1)
    values = metrics.psnr(a, b)
    assert values.shape == (2, 4)
    expected = [
        [peak_signal_noise_ratio(b[i, j].numpy(), a[i, j].numpy(), data_range=1) for j in range(4)] for i in range(2)
    ]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)


def test_ssim_is_the_formula_of_the_paper():
    a, b = noise(2, 3, 20, 24), 0.5 * noise(2, 3, 20, 24) + 0.5 * noise(2, 3, 20, 24, seed=1)

    def by_hand(x: np.ndarray, y: np.ndarray) -> float:
        def blur(z: np.ndarray) -> np.ndarray:
            return gaussian_filter(z, 1.5, truncate=3.5)

        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        s = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        return float(s[5:-5, 5:-5].mean())

    expected = [np.mean([by_hand(a[i, c].numpy(), b[i, c].numpy()) for c in range(3)]) for i in range(2)]
    np.testing.assert_allclose(metrics.ssim(a, b).numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(metrics.ssim(a, a).numpy(), 1)
    assert metrics.ssim(a.float(), b.float()).dtype == torch.float32


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(InputError, match="10x12"):
        metrics.ssim(noise(1, 12, 10), noise(1, 12, 10))


def test_iou_of_two_boxes():
    a, b = torch.zeros(2, 10, 10, dtype=torch.bool)
    a[0:4, 0:5] = True
    b[2:6, 0:5] = True
    assert metrics.iou(a, b).item() == pytest.approx(10 / 30)
    assert metrics.iou(a, a).item() == 1
    assert metrics.iou(a, ~a).item() == 0
    assert metrics.iou(torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)).item() == 1


def test_chamfer_is_the_brute_force_definition():
    a, b = noise(40, 3).numpy(), noise(70, 3, seed=1)
    d = cdist(a, b.numpy())
    assert metrics.chamfer(a, b) == pytest.approx((d.min(axis=1).mean() + d.min(axis=0).mean()) / 2, rel=1e-12)
    assert metrics.chamfer(b, a) == pytest.approx(metrics.chamfer(a, b), rel=1e-12)
    assert metrics.chamfer(a, a) == 0
    assert metrics.chamfer(a, a + np.array([1e-3, 0, 0])) == pytest.approx(1e-3, rel=1e-9)


def test_chamfer_refuses_what_is_no_point_set():
    with pytest.raises(InputError, match="empty"):
        metrics.chamfer(np.zeros((0, 3)), np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"second.*NaN"):
        metrics.chamfer(np.zeros((3, 3)), torch.full((2, 3), torch.nan))


def test_point_to_surface_of_a_box_in_closed_form():
    # 12 large triangles: nearest vertices would be far off.
    box = trimesh.creation.box(extents=(2, 4, 6))
    points = 8 * noise(500, 3).numpy() - 4
    half = np.array([1, 2, 3])
    q = np.abs(points) - half
    outside = np.linalg.norm(np.maximum(q, 0), axis=1)
    inside = np.minimum(q.max(axis=1), 0)
    np.testing.assert_allclose(metrics.point_to_surface(points, box), np.abs(outside + inside), atol=1e-12)


def test_mpjpe_and_pve_are_in_millimetres():
    joints = noise(2, 5, 24, 3)
    moved = joints + torch.tensor([0.003, 0, 0.004])
    for measure in (metrics.mpjpe, metrics.pve):
        torch.testing.assert_close(measure(moved, joints), torch.full((2, 5), 5.0).double())


def test_procrustes_undoes_every_similarity_but_no_reflection():
    joints = noise(6, 24, 3)
    rotations = torch.from_numpy(Rotation.random(6, random_state=0).as_matrix())
    scale = torch.linspace(0.2, 3, 6).double()[:, None, None]
    moved = scale * joints @ rotations.mT + noise(6, 1, 3, seed=1)
    torch.testing.assert_close(metrics.procrustes(joints, moved), moved)
    assert metrics.mpjpe(joints, moved, aligned=True).max() < 1e-9
    assert metrics.mpjpe(joints * torch.tensor([-1.0, 1, 1]), moved, aligned=True).min() > 10


def test_procrustes_is_the_least_squares_answer():
    # scipy solves the rotation alone (Kabsch); scale and translation then have closed forms.
    x, y = noise(15, 3), noise(15, 3, seed=1)
    x0, y0 = (x - x.mean(0)).numpy(), (y - y.mean(0)).numpy()
    turned = Rotation.align_vectors(y0, x0)[0].apply(x0)
    scale = (turned * y0).sum() / (x0**2).sum()
    torch.testing.assert_close(metrics.procrustes(x, y), torch.from_numpy(scale * turned) + y.mean(0))
