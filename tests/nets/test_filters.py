"""Filters: scipy's sums, scikit-image's matching, matrices and their adjoints, and operators that are no filters."""

import imageio.v3 as iio
import numpy as np
import pytest
import scipy.signal
import torch
from mutants import result
from skimage.feature import match_template

from mpcli.errors import InputError
from mpcli_nets.filters import kernels, linear, symmetry

MUTANTS = {
    "a convolution that is a correlation": (linear, "convolve", lambda original: linear.correlate),
    "a kernel turned by half a turn": (
        linear,
        "correlate",
        lambda original: lambda image, kernel, mode="same": original(image, kernel.flip(-2, -1), mode),
    ),
    "a matrix whose kernel goes up": (linear, "toeplitz", result(lambda t: t.flip(1))),
    "linearity without its factors": (
        symmetry,
        "linear",
        lambda original: lambda operator, u, v, a, b: (operator(a * u + b * v), operator(u) + operator(v)),
    ),
    "equivariance that is invariance": (
        symmetry,
        "equivariant",
        lambda original: lambda operator, u, shift: symmetry.invariant(operator, u, shift),
    ),
    "matching without means": (linear, "match", result(lambda score: 0.9 * score)),
    "one kernel for all places": (linear, "varying", result(lambda x: x.flip(0))),
}


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_sums_are_those_of_scipy(mode):
    for seed, (m, n) in enumerate([(1, 1), (3, 3), (2, 2), (4, 3), (3, 6), (5, 1), (1, 2), (7, 7)]):
        image, k = drawn(seed, 9, 11), drawn(seed + 100, m, n)
        for ours, theirs in ((linear.correlate, "correlate2d"), (linear.convolve, "convolve2d")):
            expected = getattr(scipy.signal, theirs)(image.numpy(), k.numpy(), mode)
            np.testing.assert_allclose(ours(image, k, mode).numpy(), expected, rtol=0, atol=1e-12)


def test_many_pictures_are_filtered_as_each_alone():
    images, k = drawn(0, 2, 3, 8, 9), drawn(1, 3, 4)
    for ours in (linear.correlate, linear.convolve):
        whole = ours(images, k)
        assert torch.equal(whole[1, 2], ours(images[1, 2], k)) and whole.shape == images.shape


def test_convolution_commutes_and_is_associative_and_correlation_is_neither():
    for seed in range(20):
        a, b, c = drawn(seed, 5, 6), drawn(seed + 50, 3, 2), drawn(seed + 100, 2, 4)
        for ours, holds in ((linear.convolve, True), (linear.correlate, False)):
            assert torch.allclose(ours(a, b, "full"), ours(b, a, "full"), atol=1e-12) == holds
            left, right = ours(ours(a, b, "full"), c, "full"), ours(a, ours(b, c, "full"), "full")
            assert torch.allclose(left, right, atol=1e-12) == holds


def test_the_toeplitz_matrix_is_that_of_scipy():
    k = drawn(0, 3)
    column = np.concatenate([k.numpy(), np.zeros(5)])
    row = np.concatenate([k.numpy()[:1], np.zeros(5)])
    np.testing.assert_array_equal(linear.toeplitz(k, 6).numpy(), scipy.linalg.toeplitz(column, row))
    x, y = drawn(1, 6), drawn(2, 8)
    assert torch.allclose(linear.toeplitz(k, 6) @ x @ y, x @ linear.correlate(y[None], k[None], "valid")[0])


def test_an_impulse_recovers_the_kernel_of_a_filter_and_a_varying_one_is_caught():
    k = drawn(0, 3, 5)
    seen = linear.impulse_response(lambda image: linear.convolve(image, k), 9, 11)
    assert torch.equal(seen[3:6, 3:8], k)
    one = drawn(1, 12, 12, 3, 3)
    found = symmetry.examined(lambda u: linear.varying(u[0, 0], one)[None, None], (1, 1, 12, 12), 0)
    assert {finding.name: finding.holds for finding in found} == {
        "linearity": True,
        "equivariance": False,
        "invariance": False,
    }


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (lambda u: linear.correlate(u, drawn(0, 3, 3)), "linearity equivariance"),
        (lambda u: 2 * u + 1, "equivariance"),
        (torch.relu, "equivariance"),
        (lambda u: u.flip(-1), "linearity"),
        (lambda u: u.sum((-2, -1)), "linearity invariance"),
        (lambda u: u.amax((-2, -1)), "invariance"),
        (lambda u: u * torch.arange(16.0).double(), "linearity"),
        (torch.zeros_like, "linearity equivariance invariance"),
    ],
)
def test_properties_are_found(operator, expected):
    found = symmetry.examined(operator, (1, 1, 16, 16), 0)
    assert {finding.name for finding in found if finding.holds} == set(expected.split())
    assert all("picture" in finding.where for finding in found)


def test_matching_is_that_of_scikit_image():
    image = kernels.picture("camera")[:80, :90]
    for seed in range(3):
        part = image[seed * 9 : seed * 9 + 11, 7 : 7 + 13] + 0.1 * drawn(seed, 11, 13)
        np.testing.assert_allclose(
            linear.match(image, part).numpy(), match_template(image.numpy(), part.numpy()), atol=1e-9
        )


