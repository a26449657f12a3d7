"""A study in tables and words (markdown), with the paper's numbers beside ours."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np

from damcrack.scores.statistics import MeanInterval, mean_interval
from damcrack.study.cells import Answers, Cell
from damcrack.study.compare import (
    CLAIMS,
    SMALL,
    Study,
    Verdict,
    accuracy_on,
    agreement_with_teacher,
    auroc_on,
    ece_on,
    over_seeds,
    recall_on,
    verdicts,
)

ABSENT = "-"
# Table 1 of the paper: validation accuracy and train-validation gap, percent; it prints gaps for three of the four.
PAPER_TABLE_1 = {
    "resnet18": ("79.41", "14.03"),
    "resnet50": ("81.79", ABSENT),
    "fixed-4": ("82.33", "12.61"),
    "dynamic": ("82.52", "10.16"),
}
PAPER_TABLE_2 = {claim.worse: claim.paper[0] for claim in CLAIMS} | {"resnet18-dynamic": 99.85}
READING = f"""## How to read this

- **Numbers** are mean ± standard deviation over seeds, in percent; brackets hold Student's 95 % interval of
  the mean; *n* says how many seeds. A cell that could not be trained is listed at the end with its reason and missing
  here.
- **Test tiles were seen by no choice**: best epochs, calibration and everything else come from validation tiles. The
  paper reports the tiles on which it chose its best epoch, split at random; our tiles are split by photo (METU: by
  block of file numbers) with near-duplicates on one side. Its numbers are signposts, no bars. What a random split
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
    if value is None:
        return ABSENT
    spread = "" if math.isnan(value.std) else f" ± {100 * value.std:.{digits}f}"
    return f"{100 * value.mean:.{digits}f}{spread}"


def bounded(value: MeanInterval | None) -> str:
    """Mean ± standard deviation of shares with the mean's interval, in percent: of the seeds, on these tiles.

    Student's interval does not know that a share ends at 100 %; what is printed does.
    """
    if value is None or math.isnan(value.low):
        return percent(value)
    return f"{percent(value)} ({100 * max(value.low, 0):.2f} to {100 * min(value.high, 1):.2f})"


def table_1(cells: Sequence[Cell]) -> str:
    """The pretraining set: one row per method."""
    columns = ["method", "n", "best epoch", "train", "hard loss", "validation, best", "paper", "last"]
    columns += ["validation loss", "gap, last epoch", "paper's gap", "T, last epoch"]
    rows = []
    for method, group in groupby(cells, key=lambda cell: cell.method):
        seeds = list(group)
        paper = PAPER_TABLE_1.get(method, (ABSENT, ABSENT))
        row = [method, str(len(seeds)), _plain(seeds, "best_epoch", 1), _share(seeds, "train_accuracy")]
        row += [_plain(seeds, "hard_loss", 3), _share(seeds, "val_accuracy"), paper[0]]
        row += [_share(seeds, "final_val_accuracy"), _plain(seeds, "val_loss", 3), percent(_gaps(seeds))]
        rows.append([*row, paper[1], _plain(seeds, "final_temperature", 3)])
    return table(columns, rows)


def _facts(cells: Sequence[Cell], name: str) -> MeanInterval | None:
    values = [cell.model.facts[name] for cell in cells]
    return None if None in values else mean_interval(np.array(values, dtype=np.float64))


def _share(cells: Sequence[Cell], name: str) -> str:
    return percent(_facts(cells, name))


def _plain(cells: Sequence[Cell], name: str, digits: int) -> str:
    value = _facts(cells, name)
    if value is None:
        return ABSENT
    return f"{value.mean:.{digits}f}" + ("" if math.isnan(value.std) else f" ± {value.std:.{digits}f}")


def _gaps(cells: Sequence[Cell]) -> MeanInterval:
    """Training minus validation accuracy of the last epoch."""
    ends = [cell.model.history[-1] for cell in cells]
    return mean_interval(
        np.array([float(row["train_accuracy"] or 0) - float(row["val_accuracy"] or 0) for row in ends])
    )


def table_2(study: Study) -> str:
    """Crack networks with most labels, one row per method."""
    labels, home = max(study.labels), study.trained_on
    values: Mapping[str, Callable[[Cell, Answers], float]] = {
        "accuracy": accuracy_on(study, home),
        "recall": recall_on(study, home),
        "AUROC": auroc_on(study, home),
        "gap": lambda cell, answers: float(cell.model.facts["train_val_gap"]),
        "agrees with teacher": agreement_with_teacher(study, labels),
    }
    rows = []
    for method in (name for name in study.methods if (name, labels) in study.cells):
        key = (method, labels)
        paper = PAPER_TABLE_2.get(method, math.nan)
        row = [method, str(len(study.cells[key])), ABSENT if math.isnan(paper) else f"{paper:.2f}"]
        row += [percent(over_seeds(study, key, value)) for value in values.values()]
        eces = [over_seeds(study, key, ece_on(study, home, scaled)) for scaled in (False, True)]
        rows.append([*row, " → ".join(percent(ece, 1) for ece in eces)])
    return table(["method", "n", "paper", *values, "ECE"], rows)


