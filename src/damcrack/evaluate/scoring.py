"""Scores of detectors and of the brightness baselines on one split."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from damcrack.data.imageset import ImageSet
from damcrack.evaluate.trained import TrainedModel
from damcrack.run import Run
from damcrack.scores import metrics
from damcrack.train.decoded import decode_set
from damcrack.train.detector import Detector, predict_logits
from damcrack.train.hardware import best_device
from damcrack.train.weights import load_model

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EvaluationSet:
    """The rows of a tile set that are scored: the test split, or the validation split if there is none."""

    tiles: ImageSet
    split: str
    rows: Ints
    labels: Ints

    @classmethod
    def choose(cls, tiles: ImageSet) -> "EvaluationSet":
        """Take the test split if it has tiles, else the validation split."""
        split = "test" if tiles.where("test") else "val"
        rows = np.array(tiles.where(split), dtype=np.int64)
        return cls(tiles, split, rows, np.array(tiles.labels, dtype=np.int64)[rows])

    def column(self, name: str) -> npt.NDArray[np.str_]:
        """An index column of the scored rows, as text."""
        return np.array([self.tiles.rows[row][name] for row in self.rows], dtype=np.str_)

    @property
    def facts(self) -> dict[str, Any]:
        """What was scored, for metrics.json."""
        num_tiles, num_crack = len(self.rows), int(self.labels.sum())
        return {
            "digest": self.tiles.digest,
            "split": self.split,
            "num_tiles": num_tiles,
            "num_crack": num_crack,
        }


@dataclass(frozen=True)
class Scored:
    """A fine-tuned model with its crack probabilities and verdicts (above one half) on the evaluation set."""

    model: TrainedModel
    start: str
    probs: Floats
    predicted: Ints


def score_model(model: TrainedModel, start: str, data: EvaluationSet, run: Run) -> Scored:
    """Score the evaluation set in float32; the decoded array of the training stage is used again."""
    network, info = load_model(model.folder)
    images = decode_set(data.tiles.root, info.image_px, run.scratch / "decoded")
    detector = Detector(network, info).to(best_device())
    logits = predict_logits(detector, images.images_NHWC, data.rows).astype(np.float64)
    # in float64, so that sure verdicts keep their order
    probs = np.exp(-np.logaddexp(0, logits[:, 0] - logits[:, 1]))
    return Scored(model, start, probs, (probs > 0.5).astype(np.int64))


def decision_scores(labels: Ints, predicted: Ints, ranking: Floats) -> dict[str, float | None]:
    """Accuracy, precision, recall, F1 of the verdicts and AUROC of the ranking; None where undefined."""
    counts = metrics.confusion(labels, predicted)
    named = (metrics.accuracy, metrics.precision, metrics.recall, metrics.f1)
    scores = {function.__name__: function(counts) for function in named}
    scores["auroc"] = metrics.auroc(labels, ranking)
    return {name: None if math.isnan(value) else value for name, value in scores.items()}


def full_scores(data: EvaluationSet, predicted: Ints, ranking: Floats) -> dict[str, Any]:
    """`decision_scores` over all tiles with confusion matrix and interval, and for each source."""
    counts = metrics.confusion(data.labels, predicted)
    return {
        **decision_scores(data.labels, predicted, ranking),
        "confusion": [[counts.tn, counts.fp], [counts.fn, counts.tp]],
        "accuracy_interval": list(metrics.wilson_interval(counts.tp + counts.tn, sum(counts))),
        "by_source": _by_source(data, predicted, ranking),
    }


def _by_source(data: EvaluationSet, predicted: Ints, ranking: Floats) -> dict[str, Any]:
    sources = data.column("source")
    masks = {str(source): sources == source for source in np.unique(sources)}
    return {
        source: {
            "num_tiles": int(mask.sum()),
            **decision_scores(data.labels[mask], predicted[mask], ranking[mask]),
        }
        for source, mask in masks.items()
    }


def experiment_scores(scored: Scored, data: EvaluationSet, num_bins: int) -> dict[str, Any]:
    """Everything that metrics.json says of an experiment."""
    bins = metrics.reliability(data.labels, scored.probs, num_bins)
    scores = full_scores(data, scored.predicted, scored.probs)
    by_source = scores.pop("by_source")
    return {
        **scores,
        "ece": metrics.expected_calibration_error(bins),
        "start": scored.start,
        **scored.model.facts,
        "by_source": by_source,
    }


def photo_rows(experiments: Sequence[Scored], data: EvaluationSet) -> list[dict[str, Any]]:
    """Errors of each experiment on each photo, photos in order of name."""
    photos, first, inverse = np.unique(data.column("photo"), return_index=True, return_inverse=True)
    sources, num_tiles = data.column("source")[first], np.bincount(inverse)
    rows = []
    for scored in experiments:
        wrong = scored.predicted - data.labels
        false_positives, false_negatives = (
            np.bincount(inverse, weights=wrong == sign).astype(np.int64) for sign in (1, -1)
        )
        for number, photo in enumerate(photos):
            errors = int(false_positives[number] + false_negatives[number])
            rows.append(
                {
                    "experiment": scored.model.name,
                    "photo": str(photo),
                    "source": str(sources[number]),
                    "num_tiles": int(num_tiles[number]),
                    "num_errors": errors,
                    "false_positives": int(false_positives[number]),
                    "false_negatives": int(false_negatives[number]),
                    "accuracy": 1 - errors / int(num_tiles[number]),
                }
            )
    return rows
