import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from damcrack.scores import statistics

GENERATORS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def paired_verdicts(draw):
    """Right or wrong by seed and tile for two methods, and the group of each tile."""
    rng, num_seeds, num_tiles = draw(GENERATORS), draw(st.integers(1, 4)), draw(st.integers(2, 30))
    right_a, right_b = rng.random((2, num_seeds, num_tiles)) < draw(st.floats(0, 1))
    # two groups at least, with numbers that are neither dense nor sorted
    groups = np.append([40, 7], rng.choice([40, 7, 99, 3], num_tiles - 2))
    return right_a, right_b, groups


@st.composite
def labelled_logits(draw):
    """Logits of 2 or 3 classes, labels that they tell more or less well."""
    rng, num_classes = draw(GENERATORS), draw(st.integers(2, 3))
    labels = rng.integers(num_classes, size=draw(st.integers(1, 40)))
    hint = draw(st.floats(-1, 5)) * np.eye(num_classes)[labels]
    return draw(st.floats(0.1, 10)) * (hint + rng.normal(size=hint.shape)), labels


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (1, 0, 1.0),  # one tile decides nothing
        (5, 5, 1.0),  # balance: twice the tail is above 1
        (0, 8, 2 / 2**8),
        (9, 2, 2 * (1 + 11 + 55) / 2**11),
        (0, 100_000, 0.0),  # below the smallest double
    ],
)
def test_mcnemar_is_the_exact_test_of_a_fair_coin(only_a, only_b, p):
    """The p-value is twice the tail on the discordant tiles; tiles where both are right don't matter."""
    right_a = np.repeat([True, False, True, False], [only_a, only_b, 10, 3])
    right_b = np.repeat([False, True, True, False], [only_a, only_b, 10, 3])
    assert statistics.mcnemar(right_a, right_b) == pytest.approx((only_a, only_b, p))


@pytest.mark.parametrize("right", [[], [True], [False, True, True]])
def test_mcnemar_without_discordant_pairs_is_certain_of_nothing(right):
    """Equal verdicts, or no tiles, give p = 1."""
    assert statistics.mcnemar(np.array(right, bool), np.array(right, bool)) == (0, 0, 1.0)


@given(paired_verdicts())
def test_mcnemar_does_not_care_for_order(case):
    """Swapping the methods swaps the counts and keeps p; permuting tiles changes nothing."""
    right_a, right_b, _ = (part[0] for part in case)
    found = statistics.mcnemar(right_a, right_b)
    order = np.random.default_rng(0).permutation(len(right_a))
    assert statistics.mcnemar(right_b, right_a) == (found.only_b, found.only_a, found.p)
    assert statistics.mcnemar(right_a[order], right_b[order]) == found


def test_bootstrap_agrees_with_a_loop_over_draws():
    """A draw puts drawn groups' tiles of drawn seeds side by side."""
    rng = np.random.default_rng(1)
    right_a, right_b = rng.random((2, 3, 40)) < [[[0.5]], [[0.7]]]
    groups = rng.integers(6, size=40)
    found = statistics.difference_interval(right_a, right_b, groups, num_draws=200, seed=5, level=0.9)
    again = np.random.default_rng(5)
    drawn_seeds, drawn_groups = again.integers(3, size=(200, 3)), again.integers(6, size=(200, 6))
    differences = []
    for seeds, names in zip(drawn_seeds, drawn_groups, strict=True):
        tiles = np.concatenate([np.flatnonzero(groups == name) for name in names])
        rows = np.ix_(seeds, tiles)
        differences.append(right_b[rows].mean() - right_a[rows].mean())
    expected = (right_b.mean() - right_a.mean(), *np.quantile(differences, [0.05, 0.95]))
    assert found == pytest.approx(expected, abs=1e-12)


@given(paired_verdicts())
def test_difference_turns_with_the_methods_and_ignores_the_order_of_tiles(case):
    """Swapping a and b negates the difference and its bounds; permuting tiles changes nothing."""
    right_a, right_b, groups = case
    order = np.random.default_rng(0).permutation(len(groups))
    found = statistics.difference_interval(right_a, right_b, groups, num_draws=50)
    swapped = statistics.difference_interval(right_b, right_a, groups, num_draws=50)
    moved = statistics.difference_interval(right_a[:, order], right_b[:, order], groups[order], num_draws=50)
    assert swapped == pytest.approx((-found.difference, -found.high, -found.low), abs=1e-12)
    assert moved == found
    assert -1 <= found.low <= found.high <= 1


