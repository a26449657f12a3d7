"""Stage `tile`: photos and masks become balanced, labelled tiles, divided for training and testing.

OUT/tiles.csv, OUT/set.json, OUT/shards/, OUT/masks/    an image set, see damcrack.data.imageset
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from damcrack.data.config import TileConfig
from damcrack.data.duplicates import Hashes, Thumbnails, connected_components, duplicate_groups
from damcrack.data.encode import EncodedTiles, MaskFile, cut_photo, fit_ready_tiles
from damcrack.data.imageset import UNLABELLED, ImageSetWriter
from damcrack.data.splits import split_at_random, split_by_group
from damcrack.data.tile_pool import (
    Bools,
    Ints,
    Pool,
    choose_test,
    choose_training,
    label_tiles,
    read_photos,
    set_aside,
    size_hw,
    unlabelled_pool,
)
from damcrack.data.tiling import num_columns, tile_box_xyxy, tile_boxes_xyxy
from damcrack.files import InputError, in_order, new_directory, sha256_file
from damcrack.run import Run

CLASSES = ("no crack", "crack")
READY_BATCH = 128

Splits = npt.NDArray[np.str_]
Job = Callable[[], EncodedTiles]


def tile(photos: Path, out: Path, config: TileConfig, run: Run) -> dict[str, object]:
    """Cut, label, balance and split the tiles of the labelled photos under `photos`; write an image set.

    Test photos are set aside before anything is chosen. Each photo with a chosen tile is decoded once.

    Raises:
        InputError: no photos there, a photo smaller than a tile, more tiles asked than there are.
    """
    pool = label_tiles(photos, config.tile_px, config.crack_fraction, run, config.clean_sources)
    _check_sources(photos, config)
    run.dataset("photos", sha256_file(photos / "photos.csv"), "photos stage", "training")
    chosen, is_test = _choose(pool, config, run)
    with new_directory(out, "tile") as folder, closing(ImageSetWriter(folder)) as writer:
        jobs = _jobs(photos, pool, chosen, config)
        hashes, thumbnails = _cut(jobs, pool, chosen, writer, run, tile_px=config.tile_px)
        duplicate = duplicate_groups(hashes, thumbnails, config.duplicate_bits)
        split = _split(pool, chosen, is_test, duplicate, config)
        for row, name, group in zip(writer.rows, split.tolist(), duplicate.tolist(), strict=True):
            row.update(split=name, duplicate_group=group)
        writer.drop((split == "").tolist())
        tested = {pool.origins[number]["group"] for number in pool.origin[chosen[is_test]].tolist()}
        num_unlabelled = _add_unlabelled(photos, config, tested, writer, run)
        writer.finish("tiles.csv", CLASSES, (config.tile_px, config.tile_px))
    summary = _summary(photos, pool, chosen, split, duplicate)
    if config.unlabelled_tiles:
        summary["unlabelled tiles"] = num_unlabelled
    return summary | {"written": str(out / "tiles.csv")}


def _check_sources(photos: Path, config: TileConfig) -> None:
    known = sorted({row["source"] for row in read_photos(photos)[0]})
    for name, given in (("masks", config.masks), ("clean_sources", config.clean_sources)):
        if unknown := sorted(set(given) - set(known)):
            raise InputError(f"tile.{name}: no source of photos is called {unknown}; sources are {known}")


def _add_unlabelled(
    photos: Path, config: TileConfig, tested_groups: set[str], writer: ImageSetWriter, run: Run
) -> int:
    """Add tiles of photos of which nothing is known, evenly over them; returns how many.

    What tests is not taught either: photos of `tested_groups` and of test sources give none.
    """
    if not config.unlabelled_tiles:
        return 0
    other_sources = (*config.clean_sources, *config.test_sources)
    pool = unlabelled_pool(photos, config.tile_px, other_sources, tested_groups)
    num = min(config.unlabelled_tiles, len(pool.origin))
    chosen = np.unique(np.linspace(0, len(pool.origin) - 1, num).astype(np.int64)) if num else pool.origin
    before = len(writer.rows)
    _cut(_jobs(photos, pool, chosen, config), pool, chosen, writer, run, tile_px=config.tile_px)
    for row in writer.rows[before:]:
        row.update(label=-1, split=UNLABELLED, duplicate_group=-1)
    return len(chosen)


def _choose(pool: Pool, config: TileConfig, run: Run) -> tuple[Ints, Bools]:
    """Choose tiles (M,), ascending, and say which of them are for testing (M,)."""
    aside = set_aside(pool, config.test_fraction, config.test_sources, config.seed)
    training = choose_training(
        pool, np.flatnonzero(~aside), config.tiles_per_class, config.seed, config.clean_sources
    )
    testing = choose_test(pool, np.flatnonzero(aside), config.test_tiles_per_class, config.seed, run)
    chosen = np.sort(np.concatenate([training, testing]))
    return chosen, aside[chosen]


def _cut(
    jobs: Iterator[Job], pool: Pool, chosen: Ints, writer: ImageSetWriter, run: Run, *, tile_px: int
) -> tuple[Hashes, Thumbnails]:
    """Write the chosen tiles, in their order, while others are being cut; return hashes and thumbnails."""
    num_ready = int(np.count_nonzero(pool.origin[chosen] >= pool.num_photos))
    num_jobs = len(np.unique(pool.origin[chosen])) - num_ready + -(-num_ready // READY_BATCH)
    hashes, thumbnails, numbers = [], [], iter(chosen.tolist())
    for tiles in run.track(in_order(lambda job: job(), jobs), "cutting tiles", num_jobs):
        for encoded, targets, number in zip(tiles.encoded, tiles.targets, numbers):  # noqa: B905 - `numbers` goes on
            writer.add(encoded=encoded, **_columns(pool, number, tile_px))
            if targets is not None:
                writer.add_mask(targets)
        hashes.append(tiles.hashes)
        thumbnails.append(tiles.thumbnails)
    if not hashes:
        return np.empty(0, np.uint64), np.empty((0, 16, 16), np.uint8)
    return np.concatenate(hashes), np.concatenate(thumbnails)


def _jobs(photos: Path, pool: Pool, chosen: Ints, config: TileConfig) -> Iterator[Job]:
    """Work that gives the chosen tiles, photo by photo, then the ready ones."""
    first_ready = int(np.searchsorted(pool.origin[chosen], pool.num_photos))
    yield from _photo_jobs(photos, pool, chosen[:first_ready], config)
    yield from _ready_jobs(photos, pool, chosen[first_ready:], config)


def _photo_jobs(photos: Path, pool: Pool, chosen: Ints, config: TileConfig) -> Iterator[Job]:
    edges = np.flatnonzero(np.diff(pool.origin[chosen])) + 1
    for tiles in np.split(chosen, edges) if len(chosen) else []:
        origin = int(pool.origin[tiles[0]])
        row = pool.origins[origin]
        boxes = tile_boxes_xyxy(size_hw(row), config.tile_px)[pool.position[tiles]]
        quality = config.masks.get(row["source"], "exact")
        mask = MaskFile(photos / row["mask"], quality) if row["mask"] else None
        yield partial(cut_photo, photos / row["file"], size_hw(row), boxes, config.jpeg_quality, mask)


def _ready_jobs(photos: Path, pool: Pool, chosen: Ints, config: TileConfig) -> Iterator[Job]:
    _, ready = read_photos(photos)
    if not ready or not len(chosen):
        return
    # Image sets store their images in the order of their index, so the tiles come in the order of `chosen`.
    numbers = set((pool.origin[chosen] - pool.num_photos).tolist())
    wanted = (encoded for number, encoded in ready.encoded() if number in numbers)
    while batch := list(islice(wanted, READY_BATCH)):
        yield partial(fit_ready_tiles, batch, config.tile_px, config.jpeg_quality)


def _split(pool: Pool, chosen: Ints, is_test: Bools, duplicate: Ints, config: TileConfig) -> Splits:
    """train, val or test for each chosen tile (M,); "" for test tiles that nearly repeat a training tile."""
    split = np.where(is_test, "test", "train")
    together = duplicate if config.keep_duplicates_together else np.arange(len(chosen))
    split[is_test & np.isin(together, together[~is_test])] = ""
    rest = np.flatnonzero(~is_test)
    label, together = pool.label[chosen[rest]], together[rest]
    if config.split == "random":
        in_val = split_at_random(label, together, config.val_fraction, config.seed)
    else:
        names, group = pool.numbered("group")
        nodes = len(names) + len(chosen)
        joined = connected_components(nodes, group[chosen[rest]], len(names) + together)
        in_val = split_by_group(label, joined[len(names) + together], config.val_fraction, config.seed)
    split[rest[in_val]] = "val"
    return split


def _columns(pool: Pool, number: int, tile_px: int) -> dict[str, Any]:
    """The row of tiles.csv, less what is known only after encoding."""
    origin, position = int(pool.origin[number]), int(pool.position[number])
    source = pool.origins[origin]
    row: dict[str, Any] = {"label": int(pool.label[number])}
    row |= {name: source[name] for name in ("photo", "source", "group")}
    if origin >= pool.num_photos:
        place: dict[str, Any] = {"row": 0, "column": 0} | dict.fromkeys(
            ("x0_px", "y0_px", "x1_px", "y1_px"), ""
        )
        return {"key": f"ready{origin - pool.num_photos:06d}.jpg", **row, **place, "crack_fraction": ""}
    size = size_hw(source)
    box = tile_box_xyxy(size, tile_px, position)
    line, column = divmod(position, num_columns(size[1], tile_px))
    place = {"row": line, "column": column}
    place |= dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), box, strict=True))
    key = f"{pool.prefix}{origin:06d}_{line:03d}_{column:03d}.jpg"
    return {"key": key, **row, **place, "crack_fraction": float(pool.crack_fraction[number])}


def _summary(photos: Path, pool: Pool, chosen: Ints, split: Splits, duplicate: Ints) -> dict[str, object]:
    rows, _ = read_photos(photos)
    used = len({int(number) for number in pool.origin[chosen] if number < pool.num_photos})
    members = np.bincount(duplicate)
    summary: dict[str, object] = {
        "photos used": f"{used} of {len(rows)} ({len(rows) - pool.num_photos} without a mask)"
    }
    for name in ("train", "val", "test"):
        no_crack, crack = pool.class_counts(chosen[split == name])
        summary[f"{name} tiles"] = f"{crack} crack + {no_crack} no crack"
    summary["left out, hardly any crack in them"] = pool.num_left_out
    several = members[members > 1]
    summary["near-duplicates"] = f"{several.sum()} tiles in {len(several)} groups"
    summary["test tiles dropped, repeat a training tile"] = int(np.count_nonzero(split == ""))
    return summary
