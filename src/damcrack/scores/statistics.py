"""Whether one classifier is better than another on the same tiles, and how well its probabilities fit.

What is undefined is NaN: a share of no tiles, a spread of one seed, an interval of one photo.
Shape suffixes: N tiles, S seeds, G groups (photos), C classes, D draws.
SciPy is imported where it is used, see `metrics`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

T_MIN, T_MAX = 0.05, 20.0

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class McNemar(NamedTuple):
    """Tiles that only one of two classifiers got right, and how surprising their imbalance is."""

    only_a: int
    only_b: int
    p: float


def mcnemar(right_a_N: Bools, right_b_N: Bools) -> McNemar:
    """Test whether two classifiers are right equally often on the same tiles (McNemar 1947, exact form).

    The two-sided p-value, in [0, 1], is that of a fair coin on the tiles where just one is right; 1 if there
    are none. It takes the tiles as independent, so tiles that share photos make it too small:
    `difference_interval` does not have this fault.
    """
    from scipy.stats import binomtest

    only_a = int(np.count_nonzero(right_a_N > right_b_N))
    only_b = int(np.count_nonzero(right_b_N > right_a_N))
    num = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_a, num).pvalue) if num else 1.0)


class Interval(NamedTuple):
    """Accuracy of b minus that of a, in [-1, 1], and the bounds it may lie within."""

    difference: float
    low: float
    high: float


def difference_interval(
    right_a_SN: Bools | Floats,
    right_b_SN: Bools | Floats,
    group_N: Ints,
    *,
    num_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Bound the accuracy of b minus that of a, mean of paired seeds, by a bootstrap of photos and seeds.

    Each draw takes G whole groups and S seeds with replacement (pigeonhole bootstrap, Owen 2007; percentiles,
    Efron 1979), since neither the tiles of one photo nor the verdicts of one trained network are independent.
    As groups differ in size, a draw is a ratio of sums, not a mean of group accuracies.

    With one group the bounds are NaN: nothing says how photos differ. With one seed they hold for these two
    trained networks only, not for training again. Few groups or seeds make them too narrow: the bootstrap's
    variance is (G - 1) / G and (S - 1) / S of the unbiased one.
    """
    change_SN = right_b_SN.astype(np.float64) - right_a_SN
    difference = _mean(change_SN)
    _, index_N, size_G = np.unique(group_N, return_inverse=True, return_counts=True)
    if len(size_G) < 2:
        return Interval(difference, math.nan, math.nan)
    gain_SG = np.array([np.bincount(index_N, weights=change_N) for change_N in change_SN], np.float64)
    rng = np.random.default_rng(seed)
    times_DS = _times_drawn(len(gain_SG), num_draws, rng)
    times_DG = _times_drawn(len(size_G), num_draws, rng)
    drawn_D = ((times_DG @ gain_SG.T) * times_DS).sum(axis=1) / (len(gain_SG) * (times_DG @ size_G))
    low, high = np.quantile(drawn_D, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(difference, low, high)


def _times_drawn(num: int, num_draws: int, rng: np.random.Generator) -> Floats:
    """How often each of `num` things came in `num` draws with replacement, (num_draws, num)."""
    row = num * np.arange(num_draws)[:, None]
    drawn = rng.integers(num, size=(num_draws, num)) + row
    return np.bincount(drawn.ravel(), minlength=num_draws * num).reshape(num_draws, num).astype(np.float64)


def nll(logits_NC: Floats, labels_N: Ints, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of softmax(logits / temperature), in nats, at least 0."""
    from scipy.special import log_softmax

    return _mean(-_of_label(log_softmax(logits_NC.astype(np.float64) / temperature, axis=1), labels_N))


def fit_temperature(logits_NC: Floats, labels_N: Ints) -> float:
    """Find the T in [0.05, 20] with the least `nll`, temperature scaling (Guo et al. 2017).

    The root of the slope over log T, which changes its sign once, as the loss is convex in 1 / T; a search for
    the least loss itself ends at half of the digits. If all tiles are right, it ends at the lower bound; if no
    tile prefers a class, T changes nothing and is 1.

    Raises:
        ValueError: no tiles.
    """
    from scipy.optimize import brentq
    from scipy.special import softmax

    if not len(labels_N):
        raise ValueError("fit_temperature: got 0 tiles, expected at least 1; give it a validation subset")
    logits_NC = logits_NC.astype(np.float64)
    below_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    if not below_NC.any():
        return 1.0

    def excess(log_t: float) -> float:
        """Expected logits less those of the labels: above 0 the loss falls with T."""
        expected_N = (softmax(below_NC / math.exp(log_t), axis=1) * below_NC).sum(axis=1)
        return float((expected_N - _of_label(below_NC, labels_N)).sum())

    low, high = math.log(T_MIN), math.log(T_MAX)
    if excess(low) <= 0:
        return T_MIN
    if excess(high) >= 0:
        return T_MAX
    return math.exp(brentq(excess, low, high, xtol=1e-14))


def _of_label(values_NC: Floats, labels_N: Ints) -> Floats:
    return values_NC[np.arange(len(labels_N)), labels_N]


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if values.size else math.nan
