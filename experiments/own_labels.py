"""How many own tiles with masks the shipped detector needs: trained on few tiles of one source, measured on the rest.

    python -m experiments.own_labels --data DIR --source uav75 --seeds 3

DIR holds the real sources (experiments/unseen/sources.py). Half of the source's photos train; of the
others those are measured whose scene gave none. What is finished is kept under --work.
"""

import argparse
import os
from pathlib import Path

from damcrack.data.config import PhotosConfig, TileConfig
from damcrack.data.imageset import ImageSet
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.data.tile import tile
from damcrack.files import read_csv
from damcrack.storage.source import open_source
from damcrack.train.config import Appearance, FinetuneConfig
from damcrack.train.finetune import finetune
from experiments.students.__main__ import TEACHER, PrintingRun, mean_and_deviation, once
from experiments.unseen.__main__ import DATA_VARIABLE
from experiments.unseen.measure import by_row, measure
from experiments.unseen.rows import pixel_measures, source_row
from experiments.unseen.scorers import torch_score
from experiments.unseen.sources import Photo, read_photos

LABELLED = (10, 20, 50, 200)
STEPS = 60
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


def prepare(data: Path, source: str, work: Path, run: PrintingRun) -> tuple[Path, list[Photo]]:
    """Tiles of half of the source's photos, and the photos of all other scenes to measure on."""
    config = PhotosConfig(sources={source: str(data / source)}, min_side_px=128)
    listed = once(snapshot, work / "photos.csv", sources=config.sources, open_source=open_source, run=run)
    taken = once(photos, work / "photos", snapshot=listed, config=config, open_source=open_source, run=run)
    cut = TileConfig(tile_px=128, crack_fraction=0.003, val_fraction=0.2, test_fraction=0.5)
    tiles = once(tile, work / "tiles", photos=taken, config=cut, run=run)
    used = {row["photo"] for row in ImageSet.open(tiles).rows if row["split"] != "test"}
    names = {Path(row["photo"]).name for row in read_csv(taken / "photos.csv") if row["photo"] in used}
    everything = read_photos(data, [source])
    scenes = {photo.group for photo in everything if photo.file.name in names}
    return tiles, [photo for photo in everything if photo.group not in scenes]


def columns(folder: Path, held_out: list[Photo]) -> list[float]:
    """Numbers of one network on the held-out photos, in percent."""
    found = by_row(measure(held_out, torch_score(folder)))
    results = [one for row in found.values() for one in row]
    pixels = pixel_measures(results)
    auroc = source_row(results, ())[0]["blocks"]["auroc"]["value"]
    assert pixels is not None
    return [100 * (value or 0) for value in (auroc, pixels["f1"]["value"], pixels["cliou"]["value"])]


def main() -> None:
    """Train, measure, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.own_labels", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get(DATA_VARIABLE), help=f"default: {DATA_VARIABLE}"
    )
    parser.add_argument("--source", default="uav75")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(".bench/own-labels"))
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit(f"no photos: give --data or set {DATA_VARIABLE} to the folder with MANIFEST.csv")
    work = args.work / args.source
    run = PrintingRun(work / "scratch")
    tiles, held_out = prepare(args.data, args.source, work, run)
    rows = {0: [columns(TEACHER, held_out)]}
    for num in LABELLED:
        rows[num] = []
        for seed in range(args.seeds):
            folder = work / f"{num}-{seed}"
            given = {"tiles": tiles, "item": "own", "run": run, "init": TEACHER}
            once(finetune, folder, config=config_for(num, seed), **given)
            rows[num].append(columns(folder, held_out))
    print(
        f"| own tiles of {args.source} | n | {' | '.join(COLUMNS)} |\n| ---: | ---: |{' ---: |' * len(COLUMNS)}"
    )
    for num, found in rows.items():
        cells = [mean_and_deviation([row[column] for row in found]) for column in range(len(COLUMNS))]
        print(f"| {num} | {len(found)} | {' | '.join(cells)} |")
    print(f"\n{len(held_out)} held-out photos.")


if __name__ == "__main__":
    main()
