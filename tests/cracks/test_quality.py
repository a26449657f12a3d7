"""Photos that must not be called clean: what good photos become in the dark, out of focus and under water."""

import cv2
import numpy as np
import pytest

from damcrack.cracks.quality import doubt
from damcrack.sample.concrete import render_photo


@pytest.fixture(scope="module", params=[0, 1, 2])
def wall(request):
    return render_photo(7, request.param, (600, 800)).rgb


def noisy(values, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, values.shape)
    return np.clip(values + noise, 0, 255).astype(np.uint8)


def with_beds(rgb, share):
    """Beds of red, yellow and violet flowers over the lower part of a photo."""
    rng = np.random.default_rng(0)
    seen = rgb.copy()
    low = seen[round((1 - share) * len(rgb)) :]
    for _ in range(4000):
        x, y = rng.integers(low.shape[1]), rng.integers(len(low))
        colour = [(200, 40, 40), (230, 200, 40), (120, 60, 190)][rng.integers(3)]
        cv2.circle(low, (int(x), int(y)), 12, colour, -1)
    return noisy(seen, 3)


def test_a_rendered_wall_can_be_judged(wall):
    assert doubt(wall) == ""


def test_flowers_before_a_third_of_a_wall_leave_it_concrete(wall):
    assert doubt(with_beds(wall, 1 / 3)) == ""


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda rgb: noisy(rgb * 0.08, 4), "dark"),
        (lambda rgb: cv2.GaussianBlur(rgb, (0, 0), 10), "blurred"),
        (lambda rgb: noisy(120 + (rgb - 120.0) * 0.02, 0.5), "contrast"),
        (lambda rgb: noisy(rgb * [0.1, 0.6, 0.5] + [15, 60, 50], 3), "water"),
        (lambda rgb: noisy(rgb * 330.0 / np.median(rgb), 2), "white"),
        (lambda rgb: with_beds(rgb, 1.0), "colours"),
    ],
)
def test_a_spoilt_one_cannot(wall, spoil, reason):
    assert reason in doubt(spoil(wall))


@pytest.mark.parametrize("size_hw", [(224, 224), (3, 2000), (1, 1)])
def test_any_size_goes(size_hw):
    assert isinstance(doubt(np.full((*size_hw, 3), 128, np.uint8)), str)
