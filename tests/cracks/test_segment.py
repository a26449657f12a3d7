import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from damcrack.cracks.config import Segmentation
from damcrack.cracks.pixel_scores import PixelCounts, count_pixels
from damcrack.cracks.segment import crack_masks, pieces, without_specks

PROBS = arrays(np.float32, (20, 28), elements=st.sampled_from([0.0, 0.1, 0.28, 0.4, 0.45, 0.7, 1.0]))
EVERYWHERE = np.ones((20, 28), np.uint8)
ANY_LENGTH = Segmentation(min_length_px=0, bridge_px=1)
SIZE = (120, 200)


def drawn(*lines, size_hw=SIZE):
    """Probabilities (H, W) of horizontal lines: row, first and last column, probability; each 3 px high."""
    crack_prob = np.zeros(size_hw, np.float32)
    for y, x0, x1, prob in lines:
        crack_prob[y - 1 : y + 2, x0:x1] = prob
    return crack_prob


def sure(crack_prob, how=None, called=None):
    called = np.ones(crack_prob.shape, np.uint8) if called is None else called
    return crack_masks(crack_prob, called, how or Segmentation()).sure


def flooded(seeds, inside):
    """All of `inside` that can be reached from the seeds, pixel after pixel."""
    reached = seeds & inside
    while True:
        grown = (cv2.dilate(reached.astype(np.uint8), np.ones((3, 3))) > 0) & inside
        if (grown == reached).all():
            return reached
        reached = grown


@given(PROBS)
@settings(max_examples=80, deadline=None)
def test_a_crack_is_what_can_be_reached_from_a_confident_pixel(crack_prob):
    """Over pixels of at least `grow`, from those of at least `seed` (hysteresis, Canny 1986)."""
    expected = flooded(crack_prob >= 0.5, crack_prob >= 0.35)
    np.testing.assert_array_equal(sure(crack_prob, ANY_LENGTH), expected)


@given(PROBS, st.sampled_from([1, 3, 5]), st.sampled_from([0.0, 6.0]))
@settings(max_examples=80, deadline=None)
def test_possible_pixels_hold_the_sure_ones(crack_prob, bridge_px, min_length_px):
    """And everything that was found is 0 or 1."""
    how = Segmentation(min_length_px=min_length_px, bridge_px=bridge_px)
    masks = crack_masks(crack_prob, EVERYWHERE, how)
    assert not (masks.sure & (1 - masks.possible)).any()
    assert masks.possible.max() <= 1


@given(PROBS, PROBS)
@settings(max_examples=60, deadline=None)
def test_a_higher_probability_takes_nothing_away(one, other):
    """What was found is still found where probabilities rise."""
    assert not (sure(one, ANY_LENGTH) & (1 - sure(np.maximum(one, other), ANY_LENGTH))).any()


@given(PROBS, arrays(np.uint8, (20, 28), elements=st.integers(0, 1)))
@settings(max_examples=60, deadline=None)
def test_a_piece_is_found_whole_or_not_at_all(crack_prob, called):
    """It counts if it touches a block that is called cracked, wherever its confident pixel lies."""
    everywhere, found = sure(crack_prob, ANY_LENGTH), sure(crack_prob, ANY_LENGTH, called)
    num, labels = cv2.connectedComponents(everywhere, connectivity=8)
    for label in range(1, num):
        piece = labels == label
        assert (found[piece] == called[piece].any()).all()
    assert not (found & (1 - everywhere)).any()


def test_a_crack_is_not_torn_at_a_block():
    """Its faint end in a block that is not called cracked belongs to it; another crack there does not."""
    crack_prob = drawn((30, 20, 100, 0.9), (30, 100, 180, 0.4), (80, 110, 190, 0.9))
    called = np.zeros(SIZE, np.uint8)
    called[:, :100] = 1
    found = sure(crack_prob, called=called)
    assert found[30, 20:180].all()
    assert not found[60:].any()


