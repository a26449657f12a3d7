"""The evaluation set: test tiles, named by one digest, on which champion and challengers are scored.

    SET/set.json, SET/tiles.csv, SET/shards/    an image set (damcrack.data.imageset) of test tiles only

`tiles.csv` holds each tile's sha256, so its own sha256 names the whole content. Next to the columns of `tile` it has
`photo_sha256` and `crack_width_px`, the width of the tile's widest crack: twice the distance from the crack's middle
to its edge, measured in the mask of the whole photo; 0 without a crack, empty for a ready tile, which has no mask.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.data.imageset import ImageSet, ImageSetWriter, decode_image
from damcrack.data.photo import decode_file, decode_mask
from damcrack.data.snapshot import OpenSource, Source
from damcrack.files import (
    InputError,
    new_directory,
    one_at_a_time,
    read_csv,
    read_json,
    remove_output,
    sha256_file,
    write_bytes,
)
from damcrack.registry.policy import Truth
from damcrack.run import Run

CACHE = Path("evaluation-sets")  # in a run's scratch folder; one folder per digest
PHOTO_COLUMNS = ("photo", "source", "sha256", "split", "num_tiles")
NEEDED_COLUMNS = ("photo", "photo_sha256", "group", "source", "crack_width_px")
COPIED_COLUMNS = ("label", "split", "photo", "group", "source", "crack_fraction")
SHARD = re.compile(r"\d{5}\.tar")
BATCH_SIZE = 64

Tiles = npt.NDArray[np.uint8]
Row = Mapping[str, str]


@dataclass(frozen=True)
class EvaluationSet:
    """An evaluation set on disk, opened by `open_set`."""

    images: ImageSet

    @property
    def digest(self) -> str:
        """SHA-256 of the index, which names every tile's content."""
        return self.images.digest

    @property
    def tile_px(self) -> int:
        """Side of a tile."""
        return self.images.image_hw[0]

    def column(self, name: str) -> npt.NDArray[np.str_]:
        """A column of the index (N,), as text."""
        return np.array([row[name] for row in self.images.rows], dtype=np.str_)

    @cached_property
    def truth(self) -> Truth:
        """Labels, photos and widths of the tiles; photos of one scene (column `group`) count as one photo."""
        _, photo_N = np.unique(self.column("group"), return_inverse=True)
        widths = [row["crack_width_px"] for row in self.images.rows]
        width_N = np.array([float(width) if width else np.nan for width in widths], np.float64)
        return Truth(np.array(self.images.labels, np.int64), photo_N.astype(np.int64), width_N)

    def batches(self) -> Iterator[tuple[list[int], Tiles]]:
        """Yield row numbers and pixels (B, side, side, 3).

        Raises:
            InputError: a tile is not the one that the index names.
        """
        encoded = self.images.encoded()
        while batch := list(islice(encoded, BATCH_SIZE)):
            numbers = [number for number, _ in batch]
            yield numbers, np.stack([self._decoded(*tile) for tile in batch])

    def _decoded(self, number: int, encoded: bytes) -> Tiles:
        pixels = decode_image(number, encoded)
        if pixels.shape != (*self.images.image_hw, 3):
            key = self.images.rows[number]["key"]
            raise InputError(f"{self.images.root}: tile {key} has another size; freeze the set again")
        return pixels


def freeze(photos: Path, tiles: Path, out: Path, run: Run) -> dict[str, object]:
    """Write the test tiles of `tiles`, cut from `photos`, as an evaluation set.

    Without test tiles it takes the validation tiles, as `evaluate` does; the gate leaves out the photos that selected
    a model, so these can only be used to compare models of other photos.

    Raises:
        InputError: no tiles of either, or photos and tiles do not belong together.
    """
    with new_directory(out, "freeze") as folder:
        write_set(photos, tiles, folder, run)
    written = open_set(out)
    return {
        "tiles": f"{len(written.images)} of {len(np.unique(written.truth.photo_N))} photos",
        "digest": written.digest,
        "written": out,
    }


