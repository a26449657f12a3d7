"""Figures of scores and training histories."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from sklearn.metrics import roc_curve

from damcrack.evaluate.drawing import (
    COLOURS,
    MUTED,
    Drawing,
    finish,
    house_look,
    legend_below,
    panels_of,
    style_of,
)
from damcrack.evaluate.scored import Results
from damcrack.evaluate.trained import TrainedModel
from damcrack.scores import metrics


def draw_figures(results: Results, num_bins: int) -> list[Drawing]:
    """Draw every figure of scores and histories for which there is something to show."""
    with house_look():
        return [finish(*parts) for parts in _figures(results, num_bins)]


def _figures(results: Results, num_bins: int) -> Iterator[tuple[str, Figure, str]]:
    pretrained, finetuned = results.pretraining, [scored.model for scored in results.experiments]
    if pretrained:
        caption = "Learning curves on the pretraining set (the paper's figure 7)."
        yield "figure7_pretraining", learning_curves(pretrained), caption
    caption = "Learning curves of the crack experiments (the paper's figure 8)."
    yield "figure8_cracks", learning_curves(finetuned), caption
    if taught := [model for model in (*pretrained, *finetuned) if model.info.teacher_sha256]:
        caption = (
            "Temperature, its parameter theta, and the weight lambda of the reversed gradient over epochs."
        )
        yield "temperature", temperature_curves(taught), caption
    yield "confusion", _confusion(results), "Confusion matrices: tiles by truth and verdict."
    yield "roc", _roc(results), "ROC curves; the cross marks the verdict at probability one half."
    caption = (
        "Reliability: where the model says 80 %, 80 % should be cracks. Dots grow with the number of tiles."
    )
    yield "reliability", _reliability(results, num_bins), caption
    caption = (
        "Training minus validation accuracy at the best epoch: blue for crack tiles, grey for pretraining."
    )
    yield "train_val_gap", _gaps([*pretrained, *finetuned]), caption
    if len(results.scores_of(results.chosen)["by_source"]) > 1:
        yield "sources", _sources(results), "Accuracy by source of the photographs."


def learning_curves(models: Sequence[TrainedModel]) -> Figure:
    """Accuracy and loss over epochs, of training and validation, a line for each model."""
    titles = {
        "train_accuracy": "training accuracy",
        "val_accuracy": "validation accuracy",
        "hard_loss": "training loss (cross-entropy with labels)",
        "val_loss": "validation loss",
    }
    return _curves(models, titles, 2, (4.6, 2.9))


def temperature_curves(models: Sequence[TrainedModel]) -> Figure:
    """Temperature, theta and lambda over epochs of the models that had a teacher."""
    titles = {"temperature": "temperature T", "theta": "theta", "reversal_weight": "lambda"}
    return _curves(models, titles, 3, (3.1, 2.9))


def _curves(
    models: Sequence[TrainedModel], titles: dict[str, str], columns: int, size: tuple[float, float]
) -> Figure:
    """A panel for each column of the histories."""
    figure, panels = panels_of(len(titles), columns, size)
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for number, model in enumerate(models):
            values = np.array(model.series(column), dtype=np.float64)
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, **style_of(number), lw=1.7, marker="o", ms=2.5, label=model.label)
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.ticklabel_format(axis="y", useOffset=False)
        if column.endswith("accuracy"):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if column.endswith("loss") and _is_wide(
            [value for model in models for value in model.series(column)]
        ):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in panels[-columns:]:
        axes.set_xlabel("epoch")
    legend_below(figure, panels[0])
    return figure


def _is_wide(values: Sequence[float | None]) -> bool:
    """Whether a linear axis would press most of the curves flat."""
    positive = [value for value in values if value]
    return bool(positive) and min(positive) > 0 and max(positive) > 50 * min(positive)


def _gaps(models: Sequence[TrainedModel]) -> Figure:
    figure = Figure(figsize=(7.4, 0.34 * len(models) + 0.9), layout="constrained")
    axes = figure.subplots()
    gaps = [100 * model.facts["train_val_gap"] for model in models]
    colours = [COLOURS[0] if model.stage == "finetune" else COLOURS[9] for model in models]
    bars = axes.barh([model.label for model in models], gaps, color=colours, height=0.6)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.axvline(0, color=MUTED, lw=1)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("training minus validation accuracy, percentage points")
    axes.grid(visible=False, axis="y")
    return figure


def _confusion(results: Results) -> Figure:
    figure, panels = panels_of(len(results.experiments), 4, (2.4, 2.3))
    classes = ["no crack", "crack"]
    for axes, scored in zip(panels, results.experiments, strict=True):
        matrix = np.array(results.scores_of(scored)["confusion"])
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        for truth, verdict in product((0, 1), (0, 1)):
            colour, share = COLOURS[0] if truth == verdict else COLOURS[3], float(shares[truth, verdict])
            box = Rectangle((verdict - 0.5, truth - 0.5), 1, 1, color=colour, alpha=0.08 + 0.6 * share, lw=0)
            axes.add_patch(box)
            axes.text(verdict, truth, f"{matrix[truth, verdict]}\n{share:.1%}", ha="center", va="center")
        axes.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), xlabel="verdict", ylabel="truth")
        axes.set_title(scored.model.name, fontsize=9)
        axes.set_xticks([0, 1], classes)
        axes.set_yticks([0, 1], classes, rotation=90, va="center")
        axes.grid(visible=False)
    return figure


def _roc(results: Results) -> Figure:
    figure = Figure(figsize=(6.2, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
    for number, scored in enumerate(results.experiments):
        scores, style = results.scores_of(scored), style_of(number)
        if scores["auroc"] is not None:  # both classes are there
            fpr, tpr, _ = roc_curve(results.data.labels, scored.probs, drop_intermediate=False)
            axes.plot(fpr, tpr, **style, lw=1.7, label=f"{scored.model.name} ({scores['auroc']:.4f})")
        (tn, fp), (fn, tp) = scores["confusion"]
        axes.plot(fp / max(tn + fp, 1), tp / max(tp + fn, 1), "x", color=style["color"])
    axes.set(xlabel="false alarms, share of tiles without a crack", ylabel="cracks found, share of cracks")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(loc="lower right", title="area under the curve")
    return figure


def _reliability(results: Results, num_bins: int) -> Figure:
    figure, panels = panels_of(len(results.experiments), 4, (2.4, 2.3))
    for number, (axes, scored) in enumerate(zip(panels, results.experiments, strict=True)):
        bins = metrics.reliability(results.data.labels, scored.probs, num_bins)
        sizes = 12 + 150 * bins.num_K / bins.num_K.sum()
        colour, filled = style_of(number)["color"], bins.num_K > 0
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
        axes.plot(bins.mean_prob_K[filled], bins.crack_share_K[filled], color=colour, lw=1)
        axes.scatter(bins.mean_prob_K, bins.crack_share_K, s=sizes, color=colour, alpha=0.75)
        axes.set(xlim=(-0.06, 1.06), ylim=(-0.06, 1.06), xlabel="crack probability", ylabel="share of cracks")
        axes.set_title(f"{scored.model.name}\nECE {results.scores_of(scored)['ece']:.3f}", fontsize=9)
    return figure


def _sources(results: Results) -> Figure:
    sources = results.scores_of(results.chosen)["by_source"]
    num = len(results.experiments)
    figure = Figure(figsize=(7.4, 0.5 * len(sources) + 1.6), layout="constrained")
    axes = figure.subplots()
    for number, scored in enumerate(results.experiments):
        values = [scores["accuracy"] for scores in results.scores_of(scored)["by_source"].values()]
        places = np.arange(len(sources)) + 0.56 * ((number + 0.5) / num - 0.5)
        axes.plot(values, places, "o", ms=6, color=style_of(number)["color"], label=scored.model.name)
    counts = [f"{source}\n{scores['num_tiles']} tiles" for source, scores in sources.items()]
    axes.set_yticks(range(len(sources)), counts)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("accuracy")
    legend_below(figure, axes)
    return figure
