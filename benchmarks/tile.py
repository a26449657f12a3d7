"""Speed, memory and growth of tiling 12-megapixel photos (4032x3024).

    python -m benchmarks.tile --photos 20     # tiles in proportion to the paper's 40,000 of 458 photos
    python -m benchmarks.tile                 # the paper's scale: renders about 1 GB of photos under .bench/ first

Prints markdown. The first table has the whole stage (labels from masks, decoding, encoding, near-duplicates,
split, shards, index) in turn with two loops over the same tiles: the bare one only decodes photos and encodes
tiles, with the stage's libraries on all cores; the plain one is what a careful newcomer would write, with Pillow in
one process. Ratios are taken round by round, because machines drift. The last table has one process per row.
"""

import argparse
import csv
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.tile_photos import MAX_PIXELS, SIZE_HW, first_photos, render_all
from damcrack.data import tile as stage
from damcrack.data.encode import encode_tile
from damcrack.data.imageset import ImageSet
from damcrack.data.photo import decode_photo
from damcrack.data.tiling import tile_boxes_xyxy
from damcrack.files import in_order, num_workers, read_csv
from damcrack.run import SilentRun

PAPER_PHOTOS, PAPER_TILES_PER_CLASS = 458, 20_000
GROWTH = (20, 60, 200)
QUALITY = 95
PARTS = {
    "label_tiles": "labels from masks",
    "_cut": "decode, cut, encode, fingerprint, write shards",
    "duplicate_groups": "near-duplicates",
    "_split": "split",
}
Tiles = dict[str, list[tuple[int, ...]]]  # boxes x0, y0, x1, y1 by photo


def run_stage(photos: Path, out: Path) -> dict[str, object]:
    """Run the stage as for the paper, 8:2 at random, tiles in proportion to the photos."""
    num_photos = len(read_csv(photos / "photos.csv"))
    config = stage.TileConfig(
        tile_px=224,
        crack_fraction=0.002,
        tiles_per_class=PAPER_TILES_PER_CLASS * num_photos // PAPER_PHOTOS,
        split="random",
        val_fraction=0.2,
        test_fraction=0.0,
        test_sources=(),
        test_tiles_per_class=None,
        keep_duplicates_together=True,
        duplicate_bits=8,
        jpeg_quality=QUALITY,
        seed=0,
    )
    shutil.rmtree(out, ignore_errors=True)
    return stage.tile(photos, out, config, SilentRun())


@contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Collect the seconds spent in the stage's parts while it runs."""
    seconds: dict[str, float] = {}
    originals = {name: getattr(stage, name) for name in PARTS}

    def timed(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = part(*args, **named)
            seconds[name] = time.perf_counter() - start
            return result

        return call

    try:
        for name, part in originals.items():
            setattr(stage, name, timed(name, part))
        yield seconds
    finally:
        for name, part in originals.items():
            setattr(stage, name, part)


def bare_loop(photos: Path, tiles: Tiles) -> None:
    """Decode each photo and encode its tiles on all cores, nothing else."""

    def work(name: str) -> int:
        rgb = decode_photo((photos / "photos" / name).read_bytes(), MAX_PIXELS)
        return sum(len(encode_tile(rgb[y0:y1, x0:x1], QUALITY)) for x0, y0, x1, y1 in tiles[name])

    assert all(in_order(work, tiles))


def plain_loop(photos: Path, tiles: Tiles, out: Path) -> None:
    """Write the same tiles to one tar and one list, the obvious way with Pillow: no near-duplicates, no split."""
    grid = tile_boxes_xyxy(SIZE_HW, 224).tolist()
    with tarfile.open(out.with_suffix(".tar"), "w") as tar, out.with_suffix(".csv").open("w") as file:
        index = csv.writer(file)
        for name, boxes in tiles.items():
            photo = Image.open(photos / "photos" / name).convert("RGB")
            mask = np.asarray(Image.open((photos / "masks" / name).with_suffix(".png")).convert("L"))
            fractions = {tuple(box): (mask[box[1] : box[3], box[0] : box[2]] > 0).mean() for box in grid}
            for box in boxes:
                encoded = io.BytesIO()
                photo.crop(box).save(encoded, "JPEG", quality=QUALITY)
                member = tarfile.TarInfo(f"{Path(name).stem}_{box[1]}_{box[0]}.jpg")
                member.size = encoded.tell()
                encoded.seek(0)
                tar.addfile(member, encoded)
                index.writerow([member.name, name, *box, fractions[box], int(fractions[box] >= 0.002)])


def chosen_tiles(out: Path) -> Tiles:
    """Boxes of the stage's tiles by photo."""
    tiles: Tiles = {}
    for row in ImageSet.open(out).rows:
        box = tuple(int(row[name]) for name in ("x0_px", "y0_px", "x1_px", "y1_px"))
        tiles.setdefault(row["photo"], []).append(box)
    return tiles


def compare(photos: Path, out: Path, rounds: int) -> str:
    """Time the stage and both loops in turn; markdown."""
    summary = run_stage(photos, out)  # warms up, and says which tiles
    check(ImageSet.open(out))
    tiles = chosen_tiles(out)
    variants: dict[str, Callable[[], object]] = {
        "whole stage": lambda: run_stage(photos, out),
        f"bare decode and encode, {num_workers()} cores": lambda: bare_loop(photos, tiles),
        "plain loop, Pillow, one process": lambda: plain_loop(photos, tiles, out),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            shutil.rmtree(out, ignore_errors=True)
            start = time.perf_counter()
            variant()
            seconds[name].append(time.perf_counter() - start)
    with timed_parts() as parts:
        run_stage(photos, out)
    lines = ["| median (min to max) | seconds | stage / this | this / stage |", "|---|---|---|---|"]
    for name, values in seconds.items():
        ratios = [whole / other for whole, other in zip(seconds["whole stage"], values, strict=True)]
        lines.append(
            f"| {name} | {spread(values)} | {spread(ratios)} | {spread([1 / ratio for ratio in ratios])} |"
        )
    lines += [
        f"| one more run of the stage: {PARTS[name]} | {value:.2f} | | |" for name, value in parts.items()
    ]
    notes = "; ".join(f"{title}: {value}" for title, value in summary.items() if title != "written")
    return "\n".join(lines) + f"\n\n{rounds} rounds. {notes}."


def spread(values: list[float]) -> str:
    """Median with the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def growth(folder: Path, rounds: int) -> str:
    """Tile 1, 3 and 10 times as many photos, in turn, each in a process of its own; markdown."""
    found: dict[int, list[dict[str, float]]] = {num: [] for num in GROWTH}
    for _ in range(rounds):
        for num in GROWTH:
            command = [
                sys.executable,
                "-m",
                "benchmarks.tile",
                "--folder",
                str(folder),
                "--one-run",
                str(num),
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[num].append(json.loads(done.stdout))
    lines = [
        "| photos | tiles | ms per tile, median (min to max) | times the first row's | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    first = [run["ms_per_tile"] for run in found[GROWTH[0]]]
    for num, runs in found.items():
        each = [run["ms_per_tile"] for run in runs]
        ratios = [mine / other for mine, other in zip(each, first, strict=True)]
        peak = spread([run["peak_mib"] for run in runs])
        lines.append(f"| {num} | {runs[0]['tiles']:.0f} | {spread(each)} | {spread(ratios)} | {peak} |")
    return "\n".join(lines)


def one_run(photos: Path, out: Path) -> dict[str, float]:
    """Tile in this process, once to warm up on few photos and once for the clock."""
    run_stage(first_photos(photos, GROWTH[0]), out)
    few = first_photos(photos, int(out.name.split("-")[1]))
    start = time.perf_counter()
    run_stage(few, out)
    seconds = time.perf_counter() - start
    num_tiles = len(ImageSet.open(out))
    shutil.rmtree(out)
    # Not ru_maxrss: that begins with the memory of the process that started this one.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return {
        "tiles": num_tiles,
        "ms_per_tile": seconds / num_tiles * 1000,
        "peak_mib": int(peak.split()[1]) / 1024,
    }


def check(images: ImageSet) -> None:
    """Stop unless both classes are equally many, 8:2."""
    per_class = len(images) // 2
    num_val = round(per_class * 0.2)
    for split, expected in (("train", per_class - num_val), ("val", num_val)):
        labels = [images.labels[number] for number in images.where(split)]
        assert [labels.count(0), labels.count(1)] == [expected, expected], (split, expected)


def main() -> None:
    """Render what is missing, measure, print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--photos", type=int, default=PAPER_PHOTOS)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--render-only", action="store_true")
    parser.add_argument("--one-run", type=int, help="what the growth table starts for each of its rows")
    args = parser.parse_args()
    photos = args.folder / "photos"
    if args.one_run:
        print(json.dumps(one_run(photos, args.folder / f"tiles-{args.one_run}-{os.getpid()}")))
        return
    render_all(photos, max(args.photos, *GROWTH), args.seed)
    if not args.render_only:
        print(compare(first_photos(photos, args.photos), args.folder / "tiles", args.rounds))
        print("\nGrowth:\n")
        print(growth(args.folder, args.rounds))


if __name__ == "__main__":
    main()
