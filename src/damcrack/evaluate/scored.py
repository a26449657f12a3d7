"""Fine-tuned networks and baselines with their scores on one split, and the tables made from them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from damcrack.data.imageset import ImageSet
from damcrack.evaluate.published import PAPER_TABLE_1, PAPER_TABLE_2
from damcrack.evaluate.trained import TrainedModel
from damcrack.files import write_csv, write_json
from damcrack.run import Run
from damcrack.scores import metrics
from damcrack.train.classifier import TileClassifier, predict_logits
from damcrack.train.decoded import decode_set
from damcrack.train.hardware import best_device
from damcrack.train.weights import load_model

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TABLE_1_COLUMNS = ["model", "network", "method", "best_epoch", "num_epochs", "train_accuracy", "hard_loss"]
TABLE_1_COLUMNS += ["val_accuracy", "paper_val_accuracy", "final_val_accuracy", "val_loss", "train_val_gap"]
TABLE_1_COLUMNS += ["final_temperature"]
TABLE_2_COLUMNS = ["experiment", "network", "start", "method", "trainable", "accuracy", "paper_accuracy"]
TABLE_2_COLUMNS += [
    "precision",
    "recall",
    "f1",
    "auroc",
    "ece",
    "val_accuracy",
    "train_val_gap",
    "best_epoch",
]
PHOTO_COLUMNS = ["experiment", "photo", "source", "num_tiles", "num_errors"]
PHOTO_COLUMNS += ["false_positives", "false_negatives", "accuracy"]
PREDICTION_COLUMNS = ["experiment", "key", "label", "crack_prob"]


@dataclass(frozen=True)
class HeldOutTiles:
    """The rows of a tile set that are scored: the test split, or the validation split if there is none."""

    tiles: ImageSet
    split: str
    rows: Ints
    labels: Ints

    @classmethod
    def choose(cls, tiles: ImageSet) -> "HeldOutTiles":
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
        counts = {"num_tiles": len(self.rows), "num_crack": int(self.labels.sum())}
        return {"digest": self.tiles.digest, "split": self.split, **counts}


@dataclass(frozen=True)
class Scored:
    """A fine-tuned model with its crack probabilities and verdicts (above one half) on the evaluation set."""

    model: TrainedModel
    start: str
    probs: Floats
    predicted: Ints


@dataclass(frozen=True)
class Baseline:
    """A rule on the share of dark pixels: its verdicts on the evaluation set, and its entry in metrics.json."""

    name: str
    predicted: Ints
    scores: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """Everything that tables, figures and the page are made from; `metrics` as in metrics.json."""

    data: HeldOutTiles
    experiments: Sequence[Scored]
    baselines: Sequence[Baseline]
    pretraining: Sequence[TrainedModel]
    metrics: Mapping[str, Any]

    @property
    def chosen(self) -> Scored:
        """The experiment that validation prefers."""
        return next(one for one in self.experiments if one.model.name == self.metrics["chosen"])

    def scores_of(self, scored: Scored) -> Mapping[str, Any]:
        """An experiment's entry in metrics.json."""
        scores: Mapping[str, Any] = self.metrics["experiments"][scored.model.name]
        return scores


def score_model(model: TrainedModel, start: str, data: HeldOutTiles, run: Run) -> Scored:
    """Score the evaluation set in float32; the decoded array of the training stage is used again."""
    network, info = load_model(model.folder)
    images = decode_set(data.tiles.root, info.image_px, run.scratch / "decoded")
    detector = TileClassifier(network, info).to(best_device())
    logits = predict_logits(detector, images.images_NHWC, data.rows).astype(np.float64)
    # in float64, so that confident verdicts keep their order
    probs = np.exp(-np.logaddexp(0, logits[:, 0] - logits[:, 1]))
    return Scored(model, start, probs, (probs > 0.5).astype(np.int64))


def decision_scores(labels: Ints, predicted: Ints, ranking: Floats) -> dict[str, float | None]:
    """Accuracy, precision, recall, F1 of the verdicts and AUROC of the ranking; None where undefined."""
    counts = metrics.confusion(labels, predicted)
    named = (metrics.accuracy, metrics.precision, metrics.recall, metrics.f1)
    scores = {function.__name__: function(counts) for function in named}
    scores["auroc"] = metrics.auroc(labels, ranking)
    return {name: None if math.isnan(value) else value for name, value in scores.items()}


