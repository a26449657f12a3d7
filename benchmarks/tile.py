"""The paper's scale of tiling: 458 photos of 4032x3024 become 20,000 + 20,000 tiles, 32,000 / 8,000.

    python benchmarks/tile.py                 # renders about 3 GB of photos under .bench/ first, once
    python benchmarks/tile.py --photos 20     # a small part of it, tiles in proportion

Prints a markdown table: seconds of each part, peak memory, and the ratio to a bare loop that does nothing but
decode photos and encode tiles on the same cores. For a clean peak render first, with --render-only.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.images.imageset import ImageSet
from damcrack.images.mask import encode_mask
from damcrack.images.photo import decode_photo
from damcrack.images.tiles import encode_tile
from damcrack.math.tiling import tile_boxes_xyxy
from damcrack.outputs import read_csv, sha256_bytes, write_bytes, write_csv
from damcrack.parallel import in_order, num_workers
from damcrack.stages import tile as stage
from damcrack.stages.run import SilentRun

SIZE_HW = (3024, 4032)
PAPER_PHOTOS, PAPER_TILES_PER_CLASS = 458, 20_000
COLUMNS = ("photo", "source", "group", "file", "mask", "height_px", "width_px", "sha256")
PARTS = {
    "label_tiles": "labels from masks",
    "_cut": "decode, cut, encode, hash",
    "duplicate_groups": "near-duplicates",
    "_split": "split",
}


def render(folder: Path, seed: int, index: int) -> dict[str, Any]:
    """Write one photo and its mask, unless an earlier run did."""
    from damcrack.sample.concrete import encode_photo, render_photo

    photo, mask = folder / f"photos/sample/{index:05d}.jpg", folder / f"masks/sample/{index:05d}.png"
    if not (photo.exists() and mask.exists()):
        drawn = render_photo(seed, index, SIZE_HW)
        write_bytes(mask, encode_mask(drawn.mask))
        write_bytes(photo, encode_photo(drawn.rgb, index))
    return {
        "photo": f"sample/{photo.name}",
        "source": "sample",
        "group": f"sample/{photo.name}",
        "file": photo.relative_to(folder),
        "mask": mask.relative_to(folder),
        "height_px": SIZE_HW[0],
        "width_px": SIZE_HW[1],
        "sha256": sha256_bytes(photo.read_bytes()),
    }


def render_all(folder: Path, num_photos: int, seed: int) -> None:
    """Make `folder` what the photos stage writes for a sample of this size."""
    for name in ("photos/sample", "masks/sample"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for row in in_order(partial(render, folder, seed), range(num_photos)):
        rows.append(row)
        print(f"\rphoto {len(rows)} of {num_photos}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    write_csv(folder / "photos.csv", COLUMNS, rows)


@contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Collect the seconds spent in the stage's parts while it runs."""
    seconds: dict[str, float] = {}
    originals = {name: getattr(stage, name) for name in PARTS}

    def timed(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            result = part(*args)
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


def bare_seconds_per_photo(photos: Path, num_photos: int, tiles_per_photo: int) -> float:
    """Decode photos and encode evenly spread tiles of each, nothing else, on all cores."""
    boxes = tile_boxes_xyxy(SIZE_HW, 224)
    boxes = boxes[np.linspace(0, len(boxes) - 1, tiles_per_photo).astype(int)]

    def work(row: dict[str, str]) -> int:
        rgb = decode_photo((photos / row["file"]).read_bytes(), 2**31 - 1)
        return sum(len(encode_tile(rgb[y0:y1, x0:x1], 95)) for x0, y0, x1, y1 in boxes.tolist())

    rows = read_csv(photos / "photos.csv")[:num_photos]
    start = time.perf_counter()
    assert all(in_order(work, rows))
    return (time.perf_counter() - start) / len(rows)


def peak_memory_gib() -> float:
    """Most resident memory of this process and of any child so far."""
    kib = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(kib) / 2**20


def main() -> None:
    """Render what is missing, tile, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=PAPER_PHOTOS)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tiles-per-class", type=int)
    parser.add_argument("--crack-fraction", type=float, default=0.002)
    parser.add_argument("--bare-photos", type=int, default=30)
    parser.add_argument("--render-only", action="store_true")
    args = parser.parse_args()
    per_class = args.tiles_per_class or PAPER_TILES_PER_CLASS * args.photos // PAPER_PHOTOS
    photos = args.folder / "photos"
    render_all(photos, args.photos, args.seed)
    if args.render_only:
        return
    before = peak_memory_gib()
    config = stage.TileConfig(
        tile_px=224,
        crack_fraction=args.crack_fraction,
        tiles_per_class=per_class,
        split="random",
        val_fraction=0.2,
        test_fraction=0.0,
        test_sources=(),
        test_tiles_per_class=None,
        keep_duplicates_together=True,
        duplicate_bits=8,
        jpeg_quality=95,
        seed=0,
    )
    out = args.folder / f"tiles-{args.photos}"
    start = time.perf_counter()
    with timed_parts() as seconds:
        summary = stage.tile(photos, out, config, SilentRun())
    total = time.perf_counter() - start
    peak = peak_memory_gib()
    used = min(args.bare_photos, args.photos)
    bare = bare_seconds_per_photo(photos, used, round(2 * per_class / args.photos)) * args.photos
    report(summary, seconds, total, (before, peak), bare)
    check(ImageSet.open(out), per_class)


def report(
    summary: dict[str, object],
    seconds: dict[str, float],
    total: float,
    memory_gib: tuple[float, float],
    bare: float,
) -> None:
    """Print the markdown table."""
    rest = total - sum(seconds.values())
    rows = [(title, f"{seconds[name]:.1f} s") for name, title in PARTS.items()]
    rows += [
        ("hashing the list, writing shards and index", f"{rest:.1f} s"),
        ("whole stage", f"{total:.1f} s"),
    ]
    rows += [(f"bare decode and encode loop, {num_workers()} cores", f"{bare:.1f} s")]
    rows += [
        ("cutting / bare loop", f"{seconds['_cut'] / bare:.2f}"),
        ("stage / bare loop", f"{total / bare:.2f}"),
    ]
    rows += [("peak memory before / with tiling", f"{memory_gib[0]:.2f} / {memory_gib[1]:.2f} GiB")]
    rows += [(title, str(value)) for title, value in summary.items()]
    print("\n".join(["| part | |", "|---|---|", *(f"| {title} | {value} |" for title, value in rows)]))


def check(images: ImageSet, per_class: int) -> None:
    """Stop unless the counts are exactly the asked ones, 8:2."""
    num_val = round(per_class * 0.2)
    for split, expected in (("train", per_class - num_val), ("val", num_val)):
        labels = [images.labels[number] for number in images.where(split)]
        assert [labels.count(0), labels.count(1)] == [expected, expected], (split, expected)


if __name__ == "__main__":
    main()
