"""Fine-tuned networks and rules on brightness alone, with their answers and scores on one split."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from damcrack.data.imageset import ImageSet, decode_image
from damcrack.evaluate.trained import TrainedModel
from damcrack.files import in_order
from damcrack.run import Run
from damcrack.scores import metrics
from damcrack.scores.thresholds import (
    LEVELS,
    adaptive_dark,
    best_rule,
    darker_share,
    fit_global_threshold,
    otsu_dark,
)
from damcrack.train.augment import normalise
from damcrack.train.decoded import decode_set, shrink
from damcrack.train.hardware import best_device
from damcrack.train.weights import ModelInfo, load_model

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# row, grey-value counts (256,), shares of pixels that Otsu's level and the local mean call dark
Brightness = tuple[int, Ints, float, float]

BATCH_SIZE = 64


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


class TileClassifier(nn.Module):
    """A network with its reduction and normalisation: raw tiles in, logits out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, info: ModelInfo) -> None:
        super().__init__()
        self.network, self.image_px = network, info.image_px
        self.register_buffer("mean", torch.tensor(info.mean))
        self.register_buffer("std", torch.tensor(info.std))

    def forward(self, tiles_BHWC: Tensor) -> Tensor:
        """Score raw uint8 RGB tiles (B, tile, tile, 3): logits (B, classes)."""
        images_BCHW = shrink(tiles_BHWC.permute(0, 3, 1, 2), self.image_px)
        logits_BC: Tensor = self.network(normalise(images_BCHW, self.mean, self.std))
        return logits_BC


@torch.inference_mode()
def predict_logits(
    classifier: TileClassifier, images_NHWC: npt.NDArray[np.uint8], rows: Ints
) -> npt.NDArray[np.float32]:
    """Float32 logits (len(rows), classes) of the images at `rows`; images raw or already reduced."""
    classifier = classifier.eval().to(memory_format=torch.channels_last)
    batches = [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]
    tiles = (torch.from_numpy(images_NHWC[batch]).to(classifier.mean.device) for batch in batches)
    return torch.cat([classifier(each).float().cpu() for each in tiles]).numpy()


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


def experiment_scores(scored: Scored, data: HeldOutTiles) -> dict[str, Any]:
    """Everything that metrics.json says of an experiment."""
    return {
        **full_scores(data, scored.predicted, scored.probs),
        "ece": metrics.expected_calibration_error(metrics.reliability(data.labels, scored.probs)),
        "start": scored.start,
        **scored.model.facts,
    }


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
    row, encoded = tile
    grey = decode_image(row, encoded, grey=True)
    histogram = np.bincount(grey.ravel(), minlength=LEVELS)
    return row, histogram, float(otsu_dark(grey).mean()), float(adaptive_dark(grey).mean())