def full_scores(data: HeldOutTiles, predicted: Ints, ranking: Floats) -> dict[str, Any]:
    """`decision_scores` over all tiles with confusion matrix and interval, and for each source."""
    tn, fp, fn, tp = metrics.confusion(data.labels, predicted)
    sources = data.column("source")
    masks = {str(source): sources == source for source in np.unique(sources)}
    return {
        **decision_scores(data.labels, predicted, ranking),
        "confusion": [[tn, fp], [fn, tp]],
        "accuracy_interval": list(metrics.wilson_interval(tp + tn, len(data.rows))),
        "by_source": {
            source: {
                "num_tiles": int(mask.sum()),
                **decision_scores(data.labels[mask], predicted[mask], ranking[mask]),
            }
            for source, mask in masks.items()
        },
    }


def experiment_scores(scored: Scored, data: HeldOutTiles, num_bins: int) -> dict[str, Any]:
    """Everything that metrics.json says of an experiment."""
    bins = metrics.reliability(data.labels, scored.probs, num_bins)
    return {
        **full_scores(data, scored.predicted, scored.probs),
        "ece": metrics.expected_calibration_error(bins),
        "start": scored.start,
        **scored.model.facts,
    }


def table_1(models: Sequence[TrainedModel]) -> list[dict[str, Any]]:
    """The paper's table 1: one row for each student, teacher and distilled student of the pretraining set."""
    rows = []
    for model in models:
        paper = PAPER_TABLE_1.get((model.info.network, model.method))
        row = {"model": model.label, **model.facts, "paper_val_accuracy": paper}
        rows.append({name: row[name] for name in TABLE_1_COLUMNS})
    return rows


def table_2(results: Results) -> list[dict[str, Any]]:
    """The paper's table 2: one row for each crack experiment."""
    rows = []
    for scored in results.experiments:
        info = scored.model.info
        row = {"experiment": scored.model.name, **results.scores_of(scored)}
        row["trainable"] = info.config.get("trainable", "all")
        row["paper_accuracy"] = PAPER_TABLE_2.get((info.network, scored.start))
        rows.append({name: row[name] for name in TABLE_2_COLUMNS})
    return rows


def photo_rows(experiments: Sequence[Scored], data: HeldOutTiles) -> list[dict[str, Any]]:
    """Errors of each experiment on each photo, photos in order of name."""
    photos, first, index = np.unique(data.column("photo"), return_index=True, return_inverse=True)
    sources, num_tiles = data.column("source")[first], np.bincount(index)
    rows = []
    for scored in experiments:
        wrong = scored.predicted - data.labels
        alarms, misses = (np.bincount(index[wrong == sign], minlength=len(photos)) for sign in (1, -1))
        columns = (
            photos,
            sources,
            num_tiles,
            alarms + misses,
            alarms,
            misses,
            1 - (alarms + misses) / num_tiles,
        )
        for values in zip(*(column.tolist() for column in columns), strict=True):
            rows.append(dict(zip(PHOTO_COLUMNS, (scored.model.name, *values), strict=True)))
    return rows


def _prediction_rows(experiments: Sequence[Scored], data: HeldOutTiles) -> Iterator[dict[str, Any]]:
    keys, labels = data.column("key").tolist(), data.labels.tolist()
    for scored in experiments:
        for key, label, prob in zip(keys, labels, scored.probs.tolist(), strict=True):
            yield {"experiment": scored.model.name, "key": key, "label": label, "crack_prob": prob}


def write_tables(folder: Path, results: Results) -> None:
    """Write metrics.json and the tables, see `evaluate`."""
    experiments, data = results.experiments, results.data
    write_json(folder / "metrics.json", results.metrics)
    write_csv(folder / "predictions.csv", PREDICTION_COLUMNS, list(_prediction_rows(experiments, data)))
    write_csv(folder / "photos.csv", PHOTO_COLUMNS, photo_rows(experiments, data))
    write_csv(folder / "table1.csv", TABLE_1_COLUMNS, table_1(results.pretraining))
    write_csv(folder / "table2.csv", TABLE_2_COLUMNS, table_2(results))
