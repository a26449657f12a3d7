"""What Kubeflow's pages draw of a task: numbers, confusion matrix, ROC curve and an HTML page."""

import csv
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MOST_ROC_POINTS = 100
LARGEST_PAGE = 10 * 2**20
NUMBERS_OF = ("metrics.json", "parity.json", "case-study.json", "set.json")


def metrics_of(outs: Sequence[Path]) -> dict[str, float]:
    """Numbers of a stage's outputs: the chosen experiment's of an evaluation, the last epoch's of a training."""
    found: dict[str, float] = {}
    for out in outs:
        evaluation = _chosen(out)
        if evaluation:
            found |= _numbers(evaluation)
        for name in NUMBERS_OF[1:]:
            if (out / name).is_file():
                found |= _numbers(json.loads((out / name).read_text()))
        if (out / "history.csv").is_file():
            with (out / "history.csv").open(newline="") as file:
                found |= {name: float(text) for name, text in list(csv.DictReader(file))[-1].items() if text}
    return found


def scores_of(outs: Sequence[Path]) -> dict[str, Any]:
    """Confusion matrix and ROC curve of an evaluation in the form of KFP's ClassificationMetrics; else nothing."""
    for out in outs:
        row = _chosen(out)
        if row and (out / "predictions.csv").is_file():
            chosen = json.loads((out / "metrics.json").read_text())["chosen"]
            with (out / "predictions.csv").open(newline="") as file:
                rows = [line for line in csv.DictReader(file) if line["experiment"] == chosen]
            return {
                "confusionMatrix": {
                    "annotationSpecs": [{"displayName": "no crack"}, {"displayName": "crack"}],
                    "rows": [{"row": counts} for counts in row["confusion"]],
                },
                "confidenceMetrics": roc_points(
                    [int(line["label"]) for line in rows], [float(line["crack_prob"]) for line in rows]
                ),
            }
    return {}


def roc_points(labels: Sequence[int], probs: Sequence[float]) -> list[dict[str, float]]:
    """At most 100 points of the ROC curve, thresholds falling; both ends are in it, equal scores are one step."""
    positives = sum(labels)
    negatives = len(labels) - positives
    if not positives or not negatives:
        return []
    hits = false_alarms = 0
    points = [{"confidenceThreshold": 1.0, "recall": 0.0, "falsePositiveRate": 0.0}]
    ranked = sorted(zip(probs, labels, strict=True), reverse=True)
    for place, (prob, label) in enumerate(ranked):
        hits, false_alarms = hits + label, false_alarms + 1 - label
        if place + 1 == len(ranked) or ranked[place + 1][0] != prob:
            points.append(
                {
                    "confidenceThreshold": prob,
                    "recall": hits / positives,
                    "falsePositiveRate": false_alarms / negatives,
                }
            )
    step = max(1, -(-(len(points) - 1) // (MOST_ROC_POINTS - 1)))
    return points[:-1:step] + points[-1:]


def page_of(outs: Sequence[Path], record: Mapping[str, Any]) -> str:
    """The stage's own page where it made one of moderate size; else a table of what the task did."""
    for out in outs:
        for path in sorted(out.glob("*.html")):
            if path.stat().st_size <= LARGEST_PAGE:
                return path.read_text()
    rows = "\n".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in record.items()
    )
    style = (
        "body{font:14px sans-serif;margin:2em}th{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}"
    )
    title = html.escape(str(record.get("stage", "task")))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style></head><body><h1>{title}</h1><table>{rows}</table></body></html>\n"
    )


def _chosen(out: Path) -> dict[str, Any]:
    if not (out / "metrics.json").is_file():
        return {}
    metrics = json.loads((out / "metrics.json").read_text())
    return dict(metrics.get("experiments", {}).get(metrics.get("chosen"), {}))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "format"
    }
