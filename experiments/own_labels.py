"""What own tiles of one source give: few with masks to the shipped detector, many without to a smaller champion.

    python -m experiments.own_labels --data DIR --source uav75 --seeds 3

DIR holds the real sources (experiments/unseen/sources.py). Half of the source's photos train; of the others those are
measured whose scene gave none. The champion learned from rendered tiles under the shipped detector; it goes on learning
from them, with or without the source's tiles, of which nobody said what they show. What is finished is kept under
--work.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from damcrack.data.config import SAMPLE, PhotosConfig, TileConfig
from damcrack.data.imageset import ImageSet
from damcrack.data.tile import tile
from damcrack.files import read_csv
from damcrack.train.config import Appearance, FinetuneConfig, TemperatureConfig
from damcrack.train.finetune import finetune
from experiments.commands import command, with_data
from experiments.students.__main__ import (
    TEACHER,
    PrintingRun,
    copy_photos,
    measured_once,
    once,
    over_seeds,
    photos_of,
)
from experiments.unseen.measure import by_row, measure
from experiments.unseen.rows import pixel_measures, source_row
from experiments.unseen.scorers import torch_score
from experiments.unseen.sources import Photo, read_photos

LABELLED = (10, 20, 50, 200)
STEPS = 60
UNLABELLED, RENDERED_PHOTOS, RENDERED_TILES, CHAMPION_STEPS = 500, 60, 500, 300
BEFORE = f"champion: {CHAMPION_STEPS} steps on rendered tiles"
CONTROL = f"champion, {CHAMPION_STEPS} steps more on rendered tiles"
AFTER = f"champion, {CHAMPION_STEPS} steps more, half of them on {UNLABELLED} own tiles without labels"
COLUMNS = ("block AUROC", "pixel F1", "clIoU")


def config_for(num: int, seed: int) -> FinetuneConfig:
    """A short training from the shipped weights."""
    return FinetuneConfig(
        network="efficientnet_lite0",
        init="shipped",
        pixel_channels=64,
        image_px=128,
        focus=0.5,
        scales=(0.6, 1.4),
        appearance=Appearance(0.3, 0.1, 0.2, 6.0),
        epochs=2,
        batch_size=16,
        optimiser="adamw",
        learning_rate=0.0003,
        weight_decay=0.01,
        clip_norm=5.0,
        labelled_tiles=num,
        min_steps=STEPS,
        seed=seed,
    )


def prepare(data: Path, source: str, work: Path, run: PrintingRun) -> tuple[Path, list[Photo], list[Photo]]:
    """Tiles of half of the source's photos, these photos, and those of all other scenes to measure on."""
    config = PhotosConfig(sources={source: str(data / source)}, min_side_px=128)
    taken = photos_of(config, work, run)
    cut = TileConfig(tile_px=128, crack_fraction=0.003, val_fraction=0.2, test_fraction=0.5)
    tiles = once(tile, work / "tiles", photos=taken, config=cut, run=run)
    used = {row["photo"] for row in ImageSet.open(tiles).rows if row["split"] != "test"}
    names = {Path(row["photo"]).name for row in read_csv(taken / "photos.csv") if row["photo"] in used}
    everything = read_photos(data, [source])
    scenes = {photo.group for photo in everything if photo.file.name in names}
    chosen = [photo for photo in everything if photo.file.name in names]
    return tiles, chosen, [photo for photo in everything if photo.group not in scenes]


def prepare_unlabelled(chosen: list[Photo], work: Path, run: PrintingRun) -> Path:
    """Rendered tiles with masks, and tiles of the chosen photos without."""
    folder = copy_photos(chosen, work / "unlabelled" / "source", with_masks=False)
    config = PhotosConfig(
        sources={SAMPLE: SAMPLE, "unlabelled": str(folder)}, sample_photos=RENDERED_PHOTOS, sample_seed=11
    )
    cut = TileConfig(
        tile_px=128, crack_fraction=0.003, val_fraction=0.2, test_fraction=0.0, unlabelled_tiles=UNLABELLED
    )
    taken = photos_of(config, work / "unlabelled", run)
    return once(tile, work / "unlabelled" / "tiles", photos=taken, config=cut, run=run)


def champions(tiles: Path, work: Path, seed: int, run: PrintingRun) -> dict[str, Path]:
    """A small champion, and what it becomes without and with the unlabelled tiles, by the name of its row."""
    first = replace(
        config_for(RENDERED_TILES, seed),
        init=None,
        teacher="shipped",
        encoder_weights="imagenet",
        learning_rate=0.002,
        temperature=TemperatureConfig("fixed"),
        min_steps=CHAMPION_STEPS,
    )
    more = replace(first, encoder_weights=None, init="champion", learning_rate=0.001)
    given = {"tiles": tiles, "run": run, "teacher": TEACHER}
    before = once(finetune, work / f"before-{seed}", item="before", config=first, **given)
    found = {BEFORE: before}
    for name, share in ((CONTROL, 0.0), (AFTER, 0.5)):
        config = replace(more, unlabelled_share=share)
        folder = work / f"{'after' if share else 'control'}-{seed}"
        found[name] = once(finetune, folder, item="after", config=config, init=before, **given)
    return found


def networks(work: Path, args: argparse.Namespace) -> Iterator[tuple[str, Path, list[Photo]]]:
    """Name of its row, model folder and photos to measure on, of each network; those that are missing are trained."""
    run = PrintingRun(work / "scratch")
    tiles, chosen, held_out = prepare(args.data, args.source, work, run)
    yield "0", TEACHER, held_out
    for num in () if args.unlabelled_only else LABELLED:
        for seed in range(args.seeds):
            given = {"tiles": tiles, "item": "own", "run": run, "init": TEACHER}
            trained = once(finetune, work / f"{num}-{seed}", config=config_for(num, seed), **given)
            yield str(num), trained, held_out
    unlabelled = prepare_unlabelled(chosen, work, run)
    for seed in range(args.seeds):
        for name, folder in champions(unlabelled, work, seed, run).items():
            yield name, folder, held_out


def columns(folder: Path, held_out: list[Photo]) -> dict[str, float]:
    """Numbers of one network on the held-out photos, in percent."""
    found = by_row(measure(held_out, torch_score(folder)))
    results = [one for row in found.values() for one in row]
    pixels = pixel_measures(results)
    auroc = source_row(results, ())[0]["blocks"]["auroc"]["value"]
    assert pixels is not None
    values = (auroc, pixels["f1"]["value"], pixels["cliou"]["value"])
    return {name: 100 * (value or 0) for name, value in zip(COLUMNS, values, strict=True)}


def main() -> None:
    """Train, measure, print the table."""
    parser = command("own_labels", __doc__)
    parser.add_argument("--source", default="uav75")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(".bench/own-labels"))
    parser.add_argument("--unlabelled-only", action="store_true", help="leave the labelled tiles out")
    args = with_data(parser)
    work, rows = args.work / args.source, dict[str, list[dict[str, float]]]()
    for name, folder, held_out in networks(work, args):
        measured = partial(columns, folder, held_out)
        rows.setdefault(name, []).append(measured_once(work / "rows" / f"{folder.name}.json", measured))
    print(over_seeds(f"own tiles of {args.source}", COLUMNS, rows, scale=1))
    print(f"{len(held_out)} held-out photos.")


if __name__ == "__main__":
    main()
