"""What Kubeflow's pages draw of a task: numbers and an HTML page."""

import csv
import html
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LARGEST_PAGE = 10 * 2**20


def metrics_of(outs: Sequence[Path]) -> dict[str, float]:
    """Finite numbers of a stage's outputs: of an evaluation the chosen experiment's, of a training the last epoch's.

    Kubeflow refuses a whole result with an infinite number in it.
    """
    found: dict[str, Any] = {}
    for out in outs:
        evaluation = _json(out / "metrics.json")
        found |= evaluation.get("experiments", {}).get(evaluation.get("chosen"), {})
        for name in ("parity.json", "case-study.json", "set.json"):
            found |= _json(out / name)
        if (out / "history.csv").is_file():
            with (out / "history.csv").open(newline="") as file:
                last = [{}, *csv.DictReader(file)][-1]
            for name, text in last.items():
                with suppress(TypeError, ValueError):
                    found[name] = float(text)
    numbers = {name: value for name, value in found.items() if type(value) in (int, float)}
    return {
        name: float(value) for name, value in numbers.items() if math.isfinite(value) and name != "format"
    }


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def page_of(outs: Sequence[Path], rows: Mapping[str, Any]) -> str:
    """The stage's own page where it wrote one of moderate size; else a table of these rows."""
    for page in (page for out in outs for page in sorted(out.glob("*.html"))):
        if page.stat().st_size <= LARGEST_PAGE:
            return page.read_text()
    cells = (f"<tr><th>{html.escape(name)}<td>{html.escape(str(value))}" for name, value in rows.items())
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>task</title><table>{"".join(cells)}</table>'
