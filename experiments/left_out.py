"""Compare the shipped detector, which saw no real source, with one that saw five others, on each of six sources.

    python -m experiments.left_out --data DIR --markdown left_out.md

Of six labelled real sources each is left out once: the shipped weights are fine-tuned on rendered tiles and on tiles of
the five others, and measured on the one left out and on clean walls, of which no tile trained. Beside it, on the same
photos: the shipped detector, the same fine-tuning on rendered tiles alone, and filters that learned nothing.
DIR holds the real sources (experiments/unseen/sources.py). What is finished stays under --work and is not done again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from damcrack.data.config import SAMPLE, PhotosConfig, TileConfig
from damcrack.data.tile import tile
from damcrack.files import write_bytes
from damcrack.train.finetune import finetune
from experiments.commands import command, table, with_data
from experiments.own_labels import config_for
from experiments.students.__main__ import TEACHER, PrintingRun, copy_photos, measured_once, once, photos_of
from experiments.unseen.measure import Score, by_row, measure
from experiments.unseen.pages import with_interval
from experiments.unseen.rows import estimate, false_alarms, source_row
from experiments.unseen.scorers import BASELINES, torch_score
from experiments.unseen.sources import TOLERANCE_PX, WALLS, read_photos

Floats = npt.NDArray[np.float64]
Rows = Mapping[str, dict[str, Any]]  # by source

LEFT_OUT = ("deepcrack", "masonry240", "recife-crackconcrete", "rissbilder", "uav-embankment", "uav75")
SHIPPED, RENDERED, OTHERS = "shipped", "fine-tuned, rendered", "fine-tuned, five other sources"
TRAINING_PHOTOS, RENDERED_PHOTOS = 40, 80  # of each source
TRAINING_TILES = 1000
STEPS = 100
MEASURED_PHOTOS = 20  # of each source, and of the walls
COLUMNS = ("AUROC", "AP", "F1, blocks", "F1, pixels", "clIoU", "clean photos called cracked")


def six_sources(data: Path, work: Path, run: PrintingRun) -> Path:
    """Rendered photos, and some of each real source with their masks."""
    listed = {
        name: copy_photos(read_photos(data, (name,), TRAINING_PHOTOS), work / "sources" / name)
        for name in LEFT_OUT
    }
    sources = {SAMPLE: SAMPLE} | {name: str(folder) for name, folder in listed.items()}
    config = PhotosConfig(sources=sources, sample_photos=RENDERED_PHOTOS, sample_seed=11, min_side_px=128)
    return photos_of(config, work, run)


def fine_tuned(taken: Path, left_out: tuple[str, ...], work: Path, run: PrintingRun) -> Score:
    """The shipped weights after a short training without some sources.

    Of masks that are wider than their crack the middle alone teaches.
    """
    cut = TileConfig(
        tile_px=128,
        crack_fraction=0.003,
        val_fraction=0.2,
        test_fraction=0.0,
        test_sources=left_out,
        test_tiles_per_class=1,
        masks={name: "fat" for name in LEFT_OUT if TOLERANCE_PX[name] > 2},
    )
    tiles = once(tile, work / "tiles", photos=taken, config=cut, run=run)
    config = replace(config_for(TRAINING_TILES, 0), min_steps=STEPS)
    given = {"tiles": tiles, "item": "left-out", "run": run, "init": TEACHER}
    return torch_score(once(finetune, work / "model", config=config, **given))


def rows_of(score: Callable[[], Score], sources: Sequence[str], data: Path) -> dict[str, Any]:
    """A detector's line of the table for each of these sources, with the draws of its AUROC."""
    results = by_row(measure(read_photos(data, (*sources, WALLS), MEASURED_PHOTOS), score()))
    alarms, found = false_alarms(results[WALLS]), {}
    for source in sources:
        row, draws = source_row(results[source], results[WALLS])
        found[source] = {**row, "draws": draws.tolist(), "false_alarms": alarms}
    return found


def each_source(found: Mapping[str, Rows]) -> str:
    """A line for each source and detector."""
    made = []
    for source in LEFT_OUT:
        for name, row in ((name, rows[source]) for name, rows in found.items() if source in rows):
            pixels, alarms = row["pixels"] or {}, row["false_alarms"]["share_of_photos"]
            blocks = [row["blocks"][one] for one in ("auroc", "average_precision", "f1")]
            cells = [*blocks, pixels.get("f1"), pixels.get("cliou"), alarms]
            made.append([source, name, *map(with_interval, cells)])
    return table(["left out", "detector", *COLUMNS], 2, made)


def means(found: Mapping[str, Rows]) -> str:
    """Means over the sources by detector, and the gain in AUROC over the shipped one with photos drawn alike."""
    made = []
    for name, rows in found.items():
        (value, draws), shipped = auroc_of(rows), auroc_of({one: found[SHIPPED][one] for one in rows})
        gain = with_interval(estimate(value - shipped[0], draws - shipped[1]))
        pixels = [np.mean([row["pixels"][one]["value"] for row in rows.values()]) for one in ("f1", "cliou")]
        worst = min(row["blocks"]["auroc"]["value"] for row in rows.values())
        numbers = [f"{100 * one:.1f}" for one in (worst, *pixels)]
        made.append([name, str(len(rows)), with_interval(estimate(value, draws)), gain, *numbers])
    heads = ["detector", "sources", "mean AUROC", "more than shipped", "worst"]
    return table([*heads, "mean F1, pixels", "mean clIoU"], 1, made)


def auroc_of(rows: Rows) -> tuple[float, Floats]:
    """Mean AUROC over the sources, and its draws (NUM_DRAWS,)."""
    values = [row["blocks"]["auroc"]["value"] for row in rows.values()]
    return float(np.mean(values)), np.mean([row["draws"] for row in rows.values()], axis=0)


def jobs(
    taken: Path, work: Path, run: PrintingRun
) -> list[tuple[str, str, Sequence[str], Callable[[], Score]]]:
    """What to measure: name in the table, name of its file, sources, and how to get it."""
    without = [
        (OTHERS, f"without-{one}", (one,), partial(fine_tuned, taken, (one,), work / f"without-{one}", run))
        for one in LEFT_OUT
    ]
    return [
        (SHIPPED, "shipped", LEFT_OUT, partial(torch_score, TEACHER)),
        *without,
        (RENDERED, "rendered", LEFT_OUT, partial(fine_tuned, taken, LEFT_OUT, work / "rendered", run)),
        *((name, name, LEFT_OUT, partial(BASELINES.__getitem__, name)) for name in BASELINES),
    ]


def main() -> None:
    """Train and measure what is missing; print the tables after each network."""
    parser = command("left_out", __doc__)
    parser.add_argument("--work", type=Path, default=Path(".bench/left-out"))
    parser.add_argument("--markdown", type=Path, help="tables")
    args = with_data(parser)
    run = PrintingRun(args.work / "scratch")
    taken = six_sources(args.data, args.work, run)
    found: dict[str, dict[str, Any]] = {}
    for name, file, sources, score in jobs(taken, args.work, run):
        measured = partial(rows_of, score, sources, args.data)
        found.setdefault(name, {}).update(measured_once(args.work / "rows" / f"{file}.json", measured))
        text = f"{means(found)}\n\n{each_source(found)}\n"
        print(text, flush=True)
        if args.markdown:
            write_bytes(args.markdown, text.encode())


if __name__ == "__main__":
    main()
