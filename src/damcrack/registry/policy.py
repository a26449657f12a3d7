"""Whether a challenger becomes champion: a pure function of the scores on the same tiles and of a policy.

Shape suffixes: N tiles, G photos.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from damcrack.registry.config import Policy
from damcrack.scores import metrics
from damcrack.scores.statistics import Interval, difference_interval, mcnemar

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Outcome = Literal["promoted", "kept", "refused"]


class Truth(NamedTuple):
    """Ground truth of the tiles: label (1 is crack), number of the photo, width of the widest crack in pixels.

    The width is 0 without a crack and NaN where there is no mask.
    """

    labels_N: Ints
    photo_N: Ints
    width_px_N: Floats

    def where(self, chosen_N: Bools) -> "Truth":
        """The same for some of the tiles."""
        return Truth(self.labels_N[chosen_N], self.photo_N[chosen_N], self.width_px_N[chosen_N])


class Scores(NamedTuple):
    """Scores of one model; NaN where there is nothing to count."""

    num_photos: int
    accuracy: float
    recall: float
    wide_recall: float
    num_wide: int
    ece: float


class Gain(NamedTuple):
    """The challenger against the champion, on the same tiles.

    `tiles` is the difference of accuracy over tiles with McNemar's counts and p; `photos` the mean over photos of
    the difference within each, so that no photo with many tiles dominates, with its bounds; `wide_recall` the
    difference of recall on wide cracks.
    """

    tiles: float
    only_champion: int
    only_challenger: int
    p: float
    photos: Interval
    wide_recall: float


class Check(NamedTuple):
    """One bound of the policy: the value found, the value required, whether it is met."""

    name: str
    found: float
    required: str
    passed: bool


@dataclass(frozen=True)
class Decision:
    """promoted, kept (the champion stays) or refused (below a floor), with the reason."""

    outcome: Outcome
    reason: str
    checks: tuple[Check, ...] = ()


def score(truth: Truth, probs_N: Floats, policy: Policy) -> Scores:
    """Score crack probabilities (N,); above one half a tile counts as a crack tile."""
    if not len(probs_N):
        return Scores(0, math.nan, math.nan, math.nan, 0, math.nan)
    found_N = (probs_N > 0.5).astype(np.int64)
    counts = metrics.confusion(truth.labels_N, found_N)
    wide_N = is_wide(truth, policy.wide_crack_px)
    return Scores(
        num_photos=len(np.unique(truth.photo_N)),
        accuracy=metrics.accuracy(counts),
        recall=metrics.recall(counts),
        wide_recall=_mean(found_N[wide_N]),
        num_wide=int(wide_N.sum()),
        ece=metrics.expected_calibration_error(metrics.reliability(truth.labels_N, probs_N)),
    )


def is_wide(truth: Truth, wide_crack_px: float) -> Bools:
    """Crack tiles (N,) whose widest crack is at least so wide; an unknown width is not."""
    wide_N: Bools = (truth.labels_N == 1) & (truth.width_px_N >= wide_crack_px)
    return wide_N


def compare(truth: Truth, champion_N: Floats, challenger_N: Floats, policy: Policy) -> Gain:
    """Compare crack probabilities (N,) of two models on the same tiles."""
    right_a_N, right_b_N = (
        (probs_N > 0.5) == (truth.labels_N == 1) for probs_N in (champion_N, challenger_N)
    )
    difference_N = right_b_N.astype(np.float64) - right_a_N
    return Gain(
        _mean(difference_N),
        *mcnemar(right_a_N, right_b_N),
        photos_interval(difference_N, truth.photo_N, policy.confidence),
        _mean(difference_N[is_wide(truth, policy.wide_crack_px)]),
    )


def _mean(values_N: Floats | Ints) -> float:
    return float(values_N.mean()) if len(values_N) else math.nan


def photos_interval(values_N: Floats, photo_N: Ints, confidence: float) -> Interval:
    """Mean over photos of the mean of each, with its bootstrap interval (percentiles over drawn photos).

    The bounds are moved away from the mean by sqrt(G / (G - 1)), the bootstrap's known shortfall with G photos.
    """
    _, index_N, size_G = np.unique(photo_N, return_inverse=True, return_counts=True)
    mean_1G = (np.bincount(index_N, weights=values_N) / size_G)[None]
    mean, low, high = difference_interval(
        np.zeros_like(mean_1G), mean_1G, np.arange(len(size_G)), level=confidence
    )
    wider = math.sqrt(len(size_G) / (len(size_G) - 1)) if len(size_G) > 1 else math.nan
    return Interval(mean, mean + wider * (low - mean), mean + wider * (high - mean))


def decide(challenger: Scores, gain: Gain | None, policy: Policy) -> Decision:
    """Apply the policy: floors first, then whether the challenger was shown to be better; no gain is no champion."""
    floors = list(_floors(challenger, policy))
    improvements = list(_improvements(gain, policy)) if gain else []
    checks = (*floors, *improvements)
    if failed := [check for check in floors if not check.passed]:
        return Decision("refused", _as_text(failed), checks)
    if gain is None:
        return Decision("promoted", "there was no champion, and it passes every floor", checks)
    if failed := [check for check in improvements if not check.passed]:
        return Decision("kept", f"not shown to be better: {_as_text(failed)}", checks)
    reason = (
        f"better by {gain.photos.difference:+.4f} over {challenger.num_photos} photos "
        f"({gain.photos.low:+.4f} to {gain.photos.high:+.4f}), McNemar's p {gain.p:.2g}"
    )
    return Decision("promoted", reason, checks)


def _floors(challenger: Scores, policy: Policy) -> Iterator[Check]:
    yield _at_least("photos", challenger.num_photos, policy.min_photos)
    yield _at_least("accuracy", challenger.accuracy, policy.min_accuracy)
    yield _at_most("calibration error", challenger.ece, policy.max_ece)
    if policy.min_wide_recall is not None:
        name = f"recall on {challenger.num_wide} tiles with cracks from {policy.wide_crack_px:g} px"
        yield _at_least(name, challenger.wide_recall, policy.min_wide_recall)


def _improvements(gain: Gain, policy: Policy) -> Iterator[Check]:
    lowest = gain.photos.low
    yield _at_least("gain over photos", gain.photos.difference, policy.min_gain)
    yield Check(f"lower bound of it at {policy.confidence:.0%}", lowest, "above 0", lowest > 0)
    yield _at_least("gain over tiles", gain.tiles, policy.min_gain)
    yield _at_most("McNemar's p", gain.p, round(1 - policy.confidence, 6))
    if policy.min_wide_recall is not None and not math.isnan(gain.wide_recall):
        yield _at_most("recall lost on wide cracks", -gain.wide_recall, policy.max_wide_recall_loss)


def _at_least(name: str, found: float, bound: float) -> Check:
    return Check(name, found, f"{bound:g} or more", found >= bound)  # NaN fails


def _at_most(name: str, found: float, bound: float) -> Check:
    return Check(name, found, f"{bound:g} or less", found <= bound)


def _as_text(checks: list[Check]) -> str:
    return "; ".join(f"{check.name} {_number(check.found)}, required {check.required}" for check in checks)


def _number(value: float) -> str:
    if math.isnan(value):
        return "unknown"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
