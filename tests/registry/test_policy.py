import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damcrack.registry.config import Policy
from damcrack.registry.policy import Scores, Truth, compare, decide, photos_interval, score
from experiments import promotion

POLICY = Policy(
    min_photos=20,
    min_accuracy=0.6,
    min_gain=0.005,
    confidence=0.95,
    wide_crack_px=8.0,
    min_wide_recall=0.7,
    max_wide_recall_loss=0.02,
    max_ece=0.1,
)
NUM_PHOTOS, PER_PHOTO = 100, 10


def wall(sizes=(PER_PHOTO,) * NUM_PHOTOS):
    """Photos of so many tiles, every second one with a crack, half of the cracks 12 px wide and half 4."""
    photo = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(photo))
    labels = place % 2
    return Truth(labels, photo, np.where(labels == 1, np.where(place % 4 == 1, 12.0, 4.0), 0.0))


def answers(truth, wrong):
    """Crack probabilities of a model that is wrong on the tiles `wrong` (N,) and 95 % sure of everything."""
    says_crack = (truth.labels_N == 1) ^ wrong
    return np.where(says_crack, 0.95, 0.05)


def every(truth, step, first=0):
    return np.arange(len(truth.labels_N)) % step == first


def decided(truth, champion_wrong, challenger_wrong, policy=POLICY):
    champion, challenger = answers(truth, champion_wrong), answers(truth, challenger_wrong)
    gain = compare(truth, champion, challenger, policy)
    return decide(score(truth, challenger, policy), gain, policy)


def test_clearly_better_is_promoted():
    """A challenger that makes half of the champion's errors takes its place."""
    truth = wall()
    decision = decided(truth, every(truth, 7), every(truth, 14))
    assert decision.outcome == "promoted"
    assert all(check.passed for check in decision.checks)


def test_clearly_worse_is_kept_out():
    """A challenger with twice the champion's errors passes the floors and changes nothing: the champion wins."""
    truth = wall()
    decision = decided(truth, every(truth, 14), every(truth, 7))
    assert decision.outcome == "kept"
    assert "gain over photos -0.07" in decision.reason


def test_equal_within_noise_keeps_the_champion():
    """As many errors on other tiles, three fewer by chance, are no proof."""
    truth, rng = wall(), np.random.default_rng(0)
    champion, challenger = (rng.random(len(truth.labels_N)) < 0.1 for _ in range(2))
    challenger &= ~(np.cumsum(challenger) > champion.sum() - 3)
    decision = decided(truth, champion, challenger)
    assert challenger.sum() < champion.sum()
    assert decision.outcome == "kept"


def test_champion_against_itself_is_kept():
    """The same answers have no gain and p = 1: a comparison with oneself never promotes."""
    truth = wall()
    decision = decided(truth, every(truth, 9), every(truth, 9))
    assert decision.outcome == "kept"
    assert "McNemar's p 1" in decision.reason


def test_better_on_tiles_but_worse_on_photos_is_kept():
    """Two long walls of 400 tiles outvote 98 photos of 4 tiles in McNemar's test, not in the gate."""
    sizes = (400, 400, *(4,) * 98)
    truth = wall(sizes)
    long_wall = truth.photo_N < 2
    champion = long_wall & every(truth, 5)
    challenger = ~long_wall & every(truth, 8)
    compared = compare(truth, answers(truth, champion), answers(truth, challenger), POLICY)
    assert compared.tiles > 0.05 and compared.p < 1e-6
    assert compared.photos.high < 0
    assert decided(truth, champion, challenger).outcome == "kept"


@pytest.mark.parametrize(("floor", "outcome"), [(0.95, "refused"), (0.7, "kept"), (None, "promoted")])
def test_better_accuracy_but_lower_recall_on_wide_cracks(floor, outcome):
    """Wide cracks that are missed weigh more than many errors saved: refused below the floor, kept above it."""
    truth = wall()
    wide = truth.width_px_N > 8
    champion = ~wide & every(truth, 6)
    challenger = wide & every(truth, 16, 1)
    assert challenger.sum() < champion.sum() / 2
    decision = decided(truth, champion, challenger, replace(POLICY, min_wide_recall=floor))
    assert decision.outcome == outcome
    if floor is not None:
        assert "wide cracks" in decision.reason or "cracks from 8 px" in decision.reason


