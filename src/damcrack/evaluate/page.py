"""One self-contained page of results: inline style, inline SVG, tiles as data URIs, nothing from a network.

Names of photos and sources come from outside; the template escapes everything but our own SVG.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from damcrack.evaluate.drawing import Drawing
from damcrack.evaluate.results import Results
from damcrack.evaluate.scoring import photo_rows
from damcrack.evaluate.shown import ShownTiles
from damcrack.evaluate.tables import table_1, table_2

ABSENT = "–"  # noqa: RUF001 - an en dash, as tables have it


@dataclass(frozen=True)
class WrongTile:
    """A wrongly judged tile: where it is, what was said of it, and its JPEG as a data URI."""

    place: str
    crack_prob: float
    crack_fraction: str
    data_uri: str


def render(
    results: Results,
    shown: ShownTiles,
    charts: Sequence[Drawing],
    pictures: Sequence[Drawing],
    worst_photos: int,
) -> str:
    """Make the page's HTML: `charts` are of scores, `pictures` of tiles; photos with most errors come first."""
    photos = photo_rows([results.chosen], results.data)
    wrong = [row for row in photos if row["num_errors"]]
    wrong.sort(key=lambda row: (-row["num_errors"], row["accuracy"], row["photo"]))
    errors = {"false alarms": shown.alarms, "missed cracks": shown.misses}
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            metrics=results.metrics,
            chosen=results.metrics["chosen"],
            table_1=table_1(results.pretraining),
            table_2=table_2(results.experiments, results.metrics["experiments"]),
            charts=[(drawing, Markup(drawing.svg)) for drawing in charts],
            pictures=[(drawing, Markup(drawing.svg)) for drawing in pictures],
            photos=wrong[:worst_photos],
            num_photos=len(photos),
            num_wrong_photos=len(wrong),
            num_errors=sum(row["num_errors"] for row in photos),
            errors={kind: [_wrong_tile(results, shown, n) for n in tiles] for kind, tiles in errors.items()},
            models=[*results.pretraining, *(scored.model for scored in results.experiments)],
            starts={scored.model.label: scored.start for scored in results.experiments},
        )
    )


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


def _wrong_tile(results: Results, shown: ShownTiles, number: int) -> WrongTile:
    row: dict[str, Any] = results.data.tiles.rows[results.data.rows[number]]
    corner = f", at x {row['x0_px']} y {row['y0_px']}" if row.get("x0_px") else ""
    fraction = row.get("crack_fraction") or ""
    return WrongTile(
        place=f"{row['photo']}{corner}",
        crack_prob=float(results.chosen.probs[number]),
        crack_fraction=f"{float(fraction):.2%}" if fraction else "",
        data_uri="data:image/jpeg;base64," + base64.b64encode(shown.jpegs[number]).decode(),
    )
