"""Figures of scores, training histories and sample tiles."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay

from damcrack.data.imageset import CLASSES, decode_image
from damcrack.evaluate.drawing import (
    GREEN,
    RED,
    Colour,
    Drawing,
    finish,
    house_look,
    legend_below,
    panels_of,
)
from damcrack.evaluate.page import KINDS, NUM_SAMPLES, ShownTiles
from damcrack.evaluate.scored import Results
from damcrack.evaluate.trained import TrainedModel
from damcrack.scores import metrics

SHEET_IN, TITLE_IN, WORDS_IN = 9.0, 0.3, 0.35  # width of a sheet, height of a title and of two lines of words


def draw_figures(results: Results) -> list[Drawing]:
    """Draw every figure of scores and histories for which there is something to show."""
    with house_look():
        return [finish(*parts) for parts in _figures(results)]


def _figures(results: Results) -> Iterator[tuple[str, Figure, str]]:
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
    yield "roc", _roc(results), "ROC curves; a cross marks the verdict at probability one half."
    caption = "Reliability: where the model says 80 %, 80 % should be cracks."
    yield "reliability", _reliability(results), caption


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
        for model in models:
            values = np.array(model.series(column), dtype=np.float64)
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, lw=1.7, marker="o", ms=2.5, label=model.label)
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.ticklabel_format(axis="y", useOffset=False)
        if column.endswith("accuracy"):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if column.endswith("loss") and _is_wide(models, column):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in panels[-columns:]:
        axes.set_xlabel("epoch")
    legend_below(figure, panels[0])
    return figure


def _is_wide(models: Sequence[TrainedModel], column: str) -> bool:
    """Whether a linear axis would press most of the curves flat."""
    positive = [value for model in models for value in model.series(column) if value]
    return bool(positive) and min(positive) > 0 and max(positive) > 50 * min(positive)


def _confusion(results: Results) -> Figure:
    figure, panels = panels_of(len(results.experiments), 4, (2.4, 2.5))
    for axes, scored in zip(panels, results.experiments, strict=True):
        matrix = np.array(results.scores_of(scored)["confusion"])
        ConfusionMatrixDisplay(matrix, display_labels=CLASSES).plot(ax=axes, cmap="Blues", colorbar=False)
        axes.set(xlabel="verdict", ylabel="truth")
        axes.set_title(scored.model.name, fontsize=9)
        axes.grid(visible=False)
    return figure


def _roc(results: Results) -> Figure:
    figure = Figure(figsize=(6.2, 5.4), layout="constrained")
    axes = figure.subplots()
    labels = results.data.labels
    for scored in results.experiments if len(np.unique(labels)) == 2 else ():
        RocCurveDisplay.from_predictions(labels, scored.probs, name=scored.model.name, ax=axes)
        (tn, fp), (fn, tp) = results.scores_of(scored)["confusion"]
        axes.plot(fp / (tn + fp), tp / (tp + fn), "x", color=axes.lines[-1].get_color())
    axes.set(xlabel="false alarms, share of tiles without a crack", ylabel="cracks found, share of cracks")
    return figure


def _reliability(results: Results) -> Figure:
    figure, panels = panels_of(len(results.experiments), 4, (2.4, 2.5))
    for axes, scored in zip(panels, results.experiments, strict=True):
        CalibrationDisplay.from_predictions(
            results.data.labels, scored.probs, n_bins=metrics.CALIBRATION_BINS, ax=axes
        )
        axes.set(xlabel="crack probability", ylabel="share of cracks")
        axes.set_title(f"{scored.model.name}\nECE {results.scores_of(scored)['ece']:.3f}", fontsize=9)
        axes.legend().remove()
    return figure


def draw_samples(results: Results, shown: ShownTiles) -> Drawing:
    """The most confident tiles of each kind, each above its probability and source, framed by its verdict."""
    caption = (
        "Sample detections: the most confident of each kind, sources and photos in turn. "
        "Green frame: right; red frame: wrong."
    )
    with house_look():
        return finish("sample_detections", _samples(results, shown), caption)


def _samples(results: Results, shown: ShownTiles) -> Figure:
    num_rows = sum(bool(len(numbers)) for numbers in shown.samples.values())
    row_in = SHEET_IN / NUM_SAMPLES + WORDS_IN
    height_in = TITLE_IN * len(KINDS) + row_in * num_rows
    figure = Figure(figsize=(SHEET_IN, height_in), layout="constrained")
    heights = [TITLE_IN + row_in * bool(len(numbers)) for numbers in shown.samples.values()]
    parts = figure.subfigures(len(KINDS), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (kind, (truth, verdict)) in zip(parts, KINDS.items(), strict=True):
        counts = f"{len(shown.samples[kind])} of {len(shown.ranked[kind])}"
        title = f"{kind} (truth: {CLASSES[truth]}, verdict: {CLASSES[verdict]}): {counts}"
        part.suptitle(title, x=0.005, ha="left", fontsize=10.5)
        for place, number in enumerate(shown.samples[kind].tolist(), 1):
            axes = part.add_subplot(1, NUM_SAMPLES, place)
            words = f"{results.chosen.probs[number]:.1%} crack\n{_source(results, number)}"
            _show(axes, decode_image(number, shown.jpegs[number]), words, GREEN if truth == verdict else RED)
    return figure


def _show(axes: Axes, rgb: npt.NDArray[np.uint8], words: str, frame: Colour) -> None:
    axes.imshow(rgb)
    axes.set_anchor("N")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(words, fontsize=8.5, loc="left")
    axes.spines[:].set(visible=True, linewidth=2.5, edgecolor=frame)


def _source(results: Results, number: int) -> str:
    source: str = results.data.tiles.rows[results.data.rows[number]]["source"]
    return source if len(source) <= 20 else source[:19] + "…"
