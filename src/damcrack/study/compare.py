"""From cells to numbers: scores with their spread over seeds, and claims with intervals and p-values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from damcrack.data.imageset import ImageSet
from damcrack.scores import metrics
from damcrack.scores.statistics import (
    MeanInterval,
    agreement,
    difference_interval,
    holm,
    mcnemar,
    mean_interval,
)
from damcrack.study.cells import Answers, Cell

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Key = tuple[str, int]  # method, number of labels
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Claim:
    """The paper says that `better` beats `worse`, by the percentages of its table."""

    words: str
    worse: str
    better: str
    paper: tuple[float, float]


# Table 2 of the paper. It does not say whether its CBAM, AlexNet and VGG16 were pretrained: both are compared.
CLAIMS = (
    Claim("pretraining helps the ResNet18", "resnet18-scratch", "resnet18-pretrained", (94.93, 96.07)),
    Claim("pretraining helps the ResNet50", "resnet50-scratch", "resnet50-pretrained", (95.56, 98.62)),
    Claim("a teacher helps", "resnet18-pretrained", "resnet18-dynamic", (96.07, 99.85)),
    Claim("the student beats its teacher", "resnet50-pretrained", "resnet18-dynamic", (98.62, 99.85)),
    Claim("dynamic temperature beats T = 4", "resnet18-fixed-4", "resnet18-dynamic", (math.nan, math.nan)),
    Claim("... beats CBAM from scratch", "resnet18_cbam-scratch", "resnet18-dynamic", (98.80, 99.85)),
    Claim("... beats CBAM pretrained", "resnet18_cbam-pretrained", "resnet18-dynamic", (98.80, 99.85)),
    Claim("... beats AlexNet from scratch", "alexnet-scratch", "resnet18-dynamic", (97.02, 99.85)),
    Claim("... beats AlexNet pretrained", "alexnet-pretrained", "resnet18-dynamic", (97.02, 99.85)),
    Claim("... beats VGG16 from scratch", "vgg16-scratch", "resnet18-dynamic", (94.93, 99.85)),
    Claim("... beats VGG16 pretrained", "vgg16-pretrained", "resnet18-dynamic", (94.93, 99.85)),
)
TEACHER = "resnet50-pretrained"
SMALL = 0.005  # differences within half a point are of no use to an inspector


@dataclass(frozen=True)
class ScoredTiles:
    """What all crack cells are scored on; arrays (N,) run in parallel."""

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
    """All crack cells with their answers, by method and labels, then by seed; and what needs no network."""

    tiles: ScoredTiles
    cells: Mapping[Key, Mapping[int, tuple[Cell, Answers]]]
    trained_on: tuple[str, ...]
    baselines: Mapping[str, Ints]  # verdicts (N,) of thresholds on brightness, fitted on the training tiles

    @property
    def labels(self) -> list[int]:
        """The numbers of labels, rising."""
        return sorted({labels for _, labels in self.cells})

    @property
    def methods(self) -> list[str]:
        """The methods, by name."""
        return sorted({method for method, _ in self.cells})

    @property
    def unseen(self) -> tuple[str, ...]:
        """Sources that trained nothing."""
        return tuple(sorted(set(self.tiles.source.tolist()) - set(self.trained_on)))


def build_study(
    cells: Sequence[Cell], answers: Sequence[Answers], baselines: Mapping[str, Ints], tiles: ImageSet
) -> Study:
    """Order cells and answers for comparison."""
    by_key: dict[Key, dict[int, tuple[Cell, Answers]]] = {}
    for cell, answer in zip(cells, answers, strict=True):
        by_key.setdefault((cell.method, cell.labels or 0), {})[cell.seed] = (cell, answer)
    trained_on = {tiles.rows[number]["source"] for number in tiles.where("train")}
    return Study(ScoredTiles.of(tiles), by_key, tuple(sorted(trained_on)), baselines)


def over_seeds(study: Study, key: Key, value: Callable[[Cell, Answers], float]) -> MeanInterval | None:
    """Mean of a number over the seeds of a cell that have it (not NaN); None if none has."""
    seeds = study.cells.get(key, {})
    values_S = np.array([value(*seeds[seed]) for seed in sorted(seeds)])
    known_S = values_S[~np.isnan(values_S)]
    return mean_interval(known_S) if len(known_S) else None


def accuracy_on(study: Study, sources: Sequence[str]) -> Callable[[Cell, Answers], float]:
    """Accuracy on the test tiles of some sources."""
    here = study.tiles.where(sources)
    return lambda cell, answers: float((answers.predicted == study.tiles.labels)[here].mean())


def recall_on(study: Study, sources: Sequence[str]) -> Callable[[Cell, Answers], float]:
    """Share of the cracks found on the test tiles of some sources."""
    cracks = study.tiles.where(sources) & (study.tiles.labels == 1)
    return lambda cell, answers: float(answers.predicted[cracks].mean())


def auroc_on(study: Study, sources: Sequence[str]) -> Callable[[Cell, Answers], float]:
    """Area under the ROC curve on the test tiles of some sources."""
    here = study.tiles.where(sources)
    return lambda cell, answers: metrics.auroc(study.tiles.labels[here], answers.probs()[here])


def ece_on(study: Study, sources: Sequence[str], calibrated: bool) -> Callable[[Cell, Answers], float]:
    """Expected calibration error, as trained or after temperature scaling on the cell's validation tiles."""
    here = study.tiles.where(sources)

    def ece(cell: Cell, answers: Answers) -> float:
        probs = answers.probs(answers.temperature if calibrated else 1.0)[here]
        bins = metrics.reliability(study.tiles.labels[here], probs, CALIBRATION_BINS)
        return metrics.expected_calibration_error(bins)

    return ece


