"""Cells of a study: one trained model for each method, number of labels and seed, as they lie on disk.

CELLS/models/pretrain/METHOD/SEED/, CELLS/models/distill/METHOD/SEED/    model folders, see engine.weights
CELLS/models/finetune/METHOD/LABELS/SEED/
CELLS/data/tiles/                       the tiles that all crack networks share
CELLS/.damcrack/failed/                 why cells are missing; scores are kept in CELLS/.damcrack/scores/
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from damcrack.data.imageset import ImageSet
from damcrack.evaluate.trained import TrainedModel, read_model
from damcrack.run import Run
from damcrack.scores.statistics import fit_temperature
from damcrack.train.decoded import decode_set
from damcrack.train.detector import Detector, predict_logits
from damcrack.train.finetune import few_labels
from damcrack.train.hardware import best_device
from damcrack.train.weights import load_model

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """A trained model of a study; `labels` is None where a stage has no such number."""

    method: str
    labels: int | None
    seed: int
    model: TrainedModel


@dataclass(frozen=True)
class Answers:
    """Logits (N, 2) of a crack network on the test tiles; `temperature` calibrates them, fitted on validation tiles."""

    logits_NC: Floats
    temperature: float

    def probs(self, temperature: float = 1.0) -> Floats:
        """Crack probability (N,)."""
        margin_N = (self.logits_NC[:, 1] - self.logits_NC[:, 0]) / temperature
        return np.exp(-np.logaddexp(0, -margin_N))

    @cached_property
    def predicted(self) -> Ints:
        """Verdicts (N,), 1 = crack."""
        return (self.logits_NC[:, 1] > self.logits_NC[:, 0]).astype(np.int64)


def read_cells(models: Path, stage: str) -> list[Cell]:
    """All cells of a stage that are there, by method, labels and seed."""
    depth = 3 if stage == "finetune" else 2
    cells = []
    for info in sorted((models / stage).glob("/".join(["*"] * depth) + "/model.json")):
        method, *labels, seed = info.parent.relative_to(models / stage).parts
        model = read_model(stage, info.parent, title=method)
        cells.append(Cell(method, int(labels[0]) if labels else None, int(seed), model))
    return sorted(cells, key=lambda cell: (cell.method, cell.labels or 0, cell.seed))


def read_failures(cells: Path, scratch: Path) -> dict[str, str]:
    """Outputs that were begun and are not there, with the reason; a cache may have brought some since."""
    records = [json.loads(path.read_text()) for path in sorted((scratch / "failed").glob("*.json"))]
    return {record["out"]: record["error"] for record in records if not (cells / record["out"]).exists()}


def score(cells: Sequence[Cell], tiles: ImageSet, run: Run) -> list[Answers]:
    """Answers of each cell on the test tiles; what an earlier call worked out is read again."""
    return [_answers(cell, tiles, run) for cell in run.track(cells, "scoring cells", len(cells))]


def _answers(cell: Cell, tiles: ImageSet, run: Run) -> Answers:
    key = f"{cell.model.info.weights_sha256[:24]}-{tiles.digest[:24]}"
    path = run.scratch / "scores" / f"{key}.npz"
    if not path.exists():
        logits_NC, temperature = _work_out(cell, tiles, run)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, logits_NC=logits_NC, temperature=temperature)
        part.replace(path)
    with np.load(path, allow_pickle=False) as kept:
        return Answers(kept["logits_NC"], float(kept["temperature"]))


def _work_out(cell: Cell, tiles: ImageSet, run: Run) -> tuple[Floats, float]:
    network, info = load_model(cell.model.folder)
    images = decode_set(tiles.root, info.image_px, run.scratch / "decoded")
    detector = Detector(network, info).to(best_device())
    own = few_labels(images, cell.labels, cell.seed) if cell.labels else images
    val, test = own.rows_of["val"], images.rows_of["test"]
    logits_NC = predict_logits(detector, images.images_NHWC, np.concatenate([val, test])).astype(np.float64)
    temperature = fit_temperature(logits_NC[: len(val)], images.labels_N[val])
    return logits_NC[len(val) :], temperature
