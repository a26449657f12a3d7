"""Figures of a study: learning curves (the paper's figures 7 and 8) and what few labels give."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from damcrack.evaluate.curves import (
    curve_words,
    learning_curves,
    temperature_curves,
    temperature_words,
)
from damcrack.evaluate.drawing import Drawing, finish, house_look, legend_below, panels_of, style_of
from damcrack.study.cells import Answers, Cell
from damcrack.study.compare import Study, accuracy_on, over_seeds, recall_on

MAIN = ("resnet18", "resnet50", "fixed-4", "dynamic")


def draw(study: Study, pretraining: Sequence[Cell]) -> list[Drawing]:
    """All figures for which there is something to show; curves are of the first seed."""
    first = min(cell.seed for cell in pretraining) if pretraining else 0
    shown = [cell.model for cell in pretraining if cell.method in MAIN and cell.seed == first]
    taught = [
        cell.model
        for cell in pretraining
        if cell.seed == first and cell.model.series("temperature")[0] is not None
    ]
    most = max(study.labels)
    cracks = [min(seeds.items())[1][0].model for (_, labels), seeds in study.cells.items() if labels == most]
    with house_look():
        drawings = []
        if shown:
            caption = "Learning curves on natural images (the paper's figure 7), first seed."
            drawings.append(finish("figure7", learning_curves(shown), caption, curve_words(shown)))
        if taught:
            caption = "Temperature, theta and lambda, first seed."
            drawings.append(
                finish("temperature", temperature_curves(taught), caption, temperature_words(taught))
            )
        caption = f"Learning curves on crack tiles (the paper's figure 8), {most} labels, first seed."
        drawings.append(finish("figure8", learning_curves(cracks), caption, curve_words(cracks)))
        if len(study.labels) > 1:
            caption = "What few labels give: mean over seeds ± one standard deviation; above, what trained."
            drawings.append(finish("labels", label_curves(study), caption, _label_words(study)))
    return drawings


def label_curves(study: Study) -> Figure:
    """Accuracy and recall over the number of labels, on the training source and on all others."""
    figure, panels = panels_of(4 if study.unseen else 2, 2, (4.6, 2.9))
    values = [("accuracy", accuracy_on), ("recall", recall_on)]
    places = [study.trained_on, study.unseen] if study.unseen else [study.trained_on]
    titled = [
        (f"{name}, {' + '.join(sources)}", value(study, sources))
        for sources in places
        for name, value in values
    ]
    for axes, (title, value) in zip(panels, titled, strict=True):
        _label_lines(axes, study, value)
        axes.set_title(title)
    for axes in panels[-2:]:
        axes.set_xlabel("labelled tiles")
    legend_below(figure, panels[0], 3)
    return figure


def _label_lines(axes: Axes, study: Study, value: Callable[[Cell, Answers], float]) -> None:
    several = [
        name for name in study.methods if sum((name, labels) in study.cells for labels in study.labels) > 1
    ]
    for number, method in enumerate(several):
        found = [(labels, over_seeds(study, (method, labels), value)) for labels in study.labels]
        points = [(labels, one) for labels, one in found if one is not None]
        axes.errorbar(
            [labels for labels, _ in points],
            [one.mean for _, one in points],
            yerr=[0 if one.std != one.std else one.std for _, one in points],
            **style_of(number),
            lw=1.7,
            marker="o",
            ms=3,
            capsize=2,
            label=method,
        )
    axes.set_xscale("log")
    axes.set_xticks(study.labels)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _label_words(study: Study) -> str:
    value = accuracy_on(study, study.trained_on)
    few = min(study.labels)
    found = {name: over_seeds(study, (name, few), value) for name in study.methods}
    ends = [f"{name} {one.mean:.1%}" for name, one in found.items() if one]
    return (
        f"Line charts over the number of labelled tiles. Accuracy with {few} labels: " + "; ".join(ends) + "."
    )
