from functools import cache, partial

import cv2
import numpy as np
import pytest

from damcrack.cracks.config import Segmentation
from damcrack.cracks.measure import measure_cracks
from damcrack.cracks.segment import crack_masks
from damcrack.inspection.align import moved, register, scale_at
from damcrack.inspection.changes import Side, changes
from walls import concrete, coverage, darkness_prob, line, photo

pytestmark = pytest.mark.slow

SIZE = (480, 640)
CENTRE = np.array([300.0, 240.0])


TWICE = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])  # to the photo from half the distance
EXTRA = (400.0, 380.0, 10, 120)

bare_wall = cache(concrete)


@cache
def wall_photo(length=220, width=6.0, extra=None, seed=3):
    """A crack, and an extra one (x, y, angle, length)."""
    covers = [coverage(SIZE, CENTRE + np.array([[-150, -60], [-150 + length, -60 + length * 0.4]]), width)]
    if extra is not None:
        x, y, angle, extra_length = extra
        covers.append(coverage(SIZE, line(np.array([x, y]), angle, extra_length), width))
    return photo(bare_wall(SIZE, seed=seed), *covers)


def side(grey):
    prob = darkness_prob(grey)
    masks = crack_masks(prob, np.ones(grey.shape, np.uint8), Segmentation())
    cracks = measure_cracks(grey, masks.sure, prob, 15, 40)
    return Side(
        [c.length_px for c in cracks],
        [c.samples for c in cracks],
        masks.possible,
        np.zeros(grey.shape, np.bool_),
    )


def compared(old, new):
    registration = register(old, new, 1.0, 1.0)
    assert not registration.reason
    return changes(side(old), side(new), registration.old_to_new, registration.error_px)


def compared_by(old_to_new, old, new):
    return changes(side(old), side(new), old_to_new, 0.5)


compared_unmoved = partial(compared_by, np.eye(3))


VIEW = np.array([[1.01, 0.03, -6.0], [-0.025, 0.985, 9.0], [1e-5, -2e-5, 1.0]])


def viewed(grey, **options):
    return cv2.warpPerspective(grey, VIEW, SIZE[::-1], flags=cv2.INTER_CUBIC, **options)


@pytest.mark.parametrize(
    ("alter", "seed"),
    [
        (lambda p: p, 3),
        (lambda p: np.clip(p * 0.8 + 12, 0, 255).astype(np.uint8), 4),
        (lambda p: np.clip(p * 1.15 - 5, 0, 255).astype(np.uint8), 3),
        (lambda p: cv2.GaussianBlur(p, (0, 0), 0.9), 4),
        (lambda p: viewed(p, borderMode=cv2.BORDER_REFLECT), 3),
        (lambda p: viewed(p, borderMode=cv2.BORDER_REFLECT), 4),
        (lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], 0), 4),
    ],
    ids=["same", "darker", "brighter", "blurred", "moved", "other wall, moved", "compressed"],
)
def test_an_unchanged_wall_has_not_changed(alter, seed):
    """Light, focus, viewpoint and compression are no change of the wall."""
    before = wall_photo(seed=seed)
    found = compared(before, alter(before))
    assert [change.status for change in found] == ["unchanged"]


def test_twenty_pixels_more_length_are_found():
    """The crack has grown by about so much."""
    before, after = wall_photo(length=180), wall_photo(length=180 + 20 / np.hypot(1, 0.4))
    (change,) = compared_unmoved(before, after)
    assert change.status == "grown"
    assert change.length_change_px == pytest.approx(20, abs=8)


def test_three_pixels_more_width_are_found():
    """And its length has not changed."""
    (change,) = compared_unmoved(wall_photo(width=5.0), wall_photo(width=8.0))
    assert change.status == "grown"
    assert change.width_change_px == pytest.approx(3, abs=0.6)
    assert change.length_change_px < 12


def test_a_new_crack_is_new_and_a_vanished_one_has_vanished():
    """The other crack stays as it was; the two directions mirror each other."""
    plain, more = wall_photo(), wall_photo(extra=EXTRA)
    assert sorted(change.status for change in compared_unmoved(plain, more)) == ["new", "unchanged"]
    back = compared_unmoved(more, plain)
    assert sorted(change.status for change in back) == ["unchanged", "vanished"]
    (gone,) = [change for change in back if change.status == "vanished"]
    assert gone.length_change_px == pytest.approx(-120, abs=12)


