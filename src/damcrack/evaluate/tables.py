"""The paper's tables 1 and 2 with our numbers beside (Zhang & Bao 2023, Water 15, 2839)."""

from collections.abc import Mapping, Sequence
from typing import Any

from damcrack.evaluate.published import PAPER_TABLE_1, PAPER_TABLE_2
from damcrack.evaluate.scoring import Scored
from damcrack.evaluate.trained import TrainedModel

TABLE_1_COLUMNS = (
    "model",
    "network",
    "method",
    "best_epoch",
    "num_epochs",
    "train_accuracy",
    "hard_loss",
    "val_accuracy",
    "paper_val_accuracy",
    "final_val_accuracy",
    "val_loss",
    "train_val_gap",
    "final_temperature",
)
TABLE_2_COLUMNS = (
    "experiment",
    "network",
    "start",
    "method",
    "trainable",
    "accuracy",
    "paper_accuracy",
    "precision",
    "recall",
    "f1",
    "auroc",
    "ece",
    "val_accuracy",
    "train_val_gap",
    "best_epoch",
)
PHOTO_COLUMNS = (
    "experiment",
    "photo",
    "source",
    "num_tiles",
    "num_errors",
    "false_positives",
    "false_negatives",
    "accuracy",
)
PREDICTION_COLUMNS = ("experiment", "key", "label", "crack_prob")


def table_1(models: Sequence[TrainedModel]) -> list[dict[str, Any]]:
    """One row for each network of the pretraining set: students, teachers and distilled students."""
    rows = []
    for model in models:
        paper = PAPER_TABLE_1.get((model.info.network, model.method))
        row = {"model": model.label, **model.facts, "paper_val_accuracy": paper}
        rows.append({name: row[name] for name in TABLE_1_COLUMNS})
    return rows


def table_2(experiments: Sequence[Scored], scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each crack experiment; `scores` as in metrics.json."""
    rows = []
    for scored in experiments:
        name, info = scored.model.name, scored.model.info
        row = {"experiment": name, **scores[name], "trainable": info.config.get("trainable", "all")}
        row["paper_accuracy"] = PAPER_TABLE_2.get((info.network, scored.start))
        rows.append({column: row[column] for column in TABLE_2_COLUMNS})
    return rows
