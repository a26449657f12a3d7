import cv2
import numpy as np
import pytest

from damcrack.cracks.ridge import dark_ridge
from damcrack.cracks.scores import PixelCounts, count_pixels
from damcrack.cracks.segment import Segmentation, crack_masks, local_median
from walls import concrete, coverage, line, photo

SIZE = (240, 320)
HOW = Segmentation()


def scene(width, inside=45.0, seed=1):
    cover = coverage(SIZE, line(np.array([160.0, 120.0]), 30, 200), width)
    return photo(concrete(SIZE, seed=seed), cover, inside=inside), (cover >= 0.5).astype(np.uint8)


@pytest.mark.parametrize("width", [2.0, 4.0, 9.0, 20.0])
def test_the_pixels_of_a_crack_are_found(width):
    """Nine tenths of the crack within two pixels, and little else."""
    grey, true = scene(width)
    shares = count_pixels(crack_masks(grey, np.ones(SIZE, np.float32), HOW).sure, true).shares()
    assert shares["recall"] > 0.9
    assert shares["precision"] > 0.85


@pytest.mark.parametrize("seed", range(4))
def test_a_wall_without_a_crack_has_none(seed):
    """Blotches, pores and grain are no cracks."""
    grey = photo(concrete(SIZE, seed=seed))
    assert crack_masks(grey, np.ones(SIZE, np.float32), HOW).sure.mean() < 0.002


def test_nothing_is_found_where_the_network_sees_nothing():
    """Belief 0 is a block that is not searched."""
    grey, _ = scene(6.0)
    belief = np.ones(SIZE, np.float32)
    belief[:, 160:] = 0
    masks = crack_masks(grey, belief, HOW)
    assert masks.sure[:, :160].any()
    assert not masks.sure[:, 160:].any()
    assert not masks.possible[:, 160:].any()


def test_a_flat_photo_has_no_crack():
    """No division by a noise of 0."""
    assert not crack_masks(np.full(SIZE, 128, np.uint8), np.ones(SIZE, np.float32), HOW).sure.any()


def test_possible_lines_hold_the_sure_ones():
    """What is sure is possible too."""
    masks = crack_masks(scene(3.0)[0], np.ones(SIZE, np.float32), HOW)
    assert not (masks.sure & (1 - masks.possible)).any()


def test_brightness_and_contrast_do_not_matter():
    """A darker exposure of the same wall gives nearly the same mask."""
    grey, _ = scene(5.0)
    darker = np.clip(grey * 0.7 + 10, 0, 255).astype(np.uint8)
    one, other = (crack_masks(each, np.ones(SIZE, np.float32), HOW).sure for each in (grey, darker))
    assert count_pixels(one, other).shares()["f1"] > 0.97


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turning_the_photo_turns_the_mask(turn):
    """No direction is preferred."""
    grey, _ = scene(4.0)
    turned = crack_masks(
        np.ascontiguousarray(np.rot90(grey, turn)), np.ones(SIZE[:: (-1) ** turn], np.float32), HOW
    )
    straight = crack_masks(grey, np.ones(SIZE, np.float32), HOW)
    assert (
        count_pixels(np.ascontiguousarray(np.rot90(turned.sure, -turn)), straight.sure).shares()["f1"] > 0.93
    )


def test_ridges_are_lines_and_not_spots():
    """A dark line is stronger than a dark disc of the same depth and width; light lines are nothing."""
    grey = np.full((200, 200), 150, np.uint8)
    cv2.line(grey, (20, 60), (180, 60), 60, 5)
    cv2.circle(grey, (100, 140), 3, 60, -1)
    cv2.line(grey, (20, 180), (180, 180), 240, 5)
    strength = dark_ridge(grey).strength
    assert strength[58:63, 40:160].max() > 3 * strength[130:150, 90:110].max()
    assert strength[179:182, 40:160].max() < 0.05 * strength[58:63, 40:160].max()


@pytest.mark.parametrize(("width", "low", "high"), [(2, 0.9, 2.1), (5, 1.9, 4.1), (14, 3.9, 8.1)])
def test_the_best_scale_follows_the_width(width, low, high):
    """Wide lines answer to wide filters."""
    grey = photo(
        np.full(SIZE, 150.0, np.float32), coverage(SIZE, line(np.array([160.0, 120.0]), 0, 250), width)
    )
    ridge = dark_ridge(grey)
    assert low <= np.median(ridge.scale_px[120, 80:240]) <= high


def test_local_median_ignores_cracks():
    """The wall's brightness under a crack is that beside it."""
    grey, true = scene(8.0)
    assert abs(float(local_median(grey)[true > 0].mean()) - 150) < 12


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
