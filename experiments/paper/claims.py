"""From cells to numbers: scores of each network, their spread over seeds, and the paper's claims with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t

from damcrack.data.imageset import ImageSet
from damcrack.evaluate.tables import PAPER_TABLE_2
from damcrack.evaluate.trained import TrainedModel
from damcrack.scores import metrics
from damcrack.scores.statistics import difference_interval, mcnemar

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

VERDICT_COLUMNS = ["sources", "labels", "claim", "worse", "better", "seeds", "difference", "low", "high", "p"]
VERDICT_COLUMNS += ["verdict"]
TEACHER, OURS = "resnet50-pretrained", "resnet18-dynamic"
SMALL = 0.005  # differences within half a point are of no use to an inspector
# What the paper says: the second method of crack networks beats the first.
CLAIMS = {
    "pretraining helps the ResNet18": ("resnet18-scratch", "resnet18-pretrained"),
    "pretraining helps the ResNet50": ("resnet50-scratch", "resnet50-pretrained"),
    "a teacher helps": ("resnet18-pretrained", OURS),
    "the student beats its teacher": (TEACHER, OURS),
    "dynamic temperature beats T = 4": ("resnet18-fixed-4", OURS),
    "... beats CBAM from scratch": ("resnet18_cbam-scratch", OURS),
    "... beats CBAM pretrained": ("resnet18_cbam-pretrained", OURS),
    "... beats AlexNet from scratch": ("alexnet-scratch", OURS),
    "... beats AlexNet pretrained": ("alexnet-pretrained", OURS),
    "... beats VGG16 from scratch": ("vgg16-scratch", OURS),
    "... beats VGG16 pretrained": ("vgg16-pretrained", OURS),
}


class MeanInterval(NamedTuple):
    """Mean of seeds, its standard deviation (n - 1) and the bounds of the mean."""

    mean: float
    std: float
    low: float
    high: float


def mean_interval(values_S: Floats, level: float = 0.95) -> MeanInterval:
    """Bound the mean of seeds by Student's t (1908); one seed has no spread, so all but its mean is NaN."""
    num = len(values_S)
    if num < 2:
        return MeanInterval(float(values_S.mean()), math.nan, math.nan, math.nan)
    mean, std = float(values_S.mean()), float(values_S.std(ddof=1))
    half = float(t.ppf((1 + level) / 2, num - 1)) * std / math.sqrt(num)
    return MeanInterval(mean, std, mean - half, mean + half)


def paper_accuracy(method: str) -> float:
    """The paper's accuracy of a method of crack networks; NaN if it prints none."""
    network, _, start = method.partition("-")
    start = {"dynamic": "distilled, dynamic T"}.get(start, start)
    return PAPER_TABLE_2.get((network, start), math.nan)


@dataclass(frozen=True)
class Cell:
    """A trained model of the experiments; `labels` is None where a stage has no such number."""

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


@dataclass(frozen=True)
class ScoredTiles:
    """What all crack networks are scored on; arrays (N,) run in parallel."""

    labels: Ints
    source: npt.NDArray[np.str_]
    group: Ints

    @classmethod
    def of(cls, tiles: ImageSet) -> "ScoredTiles":
        """The test split of a tile set."""
        rows = [tiles.rows[number] for number in tiles.where("test")]
        _, group = np.unique([f"{row['source']}/{row['group']}" for row in rows], return_inverse=True)
        labels = np.array([int(row["label"]) for row in rows], np.int64)
        return cls(labels, np.array([row["source"] for row in rows], np.str_), group.astype(np.int64))

    def where(self, sources: Sequence[str]) -> Bools:
        """True (N,) for tiles of some sources."""
        return np.isin(self.source, list(sources))


