"""Whether a challenger becomes champion: a pure function of the scores on the same tiles and of a policy.

Shape suffixes: N tiles, G photos.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from damcrack.scores import metrics
from damcrack.scores.statistics import Interval, difference_interval, mcnemar

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Outcome = Literal["promoted", "kept", "refused"]


@dataclass(frozen=True)
class Policy:
    """Bounds that a model must meet before it becomes champion; None switches a bound off.

    Floors, which every champion must pass: `min_photos` in the evaluation set, `min_accuracy`, `min_wide_recall`
    on tiles whose crack is at least `wide_crack_px` wide, `max_ece` over `ece_bins` bins, `max_latency_ms` a tile,
    and `max_latency_ratio` to the champion, measured side by side.

    To take a champion's place: at least `min_gain` of accuracy over tiles and over photos, an interval of
    `confidence` over photos above zero (`num_draws` bootstrap draws from `seed`), McNemar's p at most
    1 - `confidence`, and a recall on wide cracks that falls by at most `max_wide_recall_loss`.
    """

    min_photos: int
    min_accuracy: float
    min_gain: float
    confidence: float
    num_draws: int
    seed: int
    wide_crack_px: float
    min_wide_recall: float | None
    max_wide_recall_loss: float
    max_ece: float
    ece_bins: int
    max_latency_ratio: float | None
    max_latency_ms: float | None

    def __post_init__(self) -> None:
        shares = ("min_accuracy", "min_gain", "min_wide_recall", "max_wide_recall_loss", "max_ece")
        allowed = {name: (0 <= (getattr(self, name) or 0) <= 1, "0 to 1") for name in shares} | {
            "min_photos": (self.min_photos >= 2, "2 or more"),
            "confidence": (0.5 <= self.confidence < 1, "0.5 or more, below 1"),
            "num_draws": (self.num_draws >= 100, "100 or more"),
            "seed": (self.seed >= 0, "0 or more"),
            "wide_crack_px": (self.wide_crack_px > 0, "above 0"),
            "ece_bins": (2 <= self.ece_bins <= 100, "2 to 100"),
            "max_latency_ratio": ((self.max_latency_ratio or 1) > 0, "above 0, or null"),
            "max_latency_ms": ((self.max_latency_ms or 1) > 0, "above 0, or null"),
        }
        for name, (fits, text) in allowed.items():
            if not fits:
                raise ValueError(f"{name}: {getattr(self, name)!r}; allowed is {text}")


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
    """Scores of one model on all tiles; NaN where there is nothing to count."""

    accuracy: float
    recall: float
    wide_recall: float
    num_wide: int
    ece: float


class Gain(NamedTuple):
    """The challenger against the champion.

    `tiles` is the difference of accuracy over tiles with McNemar's counts and p; `photos` the mean over photos of
    the difference within each, so that no photo with many tiles dominates, with its bounds.
    """

    tiles: float
    only_champion: int
    only_challenger: int
    p: float
    photos: Interval


class Latency(NamedTuple):
    """Milliseconds a tile, and their ratio to the champion's in the same minutes; None without a champion."""

    ms: float
    ratio: float | None


