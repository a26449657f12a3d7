"""The report in markdown, with the paper's numbers next to ours."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd

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
READING = f"""## How to read this

- **Numbers** are mean ± standard deviation over seeds, in percent; brackets hold Student's 95 % interval of
  the mean; *n* says how many seeds. A cell that could not be trained is listed at the end with its reason and missing
  here.
- **Test tiles were seen by no choice**: best epochs, calibration and everything else come from validation tiles. The
  paper reports the tiles on which it chose its best epoch, split at random; our tiles are split by photo (METU: by
  block of file numbers) with near-duplicates on one side. Compare its numbers with care. What a random split
  of the same photographs adds is measured in docs/LOG.md.
- **Labels** counts the tiles with a label that a network had, a fifth of them for validation.
- **Claims**: the difference of accuracy in points, with a 95 % bootstrap interval that draws whole photos and seeds. An
  interval above zero confirms a claim, one below zero says the opposite, one within ± {100 * SMALL:g} points
  says that there is no difference of use; all others leave it undecided. McNemar's p (middle seed, Holm-adjusted
  over the table) takes tiles as independent, which tiles of one photo are not, so it decides nothing here.
- **ECE** is the calibration error as trained and, after the arrow, after temperature scaling on validation tiles."""


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


def bounded(value: MeanInterval | None) -> str:
    """Mean ± standard deviation of shares with the mean's interval, in percent: of the seeds, on these tiles.

    Student's interval does not know that a share ends at 100 %; what is printed does.
    """
    if value is None or math.isnan(value.low):
        return percent(value)
    return f"{percent(value)} ({100 * max(value.low, 0):.2f} to {100 * min(value.high, 1):.2f})"


def points(value: MeanInterval) -> str:
    """A difference of shares with its interval, in percentage points."""
    interval = "" if math.isnan(value.low) else f" ({100 * value.low:+.2f} to {100 * value.high:+.2f})"
    return f"{100 * value.mean:+.2f}{interval}"


def known(share: float | None, form: str = ".2f") -> str:
    """One of the paper's numbers, in percent."""
    return ABSENT if share is None or math.isnan(share) else format(100 * share, form)


def table_1(cells: Sequence[Cell]) -> str:
    """The pretraining set: one row per method."""
    columns = ["method", "n", "best epoch", "train", "hard loss", "validation, best", "paper", "last"]
    columns += ["validation loss", "gap, last epoch", "paper's gap", "T, last epoch"]
    rows = []
    for method, group in groupby(cells, key=lambda cell: cell.method):
        seeds = list(group)
        found = {name: _fact(seeds, name) for name in seeds[0].model.facts}
        key = PUBLISHED.get(method, ("", ""))
        row = [method, str(len(seeds)), plain(found["best_epoch"], 1), percent(found["train_accuracy"])]
        row += [plain(found["hard_loss"], 3), percent(found["val_accuracy"]), known(PAPER_TABLE_1.get(key))]
        row += [percent(found["final_val_accuracy"]), plain(found["val_loss"], 3)]
        row += [percent(mean_interval(np.array([_last_gap(cell) for cell in seeds])))]
        rows.append([*row, known(PAPER_GAPS.get(key)), plain(found["final_temperature"], 3)])
    return table(columns, rows)


def _fact(cells: Sequence[Cell], name: str) -> MeanInterval | None:
    values = [cell.model.facts[name] for cell in cells]
    return mean_interval(np.array(values)) if all(isinstance(one, int | float) for one in values) else None


def _last_gap(cell: Cell) -> float:
    """Training minus validation accuracy of the last epoch."""
    last = cell.model.history[-1]
    return float(last["train_accuracy"] or 0) - float(last["val_accuracy"] or 0)


def pretraining_claims(cells: Sequence[Cell]) -> str:
    """Differences of the best validation accuracy and of the last gap between methods, seed by seed."""
    pairs = ["resnet18", "fixed-4"], ["fixed-4", "dynamic"], ["resnet18", "dynamic"], ["resnet50", "dynamic"]
    rows = []
    for worse, better in pairs:
        sides = [{cell.seed: cell for cell in cells if cell.method == name} for name in (worse, better)]
        pairs_of = [(sides[0][seed], sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys())]
        if pairs_of:
            accuracy = [b.model.facts["val_accuracy"] - a.model.facts["val_accuracy"] for a, b in pairs_of]
            gap = [_last_gap(b) - _last_gap(a) for a, b in pairs_of]
            means = [points(mean_interval(np.array(values))) for values in (accuracy, gap)]
            rows.append([f"{better} minus {worse}", str(len(pairs_of)), *means])
    return table(["pretraining", "n", "validation accuracy, points", "gap, points"], rows)


