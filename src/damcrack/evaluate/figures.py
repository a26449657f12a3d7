"""Figures from scores, and the list of all figures."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from damcrack.evaluate.curves import (
    curve_words,
    gap_bars,
    gap_words,
    learning_curves,
    temperature_curves,
    temperature_words,
)
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
from damcrack.evaluate.results import Results
from damcrack.scores import metrics


def draw_all(results: Results, num_bins: int) -> list[Drawing]:
    """Draw every figure for which there is something to show."""
    with house_look():
        return [
            finish(name, figure, caption, alt) for name, figure, caption, alt in _figures(results, num_bins)
        ]


def write_figures(folder: Path, drawings: Sequence[Drawing]) -> None:
    """Write the PNGs into a new folder."""
    folder.mkdir()
    for drawing in drawings:
        (folder / f"{drawing.name}.png").write_bytes(drawing.png)


def _figures(results: Results, num_bins: int) -> Iterator[tuple[str, Figure, str, str]]:
    finetuned = [scored.model for scored in results.experiments]
    gap = "Training minus validation accuracy at the best epoch: blue for crack tiles, grey for pretraining."
    if results.pretraining:
        caption = "Learning curves on the pretraining set (the paper's figure 7)."
        yield (
            "figure7_pretraining",
            learning_curves(results.pretraining),
            caption,
            curve_words(results.pretraining),
        )
    caption = "Learning curves of the crack experiments (the paper's figure 8)."
    yield "figure8_cracks", learning_curves(finetuned), caption, curve_words(finetuned)
    if taught := [m for m in (*results.pretraining, *finetuned) if m.info.teacher_sha256]:
        caption = (
            "Temperature, its parameter theta, and the weight lambda of the reversed gradient over epochs."
        )
        yield "temperature", temperature_curves(taught), caption, temperature_words(taught)
    yield (
        "confusion",
        _confusion(results),
        "Confusion matrices: tiles by truth and verdict.",
        _confusion_words(results),
    )
    yield (
        "roc",
        _roc(results),
        "ROC curves; the cross marks the verdict at probability one half.",
        _words(results, "auroc", "Area under the ROC curve"),
    )
    caption = (
        "Reliability: where the model says 80 %, 80 % should be cracks. Dots grow with the number of tiles."
    )
    alt = _words(results, "ece", "Expected calibration error")
    yield "reliability", _reliability(results, num_bins), caption, alt
    models = [*results.pretraining, *finetuned]
    yield "train_val_gap", gap_bars(models), gap, gap_words(models)
    if len(_sources(results)) > 1:
        caption = "Accuracy by source of the photographs."
        yield (
            "sources",
            _by_source(results),
            caption,
            _words(results, "accuracy", "Accuracy over all sources"),
        )


def _confusion(results: Results) -> Figure:
    figure, panels = panels_of(len(results.experiments), 4, (2.4, 2.3))
    for axes, scored in zip(panels, results.experiments, strict=True):
        matrix = np.array(results.scores_of(scored)["confusion"])
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        for truth, verdict in product((0, 1), (0, 1)):
            colour = COLOURS[0] if truth == verdict else COLOURS[3]
            alpha = 0.08 + 0.6 * float(shares[truth, verdict])
            axes.add_patch(Rectangle((verdict - 0.5, truth - 0.5), 1, 1, color=colour, alpha=alpha, lw=0))
            words = f"{matrix[truth, verdict]}\n{shares[truth, verdict]:.1%}"
            axes.text(verdict, truth, words, ha="center", va="center")
        axes.set(
            xlim=(-0.5, 1.5), ylim=(1.5, -0.5), title=scored.model.name, xlabel="verdict", ylabel="truth"
        )
        axes.set_xticks([0, 1], ["no crack", "crack"])
        axes.set_yticks([0, 1], ["no crack", "crack"], rotation=90, va="center")
        axes.grid(visible=False)
        axes.title.set_fontsize(9)
    return figure


def _confusion_words(results: Results) -> str:
    words = []
    for scored in results.experiments:
        (tn, fp), (fn, tp) = results.scores_of(scored)["confusion"]
        words.append(
            f"{scored.model.name}: {tp} cracks found, {fn} missed, {fp} false alarms, {tn} rightly passed"
        )
    return ". ".join(words) + "."


def _roc(results: Results) -> Figure:
    figure = Figure(figsize=(6.2, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
    labels = results.data.labels
    for number, scored in enumerate(results.experiments):
        auroc = results.scores_of(scored)["auroc"]
        label = f"{scored.model.name} ({_number(auroc)})"
        axes.plot(*metrics.roc_curve(labels, scored.probs), **style_of(number), lw=1.7, label=label)
        (tn, fp), (fn, tp) = results.scores_of(scored)["confusion"]
        axes.plot(fp / max(tn + fp, 1), tp / max(tp + fn, 1), "x", color=style_of(number)["color"])
    axes.set(xlabel="false alarms, share of tiles without a crack", ylabel="cracks found, share of cracks")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(loc="lower right", title="area under the curve")
    return figure


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _reliability(results: Results, num_bins: int) -> Figure:
    figure, panels = panels_of(len(results.experiments), 4, (2.4, 2.3))
    for number, (axes, scored) in enumerate(zip(panels, results.experiments, strict=True)):
        bins = metrics.reliability(results.data.labels, scored.probs, num_bins)
        sizes = 12 + 150 * bins.num_K / bins.num_K.sum()
        colour = style_of(number)["color"]
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
        filled = bins.num_K > 0
        axes.plot(bins.mean_prob_K[filled], bins.crack_share_K[filled], color=colour, lw=1)
        axes.scatter(bins.mean_prob_K, bins.crack_share_K, s=sizes, color=colour, alpha=0.75)
        axes.set(xlim=(-0.06, 1.06), ylim=(-0.06, 1.06), xlabel="crack probability", ylabel="share of cracks")
        axes.set_title(f"{scored.model.name}\nECE {results.scores_of(scored)['ece']:.3f}", fontsize=9)
    return figure


def _words(results: Results, metric: str, title: str) -> str:
    values = [f"{s.model.name} {_number(results.scores_of(s)[metric])}" for s in results.experiments]
    return f"{title}: " + "; ".join(values) + "."


def _sources(results: Results) -> Mapping[str, Any]:
    sources: Mapping[str, Any] = results.scores_of(results.experiments[0])["by_source"]
    return sources


def _by_source(results: Results) -> Figure:
    sources = list(_sources(results))
    figure = Figure(figsize=(7.4, 0.5 * len(sources) + 1.6), layout="constrained")
    axes = figure.subplots()
    spread = np.linspace(-0.28, 0.28, len(results.experiments)) if len(results.experiments) > 1 else [0.0]
    for number, scored in enumerate(results.experiments):
        scores = results.scores_of(scored)["by_source"]
        places = np.arange(len(sources)) + spread[number]
        values = [scores[source]["accuracy"] for source in sources]
        axes.plot(values, places, "o", ms=6, color=style_of(number)["color"], label=scored.model.name)
    counts = [f"{source}\n{_sources(results)[source]['num_tiles']} tiles" for source in sources]
    axes.set_yticks(range(len(sources)), counts)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("accuracy")
    legend_below(figure, axes, 3)
    return figure
