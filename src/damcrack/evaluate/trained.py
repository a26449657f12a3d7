"""Trained models as they lie on disk, and what their histories say.

MODELS/pretrain/ITEM/, MODELS/distill/ITEM/, MODELS/finetune/EXPERIMENT/    model folders, see train.weights
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from damcrack.files import InputError, read_csv
from damcrack.train.weights import ModelInfo

Row = Mapping[str, float | None]
ALWAYS = ("train_accuracy", "hard_loss", "val_accuracy", "val_loss")  # columns that every epoch fills


@dataclass(frozen=True)
class TrainedModel:
    """A model folder's description and history; `stage` is pretrain, distill or finetune.

    `title` is what figures call it, where that is not its folder's name.
    """

    stage: str
    folder: Path
    info: ModelInfo
    history: tuple[Row, ...]
    title: str | None = None

    @property
    def name(self) -> str:
        """The item or experiment: the folder's name."""
        return self.folder.name

    @property
    def label(self) -> str:
        """The name as figures show it; items of pretrain and distill may be called alike."""
        return self.title or (self.name if self.stage == "finetune" else f"{self.stage}/{self.name}")

    def series(self, column: str) -> list[float | None]:
        """One history column over the epochs."""
        return [row[column] for row in self.history]

    @property
    def method(self) -> str:
        """How the teacher's temperature was set, or that labels alone taught."""
        if self.info.teacher_sha256 is None:
            return "labels"
        temperature = self.info.config["temperature"]
        return "dynamic T" if temperature["kind"] == "dynamic" else f"fixed T = {temperature['value']:g}"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the history says, at the best epoch unless named otherwise; accuracies in 0..1.

        Training accuracy is the mean over the epoch's augmented batches while the weights still moved.
        """
        best, last = self.history[self.info.best_epoch - 1], self.history[-1]
        train, val = best["train_accuracy"], best["val_accuracy"]
        assert train is not None and val is not None
        return {
            "network": self.info.network,
            "method": self.method,
            "best_epoch": self.info.best_epoch,
            "num_epochs": len(self.history),
            "train_accuracy": train,
            "hard_loss": best["hard_loss"],
            "val_accuracy": val,
            "final_val_accuracy": last["val_accuracy"],
            "val_loss": best["val_loss"],
            "train_val_gap": train - val,
            "final_temperature": last["temperature"],
            "weights_sha256": self.info.weights_sha256,
        }


def read_models(root: Path, stage: str) -> list[TrainedModel]:
    """Read all models of a stage under `root`, by name; none if the stage has no folder there.

    Raises:
        InputError: a folder is no model, see `read_model`.
    """
    folders = sorted(path for path in (root / stage).glob("*") if path.is_dir() and path.name[0] != ".")
    return [read_model(stage, folder) for folder in folders]


def read_model(stage: str, folder: Path, title: str | None = None) -> TrainedModel:
    """Read one model folder.

    Raises:
        InputError: it is no model, or its history does not reach its best epoch.
    """
    info, path = ModelInfo.read(folder), folder / "history.csv"
    if not path.is_file():
        raise InputError(f"{path} is missing; train the model again")
    try:
        history = tuple({name: float(v) if v else None for name, v in row.items()} for row in read_csv(path))
        if any(row[name] is None for row in history for name in ALWAYS):
            raise ValueError("a value is missing")
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); train the model again") from error
    if not 1 <= info.best_epoch <= len(history):
        raise InputError(
            f"{path}: {len(history)} epochs, but the best epoch is {info.best_epoch}; train the model again"
        )
    return TrainedModel(stage, folder, info, history, title)


def start_of(model: TrainedModel, earlier: Sequence[TrainedModel]) -> str:
    """Say what a fine-tuned network began as: scratch, pretrained, or distilled with which temperature."""
    if model.info.init_sha256 is None:
        return "scratch"
    for origin in earlier:
        if origin.info.weights_sha256 == model.info.init_sha256:
            return "pretrained" if origin.stage == "pretrain" else f"distilled, {origin.method}"
    return f"from {model.info.config.get('init') or 'weights that are not here'}"