FINE = Scores(num_photos=100, accuracy=0.9, recall=0.9, wide_recall=0.95, num_wide=100, ece=0.05)


def test_without_champion_the_floors_decide():
    """The first model that passes every floor becomes champion."""
    assert decide(FINE, None, POLICY).outcome == "promoted"


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"num_photos": 19}, "photos"),
        ({"accuracy": 0.59}, "accuracy"),
        ({"accuracy": math.nan}, "accuracy"),
        ({"ece": 0.11}, "calibration error"),
        ({"wide_recall": 0.69}, "recall on 100 tiles with cracks from 8 px"),
        ({"wide_recall": math.nan, "num_wide": 0}, "recall on 0 tiles"),
    ],
)
def test_every_floor_refuses(changed, name):
    """Below one floor a model is refused, whoever is champion and however much better it is."""
    gain = compare(wall(), answers(wall(), every(wall(), 3)), answers(wall(), every(wall(), 99)), POLICY)
    assert decide(FINE, gain, POLICY).outcome == "promoted"
    decision = decide(FINE._replace(**changed), gain, POLICY)
    assert decision.outcome == "refused"
    (failed,) = (check for check in decision.checks if not check.passed)
    assert failed.name.startswith(name) and failed.name in decision.reason


def test_tiles_of_one_photo_do_not_count_twice():
    """Every tile five times over makes McNemar's p tiny and moves the interval over photos not at all."""
    truth = wall((10,) * 30)
    champion, challenger = answers(truth, every(truth, 9)), answers(truth, every(truth, 13, 3))
    often = Truth(*(np.repeat(values, 5) for values in truth))
    once = compare(truth, champion, challenger, POLICY)
    five = compare(often, np.repeat(champion, 5), np.repeat(challenger, 5), POLICY)
    assert five.p < once.p / 2
    assert five.photos == pytest.approx(once.photos)


def test_no_photo_left_decides_nothing():
    """Without tiles everything is unknown, so the model is refused instead of a crash."""
    nothing = wall().where(np.zeros(1000, bool))
    assert decide(score(nothing, np.zeros(0), POLICY), None, POLICY).outcome == "refused"


@given(st.integers(2, 30), st.integers(0, 1000))
def test_interval_holds_the_mean_of_photos(num_photos, seed):
    """The mean over photos is the plain mean of their means, and lies within its bounds."""
    rng = np.random.default_rng(seed)
    photo = np.concatenate([np.arange(num_photos), rng.integers(num_photos, size=50)])
    values = rng.integers(-1, 2, len(photo)).astype(float)
    found = photos_interval(values, photo, 0.95)
    means = [values[photo == number].mean() for number in range(num_photos)]
    assert found.difference == pytest.approx(np.mean(means))
    assert found.low <= found.difference <= found.high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photos", "gain", "least", "most"),
    [(200, 0.0, 0.0, 0.05), (20, 0.0, 0.0, 0.05), (200, 0.03, 0.8, 1.0), (200, -0.03, 0.0, 0.0)],
)
def test_share_of_right_decisions(photos, gain, least, most):
    """In 100 simulated draws, equals are promoted in 5 % at most, 3 points more over 200 photos in 80 % at least."""
    rng = np.random.default_rng(photos)
    decisions = [promotion.outcome(rng, photos, gain, 0.10, POLICY).decision for _ in range(100)]
    assert least <= decisions.count("promoted") / 100 <= most


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_photos", 1),
        ("min_accuracy", 1.5),
        ("confidence", 1.0),
        ("wide_crack_px", 0.0),
        ("max_ece", -0.1),
    ],
)
def test_policy_refuses(name, value):
    """A bound outside its range is named with what is allowed."""
    with pytest.raises(ValueError, match=name):
        replace(POLICY, **{name: value})
