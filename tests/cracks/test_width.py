import numpy as np
import pytest

from damcrack.cracks.measure import measure_cracks
from damcrack.cracks.segment import Segmentation, crack_masks
from damcrack.cracks.skeleton import branches, smoothed, thin
from damcrack.cracks.width import widths_px
from walls import concrete, coverage, line, photo

ANGLES = (0.0, 17.0, 45.0, 71.0, 90.0, 133.0)
SIZE = (144, 144)


def measured(width, angle, inside):
    ends = line(np.array([71.6, 72.3]), angle, 110)
    picture = photo(
        concrete(SIZE, seed=int(angle), roughness=2.0), coverage(SIZE, ends, width), inside=inside
    )
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


@pytest.mark.parametrize("width", [2.0, 4.0, 8.0, 14.0])
def test_a_photo_gives_length_and_width(width):
    """From the photo alone: one crack, its width within half a pixel, its length within 8 px or its width."""
    size = (220, 360)
    ends = line(np.array([180.0, 110.0]), 24, 240)
    picture = photo(concrete(size, roughness=2.0, pores=False), coverage(size, ends, width))
    masks = crack_masks(picture, np.ones(size, np.float32), Segmentation())
    (crack,) = measure_cracks(picture, masks.sure, 15, 40)
    assert crack.width_px == pytest.approx(width, abs=0.6)
    assert crack.length_px == pytest.approx(240, abs=max(8, width))


def test_a_single_point_has_a_width():
    """A crack of one pixel does not fail."""
    picture = photo(concrete(SIZE), coverage(SIZE, line(np.array([70.0, 70.0]), 0, 100), 3))
    assert widths_px(picture, np.array([[70, 70]]), np.array([[70.0, 70.0]]), 3.0).shape == (1,)