@pytest.mark.parametrize(("length", "is_found"), [(36, False), (44, True)])
def test_short_pieces_are_dropped(length, is_found):
    """Pieces shorter than 40 px; faint ones of half that are possible."""
    masks = crack_masks(drawn((60, 50, 50 + length, 0.9)), np.ones(SIZE, np.uint8), Segmentation())
    assert bool(masks.sure.any()) == is_found
    assert masks.possible[60, 50 : 50 + length].all()


@pytest.mark.parametrize(("gap", "is_closed"), [(3, True), (8, False)])
def test_small_gaps_are_closed(gap, is_closed):
    """Two halves, both too short alone, are one crack over a gap that is smaller than `bridge_px`."""
    found = sure(drawn((60, 40, 70, 0.9), (60, 70 + gap, 100 + gap, 0.9)))
    assert bool(found.any()) == is_closed
    assert bool(found[60, 40 : 100 + gap].all()) == is_closed


def test_faint_lines_are_possible_only():
    """Without a confident pixel, or below `grow`, down to three quarters of it; in any block."""
    crack_prob = drawn((20, 50, 150, 0.45), (60, 50, 150, 0.28), (100, 50, 150, 0.24))
    masks = crack_masks(crack_prob, np.zeros(SIZE, np.uint8), Segmentation())
    assert not masks.sure.any()
    assert masks.possible[20, 50:150].all()
    assert masks.possible[60, 50:150].all()
    assert not masks.possible[100].any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_maps_are_no_failure(value):
    """Nothing anywhere, crack everywhere."""
    crack_prob = np.full(SIZE, value, np.float32)
    assert (sure(crack_prob) == value).all()


@pytest.mark.parametrize(
    "values",
    [
        *({"seed": 1.1}, {"seed": 9.0, "grow": 5.0}, {"seed": 0.0}, {"seed": 0.3}, {"seed": float("nan")}),
        *({"grow": 0.0}, {"grow": -0.1}, {"min_length_px": -1}, {"bridge_px": 0}, {"bridge_px": 100}),
    ],
)
def test_values_that_mean_nothing_are_refused(values):
    """Probabilities outside of 0 to 1, growing from what is less than grown over, no length."""
    with pytest.raises(ValueError, match="Segmentation"):
        Segmentation(**values)


def test_counts_add_up_and_follow_their_definitions():
    """Against sets of pixels written out by hand."""
    true, found = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    true[20:23, 10:50] = 1
    found[21:24, 10:40] = 1
    found[5:8, 5:8] = 1
    counts = count_pixels(found, true)
    shares = counts.shares()
    assert counts.both == 2 * 30
    assert shares["iou"] == pytest.approx(60 / (120 + 99 - 60))
    assert shares["precision"] == pytest.approx(90 / 99)
    assert 0.78 < shares["recall"] < 0.82
    assert abs(shares["width_bias_px"]) < 0.1
    assert (counts + counts).shares() == shares


def test_nothing_found_and_nothing_true_is_no_failure():
    """An empty photo with an empty mask has no precision, and does not spoil the sum."""
    empty = np.zeros((20, 20), np.uint8)
    assert count_pixels(empty, empty) == PixelCounts()
    assert PixelCounts().shares()["f1"] == 0 or PixelCounts().shares()["f1"] is None


def test_specks_say_nothing_about_their_block():
    """A piece shorter than half of the least length is 0 in the map; a long one, and what is fainter, stays."""
    crack_map = drawn((20, 10, 14, 0.9), (60, 10, 60, 0.9), (100, 10, 14, 0.3), size_hw=SIZE)
    cleared = without_specks(crack_map, 2, Segmentation(min_length_px=40))
    assert not cleared[:40].any()
    np.testing.assert_array_equal(cleared[40:], crack_map[40:])


MASKS = arrays(np.uint8, (24, 30), elements=st.integers(0, 1))


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_sizes_and_boxes_agree_with_opencv(mask):
    """Of every connected piece; the background is none."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    area_px, boxes_xyxy = pieces(labels, mask)
    np.testing.assert_array_equal(area_px[1:], stats[1:, cv2.CC_STAT_AREA])
    np.testing.assert_array_equal(boxes_xyxy[1:, :2], stats[1:, :2])
    np.testing.assert_array_equal((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])[1:], stats[1:, 2:4])
    assert area_px[0] == 0
