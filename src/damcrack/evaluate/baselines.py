"""Brightness thresholding on whole tiles, its rules chosen on the training split alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.data.imageset import ImageSet
from damcrack.evaluate.scoring import EvaluationSet, full_scores
from damcrack.files import InputError, in_order
from damcrack.run import Run
from damcrack.scores.thresholds import (
    LEVELS,
    adaptive_dark_share,
    best_rule,
    darker_share,
    fit_global_threshold,
    otsu_dark_share,
)

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Baseline:
    """A rule on the share of dark pixels: its verdicts on the evaluation set, and its entry in metrics.json."""

    name: str
    predicted: Counts
    scores: dict[str, Any]


class Brightness(NamedTuple):
    """What the rules look at: grey-value counts (N, 256), shares (N,) darker than their surroundings."""

    histograms: Counts
    adaptive_shares: Floats


def score_baselines(data: EvaluationSet, run: Run) -> list[Baseline]:
    """Score a global darkness level, Otsu's and the local mean, all fitted on the training tiles at full size."""
    train = np.array(data.tiles.where("train"), dtype=np.int64)
    labels = np.array(data.tiles.labels, dtype=np.int64)[train]
    histograms, adaptive = brightness_of(data.tiles, np.concatenate([train, data.rows]), run)
    level, _ = fit_global_threshold(histograms[: len(train)], labels)
    return [
        _baseline("global_threshold", level, darker_share(histograms)[:, level], labels, data),
        _baseline("otsu_threshold", None, otsu_dark_share(histograms), labels, data),
        _baseline("adaptive_threshold", None, adaptive, labels, data),
    ]


def _baseline(name: str, level: int | None, shares: Floats, labels: Counts, data: EvaluationSet) -> Baseline:
    """`shares` of dark pixels, first of the training tiles, whose `labels` choose the rule, then of the scored."""
    train, scored = shares[: len(labels)], shares[len(labels) :]
    rule, train_accuracy = best_rule(train, labels)
    predicted = rule.decide(scored)
    facts = {"level": level, "sign": rule.sign, "cut": rule.cut, "train_accuracy": train_accuracy}
    return Baseline(name, predicted, {**facts, **full_scores(data, predicted, rule.scores(scored))})


def brightness_of(tiles: ImageSet, rows: Counts, run: Run) -> Brightness:
    """Read the tiles at `rows` once; results in that order.

    Raises:
        InputError: a tile cannot be decoded.
    """
    place = {int(row): number for number, row in enumerate(rows)}
    wanted = ((row, encoded) for row, encoded in tiles.encoded() if row in place)
    found = Brightness(np.zeros((len(rows), LEVELS), dtype=np.int64), np.zeros(len(rows)))
    for row, histogram, share in run.track(_looked_at(wanted), "brightness baselines", len(rows)):
        found.histograms[place[row]] = histogram
        found.adaptive_shares[place[row]] = share
    return found


def _looked_at(wanted: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, Counts, float]]:
    return in_order(_look_at, wanted)


def _look_at(tile: tuple[int, bytes]) -> tuple[int, Counts, float]:
    row, encoded = tile
    grey = decode_grey(row, encoded)
    return row, np.bincount(grey.ravel(), minlength=LEVELS), adaptive_dark_share(grey)


def decode_grey(row: int, encoded: bytes) -> Grey:
    """Grey values (H, W) of the tile of this row.

    Raises:
        InputError: it cannot be decoded.
    """
    grey = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise InputError(f"tile of row {row} cannot be decoded; make the set again")
    return np.asarray(grey, np.uint8)
