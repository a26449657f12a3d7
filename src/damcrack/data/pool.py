"""Which tiles there are and which are taken: labels from masks, test photos set aside, classes balanced."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from damcrack.data.config import TileConfig
from damcrack.data.imageset import ImageSet
from damcrack.data.photo import decode_file, decode_mask
from damcrack.data.splits import choose_groups, choose_per_class
from damcrack.data.tiling import Boxes, crack_fractions, tile_boxes_xyxy
from damcrack.files import InputError, PhotoError, in_order, read_csv
from damcrack.run import Run

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Row = dict[str, str]

# A crack of 8 pixels of a ready tile so much larger than the tiles would be one pixel wide.
LARGEST_READY = 8


@dataclass(frozen=True)
class Photos:
    """What the photos stage wrote: the rows of photos.csv, and the set of ready tiles if there is one."""

    root: Path
    rows: list[Row]
    ready: ImageSet | None

    @classmethod
    def open(cls, root: Path) -> Self:
        """Read both.

        Raises:
            InputError: `root` is not an output of the photos stage.
        """
        path = root / "photos.csv"
        if not path.is_file():
            raise InputError(
                f"{root} holds no photos.csv; run the photos stage, or give its --out as --photos"
            )
        rows = read_csv(path)
        try:
            for row in rows:
                size_hw(row), row["photo"], row["source"], row["group"], row["mask"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error!r}); run the photos stage again") from error
        return cls(root, rows, ImageSet.open(root / "ready") if (root / "ready").is_dir() else None)


def size_hw(row: Row) -> tuple[int, int]:
    """Height and width of an upright photo in pixels."""
    return int(row["height_px"]), int(row["width_px"])


@dataclass(frozen=True)
class Pool:
    """All tiles that may be chosen; the arrays (N,), of boxes (N, 4), run in parallel, one entry per tile.

    `origins` are the rows of the labelled photos in photos.csv, then those of the ready tiles, whose boxes are zeros.
    """

    photos: Photos
    origins: list[Row]
    num_photos: int
    origin: Ints
    box: Boxes
    crack_fraction: Floats
    label: Ints
    num_left_out: int = 0
    prefix: str = "photo"  # of the keys of its tiles

    def numbered(self, column: str) -> tuple[list[str], Ints]:
        """All values of a column of `origins`, and the number of each tile's value among them (N,)."""
        names = [row[column] for row in self.origins]
        distinct, number = np.unique(np.array(names, dtype=str), return_inverse=True)
        return distinct.tolist(), number[self.origin]

    def by_source(self, tiles: Ints) -> Iterator[tuple[str, Ints]]:
        """Every source, and which of `tiles` are from it."""
        sources, source = self.numbered("source")
        for number, name in enumerate(sources):
            yield name, tiles[source[tiles] == number]

    def class_counts(self, tiles: Ints) -> list[int]:
        """No-crack and crack tiles among some tiles."""
        counts: list[int] = np.bincount(self.label[tiles], minlength=2).tolist()
        return counts


def label_tiles(photos: Photos, config: TileConfig, run: Run) -> Pool:
    """Label every tile of every labelled photo from its mask, and take the labels of ready tiles as they are.

    Tiles with a crack share of at least `crack_fraction` are cracks, tiles with none are not; those between are left
    out and counted. Photos of `clean_sources` without a mask have none. Ready tiles more than 8 times as large as the
    tiles are left out: they are photos.

    Raises:
        InputError: a photo is smaller than one tile, its mask cannot be read, or a ready tile is of no class.
    """
    labelled = [row for row in photos.rows if row["mask"] or row["source"] in config.clean_sources]
    ready = list(photos.ready.rows) if photos.ready else []
    boxes = [_boxes(row, config.tile_px) for row in labelled]
    measured = in_order(partial(_mask_fractions, photos.root), zip(labelled, boxes, strict=True))
    of_photos = list(run.track(measured, "labels from masks", len(labelled)))
    origin, box = _in_one([*boxes, *[np.zeros((1, 4), np.int64)] * len(ready)])
    fraction = np.concatenate([*of_photos, np.full(len(ready), np.nan)])
    is_ready = origin >= len(labelled)
    label = (fraction >= config.crack_fraction).astype(np.int64)
    label[is_ready] = photos.ready.labels if photos.ready else []
    clear = (label == 1) | ~(fraction > 0)
    num_left_out = int(np.count_nonzero(~clear))
    clear[is_ready] = _small_enough(ready, config.tile_px, run)
    tiles = origin[clear], box[clear], fraction[clear], label[clear]
    return Pool(photos, [*labelled, *ready], len(labelled), *tiles, num_left_out)


def _small_enough(ready: Sequence[Row], tile_px: int, run: Run) -> list[bool]:
    small = [max(size_hw(row)) <= LARGEST_READY * tile_px for row in ready]
    if not all(small):
        run.say(
            f"{small.count(False)} ready tiles are left out, {ready[small.index(False)]['photo']} first: "
            f"larger than {LARGEST_READY} tiles of {tile_px} px; cut them into tiles, or give them masks as photos"
        )
    return small


