"""Brightness thresholding on whole tiles, its rule chosen on the training split alone."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.errors import InputError
from damcrack.images.imageset import ImageSet
from damcrack.math.thresholds import (
    LEVELS,
    Rule,
    best_rule,
    darker_share,
    fit_global_threshold,
    otsu_dark_share,
)
from damcrack.parallel import in_order
from damcrack.stages.evaluation.scoring import EvaluationSet, full_scores
from damcrack.stages.run import Run

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def score_baselines(data: EvaluationSet, run: Run) -> dict[str, dict[str, Any]]:
    """Score a global darkness threshold and Otsu's, both fitted on the training tiles at full size."""
    train = np.array(data.tiles.where("train"), dtype=np.int64)
    labels = np.array(data.tiles.labels, dtype=np.int64)[train]
    histograms = grey_histograms(data.tiles, np.concatenate([train, data.rows]), run)
    fitting, scoring = histograms[: len(train)], histograms[len(train) :]
    level, rule = fit_global_threshold(fitting, labels)
    otsu_rule, _ = best_rule(otsu_dark_share(fitting), labels)
    by_level = (darker_share(fitting)[:, level], darker_share(scoring)[:, level])
    by_otsu = (otsu_dark_share(fitting), otsu_dark_share(scoring))
    return {
        "global_threshold": {"level": level, **_scores(rule, labels, by_level, data)},
        "otsu_threshold": {"level": None, **_scores(otsu_rule, labels, by_otsu, data)},
    }


def _scores(rule: Rule, labels: Counts, shares: tuple[Floats, Floats], data: EvaluationSet) -> dict[str, Any]:
    """`shares` of dark pixels on the training and on the scored tiles."""
    train, scored = shares
    return {
        "sign": rule.sign,
        "cut": rule.cut,
        "train_accuracy": float((rule.decide(train) == labels).mean()),
        **full_scores(data, rule.decide(scored), rule.scores(scored)),
    }


def grey_histograms(tiles: ImageSet, rows: Counts, run: Run) -> Counts:
    """Grey-value counts (len(rows), 256) of the tiles at `rows`, in that order.

    Raises:
        InputError: a tile cannot be decoded.
    """
    place = {int(row): number for number, row in enumerate(rows)}
    wanted = ((row, encoded) for row, encoded in tiles.encoded() if row in place)
    counts = np.zeros((len(rows), LEVELS), dtype=np.int64)
    for row, histogram in run.track(_histograms(wanted), "brightness baseline", len(rows)):
        counts[place[row]] = histogram
    return counts


def _histograms(wanted: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, Counts]]:
    return in_order(_histogram, wanted)


def _histogram(tile: tuple[int, bytes]) -> tuple[int, Counts]:
    row, encoded = tile
    grey = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise InputError(f"tile of row {row} cannot be decoded; make the set again")
    return row, np.bincount(grey.ravel(), minlength=LEVELS)