def crops_are_found(image):
    """Twenty crops with something to see, made darker and noisy, are found within a pixel of where they came from."""
    g = torch.Generator().manual_seed(0)
    found = 0
    while found < 20:
        i, j = (int(torch.randint(size - 24, (), generator=g)) for size in image.shape)
        part = image[i : i + 24, j : j + 24]
        if part.std() < 0.02:
            continue
        noisy = 0.5 * part + 0.2 + 0.15 * float(part.std()) * torch.randn(24, 24, generator=g).double()
        score = linear.match(image, noisy)
        row, column = divmod(int(score.argmax()), score.shape[1])
        assert max(abs(row - i), abs(column - j)) <= 1
        found += 1


def test_crops_are_found_where_they_came_from():
    crops_are_found(kernels.picture("camera"))


@pytest.mark.parametrize("pattern", ["**/cow_texture.png", "nuclei-dsb2018/images/*.png"])
def test_crops_of_real_pictures_are_found(shared_data, pattern):
    path = next(iter(sorted(shared_data.glob(pattern))), None)
    if path is None:
        pytest.skip(f"no {pattern} among the real data")
    crops_are_found(kernels.picture(str(path))[:300, :300])


def test_flat_windows_match_nothing():
    image = torch.zeros(20, 20).double()
    image[12:16, 12:16] = torch.eye(4)
    score = linear.match(image, torch.eye(4))
    assert score.isfinite().all() and score[0, 0] == 0 and score[12, 12] == pytest.approx(1)


def test_gabor_sees_no_diffuse_light_and_its_own_angle_best():
    waves = {angle: kernels.gabor(angle=angle) for angle in (0.0, 0.8, 1.57)}
    for angle, wave in waves.items():
        assert abs(float(wave.sum())) < 1e-12 and wave.norm() == pytest.approx(1)
        others = [float((wave * waves[other]).sum().abs()) for other in waves if other != angle]
        assert max(others) < 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-1 1", [[-1, 1]]),
        ("1,2;3,4", [[1, 2], [3, 4]]),
        ("1 2 1; 0 0 0; -1 -2 -1", [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]),
        ("sobel_y", [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]),
    ],
)
def test_kernels_are_read(text, expected):
    assert kernels.kernel(text).tolist() == expected


@pytest.mark.parametrize("text", ["", "1 2; 3", "sobol", "1 nan", "1 two"])
def test_what_is_no_kernel_is_refused(text):
    with pytest.raises(InputError, match="is no kernel; right would be gradient, sobel"):
        kernels.kernel(text)


def test_a_picture_is_filtered_and_a_template_found(mpcli, tmp_path):
    image = (kernels.picture("camera") * 255).round().byte().numpy()
    iio.imwrite(tmp_path / "whole.png", image)
    iio.imwrite(tmp_path / "part.png", image[40:70, 100:150])
    done = mpcli(
        "render", "filters", "--data", tmp_path / "whole.png", "--template", tmp_path / "part.png", "--json"
    ).json
    assert (done["metrics"]["row"], done["metrics"]["column"]) == (40, 100)
    assert done["metrics"]["correlation"] == pytest.approx(1)
    filtered = mpcli("render", "filters", "--kernel", "-1 1", "--operation", "convolution", "--json").json
    grey = kernels.picture("camera")
    least = float(scipy.signal.convolve2d(grey.numpy(), np.array([[-1.0, 1.0]]), "same").min())
    assert filtered["metrics"]["least"] == pytest.approx(least)
    again = mpcli("render", "filters", "--kernel", tmp_path / "part.png", "--mode", "valid", "--json")
    assert again.code == 0


def test_what_is_tried_is_told(mpcli):
    sobel = mpcli("evaluate", "filters", "--json")
    assert sobel.json["metrics"]["linearity"] == 1 and "kernel 3x3: 1 0 -1; 2 0 -2; 1 0 -1" in sobel.err
    relu = mpcli("evaluate", "filters", "--module", "torch.nn:ReLU", "--json")
    assert relu.json["metrics"]["linearity"] == 0 and "torch.nn:ReLU: linearity fails: picture" in relu.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("evaluate", "--module", "torch.nn:Conv2d"), "--module torch.nn:Conv2d: cannot be had (TypeError"),
        (("evaluate", "--module", "nowhere"), "right would be PACKAGE.MODULE:NAME"),
        (("evaluate", "--module", "math:pi"), "is no function and no module"),
        (("evaluate", "--module", "math:sqrt"), "cannot be tried on pictures"),
        (("evaluate", "--shape", "3,4"), "right would be channels,height,width"),
        (("render", "--data", "nowhere.png"), "nowhere.png: is not there"),
        (("render", "--template", "nowhere.png"), "nowhere.png: is not there"),
    ],
)
def test_what_cannot_be_is_refused(mpcli, command, said):
    verb, *options = command
    refused = mpcli(verb, "filters", *options)
    assert refused.code == 2 and said in refused.err


def test_a_template_larger_than_the_picture_is_refused(mpcli, tmp_path):
    iio.imwrite(tmp_path / "small.png", np.zeros((5, 6), np.uint8))
    refused = mpcli("render", "filters", "--data", tmp_path / "small.png", "--template", "camera")
    assert refused.code == 2 and "has 6x5 pixels, fewer than the 256x256 that are to lie in it" in refused.err