def unlabelled_pool(photos: Photos, config: TileConfig, tested_groups: Container[str]) -> Pool:
    """All tiles of the photos of which nothing is known, large enough for one; their labels mean nothing.

    Photos of clean and test sources, and of groups with a test photo, give none.
    """
    known_sources = {*config.clean_sources, *config.test_sources}
    rows = [
        row
        for row in photos.rows
        if not (row["mask"] or row["source"] in known_sources or row["group"] in tested_groups)
        and min(size_hw(row)) >= config.tile_px
    ]
    origin, box = _in_one([_boxes(row, config.tile_px) for row in rows])
    nothing = np.zeros(len(origin))
    return Pool(photos, rows, len(rows), origin, box, nothing, nothing.astype(np.int64), prefix="unlabelled")


def _boxes(row: Row, tile_px: int) -> Boxes:
    try:
        return tile_boxes_xyxy(size_hw(row), tile_px)
    except PhotoError as error:
        raise InputError(f"{row['photo']}: {error}; photos.min_side_px sets small photos aside") from error


def _in_one(boxes: Sequence[Boxes]) -> tuple[Ints, Boxes]:
    """The origin (N,) and the box (N, 4) of each tile."""
    origin = np.repeat(np.arange(len(boxes)), [len(each) for each in boxes])
    return origin, np.concatenate([np.zeros((0, 4), np.int64), *boxes])


def _mask_fractions(root: Path, tiles: tuple[Row, Boxes]) -> Floats:
    row, boxes = tiles
    if not row["mask"]:
        return np.zeros(len(boxes))
    mask = decode_file(root / row["mask"], decode_mask)
    if mask.shape != size_hw(row):
        raise InputError(f"{row['mask']}: size differs from its photo's; run the photos stage again")
    return crack_fractions(mask, boxes)


def set_aside(pool: Pool, config: TileConfig) -> Bools:
    """True (N,) for the tiles of test photos: a share of each source's groups, and all of `test_sources`.

    Raises:
        InputError: a test source without labelled tiles.
    """
    sources, _ = pool.numbered("source")
    _, group = pool.numbered("group")
    unknown = sorted(set(config.test_sources) - set(sources))
    if unknown:
        raise InputError(f"tile.test_sources: {unknown} have no labelled tiles; sources with some: {sources}")
    aside = np.zeros(len(pool.origin), bool)
    for name, here in pool.by_source(np.arange(len(pool.origin))):
        groups, local = np.unique(group[here], return_inverse=True)
        if name in config.test_sources:
            aside[here] = True
        elif round(len(groups) * config.test_fraction) >= 1:
            counts = np.bincount(local * 2 + pool.label[here], minlength=2 * len(groups)).reshape(-1, 2)
            aside[here] = choose_groups(counts, config.test_fraction, config.seed)[local]
    return aside


def choose_training(pool: Pool, tiles: Ints, config: TileConfig) -> Ints:
    """Choose equally many crack and no-crack tiles to train and validate on, in each source by itself.

    Otherwise a network could learn which source a tile is from instead of whether it is cracked. Tiles of
    `clean_sources` without any crack join the no-crack tiles of the others.

    Raises:
        InputError: fewer than asked, or a class is missing.
    """
    tiles = _balanced_by_source(pool, tiles, None, config.seed, config.clean_sources)
    per_class, (no_crack, crack) = config.tiles_per_class, pool.class_counts(tiles)
    if min(no_crack, crack) < (per_class or 1):
        asked = f"{per_class} of each were asked" if per_class else "both are needed"
        raise InputError(
            f"{crack} crack and {no_crack} no-crack tiles can be used for training once each source is balanced, "
            f"{asked}: "
            "add photos with masks, or tiles in folders Positive/ and Negative/, "
            "or lower tile.tiles_per_class, tile.test_fraction or tile.crack_fraction"
        )
    return tiles[choose_per_class(pool.label[tiles], per_class, config.seed)]


def choose_test(pool: Pool, tiles: Ints, config: TileConfig, run: Run) -> Ints:
    """Choose equally many crack and no-crack tiles of each source, at most `test_tiles_per_class` each."""
    for name, here in pool.by_source(tiles):
        if len(here) and not min(pool.class_counts(here)):
            run.say(f"{name}: no test tiles, as its test photos hold one class only")
    return _balanced_by_source(pool, tiles, config.test_tiles_per_class, config.seed)


def _balanced_by_source(
    pool: Pool, tiles: Ints, per_class: int | None, seed: int, clean_sources: Sequence[str] = ()
) -> Ints:
    """Equally many tiles of both classes of each source, as many as there are, at most `per_class` each.

    Of `clean_sources` without any crack all.
    """
    chosen = [np.empty(0, np.int64)]
    for name, here in pool.by_source(tiles):
        fewest = min(pool.class_counts(here))
        if name not in clean_sources or pool.label[here].any():
            wanted = fewest if per_class is None else min(fewest, per_class)
            here = here[choose_per_class(pool.label[here], wanted, seed)]
        chosen.append(here)
    return np.concatenate(chosen)
