"""Grounds, hostile marks, and what they do to masks."""

import cv2
import numpy as np
import pytest

from damcrack.sample import hostile
from damcrack.sample.cracks import crack_mask, crack_network, grow_crack
from damcrack.sample.grounds import GROUNDS, Lay
from damcrack.sample.hostile import ABOVE, BELOW, Mark
from damcrack.sample.strokes import Stroke, coverage
from damcrack.sample.wall import OPAQUE, Wall, bare_wall

SIZE_HW = (240, 320)
COVERS = {hostile.cable, hostile.gauge, hostile.beam, hostile.moss, hostile.stems}
MARKS: list[Mark | Lay] = [mark for mark, _ in (*BELOW, *ABOVE, *GROUNDS)]


def marked(mark: Mark | Lay, seed: int) -> Wall:
    wall = bare_wall(np.ones(SIZE_HW, np.float32))
    mark(np.random.default_rng(seed), wall)
    return wall


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.__name__)
def test_mark_is_seen_and_is_a_function_of_its_seed(mark: Mark | Lay) -> None:
    """Every ground and mark changes many walls, leaves finite light, and repeats exactly.

    Cables, boards, beams and plants hide what is behind them; grounds, paint, water and shadows hide nothing.
    """
    walls = [marked(mark, seed) for seed in range(12)]
    for wall in walls:
        assert np.isfinite(wall.light).all() and np.isfinite(wall.tint).all()
        assert wall.light.min() > -0.25  # the deepest edge of a tie-rod hole, which a photo shows as black
        assert wall.tint.min() >= 0
    assert sum(bool(np.ptp(wall.light) > 0.05 or np.ptp(wall.tint) > 0.05) for wall in walls) >= 4
    assert any((wall.hidden >= OPAQUE).any() for wall in walls) == (mark in COVERS)
    for wall, again in zip(walls[:4], (marked(mark, seed) for seed in range(4)), strict=True):
        for name, values in vars(wall).items():
            assert np.array_equal(values, getattr(again, name)), name


@pytest.mark.parametrize(
    "mark", sorted(COVERS, key=lambda mark: mark.__name__), ids=lambda mark: mark.__name__
)
def test_what_is_hidden_shows_the_thing_and_not_the_crack(mark: Mark | Lay) -> None:
    """Where a wall is fully hidden, a black and a white wall look nearly alike."""
    for seed in range(6):
        black, white = (bare_wall(np.full(SIZE_HW, level, np.float32)) for level in (0.0, 1.0))
        for wall in (black, white):
            mark(np.random.default_rng(seed), wall)
        full = black.hidden == 255
        assert np.array_equal(black.hidden, white.hidden)
        assert not full.any() or np.abs(black.light - white.light)[full].max() < 0.45


@pytest.mark.parametrize("width_px", [14.0, 25.0, 38.0])
def test_mask_of_a_wide_crack_has_its_area(width_px: float) -> None:
    """Ragged edges included, mask and strokes cover the same area within 3 %, and about length x width of it."""
    for seed in range(3):
        grown = grow_crack(np.random.default_rng(seed), np.array([250.0, 450.0]), 0.0, (500.0, width_px))
        strokes = [crack.stroke for crack in grown]
        area = coverage(strokes, (900, 1100))
        mask = crack_mask(strokes, (900, 1100), area)
        assert np.count_nonzero(mask) == pytest.approx(area.sum() / 255, rel=0.03)
        assert 0.5 < np.count_nonzero(coverage(strokes[:1], (900, 1100)) > 127) / (500 * width_px) < 1.2


def test_mask_of_a_wide_crack_is_the_opening() -> None:
    """A point well inside the stem is in the mask, one more than its width outside all strokes is not."""
    stem = Stroke(np.array([[10.0, 100], [300, 100]]), np.array([36.0, 36]))
    mask = crack_mask([stem], SIZE_HW)
    assert mask[83:117, 12:298].all()
    assert not mask[:81].any()
    assert not mask[119:].any()


def test_network_has_cells() -> None:
    """Map cracking encloses areas: the sound concrete falls into several pieces."""
    strokes = [crack.stroke for crack in crack_network(np.random.default_rng(1), np.array([400.0, 400.0]))]
    sound = (crack_mask(strokes, (800, 800)) == 0).astype(np.uint8)
    assert cv2.connectedComponents(sound, connectivity=4)[0] > 5
