"""Strokes: exact areas and masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damcrack.sample.cracks import crack_mask
from damcrack.sample.strokes import Stroke, centreline_pixels, coverage

SIZE_HW = (300, 340)
LENGTH_PX = 240


def straight(width_px: float, angle_deg: float, centre_xy: tuple[float, float] = (170.3, 150.4)) -> Stroke:
    along = np.linspace(-LENGTH_PX / 2, LENGTH_PX / 2, 81)[:, None]
    direction = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    return Stroke(np.array(centre_xy) + along * direction, np.full(81, width_px))


def area_px(stroke: Stroke) -> float:
    return float(coverage([stroke], SIZE_HW).sum() / 255)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 12), st.floats(0, 180))
def test_covered_area_is_length_times_width(width_px: float, angle_deg: float) -> None:
    """A straight stroke of any width and angle covers length x width, within an eighth of a pixel of width.

    On a fine grid of widths and angles the worst was 0.097 px: along rows, at widths between sixteenths of a pixel.
    """
    assert abs(area_px(straight(width_px, angle_deg)) - LENGTH_PX * width_px) < LENGTH_PX / 8


# Edges along rows, columns or diagonals of pixels round the same way everywhere; these angles do not.
UNEVEN_DEG = (7.3, 13.9, 22.1, 30.7, 39.3, 51.2, 58.8, 68.3, 76.1, 83.4, 97.7, 113.2, 129.1, 151.6, 169.9)
GRID_DEG = (0.0, 45.0, 90.0, 135.0, 180.0)


@given(st.floats(2, 12), st.sampled_from(UNEVEN_DEG + GRID_DEG), st.floats(0, 1))
def test_mask_area_is_length_times_width(width_px: float, angle_deg: float, shift_px: float) -> None:
    """The mask rounds each edge to whole pixels: its area is length x width within a quarter pixel an edge pair.

    Along rows, columns and diagonals all edge pixels round alike, to a whole pixel more or less.
    """
    mask = crack_mask([straight(width_px, angle_deg, (170 + shift_px, 150 + shift_px))], SIZE_HW)
    allowed = 0.25 * LENGTH_PX if angle_deg in UNEVEN_DEG else 1.05 * LENGTH_PX + 4 * width_px
    assert abs(np.count_nonzero(mask) - LENGTH_PX * width_px) < allowed


@pytest.mark.parametrize("width_px", [0.5, 0.7, 0.99])
@pytest.mark.parametrize("angle_deg", [0, 17, 45, 80, 90])
def test_hairline_mask_is_its_centreline(width_px: float, angle_deg: float) -> None:
    """Below one pixel the mask has the pixels that the line passes through: |cos| + |sin| for each pixel of length."""
    stroke = straight(width_px, angle_deg)
    mask = crack_mask([stroke], SIZE_HW)
    steps = abs(np.cos(np.radians(angle_deg))) + abs(np.sin(np.radians(angle_deg)))
    assert np.count_nonzero(mask) == pytest.approx(LENGTH_PX * steps, rel=0.03)
    assert np.array_equal(mask > 0, centreline_pixels([stroke], SIZE_HW, below_px=1.0))


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 12), st.floats(0, 180))
def test_mask_is_pixels_at_least_half_covered(width_px: float, angle_deg: float) -> None:
    """From one pixel of width a pixel is in the mask exactly when its coverage is at least one half."""
    stroke = straight(width_px, angle_deg)
    assert np.array_equal(crack_mask([stroke], SIZE_HW) > 0, coverage([stroke], SIZE_HW) >= 128)


def test_coverage_agrees_with_point_sampling() -> None:
    """Coverage equals the share of a fine grid of points that lie within half a width of the centreline."""
    width_px, angle_deg = 3.7, 33.0
    offsets = (np.arange(20) + 0.5) / 20
    y, x = np.meshgrid(
        np.arange(140, 160)[:, None] + offsets, np.arange(160, 180)[:, None] + offsets, indexing="ij"
    )
    y, x = y.reshape(400, 400), x.reshape(400, 400)
    sin, cos = np.sin(np.radians(angle_deg)), np.cos(np.radians(angle_deg))
    inside = np.abs((x - 170.3) * sin - (y - 150.4) * cos) <= width_px / 2
    expected = inside.reshape(20, 20, 20, 20).mean(axis=(1, 3))
    measured = coverage([straight(width_px, angle_deg)], SIZE_HW)[140:160, 160:180] / 255
    assert np.abs(measured - expected).max() < 0.08


def test_overlapping_strokes_count_once() -> None:
    """Coverage is that of the union: a stroke drawn twice covers no more."""
    stroke = straight(4.0, 28.0)
    assert np.array_equal(coverage([stroke, stroke], SIZE_HW), coverage([stroke], SIZE_HW))


def test_strokes_outside_leave_nothing() -> None:
    """No strokes, or strokes beyond the edge, give an empty mask."""
    outside = straight(5.0, 90.0, (-40.0, 150.0))
    assert not crack_mask([], SIZE_HW).any()
    assert not crack_mask([outside], SIZE_HW).any()
