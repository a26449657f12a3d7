from functools import cache

import cv2
import numpy as np
import pytest

from damcrack.cracks import width as width_module
from damcrack.cracks.config import Segmentation
from damcrack.cracks.measure import measure_cracks
from damcrack.cracks.segment import crack_masks
from damcrack.cracks.skeleton import branches, smoothed, thin
from damcrack.cracks.width import widths_px
from walls import concrete, coverage, line, photo

ANGLES = (0.0, 17.0, 45.0, 71.0, 90.0, 133.0)
SIZE = (144, 144)


@cache
def wall(size, seed, pores=True):
    return concrete(size, seed, roughness=2.0, pores=pores)


def measured(width, angle, inside):
    ends = line(np.array([71.6, 72.3]), angle, 110)
    picture = photo(wall(SIZE, int(angle)), coverage(SIZE, ends, width), inside=inside)
    middle = (coverage(SIZE, ends, 1.2) > 0.3).astype(np.uint8)
    branch = max(branches(thin(middle)), key=lambda one: len(one.points))
    return float(np.median(widths_px(picture, branch.points, smoothed(branch.points), max(1.5, width))))


@pytest.mark.parametrize("width", [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0])
def test_width_finer_than_a_pixel_in_every_direction(width):
    """From 0.5 to 12 px the median error over directions and darknesses is below half a pixel."""
    errors = [measured(width, angle, inside) - width for angle in ANGLES for inside in (30.0, 60.0)]
    assert abs(np.median(errors)) < 0.5
    assert np.median(np.abs(errors)) < 0.5


@pytest.mark.parametrize("width", [4.0, 8.0, 12.0])
def test_wide_cracks_are_exact(width):
    """Where the edges are resolved, the error is below a third of a pixel, light or dark inside."""
    errors = [measured(width, angle, inside) - width for angle in ANGLES for inside in (30.0, 100.0)]
    assert np.max(np.abs(errors)) < 0.33


def crack_prob_of(cover, too_wide_px):
    """What a network says of a crack (H, W): too wide or too narrow on each side, unsharp, by cells of 2x2 pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(too_wide_px) + 1,) * 2)
    wrong = cv2.dilate(cover, kernel) if too_wide_px > 0 else cv2.erode(cover, kernel)
    cells = cv2.resize(
        cv2.GaussianBlur(wrong, (0, 0), 1.5), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
    )
    return cv2.resize(cells, cover.shape[::-1], interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    ("width", "too_wide_px"),
    [
        *((1.0, 2), (1.0, 5), (2.0, 1), (2.0, 3), (4.0, 0), (4.0, 4), (8.0, -2), (8.0, 0), (8.0, 4)),
        *((14.0, -3), (14.0, 6), (25.0, -5), (25.0, 3), (40.0, -8), (40.0, 0), (40.0, 4)),
    ],
)
@pytest.mark.parametrize("angle", [0, 24, 133])
def test_widths_do_not_depend_on_how_wide_the_network_paints(width, too_wide_px, angle):
    """One crack, its width within half a pixel, its length within 20 px or 1.2 widths: thinning eats blunt ends."""
    size = (340, 420)
    cover = coverage(size, line(np.array([210.0, 170.0]), angle, 260), width)
    picture = photo(wall(size, angle, pores=False), cover)
    called = np.ones(size, np.uint8)
    prob = crack_prob_of(cover, too_wide_px)
    masks = crack_masks(prob, called, Segmentation())
    (crack,) = measure_cracks(picture, masks.sure, prob, 15, 40)
    assert crack.crack_prob > 0.5
    assert crack.width_px == pytest.approx(width, abs=0.5)
    assert crack.length_px == pytest.approx(260, abs=max(20, 1.2 * width))


def test_a_single_point_has_a_width():
    """A crack of one pixel does not fail."""
    picture = photo(concrete(SIZE), coverage(SIZE, line(np.array([70.0, 70.0]), 0, 100), 3))
    assert widths_px(picture, np.array([[70, 70]]), np.array([[70.0, 70.0]]), 3.0).shape == (1,)


@pytest.mark.parametrize("angle", [0.0, 45.0, 90.0, 133.0])
def test_a_crack_too_long_for_one_call_has_the_same_widths(monkeypatch, angle):
    """OpenCV takes no more than 32,767 rows; in parts, to the photo's border, nothing changes."""
    ends = line(np.array([71.6, 72.3]), angle, 190)
    picture = photo(wall(SIZE, 0), coverage(SIZE, ends, 5))
    path = np.round(np.linspace(*ends, 150)).astype(np.int64)
    path = path[((path >= 0) & (path < SIZE[0])).all(axis=1)]
    whole = widths_px(picture, path, smoothed(path), 5.0)
    monkeypatch.setattr(width_module, "REMAP_LIMIT_PX", 100)
    monkeypatch.setattr(width_module, "PART_POINTS", 17)
    assert np.array_equal(widths_px(picture, path, smoothed(path), 5.0), whole)
