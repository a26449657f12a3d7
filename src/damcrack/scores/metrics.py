"""How well probabilities and decisions fit the truth, for two classes.

Ratios without a denominator are NaN: precision if nothing was called a crack, AUROC if a class is absent.
scikit-learn and SciPy are imported where they are used: a machine that only inspects photos has neither.
Shape suffixes: N tiles, K bins.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CALIBRATION_BINS = 10


class Confusion(NamedTuple):
    """Tiles by truth and verdict; positive is crack."""

    tn: int
    fp: int
    fn: int
    tp: int


def confusion(labels_N: Labels, predicted_N: Labels) -> Confusion:
    """Count the four cases; labels and predictions are 0 or 1."""
    tn, fp, fn, tp = np.bincount(2 * labels_N + predicted_N, minlength=4).tolist()
    return Confusion(tn, fp, fn, tp)


def accuracy(c: Confusion) -> float:
    """Share of right verdicts."""
    return _ratio(c.tp + c.tn, sum(c))


def precision(c: Confusion) -> float:
    """Share of cracks among the tiles called cracks."""
    return _ratio(c.tp, c.tp + c.fp)


def recall(c: Confusion) -> float:
    """Share of the cracks that were called cracks."""
    return _ratio(c.tp, c.tp + c.fn)


def f1(c: Confusion) -> float:
    """Harmonic mean of precision and recall; 0 where cracks exist and none was found."""
    return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def wilson_interval(num_right: int, num_all: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share (Wilson 1927); it takes the tiles as independent."""
    from scipy.stats import binomtest

    if not num_all:
        return 0.0, 1.0
    interval = binomtest(num_right, num_all).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def auroc(labels_N: Labels, scores_N: Floats) -> float:
    """Chance that a crack scores above a tile without one, ties counting half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels_N, scores_N)) if len(np.unique(labels_N)) == 2 else math.nan


class Reliability(NamedTuple):
    """Tiles by predicted probability, in bins of equal width; means are NaN in empty bins."""

    num_K: Labels
    mean_prob_K: Floats
    crack_share_K: Floats


def reliability(labels_N: Labels, probs_N: Floats, num_bins: int = CALIBRATION_BINS) -> Reliability:
    """Compare the crack probability with the share of cracks, bin by bin; 1.0 belongs to the last bin."""
    bins_N = np.minimum((probs_N * num_bins).astype(np.int64), num_bins - 1)
    num_K, prob_K, crack_K = (
        np.bincount(bins_N, weights=weights, minlength=num_bins) for weights in (None, probs_N, labels_N)
    )
    with np.errstate(invalid="ignore"):
        return Reliability(num_K, prob_K / num_K, crack_K / num_K)


def expected_calibration_error(bins: Reliability) -> float:
    """Mean distance of probability and share over all tiles, of the crack class (Naeini et al. 2015)."""
    gap_K = np.abs(bins.mean_prob_K - bins.crack_share_K)
    return float(np.nansum(bins.num_K * gap_K) / bins.num_K.sum())
