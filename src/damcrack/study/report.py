"""Tables, figures and verdicts from whatever cells of a study there are.

OUT/results.md, OUT/results.html        tables, claims and reading guide; the page has the figures too
OUT/figures/*.png
OUT/verdicts.csv                        the claims on the training source and on all others
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from damcrack.data.imageset import ImageSet
from damcrack.evaluate.baselines import score_baselines
from damcrack.evaluate.figures import write_figures
from damcrack.evaluate.scoring import EvaluationSet
from damcrack.files import InputError, new_directory, write_bytes, write_csv
from damcrack.run import Run
from damcrack.study.cells import Cell, read_cells, read_failures, score
from damcrack.study.compare import Study, build_study, verdicts
from damcrack.study.draw import draw
from damcrack.study.page import as_page
from damcrack.study.tell import document

COLUMNS = (
    "sources",
    "labels",
    "claim",
    "worse",
    "better",
    "seeds",
    "difference",
    "low",
    "high",
    "p",
    "verdict",
)


@dataclass(frozen=True)
class Report:
    """What was made: the markdown, and the cells that are missing with their reasons."""

    markdown: str
    failures: Mapping[str, str]
    num_cells: int


def report(cells: Path, out: Path, header: str, run: Run) -> Report:
    """Read all cells under `cells`, score the crack networks on the test tiles, and tell.

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
    baselines = {one.name: one.predicted for one in score_baselines(EvaluationSet.choose(tiles), run)}
    study = build_study(usable, score(usable, tiles, run), baselines, tiles)
    failures = read_failures(cells, run.scratch) | {
        str(cell.model.folder): "trained on other tiles; train it again"
        for cell in found
        if cell not in usable
    }
    text = document(study, pretraining, failures, f"{header} Tiles {tiles.digest[:12]}.")
    _write(out, text, study, pretraining)
    return Report(text, failures, len(usable) + len(pretraining))


def _write(out: Path, text: str, study: Study, pretraining: Sequence[Cell]) -> None:
    drawings = draw(study, pretraining)
    with new_directory(out) as folder:
        write_bytes(folder / "results.md", text.encode())
        write_bytes(folder / "results.html", as_page(text, drawings).encode())
        write_figures(folder / "figures", drawings)
        write_csv(folder / "verdicts.csv", COLUMNS, list(_verdict_rows(study)))


def _verdict_rows(study: Study) -> list[dict[str, object]]:
    return [
        {
            "sources": "+".join(one.sources),
            "labels": one.labels,
            "claim": one.claim.words,
            "worse": one.claim.worse,
            "better": one.claim.better,
            "seeds": one.num_seeds,
            "difference": one.difference,
            "low": one.low,
            "high": one.high,
            "p": one.p,
            "verdict": one.words,
        }
        for sources in (study.trained_on, study.unseen)
        if sources
        for one in verdicts(study, sources)
    ]
