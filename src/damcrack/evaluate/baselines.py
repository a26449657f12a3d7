"""Brightness thresholding on whole tiles, its rules chosen on the training split alone."""

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.evaluate.scored import Baseline, HeldOutTiles, full_scores
from damcrack.files import InputError, in_order
from damcrack.run import Run
from damcrack.scores.thresholds import (
    LEVELS,
    adaptive_dark,
    best_rule,
    darker_share,
    fit_global_threshold,
    otsu_dark,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Grey = npt.NDArray[np.uint8]
# row, grey-value counts (256,), shares of pixels that Otsu's level and the local mean call dark
Brightness = tuple[int, Ints, float, float]


def score_baselines(data: HeldOutTiles, run: Run) -> list[Baseline]:
    """Score a global darkness level, Otsu's and the local mean, all fitted on the training tiles at full size.

    Raises:
        InputError: a tile cannot be decoded.
    """
    train = np.array(data.tiles.where("train"), dtype=np.int64)
    labels = np.array(data.tiles.labels, dtype=np.int64)[train]
    rows = np.concatenate([train, data.rows])
    wanted = set(rows.tolist())
    read = in_order(_brightness, (tile for tile in data.tiles.encoded() if tile[0] in wanted))
    found = {row: parts for row, *parts in run.track(read, "brightness baselines", len(rows))}
    histograms, otsu, adaptive = (
        np.array(part) for part in zip(*(found[row] for row in rows.tolist()), strict=True)
    )
    level, _ = fit_global_threshold(histograms[: len(train)], labels)
    return [
        _baseline("global_threshold", level, darker_share(histograms)[:, level], labels, data),
        _baseline("otsu_threshold", None, otsu, labels, data),
        _baseline("adaptive_threshold", None, adaptive, labels, data),
    ]


def _baseline(name: str, level: int | None, shares: Floats, labels: Ints, data: HeldOutTiles) -> Baseline:
    """`shares` of dark pixels, first of the training tiles, whose `labels` choose the rule, then of the scored."""
    train, scored = shares[: len(labels)], shares[len(labels) :]
    rule, train_accuracy = best_rule(train, labels)
    predicted = rule.decide(scored)
    facts = {"level": level, "sign": rule.sign, "cut": rule.cut, "train_accuracy": train_accuracy}
    return Baseline(name, predicted, {**facts, **full_scores(data, predicted, rule.scores(scored))})


def _brightness(tile: tuple[int, bytes]) -> Brightness:
    grey = decode_grey(*tile)
    histogram = np.bincount(grey.ravel(), minlength=LEVELS)
    return tile[0], histogram, float(otsu_dark(grey).mean()), float(adaptive_dark(grey).mean())


def decode_grey(row: int, encoded: bytes) -> Grey:
    """Grey values (H, W) of the tile of this row.

    Raises:
        InputError: it cannot be decoded.
    """
    grey = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise InputError(f"tile of row {row} cannot be decoded; make the set again")
    return np.asarray(grey, np.uint8)
