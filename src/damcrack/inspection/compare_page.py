"""Two surveys compared, as one HTML page that needs no network."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from damcrack.files import write_bytes
from damcrack.inspection.overlay import COLOURS
from damcrack.inspection.report import environment

SHOWN_PAIRS = 200
LISTED = 500


def write_compare_page(
    path: Path,
    title: str,
    pairs: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    totals: Mapping[str, int],
    num_failed: int,
    alone: Mapping[str, Sequence[str]],
) -> None:
    """Write the page: changed pairs first, then those that could not be compared, then the unchanged."""
    changed = [row for row in rows if row["status"] not in ("unchanged", "unclear")]
    changed.sort(key=lambda row: (-abs(row["length_change_px"]), row["crack"]))
    shown = sorted(pairs, key=_first_changed)[:SHOWN_PAIRS]
    page = (
        environment()
        .get_template("compare.html.j2")
        .render(
            title=title,
            totals=totals,
            num_pairs=len(pairs),
            num_failed=num_failed,
            alone=alone,
            unfit=[pair for pair in pairs if pair["scale_problem"]],
            rows=changed[:LISTED],
            num_changed=len(changed),
            pairs=[
                {**pair, "images": [base64.b64encode(one).decode() for one in pair["images"]]}
                for pair in shown
            ],
            colours={status: "#{:02x}{:02x}{:02x}".format(*colour) for status, colour in COLOURS.items()},
        )
    )
    write_bytes(path, page.encode())


def _first_changed(pair: Mapping[str, Any]) -> tuple[int, bool, str]:
    counts = pair["counts"]
    return -(counts["new"] + counts["grown"] + counts["vanished"]), not pair["problem"], pair["photo"]
