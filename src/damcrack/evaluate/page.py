"""One self-contained page of results, and the tiles that it shows: all inside, nothing from a network.

Names of photos and sources come from outside; the template escapes everything.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from damcrack.evaluate.drawing import Drawing
from damcrack.evaluate.scored import HeldOutTiles, Results
from damcrack.evaluate.tables import PAPER_FINAL_TEMPERATURE, PAPER_GAPS, photo_rows, table_1, table_2

NUM_SAMPLES = 6  # tiles of each kind in the figure of sample detections
ABSENT = "–"  # noqa: RUF001 - an en dash, as tables have it

Ints = npt.NDArray[np.int64]
# the four cases: truth and verdict, 1 is crack
KINDS = {"cracks found": (1, 1), "true negatives": (0, 0), "false alarms": (0, 1), "missed cracks": (1, 0)}


@dataclass(frozen=True)
class ShownTiles:
    """Tiles of the chosen experiment by kind: all, the most confident first, and those that are shown.

    A tile is named by its number within the evaluation set; `jpegs` holds the shown ones.
    """

    ranked: Mapping[str, Ints]
    samples: Mapping[str, Ints]
    errors: Mapping[str, Ints]
    jpegs: Mapping[int, bytes]


def choose_tiles(results: Results, worst_tiles: int) -> ShownTiles:
    """Choose, for the same results always the same, and read the chosen in one pass; `worst_tiles` errors in all."""
    labels, predicted = results.data.labels, results.chosen.predicted
    ranked = {
        kind: _by_confidence(results, np.flatnonzero((labels == truth) & (predicted == verdict)))
        for kind, (truth, verdict) in KINDS.items()
    }
    samples = {kind: _in_turns(numbers, results.data)[:NUM_SAMPLES] for kind, numbers in ranked.items()}
    alarms = ranked["false alarms"][: max(worst_tiles // 2, worst_tiles - len(ranked["missed cracks"]))]
    misses = ranked["missed cracks"][: worst_tiles - len(alarms)]
    jpegs = _read(results.data, np.concatenate([*samples.values(), alarms, misses]))
    return ShownTiles(ranked, samples, {"false alarms": alarms, "missed cracks": misses}, jpegs)


def _by_confidence(results: Results, numbers: Ints) -> Ints:
    return numbers[np.argsort(-np.abs(results.chosen.probs[numbers] - 0.5), kind="stable")]


def _in_turns(numbers: Ints, data: HeldOutTiles) -> Ints:
    """Take turns among sources, and within a source among photos; a group's first stays its first."""
    for column in ("photo", "source"):
        seen, turns = Counter[str](), []
        for group in data.column(column)[numbers].tolist():
            turns.append(seen[group])
            seen[group] += 1
        numbers = numbers[np.argsort(np.array(turns, np.int64), kind="stable")]
    return numbers


def _read(data: HeldOutTiles, numbers: Ints) -> dict[int, bytes]:
    number_of = {int(data.rows[number]): int(number) for number in numbers}
    return {number_of[row]: jpeg for row, jpeg in data.tiles.encoded() if row in number_of}


def render(
    results: Results, shown: ShownTiles, charts: Sequence[Drawing], samples: Drawing, worst_photos: int
) -> str:
    """Make the page's HTML: `charts` are of scores; photos with most errors come first."""
    photos = photo_rows([results.chosen], results.data)
    wrong = [row for row in photos if row["num_errors"]]
    wrong.sort(key=lambda row: (-row["num_errors"], row["accuracy"], row["photo"]))
    values = {
        "metrics": results.metrics,
        "chosen": results.metrics["chosen"],
        "table_1": table_1(results.pretraining),
        "table_2": table_2(results),
        "paper_gaps": ", ".join(f"{100 * gap:.2f}" for gap in PAPER_GAPS.values()),
        "paper_temperature": PAPER_FINAL_TEMPERATURE,
        "charts": charts,
        "pictures": [samples],
        "photos": wrong[:worst_photos],
        "num_photos": len(photos),
        "num_wrong_photos": len(wrong),
        "num_errors": sum(row["num_errors"] for row in photos),
        "errors": {
            kind: [_tile(results, shown, n) for n in numbers] for kind, numbers in shown.errors.items()
        },
        "models": [*results.pretraining, *(scored.model for scored in results.experiments)],
    }
    return _environment().get_template("page.html.j2").render(values)


def _environment() -> Environment:
    loader = FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1]])  # style.css is shared
    environment = Environment(
        autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "points": _points, "decimal": _decimal}
    return environment


def _percent(share: float | None, digits: int = 2) -> str:
    return ABSENT if share is None else f"{100 * share:.{digits}f}"


def _points(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:+.2f}"


def _decimal(value: float | None, digits: int = 3) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _tile(results: Results, shown: ShownTiles, number: int) -> dict[str, Any]:
    """Where a misclassified tile is, what was said of it, and its JPEG as a data URI."""
    row: dict[str, Any] = results.data.tiles.rows[results.data.rows[number]]
    corner = f", at x {row['x0_px']} y {row['y0_px']}" if row.get("x0_px") else ""
    fraction = row.get("crack_fraction")
    return {
        "place": f"{row['photo']}{corner}",
        "crack_prob": float(results.chosen.probs[number]),
        "crack_fraction": f"{float(fraction):.2%}" if fraction else "",
        "data_uri": "data:image/jpeg;base64," + base64.b64encode(shown.jpegs[number]).decode(),
    }