def write_set(photos: Path, tiles: Path, folder: Path, run: Run) -> None:
    """Write an evaluation set into an empty folder; see `freeze`."""
    images = ImageSet.open(tiles)
    test = set(images.where("test") or images.where("val"))
    if not test:
        raise InputError(f"{tiles} has no test and no validation tiles; set tile.test_fraction above 0")
    origins = _origins(photos, images)

    @lru_cache(maxsize=1)  # tiles come photo by photo
    def edge_distance(photo: str) -> Any:
        mask = decode_file(photos / origins[photo]["mask"], decode_mask)
        return cv2.distanceTransform((mask != 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)

    def crack_width_px(row: Row) -> float | str:
        if not row["x0_px"]:
            return "" if row["label"] == "1" else 0.0
        x0, y0, x1, y1 = (int(row[name]) for name in ("x0_px", "y0_px", "x1_px", "y1_px"))
        farthest = float(edge_distance(row["photo"])[y0:y1, x0:x1].max())
        return round(max(0.0, 2 * farthest - 1), 2)

    with closing(ImageSetWriter(folder)) as writer:
        for number, encoded in run.track(images.encoded(), "freezing test tiles", len(images)):
            if number in test:
                row = images.rows[number]
                columns = {name: row[name] for name in COPIED_COLUMNS}
                columns["photo_sha256"] = origins[row["photo"]]["sha256"]
                writer.add(row["key"], encoded, **columns, crack_width_px=crack_width_px(row))
        writer.finish("tiles.csv", images.classes, images.image_hw)


def training_photos(photos: Path, tiles: Path) -> list[dict[str, Any]]:
    """Photos of the training and validation tiles with the sha256 of their files, rows of PHOTO_COLUMNS."""
    images = ImageSet.open(tiles)
    origins = _origins(photos, images)
    counted = Counter((row["photo"], row["split"]) for row in images.rows if row["split"] != "test")
    return [
        {name: origins[photo][name] for name in ("photo", "source", "sha256")}
        | {"split": split, "num_tiles": number}
        for (photo, split), number in sorted(counted.items())
    ]


def _origins(photos: Path, tiles: ImageSet) -> dict[str, Row]:
    """Rows of the photos and ready tiles that `tiles` were cut from, by name."""
    if not (photos / "photos.csv").is_file():
        raise InputError(f"{photos} holds no photos.csv; pass the photos that {tiles.root} were cut from")
    ready = ImageSet.open(photos / "ready").rows if (photos / "ready").is_dir() else ()
    origins: dict[str, Row] = {row["photo"]: row for row in (*read_csv(photos / "photos.csv"), *ready)}
    unknown = {row["photo"] for row in tiles.rows} - origins.keys()
    if unknown:
        raise InputError(
            f"{tiles.root} has tiles of {min(unknown)}, which is not among the photos; "
            "pass those that it was cut from"
        )
    return origins


def open_set(root: Path, expected: str | None = None) -> EvaluationSet:
    """Open an evaluation set, which must have the `expected` digest if one is passed.

    Raises:
        InputError: no evaluation set, a column missing, no tiles, or another digest.
    """
    images = ImageSet.open(root)
    missing = [name for name in NEEDED_COLUMNS if not images.rows or name not in images.rows[0]]
    if missing:
        raise InputError(
            f"{root} is not an evaluation set: {f'columns {missing} are' if images.rows else 'every tile is'} "
            "missing; make one with `damcrack freeze`"
        )
    _check_digest(str(root), images.digest, expected)
    chosen = EvaluationSet(images)
    try:
        is_right = set(chosen.truth.labels_N.tolist()) <= {0, 1}
    except ValueError:
        is_right = False
    if not is_right:
        raise InputError(
            f"{root / images.index}: expected labels 0 and 1, and widths in pixels; "
            "make the set again with `damcrack freeze`"
        )
    return chosen


def fetch_set(place: str, expected: str | None, open_source: OpenSource, scratch: Path) -> EvaluationSet:
    """Open an evaluation set in a folder or under s3://bucket/prefix; the latter needs its digest.

    It is downloaded once and cached by its digest. Only names that an evaluation set has are read.

    Raises:
        InputError: as `open_set`; the source cannot be read, or its digest is missing.
    """
    if "://" not in place:
        return open_set(Path(place), expected)
    if expected is None:
        raise InputError(
            f"evaluation set {place}: its digest is missing; set evaluation_sha256 to the one that `damcrack freeze` "
            "printed"
        )
    cached = scratch / CACHE / expected
    with one_at_a_time(cached.parent):
        with suppress(InputError):
            return open_set(cached, expected)
        remove_output(cached)  # it is not there yet, or damaged
        with new_directory(cached) as folder:
            _download(open_source(place), place, expected, folder)
    return open_set(cached, expected)


def _download(source: Source, place: str, expected: str, folder: Path) -> None:
    def copy(name: str) -> None:
        try:
            write_bytes(folder / name, source.read(name))
        except FileNotFoundError as error:
            raise InputError(
                f"{place} is not an evaluation set: {name} is missing; check the address"
            ) from error

    (folder / "shards").mkdir()
    copy("set.json")
    copy("tiles.csv")
    if read_json(folder / "set.json").get("index") != "tiles.csv":
        raise InputError(f"{place} is not an evaluation set: its set.json names another index than tiles.csv")
    _check_digest(place, sha256_file(folder / "tiles.csv"), expected)
    for shard in sorted({row["shard"] for row in read_csv(folder / "tiles.csv")}):
        if not SHARD.fullmatch(shard):
            raise InputError(f"{place}: tiles.csv names the shard {shard!r}; expected 00000.tar and so on")
        copy(f"shards/{shard}")


def _check_digest(place: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise InputError(
            f"the evaluation set {place} has digest {found[:12]}, expected {expected[:12]}: it was changed; "
            "use the set with the expected digest, or set evaluation_sha256 to the digest of this one"
        )
