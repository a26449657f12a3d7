import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damcrack.scores.thresholds import (
    LEVELS,
    MARGIN,
    WINDOW_PX,
    adaptive_dark,
    best_rule,
    darker_share,
    fit_global_threshold,
    otsu_dark,
)


def histograms_of(tiles_NHW):
    return np.stack([np.bincount(tile.ravel(), minlength=LEVELS) for tile in tiles_NHW])


def tiles_with_dark_share(shares, dark=40, light=180):
    tiles = np.full((len(shares), 10, 10), light, dtype=np.uint8)
    for tile, share in zip(tiles, shares, strict=True):
        tile.ravel()[: round(100 * share)] = dark
    return tiles


@given(st.integers(0, 2**32 - 1))
def test_otsu_divides_where_the_variance_between_is_highest(seed):
    """No other level parts the tile's pixels into dark and light ones with means further apart, by weight."""
    rng = np.random.default_rng(seed)
    modes = rng.normal(rng.uniform(40, 90), 15, (16, 8)), rng.normal(rng.uniform(130, 200), 20, (16, 24))
    tile = np.clip(np.concatenate(modes, axis=1), 0, 255).astype(np.uint8)

    def variance_between(dark):
        return dark.mean() * (~dark).mean() * (tile[dark].mean() - tile[~dark].mean()) ** 2

    levels = [level for level in range(256) if 0 < (tile <= level).mean() < 1]
    best = max(variance_between(tile <= level) for level in levels)
    assert variance_between(otsu_dark(tile)) == pytest.approx(best)


@pytest.mark.parametrize(("grey", "share"), [(0, 1.0), (128, 0.0), (255, 0.0)])
def test_tile_of_one_grey_has_no_dark_side(grey, share):
    """A blank wall has nothing to divide: Otsu's dark share is 0, or all of it if it is black."""
    assert otsu_dark(np.full((8, 8), grey, dtype=np.uint8)).mean() == share


def concrete_with(rng, size_hw, crack_px=0, shadow=0):
    """Mottled grey that is `shadow` darker in its left half, with a vertical crack of that width at three quarters."""
    tile = rng.normal(150, 4, size_hw)
    tile[:, : size_hw[1] // 2] -= shadow
    crack = slice(3 * size_hw[1] // 4, 3 * size_hw[1] // 4 + crack_px)
    tile[:, crack] -= 70
    return np.clip(tile, 0, 255).astype(np.uint8), crack


@pytest.mark.parametrize("size_hw", [(40, 37), (64, 64), (20, 50)], ids=["odd", "square", "below the window"])
def test_adaptive_dark_is_a_plain_loop(size_hw):
    """Pixel by pixel: at least MARGIN below the rounded mean of the window, the edge repeated beyond the border."""
    tile, _ = concrete_with(np.random.default_rng(5), size_hw, crack_px=3, shadow=40)
    around = np.pad(tile.astype(np.float64), WINDOW_PX // 2, mode="edge")
    expected = np.zeros(size_hw, dtype=bool)
    for y in range(size_hw[0]):
        for x in range(size_hw[1]):
            mean = np.rint(around[y : y + WINDOW_PX, x : x + WINDOW_PX].mean())
            expected[y, x] = tile[y, x] <= mean - MARGIN
    assert np.array_equal(adaptive_dark(tile), expected)
    assert expected.any()


def test_adaptive_dark_sees_a_crack_and_not_a_shadow():
    """A crack is marked along its whole length and a blank wall not at all; of a shadow at most the rim is."""
    rng = np.random.default_rng(6)
    cracked, crack = concrete_with(rng, (96, 96), crack_px=4)
    shaded, _ = concrete_with(rng, (96, 96), shadow=30)
    assert adaptive_dark(cracked)[:, crack].all()
    assert not adaptive_dark(concrete_with(rng, (96, 96))[0]).any()
    assert adaptive_dark(shaded).mean() < 0.02 < 0.4 < otsu_dark(shaded).mean()


def test_darker_share_counts_strictly_darker_pixels():
    """Column t is the share of pixels with a grey value below t."""
    tile = np.array([[0, 10], [10, 255]], dtype=np.uint8)
    share = darker_share(histograms_of([tile]))[0]
    assert (share[0], share[10], share[11], share[255]) == (0, 0.25, 0.75, 0.75)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), min_size=1, max_size=40))
def test_best_rule_is_the_best_of_all_cuts(cases):
    """No other cut in either direction judges more tiles correctly, and the rule has the accuracy that it reports."""
    scores = np.array([score / 8 for score, _ in cases])
    labels = np.array([label for _, label in cases])
    rule, accuracy = best_rule(scores, labels)
    cuts = [*np.unique(scores), np.inf]
    best = max(((sign * scores >= sign * cut) == labels).mean() for sign in (1, -1) for cut in cuts)
    best = max(best, labels.mean(), 1 - labels.mean())
    assert accuracy == pytest.approx(best)
    assert (rule.decide(scores) == labels).mean() == accuracy


def test_best_rule_finds_cracks_that_score_low():
    """Where cracks have the smaller dark share, the direction turns round."""
    rule, accuracy = best_rule(np.array([0.1, 0.2, 0.6, 0.7]), np.array([1, 1, 0, 0]))
    assert (rule.sign, accuracy) == (-1, 1.0)
    assert rule.cut == pytest.approx(-0.4)


def test_global_threshold_finds_the_level_that_separates():
    """Level and cut are chosen together: tiles that differ only in pixels darker than 60 are separated."""
    cracked = tiles_with_dark_share([0.05, 0.08, 0.03], dark=50)
    stained = tiles_with_dark_share([0.3, 0.1, 0.5], dark=90)
    histograms = histograms_of(np.concatenate([cracked, stained]))
    labels = np.array([1, 1, 1, 0, 0, 0])
    level, rule = fit_global_threshold(histograms, labels)
    assert 51 <= level <= 90
    assert rule.decide(darker_share(histograms)[:, level]).tolist() == labels.tolist()