def table_2(study: Study) -> str:
    """Crack networks with most labels, one row per method."""
    home = "+".join(study.trained_on)
    columns = {"accuracy": f"accuracy {home}", "recall": f"recall {home}", "AUROC": "auroc", "gap": "gap"}
    columns |= {"agrees with teacher": "agreement"}
    rows = []
    for method, labels in _with_most_labels(study):
        row = [method, str(len(study.cells(method, labels))), known(paper_accuracy(method))]
        row += [percent(study.over_seeds(method, labels, column)) for column in columns.values()]
        eces = [percent(study.over_seeds(method, labels, name), 1) for name in ("ece", "ece calibrated")]
        rows.append([*row, " → ".join(eces)])
    return table(["method", "n", "paper", *columns, "ECE"], rows)


def _with_most_labels(study: Study) -> list[tuple[str, int]]:
    most = max(study.labels)
    return [(method, most) for method in study.methods if study.cells(method, most)]


def source_table(study: Study) -> str:
    """Accuracy on each test source by itself, of networks with most labels and of thresholds on brightness."""
    sources = [*study.trained_on, *study.unseen]
    rows = []
    for method, labels in _with_most_labels(study):
        found = [study.over_seeds(method, labels, f"accuracy {source}") for source in sources]
        rows.append([method, *(bounded(one) for one in found)])
    for name, predicted in study.baselines.items():
        right = predicted == study.tiles.labels
        shares = [right[study.tiles.where([source])].mean() for source in sources]
        rows.append([f"{name} (no network)", *(f"{100 * share:.2f}" for share in shares)])
    return table(["method", *sources], rows)


def label_table(study: Study, column: str) -> str:
    """A number for each method that was trained with several numbers of labels."""
    rows = [
        [method, *(bounded(study.over_seeds(method, number, column)) for number in study.labels)]
        for method in study.with_few_labels
    ]
    return table(["method", *(f"{number} labels" for number in study.labels)], rows)


def claims_table(found: pd.DataFrame) -> str:
    """Claims with the paper's difference, ours, and what follows."""
    rows = []
    for one in found.itertuples():
        worse, better = (paper_accuracy(name) for name in CLAIMS[one.claim])
        row = [one.claim, str(one.labels), known(better - worse, "+.2f"), f"{100 * one.difference:+.2f}"]
        row += [f"{100 * one.low:+.2f} to {100 * one.high:+.2f}", f"{one.p:.2g}", str(one.seeds)]
        rows.append([*row, f"**{one.verdict}**"])
    columns = ["the paper says that", "labels", "paper, points", "ours", "95 % interval", "McNemar's p", "n"]
    return table([*columns, "verdict"], rows)


def failures_list(failures: Mapping[str, str]) -> str:
    """The cells that are missing, with the reason."""
    if not failures:
        return "None: every cell that was begun is there."
    return "\n".join(f"- `{out}`: {reason}" for out, reason in failures.items())


def document(study: Study, pretraining: Sequence[Cell], failures: Mapping[str, str], header: str) -> str:
    """The whole report."""
    home, away = (", ".join(sources) for sources in (study.trained_on, study.unseen))
    home_key, away_key = ("+".join(sources) for sources in (study.trained_on, study.unseen))
    num_home, num_away = (int(study.tiles.where(part).sum()) for part in (study.trained_on, study.unseen))
    found = verdicts(study)
    parts = [
        "# The paper's experiments, run again",
        header,
        READING,
        "## Table 1: pretraining and distillation on natural images",
        table_1(pretraining),
        "Differences, seed by seed, with Student's 95 % interval:",
        pretraining_claims(pretraining),
        f"## Table 2: crack networks, {max(study.labels)} labelled tiles of {home}",
        f"On {num_home} test tiles of unseen photos of {home}:",
        table_2(study),
        "## Held-out sources",
        f"Accuracy; {num_away} test tiles are of held-out sources ({away or 'none here'}).",
        source_table(study),
    ]
    if len(study.labels) > 1:
        parts += ["## Few labels", f"Accuracy on the test tiles of {home}:"]
        parts += [
            label_table(study, f"accuracy {home_key}"),
            "Recall:",
            label_table(study, f"recall {home_key}"),
        ]
        if away:
            parts += [f"Accuracy on {away}:", label_table(study, f"accuracy {away_key}")]
    parts += ["## The paper's claims", f"On the test tiles of {home}:"]
    parts += [claims_table(found[found.sources == home_key])]
    if away:
        parts += [f"On {away}:", claims_table(found[found.sources == away_key])]
    return "\n\n".join([*parts, "## Cells that are missing", failures_list(failures)]) + "\n"