def source_table(study: Study) -> str:
    """Accuracy on each test source by itself, of networks with most labels and of thresholds on brightness."""
    labels, sources = max(study.labels), [*study.trained_on, *study.unseen]
    rows = []
    for method in (name for name in study.methods if (name, labels) in study.cells):
        found = [over_seeds(study, (method, labels), accuracy_on(study, [source])) for source in sources]
        rows.append([method, *(bounded(one) for one in found)])
    for name, predicted in study.baselines.items():
        right = predicted == study.tiles.labels
        shares = [right[study.tiles.where([source])].mean() for source in sources]
        rows.append([f"{name} (no network)", *(f"{100 * share:.2f}" for share in shares)])
    return table(["method", *sources], rows)


def label_table(study: Study, value: Callable[[Cell, Answers], float]) -> str:
    """A number for each method that was trained with several numbers of labels."""
    rows = []
    for method in study.methods:
        found = [over_seeds(study, (method, number), value) for number in study.labels]
        if sum(one is not None for one in found) > 1:
            rows.append([method, *(bounded(one) for one in found)])
    return table(["method", *(f"{number} labels" for number in study.labels)], rows)


def claims_table(found: Sequence[Verdict]) -> str:
    """Claims with the paper's difference, ours, and what follows."""
    rows = []
    for one in found:
        paper = one.claim.paper[1] - one.claim.paper[0]
        row = [one.claim.words, str(one.labels), ABSENT if math.isnan(paper) else f"{paper:+.2f}"]
        row += [f"{100 * one.difference:+.2f}", f"{100 * one.low:+.2f} to {100 * one.high:+.2f}"]
        rows.append([*row, f"{one.p:.2g}", str(one.num_seeds), f"**{one.words}**"])
    columns = ["the paper says that", "labels", "paper, points", "ours", "95 % interval", "McNemar's p", "n"]
    return table([*columns, "verdict"], rows)


def pretraining_claims(cells: Sequence[Cell]) -> str:
    """Differences of the best validation accuracy and of the last gap between methods, seed by seed."""
    pairs = [
        ("resnet18", "fixed-4"),
        ("fixed-4", "dynamic"),
        ("resnet18", "dynamic"),
        ("resnet50", "dynamic"),
    ]
    rows = []
    for worse, better in pairs:
        sides = [{cell.seed: cell for cell in cells if cell.method == name} for name in (worse, better)]
        seeds = sorted(sides[0].keys() & sides[1].keys())
        if not seeds:
            continue
        accuracy = mean_interval(
            np.array(
                [
                    sides[1][s].model.facts["val_accuracy"] - sides[0][s].model.facts["val_accuracy"]
                    for s in seeds
                ]
            )
        )
        gap = mean_interval(np.array([_gaps([sides[1][s]]).mean - _gaps([sides[0][s]]).mean for s in seeds]))
        rows.append([f"{better} minus {worse}", str(len(seeds)), _points(accuracy), _points(gap)])
    return table(["pretraining", "n", "validation accuracy, points", "gap, points"], rows)


def _points(value: MeanInterval) -> str:
    mean = f"{100 * value.mean:+.2f}"
    if math.isnan(value.low):
        return mean
    return f"{mean} ({100 * value.low:+.2f} to {100 * value.high:+.2f})"


def failures_list(failures: Mapping[str, str]) -> str:
    """The cells that are missing, with the reason."""
    if not failures:
        return "None: every cell that was begun is there."
    return "\n".join(f"- `{out}`: {reason}" for out, reason in failures.items())


def _few_labels(study: Study) -> list[str]:
    home, away = study.trained_on, study.unseen
    parts = [
        "## Few labels",
        f"Accuracy on the test tiles of {', '.join(home)}:",
        label_table(study, accuracy_on(study, home)),
        "Recall:",
        label_table(study, recall_on(study, home)),
    ]
    if away:
        parts += [f"Accuracy on {', '.join(away)}:", label_table(study, accuracy_on(study, away))]
    return parts


def document(study: Study, pretraining: Sequence[Cell], failures: Mapping[str, str], header: str) -> str:
    """The whole page in markdown."""
    home, away = study.trained_on, study.unseen
    num_home, num_away = (int(study.tiles.where(sources).sum()) for sources in (home, away))
    parts = [
        "# The paper's experiments, run again",
        header,
        READING,
        "## Table 1: pretraining and distillation on natural images",
        table_1(pretraining),
        "Differences, seed by seed, with Student's 95 % interval:",
        pretraining_claims(pretraining),
        f"## Table 2: crack networks, {max(study.labels)} labelled tiles of {', '.join(home)}",
        f"On {num_home} test tiles of unseen photos of {', '.join(home)}:",
        table_2(study),
        "## Sources that trained nothing",
        f"Accuracy; {num_away} test tiles are of sources that trained nothing ({', '.join(away) or 'none here'}).",
        source_table(study),
        *(_few_labels(study) if len(study.labels) > 1 else []),
        "## The paper's claims",
        f"On the test tiles of {', '.join(home)}:",
        claims_table(verdicts(study, home)),
    ]
    if away:
        parts += [f"On {', '.join(away)}:", claims_table(verdicts(study, away))]
    return "\n\n".join([*parts, "## Cells that are missing", failures_list(failures)]) + "\n"
