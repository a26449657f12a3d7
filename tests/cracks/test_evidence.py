"""Evidence of a traced line, and what it is worth in a photo of some size."""

from dataclasses import replace

import numpy as np
import pytest

from damcrack.cracks.measure import FALSE_PER_MEGAPIXEL, Crack, confidence
from damcrack.cracks.photo import Rules, verdict
from damcrack.inspection.config import InspectConfig

LINE = Crack(
    length_px=120.0,
    width_px=3.0,
    width_max_px=4.0,
    area_px=360,
    num_branches=1,
    box_xyxy=(0, 0, 120, 4),
    lines=(np.array([[0, 2], [119, 2]]),),
    samples=np.array([[0.0, 2.0, 3.0]]),
    crack_prob=0.7,
)
RULES = Rules.of(InspectConfig())


@pytest.mark.parametrize("more", [{"length_px": 240.0}, {"width_max_px": 2.0}, {"crack_prob": 0.9}])
def test_a_longer_thinner_or_clearer_line_has_more_evidence(more):
    assert replace(LINE, **more).evidence > LINE.evidence


def test_probabilities_of_zero_and_one_give_finite_evidence():
    assert np.isfinite([replace(LINE, crack_prob=prob).evidence for prob in (0.0, 1.0)]).all()


def test_clean_walls_are_called_so_as_often_in_photos_of_any_size():
    """Lines on clean walls drawn as the fit has them: the most convincing one passes 0.9 in a tenth of the photos."""
    rng = np.random.default_rng(0)
    for megapixels in (0.2, 2.0, 20.0):
        called = 0
        for _ in range(2000):
            # With evidence from -5 on; each unit of evidence has e times fewer lines.
            expected = FALSE_PER_MEGAPIXEL * megapixels * np.exp(5)
            found = -5 + rng.exponential(size=rng.poisson(expected))
            called += found.size > 0 and confidence(float(found.max()), megapixels) >= 0.9
        assert called / 2000 == pytest.approx(0.1, abs=0.02)


def test_a_photo_is_called_by_its_most_convincing_line():
    lines = [replace(LINE, confidence=value) for value in (0.99, 0.1)]
    assert verdict(lines, False, RULES) == "crack"
    assert verdict([replace(LINE, confidence=0.92)], False, RULES) == "unsure"
    assert verdict([replace(LINE, confidence=0.89)], False, RULES) == "no crack"
    assert verdict([], False, RULES) == "no crack"


def test_a_doubtful_photo_is_never_called_clean():
    assert verdict([], True, RULES) == "unsure"
    assert verdict([replace(LINE, confidence=0.99)], True, RULES) == "crack"
