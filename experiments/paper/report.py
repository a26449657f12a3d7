"""The paper's tables, figures and claims from whatever cells of its experiments there are, with ours next to its own.

    python -m experiments.paper.report --markdown docs/results.md

CELLS/models/pretrain/METHOD/SEED/, CELLS/models/distill/METHOD/SEED/    model folders, see train.weights
CELLS/models/finetune/METHOD/LABELS/SEED/
CELLS/data/tiles/                       the tiles that all crack networks share
CELLS/.damcrack/failed/                 why cells are missing; logits are cached in CELLS/.damcrack/scores/

OUT/results.md, OUT/results.html        tables, claims and reading guide; the page has the figures too
OUT/figures/*.png
OUT/cells.csv, OUT/verdicts.csv         the numbers of each crack network, and the claims

Ends with an error if a cell is missing although it was begun; `make paper` trains the missing ones first.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
from markdown_it import MarkdownIt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter
from rich.console import Console
from rich.markdown import Markdown

import damcrack
from damcrack.data.imageset import ImageSet
from damcrack.evaluate.drawing import (
    Drawing,
    finish,
    house_look,
    legend_below,
    panels_of,
    write_figures,
)
from damcrack.evaluate.figures import learning_curves, temperature_curves
from damcrack.evaluate.scored import HeldOutTiles, TileClassifier, predict_logits, score_baselines
from damcrack.evaluate.trained import read_model
from damcrack.files import InputError, new_directory, write_bytes
from damcrack.progress import Watcher
from damcrack.run import Run
from damcrack.scores.statistics import fit_temperature
from damcrack.train.decoded import decode_set
from damcrack.train.finetune import few_labels
from damcrack.train.hardware import best_device
from damcrack.train.weights import load_model
from experiments.paper.claims import Answers, Cell, Floats, ScoredTiles, Study, verdicts
from experiments.paper.pictures import tile_figures
from experiments.paper.tables import document

MAIN = ("resnet18", "resnet50", "fixed-4", "dynamic")


def report(cells: Path, out: Path, header: str, run: Run) -> tuple[str, dict[str, str]]:
    """Read all cells under `cells`, score the crack networks on the test tiles, and write the report.

    Returns its markdown, and the cells that are missing with their reasons.

    Raises:
        InputError: there are no crack cells yet, or no test tiles.
    """
    found = read_cells(cells / "models", "finetune")
    if not found:
        raise InputError(
            f"{cells / 'models/finetune'} holds no cells yet; run `make paper`, or dvc repro in {cells}"
        )
    tiles = ImageSet.open(cells / "data/tiles")
    usable = [cell for cell in found if cell.model.info.data_digest == tiles.digest]
    if not usable or not tiles.where("test"):
        raise InputError(f"{cells}: no crack network was trained on {tiles.root}, or it has no test tiles")
    pretraining = [cell for stage in ("pretrain", "distill") for cell in read_cells(cells / "models", stage)]
    baselines = {one.name: one.predicted for one in score_baselines(HeldOutTiles.choose(tiles), run)}
    trained_on = {tiles.rows[number]["source"] for number in tiles.where("train")}
    study = Study(ScoredTiles.of(tiles), score(usable, tiles, run), tuple(sorted(trained_on)), baselines)
    failures = read_failures(cells, run.scratch) | {
        str(cell.model.folder): "trained on other tiles; train it again"
        for cell in found
        if cell not in usable
    }
    text = document(study, pretraining, failures, f"{header} Tiles {tiles.digest[:12]}.")
    with house_look():
        drawings = [finish(*parts) for parts in _figures(study, pretraining, tiles)]
    with new_directory(out) as folder:
        write_bytes(folder / "results.md", text.encode())
        write_bytes(folder / "results.html", as_page(text, drawings).encode())
        write_figures(folder / "figures", drawings)
        study.numbers.to_csv(folder / "cells.csv", index=False)
        verdicts(study).to_csv(folder / "verdicts.csv", index=False)
    return text, failures


def read_cells(models: Path, stage: str) -> list[Cell]:
    """All cells of a stage that are there, by method, labels and seed."""
    depth = 3 if stage == "finetune" else 2
    cells = []
    for info in sorted((models / stage).glob("/".join(["*"] * depth) + "/model.json")):
        method, *labels, seed = info.parent.relative_to(models / stage).parts
        model = read_model(stage, info.parent, title=method)
        cells.append(Cell(method, int(labels[0]) if labels else None, int(seed), model))
    return sorted(cells, key=lambda cell: (cell.method, cell.labels or 0, cell.seed))


def read_failures(cells: Path, scratch: Path) -> dict[str, str]:
    """Outputs that were begun and are not there, with the reason; a cache may have brought some since."""
    records = [json.loads(path.read_text()) for path in sorted((scratch / "failed").glob("*.json"))]
    return {record["out"]: record["error"] for record in records if not (cells / record["out"]).exists()}


def score(cells: Sequence[Cell], tiles: ImageSet, run: Run) -> list[tuple[Cell, Answers]]:
    """Each cell with its answers on the test tiles; those of an earlier call are read again."""
    return [(cell, _answers(cell, tiles, run)) for cell in run.track(cells, "scoring cells", len(cells))]


def _answers(cell: Cell, tiles: ImageSet, run: Run) -> Answers:
    key = f"{cell.model.info.weights_sha256[:24]}-{tiles.digest[:24]}"
    path = run.scratch / "scores" / f"{key}.npz"
    if not path.exists():
        logits_NC, temperature = _work_out(cell, tiles, run)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, logits_NC=logits_NC, temperature=temperature)
        part.replace(path)
    with np.load(path, allow_pickle=False) as cached:
        return Answers(cached["logits_NC"], float(cached["temperature"]))


def _work_out(cell: Cell, tiles: ImageSet, run: Run) -> tuple[Floats, float]:
    """Logits (N, 2) on the test tiles, and the temperature that calibrates them on the cell's validation tiles."""
    network, info = load_model(cell.model.folder)
    images = decode_set(tiles.root, info.image_px, run.scratch / "decoded")
    detector = TileClassifier(network, info).to(best_device())
    own = few_labels(images, cell.labels, cell.seed) if cell.labels else images
    val, test = own.rows_of["val"], images.rows_of["test"]
    logits_NC = predict_logits(detector, images.images_NHWC, np.concatenate([val, test])).astype(np.float64)
    temperature = fit_temperature(logits_NC[: len(val)], images.labels_N[val])
    return logits_NC[len(val) :], temperature


