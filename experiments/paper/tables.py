"""The report in markdown, with the paper's numbers next to ours."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from damcrack.evaluate.tables import PAPER_GAPS, PAPER_TABLE_1
from experiments.paper.claims import (
    CLAIMS,
    SMALL,
    Cell,
    MeanInterval,
    Study,
    mean_interval,
    paper_accuracy,
    verdicts,
)

ABSENT = "-"
# names of cells of the pretraining set: keys of the paper's table 1
PUBLISHED = {
    "resnet18": ("resnet18", "labels"),
    "resnet50": ("resnet50", "labels"),
    "fixed-4": ("resnet18", "fixed T = 4"),
    "dynamic": ("resnet18", "dynamic T"),
}
READING = f"""- **Numbers** are percent, mean ± standard deviation over *n* seeds, on test tiles that no choice saw.
- **The paper** reports the tiles on which it chose its best epoch, split at random; ours are split by photo (METU: by
  block of file numbers). Compare with care.
- **Labels** are the labelled tiles that a network had, a fifth of them for validation.
- **Claims**: the difference of accuracy in points, with a 95 % bootstrap interval that draws whole photos and seeds.
  Above zero it confirms a claim, below zero it says the opposite, within ± {100 * SMALL:g} points there is no
  difference of use; without a verdict it is not decidable.
