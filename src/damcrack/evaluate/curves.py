"""Figures from training histories: learning curves, temperature, the gap to validation."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from damcrack.evaluate.drawing import COLOURS, MUTED, legend_below, panels_of, style_of
from damcrack.evaluate.trained import TrainedModel


def _lines(axes: Axes, models: Sequence[TrainedModel], column: str, title: str) -> None:
    for number, model in enumerate(models):
        values = [np.nan if value is None else value for value in model.series(column)]
        epochs = range(1, len(values) + 1)
        axes.plot(epochs, values, **style_of(number), lw=1.7, marker="o", ms=2.5, label=model.label)
    axes.set_title(title)
    if column.endswith("loss") and _wide([value for model in models for value in model.series(column)]):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _wide(values: Sequence[float | None]) -> bool:
    """Whether a linear axis would press most of the curves flat."""
    positive = [value for value in values if value]
    return bool(positive) and min(positive) > 0 and max(positive) > 50 * min(positive)


def learning_curves(models: Sequence[TrainedModel]) -> Figure:
    """Accuracy and loss over epochs, of training and validation, a line for each model."""
    figure, panels = panels_of(4, 2, (4.6, 2.9))
    titles = {
        "train_accuracy": "training accuracy",
        "val_accuracy": "validation accuracy",
        "hard_loss": "training loss (cross-entropy with labels)",
        "val_loss": "validation loss",
    }
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        _lines(axes, models, column, title)
        if column.endswith("accuracy"):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in panels[2:]:
        axes.set_xlabel("epoch")
    legend_below(figure, panels[0], 3)
    return figure


def curve_words(models: Sequence[TrainedModel]) -> str:
    """`learning_curves` in words."""
    ends = [f"{m.label} {m.facts['final_val_accuracy']:.1%} in epoch {len(m.history)}" for m in models]
    return "Four line charts over epochs. Validation accuracy ends at: " + "; ".join(ends) + "."


def temperature_curves(models: Sequence[TrainedModel]) -> Figure:
    """Temperature, theta and lambda over epochs of the models that had a teacher."""
    figure, panels = panels_of(3, 3, (3.1, 2.9))
    titles = {"temperature": "temperature T", "theta": "theta", "reversal_weight": "lambda"}
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        _lines(axes, models, column, title)
        axes.set_xlabel("epoch")
        axes.ticklabel_format(axis="y", useOffset=False)
    legend_below(figure, panels[0], 3)
    return figure


def temperature_words(models: Sequence[TrainedModel]) -> str:
    """`temperature_curves` in words."""
    ends = [f"{m.label} {m.facts['final_temperature']:.3f}" for m in models]
    return "Three line charts over epochs. Mean temperature of the last epoch: " + "; ".join(ends) + "."


def gap_bars(models: Sequence[TrainedModel]) -> Figure:
    """Training minus validation accuracy, a bar for each model."""
    figure = Figure(figsize=(7.4, 0.34 * len(models) + 0.9), layout="constrained")
    axes = figure.subplots()
    names = [model.label for model in models]
    colours = [COLOURS[0] if model.stage == "finetune" else COLOURS[9] for model in models]
    bars = axes.barh(
        names, [100 * model.facts["train_val_gap"] for model in models], color=colours, height=0.6
    )
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.axvline(0, color=MUTED, lw=1)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("training minus validation accuracy, percentage points")
    axes.grid(visible=False, axis="y")
    return figure


def gap_words(models: Sequence[TrainedModel]) -> str:
    """`gap_bars` in words."""
    values = [f"{model.label} {100 * model.facts['train_val_gap']:.1f}" for model in models]
    return "Gap in percentage points: " + "; ".join(values) + "."
