"""One self-contained page of results: style, figures and tiles inside, nothing from a network.

Names of photos and sources come from outside; the template escapes everything.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from damcrack.evaluate.drawing import Drawing
from damcrack.evaluate.published import PAPER_FINAL_TEMPERATURE, PAPER_GAPS
from damcrack.evaluate.scored import Results, photo_rows, table_1, table_2
from damcrack.evaluate.tiles import ShownTiles

ABSENT = "–"  # noqa: RUF001 - an en dash, as tables have it


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
    values = {
        "metrics": results.metrics,
        "chosen": results.metrics["chosen"],
        "table_1": table_1(results.pretraining),
        "table_2": table_2(results),
        "paper_gaps": ", ".join(f"{100 * gap:.2f}" for gap in PAPER_GAPS.values()),
        "paper_temperature": PAPER_FINAL_TEMPERATURE,
        "charts": charts,
        "pictures": pictures,
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