@dataclass(frozen=True)
class Study:
    """All crack networks with their answers, and the verdicts (N,) of brightness thresholds, which need no network."""

    tiles: ScoredTiles
    answered: Sequence[tuple[Cell, Answers]]
    trained_on: tuple[str, ...]
    baselines: Mapping[str, Ints]

    @property
    def labels(self) -> list[int]:
        """The numbers of labels, rising."""
        return sorted({cell.labels or 0 for cell, _ in self.answered})

    @property
    def methods(self) -> list[str]:
        """The methods, by name."""
        return sorted({cell.method for cell, _ in self.answered})

    @property
    def with_few_labels(self) -> list[str]:
        """The methods that were trained with several numbers of labels."""
        return [name for name in self.methods if sum(bool(self.cells(name, n)) for n in self.labels) > 1]

    @property
    def unseen(self) -> tuple[str, ...]:
        """Test sources without training tiles."""
        return tuple(sorted(set(self.tiles.source.tolist()) - set(self.trained_on)))

    def cells(self, method: str, labels: int) -> list[tuple[Cell, Answers]]:
        """The cells of a method and number of labels, by seed."""
        found = [one for one in self.answered if (one[0].method, one[0].labels or 0) == (method, labels)]
        return sorted(found, key=lambda one: one[0].seed)

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """One row for each cell: its scores, those on some sources in columns named `SCORE SOURCE+SOURCE`."""
        return pd.DataFrame([self._row(cell, answers) for cell, answers in self.answered])

    def _row(self, cell: Cell, answers: Answers) -> dict[str, object]:
        teacher = [a for c, a in self.cells(TEACHER, cell.labels or 0) if c.seed == cell.seed]
        row: dict[str, object] = {"method": cell.method, "labels": cell.labels or 0, "seed": cell.seed}
        row["gap"] = cell.model.facts["train_val_gap"]
        row["agreement"] = (answers.predicted == teacher[0].predicted).mean() if teacher else math.nan
        home = self.tiles.where(self.trained_on)
        labels, probs = self.tiles.labels[home], answers.probs()[home]
        row["auroc"] = metrics.auroc(labels, probs)
        row["ece"] = _ece(labels, probs)
        row["ece calibrated"] = _ece(labels, answers.probs(answers.temperature)[home])
        alone = [(source,) for source in self.trained_on + self.unseen]
        for sources in filter(None, (self.trained_on, self.unseen, *alone)):
            here = self.tiles.where(sources)
            right, cracks = answers.predicted == self.tiles.labels, here & (self.tiles.labels == 1)
            row[f"accuracy {'+'.join(sources)}"] = right[here].mean()
            row[f"recall {'+'.join(sources)}"] = right[cracks].mean() if cracks.any() else math.nan
        return row

    def over_seeds(self, method: str, labels: int, column: str) -> MeanInterval | None:
        """Mean of a number over the seeds that have it (not NaN); None if none has."""
        rows = self.numbers[(self.numbers.method == method) & (self.numbers.labels == labels)]
        values = rows.sort_values("seed")[column].dropna().to_numpy(np.float64)
        return mean_interval(values) if len(values) else None


def _ece(labels: Ints, probs: Floats) -> float:
    return metrics.expected_calibration_error(metrics.reliability(labels, probs))


def verdicts(study: Study) -> pd.DataFrame:
    """Every claim for which both methods are there, for each number of labels, on seen and on unseen sources.

    Mean difference with its interval, p of McNemar's test (middle seed), adjusted by Holm over the sources' table.
    """
    places = [sources for sources in (study.trained_on, study.unseen) if sources]
    return pd.DataFrame(
        [one for sources in places for one in _verdicts_on(study, sources)], columns=VERDICT_COLUMNS
    )


def _verdicts_on(study: Study, sources: tuple[str, ...]) -> list[dict[str, object]]:
    tried = [_verdict(study, claim, labels, sources) for labels in study.labels for claim in CLAIMS]
    found = [one for one in tried if one is not None]
    adjusted = holm(np.array([one["p"] for one in found], np.float64)).tolist()
    return [one | {"p": p} for one, p in zip(found, adjusted, strict=True)]


def holm(p_values_M: Floats) -> Floats:
    """Adjust p-values (M,) of methods compared with one baseline, in the given order (Holm 1979).

    Calling those at most alpha significant keeps the chance of any false claim at most alpha, however the
    comparisons depend on each other.
    """
    order = np.argsort(p_values_M, kind="stable")
    factor_M = np.arange(len(p_values_M), 0, -1)
    adjusted_M = np.empty(len(p_values_M))
    adjusted_M[order] = np.minimum(1, np.maximum.accumulate(factor_M * p_values_M[order]))
    return adjusted_M


def _verdict(study: Study, claim: str, labels: int, sources: tuple[str, ...]) -> dict[str, object] | None:
    """Seeds are paired; None without a common seed."""
    here, (worse, better) = study.tiles.where(sources), CLAIMS[claim]
    sides = [
        {
            cell.seed: (answers.predicted == study.tiles.labels)[here]
            for cell, answers in study.cells(name, labels)
        }
        for name in (worse, better)
    ]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds:
        return None
    right = [np.stack([side[seed] for seed in seeds]) for side in sides]
    interval = difference_interval(right[0], right[1], study.tiles.group[here])
    p_values = sorted(mcnemar(one, other).p for one, other in zip(*right, strict=True))
    return {
        "sources": "+".join(sources),
        "labels": labels,
        "claim": claim,
        "worse": worse,
        "better": better,
        "seeds": len(seeds),
        **interval._asdict(),
        "p": p_values[len(p_values) // 2],
        "verdict": decide(interval.low, interval.high),
    }


def decide(low: float, high: float) -> str:
    """What the interval says; the p-value does not decide, as it takes tiles as independent."""
    if math.isnan(low):
        return "not decidable"
    if low > 0:
        return "confirmed"
    if high < 0:
        return "the other way round"
    return "no difference" if max(-low, high) < SMALL else "not decidable"