@pytest.mark.parametrize(("width", "status"), [(2.5, "unclear"), (8.0, "new")])
def test_what_the_coarser_photo_could_not_show_is_no_change(width, status):
    """From twice the distance a fine crack may not show: it is neither new nor, the other way round, vanished."""
    extra = (510.0, 355.0, 15.5, 187)
    fine = wall_photo(width=width, extra=extra)
    coarse = cv2.resize(wall_photo(width=width), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    (found,) = [one for one in compared_by(TWICE, coarse, fine) if one.length_px < 200]
    assert found.status == status
    back = compared_by(np.linalg.inv(TWICE), fine, coarse)
    assert [one.status for one in back].count("vanished") == (status == "new")


def test_where_the_old_network_was_unsure_nothing_is_new():
    """The missing line means nothing there."""
    old, new = side(wall_photo()), side(wall_photo(extra=EXTRA))
    unsure = Side(old.lengths_px, old.samples, old.possible, np.ones(SIZE, np.bool_))
    statuses = sorted(change.status for change in changes(unsure, new, np.eye(3), 0.5))
    assert statuses == ["unchanged", "unclear"]


def test_registration_finds_the_view():
    """Corners are brought to within a pixel of where they belong."""
    before = wall_photo()
    found = register(before, viewed(before), 1.0, 1.0)
    corners = np.array([[50.0, 50.0], [590.0, 50.0], [50.0, 430.0], [590.0, 430.0]])
    assert np.linalg.norm(moved(found.old_to_new, corners) - moved(VIEW, corners), axis=1).max() < 1.0


def test_a_vanished_crack_does_not_move_the_wall():
    """Of two photos from one place, in a small one too, what is no longer there changes nothing about the view."""
    size = (300, 420)
    bare, crack = bare_wall(size), coverage(size, line(np.array([260.0, 200.0]), 10, 100), 6.0)
    found = register(photo(bare, crack), photo(bare), 1.0, 1.0)
    corners = np.array([[0.0, 0.0], [420.0, 0.0], [0.0, 300.0], [420.0, 300.0]])
    assert np.linalg.norm(moved(found.old_to_new, corners) - corners, axis=1).max() < 0.1


def test_registration_counts_in_full_pixels():
    """Small photos of different sizes give a homography between the full ones."""
    before = wall_photo()
    half = cv2.resize(before, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    found = register(before, half, 1.0, 2.0)
    assert np.linalg.norm(moved(found.old_to_new, np.array([[600.0, 400.0]])) - [600.0, 400.0]) < 2.5


def test_two_walls_are_not_one():
    """Photos of different places are refused with a reason."""
    assert register(wall_photo(seed=3), photo(concrete(SIZE, seed=99)), 1.0, 1.0).reason


def test_flat_photos_are_refused():
    """Nothing to hold on to."""
    flat = np.full(SIZE, 120, np.uint8)
    assert "too few places" in register(flat, flat, 1.0, 1.0).reason


def test_scale_of_a_homography():
    """Twice as large is 2 everywhere."""
    np.testing.assert_allclose(scale_at(np.diag([2.0, 2.0, 1.0]), np.array([[0.0, 0.0], [50.0, 9.0]])), 2.0)


def test_growth_is_no_longer_than_the_crack():
    """Two new branches far apart are as long as they are: the way between them is wall."""
    size = (480, 640)
    known = np.array([[x, 240.0, 5.0] for x in range(100, 300, 4)])
    right = np.array([[x, 240.0, 5.0] for x in range(300, 361, 4)])
    far = np.array([[x, 60.0, 5.0] for x in range(20, 81, 4)])
    nothing, doubt = np.zeros(size, np.uint8), np.zeros(size, np.bool_)
    possible = nothing.copy()
    possible[238:243, 100:300] = 1
    old = Side([200.0], [known], possible, doubt)
    new = Side([320.0], [np.concatenate([known, right, far])], possible, doubt)
    (change,) = changes(old, new, np.eye(3), 0.0)
    assert change.status == "grown"
    assert 110 <= change.length_change_px <= 140
    short = Side([100.0], new.samples, possible, doubt)
    (change,) = changes(old, short, np.eye(3), 0.0)
    assert change.length_change_px == 100.0
