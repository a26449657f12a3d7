"""How well probabilities and decisions fit the truth, for two classes.

Ratios without a denominator are NaN: precision if nothing was called a crack, AUROC if a class is absent.
Shape suffixes: N tiles, K bins, P points of a curve.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


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


def wilson_interval(num_right: int, num_all: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a share, 95 % at the default z (Wilson 1927); it takes the tiles as independent."""
    if not num_all:
        return 0.0, 1.0
    share, spread = num_right / num_all, z * z / num_all
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def auroc(labels_N: Labels, scores_N: Floats) -> float:
    """Chance that a crack scores above a tile without one, ties counting half (Mann-Whitney U)."""
    num_positive = int(labels_N.sum())
    num_pairs = num_positive * (len(labels_N) - num_positive)
    if not num_pairs:
        return math.nan
    _, inverse_N, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[inverse_N][labels_N == 1].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / num_pairs


def roc_curve(labels_N: Labels, scores_N: Floats) -> tuple[Floats, Floats]:
    """False-positive and true-positive rates (P,), from (0, 0) to (1, 1), one point for each distinct score.

    A rate is NaN where its class is absent.
    """
    order = np.argsort(-scores_N, kind="stable")
    last_of_tie = np.append(np.diff(scores_N[order]) != 0, True)[: len(order)]
    hits = np.cumsum(labels_N[order])[last_of_tie]
    alarms = np.cumsum(1 - labels_N[order])[last_of_tie]
    with np.errstate(invalid="ignore"):
        fpr_P, tpr_P = (np.append(0, counts) / np.append(0, counts)[-1] for counts in (alarms, hits))
    return fpr_P, tpr_P


class Reliability(NamedTuple):
    """Tiles by predicted probability, in bins of equal width; means are NaN in empty bins."""

    num_K: Labels
    mean_prob_K: Floats
    crack_share_K: Floats


def reliability(labels_N: Labels, probs_N: Floats, num_bins: int) -> Reliability:
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