def agreement_with_teacher(study: Study, labels: int) -> Callable[[Cell, Answers], float]:
    """Share of test tiles on which a cell and the teacher of the same seed say the same; NaN without one."""
    teachers = study.cells.get((TEACHER, labels), {})

    def agrees(cell: Cell, answers: Answers) -> float:
        if cell.seed not in teachers:
            return math.nan
        return agreement(answers.predicted, teachers[cell.seed][1].predicted)

    return agrees


@dataclass(frozen=True)
class Verdict:
    """A claim on one set of tiles: mean difference with its interval, McNemar's p of the middle seed, in words."""

    claim: Claim
    labels: int
    sources: tuple[str, ...]
    num_seeds: int
    difference: float
    low: float
    high: float
    p: float

    @property
    def words(self) -> str:
        """What the interval says; the p-value does not decide, as it takes tiles as independent."""
        if math.isnan(self.low):
            return "not decidable"
        if self.low > 0:
            return "confirmed"
        if self.high < 0:
            return "the other way round"
        return "no difference" if max(-self.low, self.high) < SMALL else "not decidable"


def verdicts(study: Study, sources: Sequence[str]) -> list[Verdict]:
    """Every claim for which both cells are there, for each number of labels; p-values adjusted by Holm."""
    found = [
        _verdict(study, claim, labels, tuple(sources))
        for labels in study.labels
        for claim in CLAIMS
        if _common_seeds(study, claim, labels)
    ]
    adjusted = holm(np.array([verdict.p for verdict in found]))
    return [replace(verdict, p=float(p)) for verdict, p in zip(found, adjusted, strict=True)]


def _common_seeds(study: Study, claim: Claim, labels: int) -> list[int]:
    worse, better = (study.cells.get((name, labels), {}) for name in (claim.worse, claim.better))
    return sorted(worse.keys() & better.keys())


def _verdict(study: Study, claim: Claim, labels: int, sources: tuple[str, ...]) -> Verdict:
    here, seeds = study.tiles.where(sources), _common_seeds(study, claim, labels)
    sides = (study.cells[name, labels] for name in (claim.worse, claim.better))
    right = [
        np.stack([(side[seed][1].predicted == study.tiles.labels)[here] for seed in seeds]) for side in sides
    ]
    interval = difference_interval(right[0], right[1], study.tiles.group[here])
    p_values = sorted(mcnemar(one, other).p for one, other in zip(*right, strict=True))
    return Verdict(claim, labels, sources, len(seeds), *interval, p_values[len(p_values) // 2])
