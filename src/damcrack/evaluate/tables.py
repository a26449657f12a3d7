"""The tables of an evaluation: the paper's tables 1 and 2 with its numbers next to ours, errors by photo, predictions.

The paper (Zhang & Bao 2023, Water 15, 2839) is quoted here only, as shares.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.evaluate.scored import HeldOutTiles, Results, Scored
from damcrack.evaluate.trained import TrainedModel
from damcrack.files import write_csv, write_json

# (network, what taught it): validation accuracy on mini-ImageNet
PAPER_TABLE_1 = {
    ("resnet18", "labels"): 0.7941,
    ("resnet50", "labels"): 0.8179,
    ("resnet18", "fixed T = 4"): 0.8233,
    ("resnet18", "dynamic T"): 0.8252,
}
# training minus validation accuracy; none is printed for the ResNet50
PAPER_GAPS = {
    ("resnet18", "labels"): 0.1403,
    ("resnet18", "fixed T = 4"): 0.1261,
    ("resnet18", "dynamic T"): 0.1016,
}
PAPER_FINAL_TEMPERATURE = 3.95
# (network, what it started as): accuracy on the crack tiles. The paper does not say whether its distilled network had
# a teacher in the crack stage too, nor whether its CBAM, AlexNet and VGG16 were pretrained: they stand next to both.
PAPER_TABLE_2 = {
    ("resnet18", "scratch"): 0.9493,
    ("resnet18", "pretrained"): 0.9607,
    ("resnet50", "scratch"): 0.9556,
    ("resnet50", "pretrained"): 0.9862,
    ("resnet18", "distilled, dynamic T"): 0.9985,
    ("resnet18_cbam", "scratch"): 0.9880,
    ("resnet18_cbam", "pretrained"): 0.9880,
    ("alexnet", "scratch"): 0.9702,
    ("alexnet", "pretrained"): 0.9702,
    ("vgg16", "scratch"): 0.9493,
    ("vgg16", "pretrained"): 0.9493,
}
TABLE_1_COLUMNS = ["model", "network", "method", "best_epoch", "num_epochs", "train_accuracy", "hard_loss"]
TABLE_1_COLUMNS += ["val_accuracy", "paper_val_accuracy", "final_val_accuracy", "val_loss", "train_val_gap"]
TABLE_1_COLUMNS += ["final_temperature"]
TABLE_2_COLUMNS = ["experiment", "network", "start", "method", "trainable", "accuracy", "paper_accuracy"]
TABLE_2_COLUMNS += ["precision", "recall", "f1", "auroc", "ece", "val_accuracy", "train_val_gap"]
TABLE_2_COLUMNS += ["best_epoch"]
PHOTO_COLUMNS = ["experiment", "photo", "source", "num_tiles", "num_errors"]
PHOTO_COLUMNS += ["false_positives", "false_negatives", "accuracy"]
PREDICTION_COLUMNS = ["experiment", "key", "label", "crack_prob"]


def write_tables(folder: Path, results: Results) -> None:
    """Write metrics.json and the tables, see `evaluate`."""
    experiments, data = results.experiments, results.data
    write_json(folder / "metrics.json", results.metrics)
    write_csv(folder / "predictions.csv", PREDICTION_COLUMNS, list(_prediction_rows(experiments, data)))
    write_csv(folder / "photos.csv", PHOTO_COLUMNS, photo_rows(experiments, data))
    write_csv(folder / "table1.csv", TABLE_1_COLUMNS, table_1(results.pretraining))
    write_csv(folder / "table2.csv", TABLE_2_COLUMNS, table_2(results))


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
        errors = alarms + misses
        columns = (photos, sources, num_tiles, errors, alarms, misses, 1 - errors / num_tiles)
        for values in zip(*(column.tolist() for column in columns), strict=True):
            rows.append(dict(zip(PHOTO_COLUMNS, (scored.model.name, *values), strict=True)))
    return rows


def _prediction_rows(experiments: Sequence[Scored], data: HeldOutTiles) -> Iterator[dict[str, Any]]:
    keys, labels = data.column("key").tolist(), data.labels.tolist()
    for scored in experiments:
        for key, label, prob in zip(keys, labels, scored.probs.tolist(), strict=True):
            yield {"experiment": scored.model.name, "key": key, "label": label, "crack_prob": prob}
