"""Stage `tile`: photos and masks become balanced, labelled tiles, divided for training and testing.

OUT/tiles.csv, OUT/set.json, OUT/shards/, OUT/masks/    an image set, see damcrack.data.imageset
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.data.config import TileConfig
from damcrack.data.duplicates import Hashes, Thumbnails, connected_components, duplicate_groups, fingerprint
from damcrack.data.imageset import CLASSES, UNLABELLED, ImageSetWriter
from damcrack.data.photo import ANY_SIZE, decode_file, decode_mask, decode_photo, encode_jpeg
from damcrack.data.pool import (
    Bools,
    Ints,
    Photos,
    Pool,
    choose_test,
    choose_training,
    label_tiles,
    set_aside,
    size_hw,
    unlabelled_pool,
)
from damcrack.data.splits import split_at_random, split_by_group
from damcrack.data.targets import MaskQuality, encode_targets, targets_of
from damcrack.data.tiling import Boxes, Image
from damcrack.files import InputError, in_order, new_directory, sha256_file
from damcrack.run import Run

BOX_COLUMNS = ("x0_px", "y0_px", "x1_px", "y1_px")

Splits = npt.NDArray[np.str_]
Looks = tuple[Hashes, Thumbnails]


class CutTile(NamedTuple):
    """A JPEG, hash and thumbnail of the pixels that it was made from, and a PNG of the codes of damcrack.data.targets.

    `targets` is None where the label says all.
    """

    jpeg: bytes
    hash: np.uint64
    thumbnail: Thumbnails
    targets: bytes | None = None


def tile(photos: Path, out: Path, config: TileConfig, run: Run) -> dict[str, object]:
    """Cut, label, balance and split the tiles of the labelled photos under `photos`; write an image set.

    Test photos are set aside before anything is chosen. Each photo with a chosen tile is decoded once.

    Raises:
        InputError: no photos there, a photo smaller than a tile, more tiles asked than there are.
    """
    pool = label_tiles(Photos.open(photos), config, run)
    _check_sources(pool.photos, config)
    run.dataset("photos", sha256_file(photos / "photos.csv"), "photos stage", "training")
    aside = set_aside(pool, config)
    training = choose_training(pool, np.flatnonzero(~aside), config)
    testing = choose_test(pool, np.flatnonzero(aside), config, run)
    chosen = np.sort(np.concatenate([training, testing]))
    is_test = aside[chosen]
    with new_directory(out, "tile") as folder, closing(ImageSetWriter(folder)) as writer:
        hashes, thumbnails = _cut(pool, chosen, config, writer, run)
        duplicate = duplicate_groups(hashes, thumbnails, config.duplicate_bits)
        split = _split(pool, chosen, is_test, duplicate, config)
        for row, name, group in zip(writer.rows, split.tolist(), duplicate.tolist(), strict=True):
            row.update(split=name, duplicate_group=group)
        writer.drop((split == "").tolist())
        summary = _summary(pool, chosen, split, duplicate)
        if config.unlabelled_tiles:
            groups = {pool.origins[number]["group"] for number in pool.origin[chosen[is_test]].tolist()}
            untested = unlabelled_pool(pool.photos, config, groups)
            tested = hashes[is_test], thumbnails[is_test]
            summary["unlabelled tiles"] = _add_unlabelled(untested, tested, config, writer, run)
        writer.finish("tiles.csv", CLASSES, (config.tile_px, config.tile_px))
    return summary | {"written": str(out / "tiles.csv")}


def _check_sources(photos: Photos, config: TileConfig) -> None:
    known = sorted({row["source"] for row in photos.rows})
    for name, given in (("masks", config.masks), ("clean_sources", config.clean_sources)):
        if unknown := sorted(set(given) - set(known)):
            raise InputError(f"tile.{name}: no source of photos is called {unknown}; sources are {known}")


def _add_unlabelled(pool: Pool, tested: Looks, config: TileConfig, writer: ImageSetWriter, run: Run) -> int:
    """Add `unlabelled_tiles` of the pool, evenly over its photos; returns how many.

    What tests is not taught either: photos with a near-duplicate of a tile that is `tested` give none.
    """
    num = min(config.unlabelled_tiles, len(pool.origin))
    chosen = np.linspace(0, len(pool.origin) - 1, num).astype(np.int64)
    before = len(writer.rows)
    looks = _cut(pool, chosen, config, writer, run)
    for row in writer.rows[before:]:
        row.update(label=-1, split=UNLABELLED, duplicate_group=-1)
    copies = _repeats(looks, tested, config)
    seen = {row["photo"] for row, copy in zip(writer.rows[before:], copies, strict=True) if copy}
    writer.drop([row["photo"] in seen for row in writer.rows])
    return len(writer.rows) - before


def _repeats(looks: Looks, tested: Looks, config: TileConfig) -> Bools:
    """True for each tile that looks like one that is tested."""
    num = len(looks[0])
    if not (config.keep_duplicates_together and num and len(tested[0])):
        return np.zeros(num, bool)
    hashes, thumbnails = np.concatenate([looks[0], tested[0]]), np.concatenate([looks[1], tested[1]])
    group = duplicate_groups(hashes, thumbnails, config.duplicate_bits)
    repeats: Bools = np.isin(group[:num], group[num:])
    return repeats


def _cut(pool: Pool, chosen: Ints, config: TileConfig, writer: ImageSetWriter, run: Run) -> Looks:
    """Write the chosen tiles, in their order, while others are being cut; return hashes and thumbnails."""
    edges = np.flatnonzero(np.diff(pool.origin[chosen])) + 1
    of_origins = np.split(chosen, edges) if len(chosen) else []
    jobs = in_order(partial(_tiles_of, pool, config), _with_ready(pool, of_origins))
    cut_tiles = chain.from_iterable(run.track(jobs, "cutting tiles", len(of_origins)))
    hashes, thumbnails = [], []
    for number, cut in zip(chosen.tolist(), cut_tiles, strict=True):
        writer.add(encoded=cut.jpeg, **_columns(pool, number, config.tile_px))
        if cut.targets is not None:
            writer.add_mask(cut.targets)
        hashes.append(cut.hash)
        thumbnails.append(cut.thumbnail)
    return np.array(hashes, np.uint64), np.array(thumbnails, np.uint8)


def _with_ready(pool: Pool, of_origins: list[Ints]) -> Iterator[tuple[Ints, bytes | None]]:
    """The chosen tiles of each photo, then each ready tile with its JPEG."""
    origins = [int(pool.origin[tiles[0]]) for tiles in of_origins]
    num_photos = int(np.searchsorted(origins, pool.num_photos))
    yield from ((tiles, None) for tiles in of_origins[:num_photos])
    if pool.photos.ready and num_photos < len(origins):
        # Image sets store their images in the order of their index, so the tiles come in the order of `chosen`.
        numbers = {origin - pool.num_photos for origin in origins[num_photos:]}
        wanted = (encoded for number, encoded in pool.photos.ready.encoded() if number in numbers)
        yield from zip(of_origins[num_photos:], wanted, strict=True)


def _tiles_of(pool: Pool, config: TileConfig, job: tuple[Ints, bytes | None]) -> list[CutTile]:
    """Decode a photo once and encode its tiles, with what the pixels of its mask teach; or fit a ready tile.

    Raises:
        InputError: the photo cannot be read or has another size than photos.csv says.
    """
    numbers, ready = job
    if ready is not None:
        return [_fitted(ready, config)]
    row, boxes = pool.origins[int(pool.origin[numbers[0]])], pool.box[numbers]
    path, size = pool.photos.root / row["file"], size_hw(row)
    photo = decode_file(path, decode_photo)
    if photo.shape[:2] != size:
        raise InputError(
            f"{path}: {photo.shape[1]}x{photo.shape[0]} px, photos.csv says {size[1]}x{size[0]}; "
            "run the photos stage again"
        )
    tiles = [photo[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist()]
    targets: list[bytes | None] = [None] * len(boxes)
    if row["mask"]:
        quality = config.masks.get(row["source"], "exact")
        targets = _cut_targets(pool.photos.root / row["mask"], quality, boxes)
    return [
        CutTile(_encoded(tile, config), *fingerprint(tile), codes)
        for tile, codes in zip(tiles, targets, strict=True)
    ]


def _cut_targets(mask: Path, quality: MaskQuality, boxes: Boxes) -> list[bytes | None]:
    """PNGs of the tiles in which not every pixel is known to be clean; a clean tile needs none."""
    codes = targets_of(decode_file(mask, decode_mask), quality)
    of_tiles = (codes[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist())
    return [encode_targets(of_tile) if of_tile.any() else None for of_tile in of_tiles]


def _fitted(original: bytes, config: TileConfig) -> CutTile:
    """Bring a ready-made tile to the tile size; one that fits already keeps its bytes."""
    tile, side_px = decode_photo(original, ANY_SIZE), config.tile_px
    if tile.shape[:2] == (side_px, side_px):
        return CutTile(original, *fingerprint(tile))
    way = cv2.INTER_AREA if min(tile.shape[:2]) > side_px else cv2.INTER_CUBIC
    tile = np.asarray(cv2.resize(tile, (side_px, side_px), interpolation=way), np.uint8)
    return CutTile(_encoded(tile, config), *fingerprint(tile))


def _encoded(tile: Image, config: TileConfig) -> bytes:
    return encode_jpeg(tile, config.jpeg_quality, full_colour=True)


def _split(pool: Pool, chosen: Ints, is_test: Bools, duplicate: Ints, config: TileConfig) -> Splits:
    """train, val or test for each chosen tile (M,); "" for test tiles that nearly repeat a training tile.

    Raises:
        InputError: training or validation is left without one of the classes.
    """
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
    for name, side in (("training", ~in_val), ("validation", in_val)):
        for number in {0, 1} - set(label[side].tolist()):
            raise InputError(
                f"{name} would have no tile of class {CLASSES[number]!r}, expected both classes; add photos of several "
                "places with cracks and without, or change tile.val_fraction, tile.split or what belongs to one group "
                "(groups.csv, photos.ready_tile_block)"
            )
    return split


def _columns(pool: Pool, number: int, tile_px: int) -> dict[str, Any]:
    """The row of tiles.csv, less what is known only after encoding."""
    origin, box = int(pool.origin[number]), pool.box[number].tolist()
    source, label = pool.origins[origin], int(pool.label[number])
    row = {"label": label} | {name: source[name] for name in ("photo", "source", "group")}
    if origin >= pool.num_photos:
        place = {"row": 0, "column": 0} | dict.fromkeys((*BOX_COLUMNS, "crack_fraction"), "")
        return {"key": f"ready{origin - pool.num_photos:06d}.jpg", **row, **place}
    # The last row and column are shifted inward, by less than a tile.
    column, line = -(-box[0] // tile_px), -(-box[1] // tile_px)
    place = {"row": line, "column": column} | dict(zip(BOX_COLUMNS, box, strict=True))
    key = f"{pool.prefix}{origin:06d}_{line:03d}_{column:03d}.jpg"
    return {"key": key, **row, **place, "crack_fraction": float(pool.crack_fraction[number])}


def _summary(pool: Pool, chosen: Ints, split: Splits, duplicate: Ints) -> dict[str, object]:
    used, num = np.unique(pool.origin[chosen]), len(pool.photos.rows)
    summary: dict[str, object] = {
        "photos used": f"{np.count_nonzero(used < pool.num_photos)} of {num} ({num - pool.num_photos} without a mask)"
    }
    for name in ("train", "val", "test"):
        no_crack, crack = pool.class_counts(chosen[split == name])
        summary[f"{name} tiles"] = f"{crack} crack + {no_crack} no crack"
    summary["left out, hardly any crack in them"] = pool.num_left_out
    members = np.bincount(duplicate)
    several = members[members > 1]
    summary["near-duplicates"] = f"{several.sum()} tiles in {len(several)} groups"
    summary["test tiles dropped, repeat a training tile"] = int(np.count_nonzero(split == ""))
    return summary