@dataclass(frozen=True)
class Evidence:
    """What a decision is based on; `champion` and `gain` are None if there is no champion."""

    num_photos: int
    challenger: Scores
    latency: Latency
    champion: Scores | None = None
    gain: Gain | None = None


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
        return Scores(math.nan, math.nan, math.nan, 0, math.nan)
    found_N = (probs_N > 0.5).astype(np.int64)
    counts = metrics.confusion(truth.labels_N, found_N)
    wide_N = is_wide(truth, policy.wide_crack_px)
    bins = metrics.reliability(truth.labels_N, probs_N, policy.ece_bins)
    return Scores(
        accuracy=metrics.accuracy(counts),
        recall=metrics.recall(counts),
        wide_recall=float(found_N[wide_N].mean()) if wide_N.any() else math.nan,
        num_wide=int(wide_N.sum()),
        ece=metrics.expected_calibration_error(bins),
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
    test = mcnemar(right_a_N, right_b_N)
    difference_N = right_b_N.astype(np.float64) - right_a_N
    return Gain(
        float(difference_N.mean()) if len(difference_N) else math.nan,
        *test,
        photos_interval(difference_N, truth.photo_N, policy),
    )


def photos_interval(values_N: Floats, photo_N: Ints, policy: Policy) -> Interval:
    """Mean over photos of the mean of each, with its bootstrap interval (percentiles over drawn photos).

    The bounds are moved away from the mean by sqrt(G / (G - 1)), the bootstrap's known shortfall with G photos.
    """
    _, index_N, size_G = np.unique(photo_N, return_inverse=True, return_counts=True)
    mean_G = np.bincount(index_N, weights=values_N) / size_G
    nothing_1G = np.zeros((1, len(size_G)))
    drawn = difference_interval(
        nothing_1G,
        mean_G[None],
        np.arange(len(size_G)),
        num_draws=policy.num_draws,
        seed=policy.seed,
        level=policy.confidence,
    )
    if math.isnan(drawn.low):
        return drawn
    wider = math.sqrt(len(size_G) / (len(size_G) - 1))
    middle = drawn.difference
    return Interval(middle, middle + wider * (drawn.low - middle), middle + wider * (drawn.high - middle))


def decide(evidence: Evidence, policy: Policy) -> Decision:
    """Apply the policy: floors first, then whether the challenger was shown to be better."""
    floors = _floors(evidence, policy)
    failed = [check for check in floors if not check.passed]
    if failed:
        return Decision("refused", _as_text(failed), tuple(floors))
    if evidence.champion is None or evidence.gain is None:
        return Decision("promoted", "there was no champion, and it passes every floor", tuple(floors))
    improvements = _improvements(evidence.challenger, evidence.champion, evidence.gain, policy)
    checks = (*floors, *improvements)
    failed = [check for check in improvements if not check.passed]
    photos = evidence.gain.photos
    if failed:
        return Decision("kept", f"not shown to be better: {_as_text(failed)}", checks)
    return Decision(
        "promoted",
        f"better by {photos.difference:+.4f} over {evidence.num_photos} photos "
        f"({photos.low:+.4f} to {photos.high:+.4f}), McNemar's p {evidence.gain.p:.2g}",
        checks,
    )


def _floors(evidence: Evidence, policy: Policy) -> list[Check]:
    scores, latency = evidence.challenger, evidence.latency
    checks = [
        _at_least("photos", evidence.num_photos, policy.min_photos),
        _at_least("accuracy", scores.accuracy, policy.min_accuracy),
        _at_most("calibration error", scores.ece, policy.max_ece),
    ]
    if policy.min_wide_recall is not None:
        name = f"recall on {scores.num_wide} tiles with cracks from {policy.wide_crack_px:g} px"
        checks.append(_at_least(name, scores.wide_recall, policy.min_wide_recall))
    if policy.max_latency_ms is not None:
        checks.append(_at_most("milliseconds a tile", latency.ms, policy.max_latency_ms))
    if policy.max_latency_ratio is not None and latency.ratio is not None:
        checks.append(_at_most("time relative to the champion", latency.ratio, policy.max_latency_ratio))
    return checks


def _improvements(challenger: Scores, champion: Scores, gain: Gain, policy: Policy) -> list[Check]:
    lowest = gain.photos.low
    checks = [
        _at_least("gain over photos", gain.photos.difference, policy.min_gain),
        Check(f"lower bound of it at {policy.confidence:.0%}", lowest, "above 0", lowest > 0),
        _at_least("gain over tiles", gain.tiles, policy.min_gain),
        _at_most("McNemar's p", gain.p, round(1 - policy.confidence, 6)),
    ]
    loss = champion.wide_recall - challenger.wide_recall
    if policy.min_wide_recall is not None and not math.isnan(loss):
        checks.append(_at_most("recall lost on wide cracks", loss, policy.max_wide_recall_loss))
    return checks


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
