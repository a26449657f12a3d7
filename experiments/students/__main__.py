"""Train small networks alone and under the shipped detector; measure them on held-out sources.

    python -m experiments.students --data DIR --seeds 3 --markdown students.md

DIR holds the real sources (experiments/unseen/sources.py). What is finished is kept under --work, so the command can
be interrupted and called again; a call for more seeds trains only those. Other --steps need another --work.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from damcrack.data.config import PhotosConfig
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.data.tile import tile
from damcrack.files import new_directory, write_bytes, write_csv, write_json
from damcrack.params import stage_config
from damcrack.run import Run
from damcrack.storage.source import open_source
from damcrack.train.finetune import finetune
from experiments.commands import command, table, with_data
from experiments.unseen.measure import Score, by_row, measure
from experiments.unseen.rows import summary
from experiments.unseen.scorers import torch_score
from experiments.unseen.sources import Photo, read_photos

TEACHER = Path("src/damcrack/shipped/training")
# None of these gave a tile, labelled or not.
REPORTED = (
    "bridgedeck",
    "cfd",
    "deepcrack",
    "masonry240",
    "recife-cracktile",
    "uav-embankment",
    "uav75",
    "wall-negatives",
    "metu-tiles",
)
PHOTOS_OF_A_SOURCE = 8
COLUMNS = ("mean AUROC", "worst AUROC", "pixel F1", "METU tiles, accuracy", "clean photos called cracked")


class PrintingRun(Run):
    """Prints what the stages say, records nothing."""

    def say(self, line: str) -> None:
        """Print at once."""
        print(line, flush=True)


def once(stage: Callable[..., object], out: Path, **arguments: Any) -> Path:
    """Call a stage unless its output is there."""
    if not out.exists():
        print(f"== {out}", flush=True)
        stage(out=out, **arguments)
    return out


def read_values(file: Path, data: Path) -> dict[str, Any]:
    """The params file with the sources' folders filled in."""
    values: dict[str, Any] = yaml.safe_load(file.read_text())
    sources = values["photos"]["sources"]
    values["photos"]["sources"] = {name: place.format(data=data) for name, place in sources.items()}
    return values


def photos_of(config: PhotosConfig, work: Path, run: PrintingRun) -> Path:
    """What the stage `photos` makes of these sources."""
    given = {"open_source": open_source, "run": run}
    listed = once(snapshot, work / "photos.csv", sources=config.sources, **given)
    return once(photos, work / "photos", snapshot=listed, config=config, **given)


def tiles_of(values: dict[str, Any], work: Path, run: PrintingRun) -> Path:
    """Rendered tiles with masks, and real ones without a label."""
    taken = photos_of(stage_config(values, "photos", None), work, run)
    return once(tile, work / "tiles", photos=taken, config=stage_config(values, "tile", None), run=run)


def columns_of(score: Score, seen: Sequence[Photo]) -> dict[str, float]:
    """What one network comes to on the reported sources, as the table shows it."""
    result = summary(by_row(measure(seen, score)))
    rows = result["sources"].values()
    f1 = [row["pixels"]["f1"]["value"] for row in rows if row["pixels"] and row["cracked_blocks"]]
    numbers = (
        result["mean_auroc"]["value"],
        result["worst_auroc"]["value"],
        statistics.mean(f1),
        result["tiles"]["metu-tiles"]["blocks"]["accuracy"]["value"],
        result["false_alarms"]["share_of_photos"]["value"],
    )
    return dict(zip(COLUMNS, numbers, strict=True))


def measured_once(out: Path, columns: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Numbers of a trained network, measured unless OUT holds them."""
    if not out.exists():
        print(f"== {out}", flush=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, columns())
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def copy_photos(chosen: Sequence[Photo], folder: Path, with_masks: bool = True) -> Path:
    """Photos, and masks if asked for, as a source that the stage photos reads; one scene is one group."""
    if not folder.exists():
        with new_directory(folder) as part:
            for name in ("images", "masks"):
                (part / name).mkdir()
            for photo in chosen:
                shutil.copy(photo.file, part / "images")
                if with_masks and photo.mask:
                    shutil.copy(photo.mask, part / "masks" / f"{photo.file.stem}.png")
            groups = [{"file": f"images/{photo.file.name}", "group": photo.group} for photo in chosen]
            write_csv(part / "groups.csv", ("file", "group"), groups)
    return folder


def over_seeds(
    head: str, columns: Sequence[str], results: dict[str, list[dict[str, float]]], scale: float = 100.0
) -> str:
    """Markdown: mean and standard deviation over the seeds, in percent."""
    lines = [
        [name, str(len(rows)), *(mean_and_deviation([scale * row[one] for row in rows]) for one in columns)]
        for name, rows in results.items()
    ]
    return table([head, "n", *columns], 1, lines) + "\n"


def mean_and_deviation(values: Sequence[float]) -> str:
    """As text, with one digit; a single value alone."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = command("students", __doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps of each training; default: the params file's")
    parser.add_argument("--items", nargs="+", default=(), help="students of the params file; default: all")
    parser.add_argument("--params", type=Path, default=Path(__file__).with_name("params.yaml"))
    parser.add_argument("--work", type=Path, default=Path(".bench/students"))
    parser.add_argument("--markdown", type=Path, help="table; default: printed")
    return with_data(parser)


def main() -> None:
    """Train and measure what is missing; write the table after each network."""
    args = arguments()
    run, values = PrintingRun(args.work / "scratch"), read_values(args.params, args.data)
    tiles, seen = tiles_of(values, args.work, run), read_photos(args.data, REPORTED, PHOTOS_OF_A_SOURCE)
    of_teacher = measured_once(args.work / "teacher.json", lambda: columns_of(torch_score(TEACHER), seen))
    results = {"teacher": [of_teacher]}
    for seed in range(args.seeds):
        for item in args.items or values["finetune"]["students"]:
            folder = args.work / "models" / item / str(seed)
            steps = {"min_steps": args.steps} if args.steps else {}
            config = stage_config(values, "finetune", item, {"seed": seed, **steps})
            teacher = TEACHER if config.teacher else None
            once(finetune, folder, tiles=tiles, item=item, config=config, run=run, teacher=teacher)
            measured = partial(lambda folder: columns_of(torch_score(folder), seen), folder)
            numbers = measured_once(args.work / f"{item}-{seed}.json", measured)
            results.setdefault(item, []).append(numbers)
            print(over_seeds("network", COLUMNS, results), flush=True)
    if args.markdown:
        write_bytes(args.markdown, over_seeds("network", COLUMNS, results).encode())


if __name__ == "__main__":
    main()