def _figures(study: Study, pretraining: Sequence[Cell], tiles: ImageSet) -> Iterator[tuple[str, Figure, str]]:
    """All figures for which there is something to show; curves are of the first seed."""
    first_seed = min((cell.seed for cell in pretraining), default=0)
    firsts = [cell for cell in pretraining if cell.seed == first_seed]
    if shown := [cell.model for cell in firsts if cell.method in MAIN]:
        caption = "Learning curves on natural images (the paper's figure 7), first seed."
        yield "figure7", learning_curves(shown), caption
    if taught := [cell.model for cell in firsts if cell.model.series("temperature")[0] is not None]:
        yield "temperature", temperature_curves(taught), "Temperature, theta and lambda, first seed."
    most = max(study.labels)
    caption = f"Learning curves on crack tiles (the paper's figure 8), {most} labels, first seed."
    methods = [method for method in study.methods if study.cells(method, most)]
    yield "figure8", learning_curves([study.cells(method, most)[0][0].model for method in methods]), caption
    if len(study.labels) > 1:
        caption = "What few labels give: mean over seeds ± one standard deviation; above, what trained."
        yield "labels", label_curves(study), caption
    yield from tile_figures(study, tiles)


def label_curves(study: Study) -> Figure:
    """Accuracy and recall over the number of labels, on the training sources and on all others."""
    places = [study.trained_on, study.unseen] if study.unseen else [study.trained_on]
    figure, panels = panels_of(2 * len(places), 2, (4.6, 2.9))
    columns = [(name, sources) for sources in places for name in ("accuracy", "recall")]
    for axes, (name, sources) in zip(panels, columns, strict=True):
        _label_lines(axes, study, f"{name} {'+'.join(sources)}")
        axes.set_title(f"{name}, {' + '.join(sources)}")
    for axes in panels[-2:]:
        axes.set_xlabel("labelled tiles")
    legend_below(figure, panels[0])
    return figure


def _label_lines(axes: Axes, study: Study, column: str) -> None:
    for method in study.with_few_labels:
        found = {labels: study.over_seeds(method, labels, column) for labels in study.labels}
        points = {labels: one for labels, one in found.items() if one is not None}
        axes.errorbar(
            list(points),
            [one.mean for one in points.values()],
            yerr=np.nan_to_num([one.std for one in points.values()]),
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


def as_page(markdown: str, drawings: Sequence[Drawing]) -> str:
    """One self-contained HTML page: the markdown's tables, then the figures; HTML in the markdown is shown as text."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    figures = "\n".join(
        f'<figure id="{one.name}"><div class="wide"><img src="{one.data_uri}" alt="{escape(one.caption)}" '
        f'style="max-width: {one.width_px}px"></div><figcaption>{escape(one.caption)}</figcaption></figure>'
        for one in drawings
    )
    style = (Path(damcrack.__file__).parent / "style.css").read_text()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>damcrack: the paper's experiments</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
<h2>Figures</h2>
{figures}
</main>
</body>
</html>
"""


def _header(cells: Path) -> str:
    """Command, machine and versions, for readers on another machine."""
    import torch

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision"))
    cores = f"{os.cpu_count()} CPU cores"
    where = f"{cores}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"{cores}, no GPU"
    return (
        "Written by `make paper` (`python -m experiments.paper.report`) from the cells of "
        f"`{cells.as_posix()}`, whose `params.yaml` and `cells.yaml` hold all values and seeds. "
        f"Machine: {where}; Python {platform.python_version()}, {versions}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report, print its tables, and fail if cells are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=Path, default=Path("experiments/paper"), help="folder of the graph")
    parser.add_argument("--out", type=Path, default=Path("results/paper"), help="folder to write")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file too")
    options = parser.parse_args(arguments)
    watcher = Watcher()
    watcher.scratch = options.cells / ".damcrack"
    try:
        markdown, failures = report(options.cells, options.out, _header(options.cells), watcher)
    except InputError as error:
        sys.exit(str(error))
    if options.markdown:
        write_bytes(options.markdown, markdown.encode())
    console = Console()
    console.print(Markdown(markdown) if console.is_terminal else markdown)
    print(f"written: {options.out / 'results.html'}", file=sys.stderr)
    if failures:
        names = "\n".join(f"  {name}: {reason}" for name, reason in failures.items())
        sys.exit(f"{len(failures)} cells are missing:\n{names}\n`make paper` fills only these")


if __name__ == "__main__":
    main()
