import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import euler_number
from skimage.morphology import skeletonize

from damcrack.cracks.skeleton import box_around, branches, length_px, smoothed, thin


def stroke(size_hw, *lines, width=5):
    mask = np.zeros(size_hw, np.uint8)
    for line in lines:
        cv2.polylines(mask, [np.array(line, np.int32)], False, 1, width)
    return mask


MASKS = arrays(np.uint8, (24, 30), elements=st.integers(0, 1))


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_thinning_keeps_pieces_and_holes(mask):
    """A thinned mask lies inside the mask and has as many pieces and as many holes."""
    line = thin(mask)
    assert not (line & (1 - mask)).any()
    assert euler_number(line, connectivity=2) == euler_number(mask, connectivity=2)


def test_thinning_does_not_depend_on_the_place():
    """A stroke is thinned alike in the middle of a large mask and in one that just holds it."""
    mask = stroke((90, 120), [[30, 40], [80, 50], [60, 60]], width=7)
    box = box_around(mask)
    assert mask[box].sum() == mask.sum() and mask[box].shape < mask.shape
    np.testing.assert_array_equal(thin(mask)[box], thin(mask[box]))


@pytest.mark.parametrize("angle", range(0, 180, 15))
def test_thinned_strokes_agree_with_an_independent_implementation(angle):
    """On thick lines of every direction 95 % of the skeleton lies within a pixel of scikit-image's, and back."""
    half = 60 * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    mask = stroke((160, 160), [80 - half, 80 + half], width=7)
    ours, theirs = thin(mask), skeletonize(mask.astype(bool)).astype(np.uint8)
    near = np.ones((3, 3), np.uint8)
    # The rest is at the blunt ends, where the two leave spurs of different length.
    assert (ours & cv2.dilate(theirs, near)).sum() >= 0.95 * ours.sum()
    assert (theirs & cv2.dilate(ours, near)).sum() >= 0.95 * theirs.sum()


def test_a_line_of_one_pixel_stays():
    """Nothing is left to thin on a diagonal."""
    line = np.eye(12, dtype=np.uint8)
    np.testing.assert_array_equal(thin(line), line)


@pytest.mark.parametrize("angle", [0, 10, 22.5, 45, 63, 90, 120, 171])
def test_length_of_a_straight_line(angle):
    """Within 2 % of the truth in every direction; counting pixels would be up to 29 % off."""
    half = 75 * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    mask = stroke((200, 200), [100 - half, 100 + half], width=1)
    (branch,) = branches(thin(mask))
    assert length_px(smoothed(branch.points)) == pytest.approx(150, rel=0.02)


def test_points_of_a_branch_are_in_order():
    """Neighbouring points are neighbouring pixels, from one end to the other."""
    (branch,) = branches(thin(stroke((60, 200), [[10, 30], [90, 10], [190, 50]], width=3)))
    assert np.abs(np.diff(branch.points, axis=0)).max() == 1
    assert len(np.unique(branch.points, axis=0)) == len(branch.points)
    assert not branch.closed
    assert branch.joined == (False, False)


def test_a_fork_has_three_branches_that_meet():
    """Each of them is joined at one end."""
    mask = stroke((120, 120), [[10, 60], [60, 60]], [[60, 60], [110, 20]], [[60, 60], [110, 100]], width=3)
    found = branches(thin(mask))
    long = [branch for branch in found if len(branch.points) > 10]
    assert len(long) == 3
    assert sorted(sum(branch.joined) for branch in long) == [1, 1, 1]


def test_a_ring_is_closed():
    """Its length is its circumference."""
    mask = np.zeros((120, 120), np.uint8)
    cv2.circle(mask, (60, 60), 40, 1, 3)
    (branch,) = branches(thin(mask))
    assert branch.closed
    length = length_px(smoothed(branch.points, closed=True), closed=True)
    assert length == pytest.approx(2 * np.pi * 40, rel=0.03)


def test_lines_inside_a_ring_are_found():
    """A crack inside of another's loop is a branch of its own."""
    mask = np.zeros((120, 120), np.uint8)
    cv2.circle(mask, (60, 60), 50, 1, 3)
    cv2.line(mask, (40, 60), (80, 60), 1, 3)
    assert len(branches(thin(mask))) == 2


def test_an_empty_mask_has_no_branches():
    """And thinning it ends."""
    assert branches(thin(np.zeros((10, 10), np.uint8))) == []


def test_smoothing_keeps_the_ends():
    """The ends of a line do not creep inward."""
    points = np.column_stack([np.arange(30), np.arange(30) % 2]).astype(np.int64)
    path = smoothed(points)
    np.testing.assert_allclose(path[[0, -1]], points[[0, -1]], atol=1e-12)
    assert path.shape == points.shape