def covered(seed: int) -> tuple[bool, bool]:
    """Whether intervals by photo, and by tile as if independent, hold the true difference of one simulation."""
    rng = np.random.default_rng(seed)
    photos = np.repeat(np.arange(40), rng.integers(1, 40, 40))
    gain_of_photo = rng.uniform(-0.38, 0.42, 40)
    right_a = rng.random((3, len(photos))) < 0.5
    right_b = rng.random((3, len(photos))) < 0.5 + gain_of_photo[photos]
    found = [
        statistics.difference_interval(right_a, right_b, groups, num_draws=300)
        for groups in (photos, np.arange(len(photos)))
    ]
    by_photo, by_tile = (low <= 0.02 <= high for _, low, high in found)
    return by_photo, by_tile


def test_interval_holds_the_truth_as_often_as_it_says():
    """Where methods differ from photo to photo, intervals by photo cover near 95 %, intervals by tile don't."""
    by_photo, by_tile = np.mean([covered(seed) for seed in range(200)], axis=0)
    assert 0.9 <= by_photo <= 0.99
    assert by_tile < 0.75


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], (math.nan, math.nan, math.nan)),  # no tiles, no accuracy
        ([4, 4, 4], (1 / 3, math.nan, math.nan)),  # one photo says nothing about the next
        ([0, 1, 2], (1 / 3, 0.0, 1.0)),  # one seed: photos alone vary
    ],
)
def test_difference_of_one_group_or_one_seed(groups, expected):
    """Bounds are NaN where photos cannot vary; with one seed they are those of the photos."""
    right_a = np.array([[True, False, False]])[:, : len(groups)]
    right_b = np.array([[True, True, False]])[:, : len(groups)]
    found = statistics.difference_interval(right_a, right_b, np.array(groups))
    assert found == pytest.approx(expected, nan_ok=True)


@given(labelled_logits())
def test_loss_is_that_of_the_softmax(case):
    """NLL is the mean of minus the logarithm of the label's probability."""
    logits, labels = case
    weights = np.exp(logits / 2.5)
    probs = weights[np.arange(len(labels)), labels] / weights.sum(axis=1)
    assert statistics.nll(logits, labels, 2.5) == pytest.approx(-np.log(probs).mean(), rel=1e-9, abs=1e-12)


def test_loss_of_no_tiles_is_nan_and_large_logits_do_not_overflow():
    """The mean of nothing is undefined; a confident and wrong verdict costs its margin."""
    assert math.isnan(statistics.nll(np.zeros((0, 2)), np.zeros(0, np.int64)))
    assert statistics.nll(np.array([[1e4, -1e4]], np.float32), np.array([1])) == 2e4


@given(labelled_logits())
def test_temperature_is_the_minimum_of_the_loss(case):
    """No temperature that a reference search finds within the bounds is better, nor is leaving it at 1."""
    logits, labels = case
    temperature = statistics.fit_temperature(logits, labels)
    searched = optimize.minimize_scalar(
        lambda u: statistics.nll(logits, labels, math.exp(u)), bounds=np.log([0.05, 20]), method="bounded"
    )
    assert 0.05 <= temperature <= 20
    assert (
        statistics.nll(logits, labels, temperature)
        <= min(searched.fun, statistics.nll(logits, labels)) + 1e-12
    )


def test_temperature_undoes_bold_logits():
    """With logits five thirds too bold, the temperature is five thirds."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 3))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert statistics.fit_temperature(logits * 5 / 3, labels) == pytest.approx(5 / 3, rel=0.05)


@given(labelled_logits(), st.floats(0.5, 2))
def test_temperature_follows_the_scale_of_logits(case, factor):
    """Scaled logits get the scaled temperature, within the bounds; shifted rows get the same."""
    logits, labels = case
    temperature = statistics.fit_temperature(logits, labels)
    if 0.1 < temperature < 10:
        scaled = statistics.fit_temperature(factor * logits + labels[:, None], labels)
        assert scaled == pytest.approx(factor * temperature, rel=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([[2.0, 0.0], [0.0, 3.0]], [0, 1], 0.05),  # separable: ever colder is ever better
        ([[9e3, 0.0], [0.0, 9e3]], [0, 1], 0.05),  # separable, the loss underflows to 0
        ([[2.0, 0.0], [0.0, 3.0]], [1, 0], 20.0),  # all wrong: ever warmer
        ([[1.0, 1.0], [7.0, 7.0]], [0, 1], 1.0),  # no preference: temperature does nothing
        ([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [1, 1, 0], 1 / math.log(2)),  # odds of 2 to 1
    ],
)
def test_temperature_of_special_cases(logits, labels, expected):
    """Cases without a minimum inside end at a bound, silently."""
    found = statistics.fit_temperature(np.array(logits), np.array(labels))
    assert found == pytest.approx(expected, rel=1e-12)


def test_temperature_of_no_tiles_is_an_error():
    """Nothing can be fitted to nothing."""
    with pytest.raises(ValueError, match="0 tiles"):
        statistics.fit_temperature(np.zeros((0, 2)), np.zeros(0, np.int64))