- The folder of the report has every other cell and score (`cells.csv`, `verdicts.csv`), and figures."""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; the first column is text, the others are numbers."""
    head = ["| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1)]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)])


def percent(value: MeanInterval | None, digits: int = 2) -> str:
    """Mean ± standard deviation of shares, in percent."""
    return plain(value, digits, 100)


def plain(value: MeanInterval | None, digits: int, unit: int = 1) -> str:
    """Mean ± standard deviation."""
    if value is None:
        return ABSENT
    spread = "" if math.isnan(value.std) else f" ± {unit * value.std:.{digits}f}"
    return f"{unit * value.mean:.{digits}f}{spread}"


def points(value: MeanInterval) -> str:
    """A difference of shares with its interval, in percentage points."""
    interval = "" if math.isnan(value.low) else f" ({100 * value.low:+.2f} to {100 * value.high:+.2f})"
    return f"{100 * value.mean:+.2f}{interval}"


def known(share: float | None, form: str = ".2f") -> str:
    """One of the paper's numbers, in percent."""
    return ABSENT if share is None or math.isnan(share) else format(100 * share, form)


def table_1(cells: Sequence[Cell]) -> str:
    """The pretraining set: one row per method of the paper's table 1."""
    columns = ["method", "n", "validation", "paper", "gap, last epoch", "paper's gap", "T, last epoch"]
    rows = []
    for method, group in groupby(cells, key=lambda cell: cell.method):
        if method not in PUBLISHED:
            continue
        seeds, key = list(group), PUBLISHED[method]
        row = [method, str(len(seeds)), percent(_fact(seeds, "val_accuracy")), known(PAPER_TABLE_1.get(key))]
        row += [percent(mean_interval(np.array([_last_gap(cell) for cell in seeds])))]
        rows.append([*row, known(PAPER_GAPS.get(key)), plain(_fact(seeds, "final_temperature"), 3)])
    return table(columns, rows)


def _fact(cells: Sequence[Cell], name: str) -> MeanInterval | None:
    values = [cell.model.facts[name] for cell in cells]
    return mean_interval(np.array(values)) if all(isinstance(one, int | float) for one in values) else None


def _last_gap(cell: Cell) -> float:
    """Training minus validation accuracy of the last epoch."""
    last = cell.model.history[-1]
    return float(last["train_accuracy"] or 0) - float(last["val_accuracy"] or 0)


def pretraining_claims(cells: Sequence[Cell]) -> str:
    """Differences of the best validation accuracy and of the last gap between methods with several seeds."""
    pairs = ["resnet18", "fixed-4"], ["fixed-4", "dynamic"], ["resnet18", "dynamic"], ["resnet50", "dynamic"]
    rows = []
    for worse, better in pairs:
        sides = [{cell.seed: cell for cell in cells if cell.method == name} for name in (worse, better)]
        pairs_of = [(sides[0][seed], sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys())]
        if len(pairs_of) > 1:
            accuracy = [b.model.facts["val_accuracy"] - a.model.facts["val_accuracy"] for a, b in pairs_of]
            gap = [_last_gap(b) - _last_gap(a) for a, b in pairs_of]
            means = [points(mean_interval(np.array(values))) for values in (accuracy, gap)]
            rows.append([f"{better} minus {worse}", str(len(pairs_of)), *means])
    if not rows:
        return ""
    words = "Differences, seed by seed, with Student's 95 % interval:\n\n"
    return words + table(["pretraining", "n", "validation accuracy, points", "gap, points"], rows)


def table_2(study: Study) -> str:
    """Crack networks with most labels, and thresholds on brightness; then their accuracy on each held-out source."""
    most = max(study.labels)
    places = [study.trained_on, *((source,) for source in study.unseen)]
    rows = []
    for method in study.methods:
        if cells := study.cells(method, most):
            names = [f"accuracy {'+'.join(sources)}" for sources in places]
            accuracy, *others = (percent(study.over_seeds(method, most, name)) for name in names)
            rows.append([method, accuracy, known(paper_accuracy(method)), *others, str(len(cells))])
    for name, predicted in study.baselines.items():
        right = predicted == study.tiles.labels
        accuracy, *others = (f"{100 * right[study.tiles.where(sources)].mean():.2f}" for sources in places)
        rows.append([f"{name} (no network)", accuracy, ABSENT, *others, ABSENT])
    return table(["method", "accuracy", "paper", *study.unseen, "n"], rows)


def label_table(study: Study) -> str:
    """Accuracy on the training sources for each method that was trained with several numbers of labels."""
    column = f"accuracy {'+'.join(study.trained_on)}"
    rows = [
        [method, *(percent(study.over_seeds(method, number, column)) for number in study.labels)]
        for method in study.with_few_labels
    ]
    return table(["method", *(f"{number} labels" for number in study.labels)], rows)


def claims_table(study: Study) -> str:
    """Claims with the paper's difference, ours on the training sources and on all others, and what follows."""
    found: dict[Any, Any] = {
        (one.sources, one.labels, one.claim): one for one in verdicts(study).itertuples()
    }
    places = [sources for sources in (study.trained_on, study.unseen) if sources]
    rows = []
    for labels, claim in dict.fromkeys((labels, claim) for _, labels, claim in found):
        worse, better = (paper_accuracy(name) for name in CLAIMS[claim])
        here = [found["+".join(sources), labels, claim] for sources in places]
        rows.append(
            [claim, str(labels), known(better - worse, "+.2f"), *map(_verdict, here), str(here[0].seeds)]
        )
    return table(["the paper says that", "labels", "paper, points", *map(", ".join, places), "n"], rows)


def _verdict(one: Any) -> str:
    """A row of `verdicts` in a cell."""
    interval = f"{100 * one.difference:+.2f} ({100 * one.low:+.2f} to {100 * one.high:+.2f})"
    return interval if one.verdict == "not decidable" else f"{interval} **{one.verdict}**"


def failures_list(failures: Mapping[str, str]) -> str:
    """The cells that are missing, with the reason."""
    return "\n".join(f"- `{out}`: {reason}" for out, reason in failures.items())


def document(study: Study, pretraining: Sequence[Cell], failures: Mapping[str, str], header: str) -> str:
    """The whole report."""
    home, away = (", ".join(sources) for sources in (study.trained_on, study.unseen))
    num_home, num_away = (int(study.tiles.where(part).sum()) for part in (study.trained_on, study.unseen))
    parts = [
        "# The paper's experiments, run again",
        header,
        READING,
        "## The paper's claims",
        f"{num_home} test tiles are of unseen photos of {home}, {num_away} of held-out sources ({away or 'none'}).",
        claims_table(study),
        "## Table 1: pretraining and distillation on natural images",
        table_1(pretraining),
        pretraining_claims(pretraining),
        f"## Table 2: crack networks, {max(study.labels)} labelled tiles of {home}",
        f"Accuracy on {home}, then on each held-out source:",
        table_2(study),
    ]
    if len(study.labels) > 1:
        parts += ["## Few labels", f"Accuracy on {home}:", label_table(study)]
    if failures:
        parts += ["## Cells that are missing", failures_list(failures)]
    return "\n\n".join(filter(None, parts)) + "\n"
