"""Which tiles the page and the figures show. A tile is named by its number within the evaluation set."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from damcrack.evaluate.results import Results
from damcrack.evaluate.scoring import EvaluationSet

SAMPLES = 6  # tiles of each kind in the figure of sample detections
MOST_EXAMPLES = 4  # tiles to look into

Ints = npt.NDArray[np.int64]
Texts = npt.NDArray[np.str_]


class Kind(NamedTuple):
    """One of the four ways in which truth and verdict meet; 1 is crack."""

    words: str
    truth: int
    verdict: int


FOUND, PASSED = Kind("cracks found", 1, 1), Kind("no crack, rightly passed", 0, 0)
ALARMS, MISSES = Kind("false alarms", 0, 1), Kind("missed cracks", 1, 0)


@dataclass(frozen=True)
class ShownTiles:
    """Tiles of the chosen experiment: samples of each kind, surest errors, and examples to look into.

    `num_of` counts all tiles of a kind; `jpegs` holds the shown ones.
    """

    num_of: Mapping[Kind, int]
    samples: Mapping[Kind, Ints]
    alarms: Ints
    misses: Ints
    examples: Ints
    jpegs: Mapping[int, bytes]


def choose_tiles(results: Results, worst_tiles: int) -> ShownTiles:
    """Choose, by the same results always the same, and read the chosen in one pass; `worst_tiles` errors in all."""
    surest = {kind: _surest(results, kind) for kind in (FOUND, PASSED, ALARMS, MISSES)}
    spread = {kind: _spread(numbers, results.data) for kind, numbers in surest.items()}
    samples = {kind: numbers[:SAMPLES] for kind, numbers in spread.items()}
    room = max(worst_tiles // 2, worst_tiles - len(surest[MISSES]))
    alarms = surest[ALARMS][:room]
    misses = surest[MISSES][: worst_tiles - len(alarms)]
    examples = _examples(results, spread)
    jpegs = _read(results.data, np.concatenate([*samples.values(), alarms, misses, examples]))
    num_of = {kind: len(numbers) for kind, numbers in surest.items()}
    return ShownTiles(num_of, samples, alarms, misses, examples, jpegs)


def _surest(results: Results, kind: Kind) -> Ints:
    """All tiles of a kind, the surest verdict first."""
    chosen, labels = results.chosen, results.data.labels
    numbers = np.flatnonzero((labels == kind.truth) & (chosen.predicted == kind.verdict))
    sureness = np.abs(chosen.probs[numbers] - 0.5)
    return numbers[np.argsort(-sureness, kind="stable")]


def _spread(numbers: Ints, data: EvaluationSet) -> Ints:
    """Take turns among sources, and within a source among photos; the surest of a group stays its first."""
    for column in ("photo", "source"):
        numbers = numbers[np.argsort(_turns(data.column(column)[numbers]), kind="stable")]
    return numbers


def _turns(groups: Texts) -> Ints:
    """How many of the same group came before each entry."""
    seen: Counter[str] = Counter()
    turns = []
    for group in groups.tolist():
        turns.append(seen[group])
        seen[group] += 1
    return np.array(turns, dtype=np.int64)


def _examples(results: Results, spread: Mapping[Kind, Ints]) -> Ints:
    """Two found cracks, the passed tile that fools most of the thresholds, and the surest error."""
    num_fooled = np.sum([baseline.predicted for baseline in results.baselines], axis=0)
    passed = spread[PASSED]
    passed = passed[np.argsort(-num_fooled[passed], kind="stable")]
    errors = np.concatenate([spread[ALARMS][:1], spread[MISSES][:1]])
    errors = errors[np.argsort(-np.abs(results.chosen.probs[errors] - 0.5), kind="stable")]
    return np.concatenate([spread[FOUND][:2], passed[:1], errors[:1]])


def _read(data: EvaluationSet, numbers: Ints) -> dict[int, bytes]:
    number_of = {int(data.rows[number]): int(number) for number in numbers}
    encoded = data.tiles.encoded()
    return {number_of[row]: jpeg for row, jpeg in encoded if row in number_of} if number_of else {}
