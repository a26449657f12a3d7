"""What the table says of each source: how well blocks and pixels are told apart, with 95 % intervals.

Intervals are percentiles of a bootstrap that draws whole groups (photos of one scene); a source of one group has none.
What is undefined is None.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from experiments.unseen.measure import CUT, FULL, HALF, Counts, Measured
from experiments.unseen.sources import ASPHALT, TOLERANCE_PX, WALLS

NUM_DRAWS = 200
MIN_CLEAN_BLOCKS = 20  # with fewer of its own, a source's cracked blocks are measured against the clean walls
RECALL = 0.95

Floats = npt.NDArray[np.float64]
Estimate = dict[str, float | None]  # value, low, high


class Blocks(NamedTuple):
    """Labels (N,) of 0/1, scores (N,) and the group's name (N,) of each block."""

    labels: Floats
    scores: Floats
    groups: npt.NDArray[Any]


def pooled(results: Sequence[Measured], label: int | None = None) -> Blocks:
    """Blocks of many photos, or only those with that label."""
    labels = np.concatenate([np.empty(0, np.int64), *(one.labels for one in results)])
    scores = np.concatenate([np.empty(0), *(one.scores for one in results)])
    groups = np.repeat([one.photo.group for one in results], [len(one.labels) for one in results])
    wanted = labels == label if label is not None else np.full(len(labels), True)
    return Blocks(labels[wanted], scores[wanted], groups[wanted])


def _joined(a: Blocks, b: Blocks) -> Blocks:
    return Blocks(*(np.concatenate(parts) for parts in zip(a, b, strict=True)))


def auroc(labels: Floats, scores: Floats, weights: Floats) -> float:
    """Chance that a cracked block scores above a clean one."""
    return float(roc_auc_score(labels, scores, sample_weight=weights))


def average_precision(labels: Floats, scores: Floats, weights: Floats) -> float:
    """Precision, averaged over the recall."""
    return float(average_precision_score(labels, scores, sample_weight=weights))


def accuracy(labels: Floats, scores: Floats, weights: Floats) -> float:
    """Share of right verdicts at CUT."""
    return float(np.average((scores >= CUT) == labels, weights=weights))


def f1(labels: Floats, scores: Floats, weights: Floats) -> float:
    """Harmonic mean of precision and recall at CUT."""
    called = scores >= CUT
    return float(2 * weights @ (called * labels) / (weights @ called + weights @ labels))


def false_alarms_at_recall(labels: Floats, scores: Floats, weights: Floats) -> float:
    """Share of the clean blocks called cracked where the cut finds RECALL of the cracked ones."""
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum((weights * labels)[order])
    cut = scores[order][np.searchsorted(found, RECALL * found[-1])]
    return float(np.average(scores >= cut, weights=weights * (1 - labels)))


BlockMeasure = Callable[[Floats, Floats, Floats], float]
BLOCK_MEASURES: tuple[BlockMeasure, ...] = (auroc, average_precision, accuracy, f1, false_alarms_at_recall)


def drawn_weights(groups: npt.NDArray[Any]) -> Floats:
    """How often each of N things comes when their groups are drawn with replacement: (NUM_DRAWS, N)."""
    _, index = np.unique(groups, return_inverse=True)
    num = int(index.max()) + 1
    times = np.random.default_rng(0).multinomial(num, np.full(num, 1 / num), size=NUM_DRAWS)
    return np.asarray(times[:, index] if num > 1 else np.empty((0, len(groups))), np.float64)


def estimate(value: float, draws: Floats) -> Estimate:
    """The value and the middle 95 % of its draws, of which undefined ones are left out."""
    defined = draws[np.isfinite(draws)]
    bounds = np.quantile(defined, [0.025, 0.975]).tolist() if len(defined) else [None, None]
    return {"value": value if np.isfinite(value) else None, "low": bounds[0], "high": bounds[1]}


def _draws(measure: BlockMeasure, blocks: Blocks, weights: Floats) -> Floats:
    both = [one for one in weights if 0 < one @ blocks.labels < one.sum()]
    return np.array([measure(blocks.labels, blocks.scores, one) for one in both])


def block_measures(blocks: Blocks) -> tuple[dict[str, Estimate], Floats]:
    """Each of BLOCK_MEASURES by its name, and the draws of the AUROC. Both classes have to be there."""
    weights, once = drawn_weights(blocks.groups), np.ones(len(blocks.labels))
    draws = {one.__name__: _draws(one, blocks, weights) for one in BLOCK_MEASURES}
    values = {one.__name__: one(blocks.labels, blocks.scores, once) for one in BLOCK_MEASURES}
    return {name: estimate(value, draws[name]) for name, value in values.items()}, draws["auroc"]


def pixel_measures(results: Sequence[Measured]) -> dict[str, Estimate] | None:
    """Precision, recall and F1 with tolerance, and the clIoU, of all pixels of the photos; None if none was counted."""
    counted = [one for one in results if one.counts is not None]
    if not counted:
        return None
    counts = np.array([one.counts for one in counted], np.float64)
    value = _shares(counts.sum(axis=0))
    draws = _shares(drawn_weights(np.array([one.photo.group for one in counted])) @ counts)
    return {name: estimate(float(value[name]), draws[name]) for name in value}


def _shares(sums: Floats) -> dict[str, Floats]:
    """Of sums (..., 7) of Counts: clIoU = hit / (hit + missed + false), on the pixels of centre lines."""
    c = Counts(*np.moveaxis(sums, -1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.divide(c.found_near_true, c.found), np.divide(c.true_near_found, c.true)
        both = np.divide(2 * precision * recall, precision + recall)
        # Nothing found of something, or something found of nothing, is no agreement.
        agreed = np.where((c.found_near_true == 0) & (np.add(c.found, c.true) > 0), 0.0, both)
        lines = np.divide(c.line_hit, np.add(np.add(c.line_hit, c.line_missed), c.line_false))
    return {"precision": precision, "recall": recall, "f1": agreed, "cliou": lines}


def source_row(results: Sequence[Measured], walls: Sequence[Measured]) -> tuple[dict[str, Any], Floats]:
    """One line of the table, and the draws of its AUROC; `walls` are the clean photos for sources of cracks alone."""
    own, clean_walls = pooled(results), pooled(walls, label=0)
    num_clean, num_cracked = int((own.labels == 0).sum()), int(own.labels.sum())
    blocks, against = own, "own"
    if num_cracked and num_clean < MIN_CLEAN_BLOCKS and len(clean_walls.labels):
        blocks, against = _joined(pooled(results, label=1), clean_walls), WALLS
    row: dict[str, Any] = {"photos": len(results), "cracked_blocks": num_cracked, "clean_blocks": num_clean}
    row["pixels"] = pixel_measures(results)
    row["tolerance_px"] = TOLERANCE_PX.get(results[0].photo.source)
    row["auroc_against_walls"] = _point_auroc(_joined(pooled(results, label=1), clean_walls))
    if not 0 < blocks.labels.sum() < len(blocks.labels):
        return row | {"against": None, "note": _why_one_class(num_cracked)}, np.empty(0)
    row["blocks"], draws = block_measures(blocks)
    return row | {"against": against, "clean_blocks_against": int((blocks.labels == 0).sum())}, draws


def _point_auroc(blocks: Blocks) -> float | None:
    both = 0 < blocks.labels.sum() < len(blocks.labels)
    return auroc(blocks.labels, blocks.scores, np.ones(len(blocks.labels))) if both else None


def _why_one_class(num_cracked: int) -> str:
    if num_cracked:
        return f"no clean blocks to measure against; add {WALLS} to the sources"
    return "no cracked blocks; see the false alarms"


def false_alarms(walls: Sequence[Measured]) -> dict[str, Any] | None:
    """On clean photos: the share with any block called cracked, and such blocks a photo; None without photos."""
    if not walls:
        return None
    alarms = np.array([np.count_nonzero(one.scores >= CUT) for one in walls], np.float64)
    weights = drawn_weights(np.array([one.photo.group for one in walls]))
    parts = {"share_of_photos": (alarms > 0).astype(np.float64), "blocks_per_photo": alarms}
    return {"photos": len(walls)} | {
        name: estimate(float(part.mean()), weights @ part / weights.sum(axis=1))
        for name, part in parts.items()
    }


def summary(results: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    """All lines of the table, and what they come to: `results` by line.

    "overall" takes every block of every photo once, hires at half size. The mean and the worst AUROC are over the
    lines of photos; ready tiles have lines of their own and are in neither. "concrete" and "asphalt" are parts of them.
    """
    walls = results.get(WALLS, ())
    tiles = [name for name, of in results.items() if of[0].photo.label is not None]
    made = {name: source_row(of, () if name in tiles else walls) for name, of in results.items()}
    rows = {name: row for name, (row, _) in made.items() if name not in tiles}
    measured = {name: made[name] for name in rows if "blocks" in rows[name]}
    every = [one for name in rows for one in results[name] if name != (FULL if HALF in rows else None)]
    return {
        "sources": rows,
        "tiles": {name: made[name][0] for name in tiles},
        "overall": source_row(every, ())[0] if every else None,
        "false_alarms": false_alarms(walls),
        **_mean_and_worst(measured),
        "concrete": _mean_and_worst({name: one for name, one in measured.items() if name not in ASPHALT}),
        "asphalt": _mean_and_worst({name: one for name, one in measured.items() if name in ASPHALT}),
    }


def _mean_and_worst(made: Mapping[str, tuple[dict[str, Any], Floats]]) -> dict[str, Any]:
    if not made:
        return {"mean_auroc": None, "worst_auroc": None}
    values = {name: row["blocks"]["auroc"]["value"] for name, (row, _) in made.items()}
    worst = min(values, key=values.__getitem__)
    drawn = np.array([np.full(NUM_DRAWS, value) for value in values.values()])
    for line, (_, draws) in zip(drawn, made.values(), strict=True):
        line[: len(draws)] = draws
    mean = estimate(float(np.mean(list(values.values()))), drawn.mean(axis=0))
    return {"mean_auroc": mean, "worst_auroc": {"source": worst, "value": values[worst]}}
