"""The frozen evaluation set: test tiles, named by one digest, scored by every model that competes.

    SET/set.json, SET/tiles.csv, SET/shards/    an image set (damcrack.data.imageset) of test tiles only

`tiles.csv` has each tile's sha256, so its own sha256 names the whole content; beside the columns of `tile` it has
`photo_sha256` and `crack_width_px`, the widest place of a crack in the tile: twice the distance from the crack's middle
to the wall, measured in the mask of the whole photo. 0 is no crack; empty is a ready tile, which has no mask.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.data.encode import decode_file
from damcrack.data.imageset import ImageSet, ImageSetWriter
from damcrack.data.photo import decode_mask
from damcrack.data.source import Source
from damcrack.files import InputError, new_directory, read_csv, sha256_bytes, sha256_file, write_bytes
from damcrack.registry.policy import Truth
from damcrack.run import Run

KEPT = Path("evaluation-sets")  # in a run's scratch folder, by digest
PHOTO_COLUMNS = ("photo", "source", "sha256", "split", "num_tiles")
NEEDED_COLUMNS = ("photo", "photo_sha256", "group", "source", "crack_width_px")
TAKEN_COLUMNS = ("label", "split", "photo", "group", "source", "crack_fraction")
SHARD = re.compile(r"\d{5}\.tar")
BATCH_SIZE = 64

Tiles = npt.NDArray[np.uint8]
Row = Mapping[str, str]


@dataclass(frozen=True)
class FrozenSet:
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
        """Yield row numbers and pixels (B, side, side, 3), every tile checked against its hash.

        Raises:
            InputError: a tile is not the one that the index names.
        """
        waiting = list[tuple[int, Tiles]]()
        for number, encoded in self.images.encoded():
            waiting.append((number, self._decoded(number, encoded)))
            if len(waiting) == BATCH_SIZE:
                yield _stacked(waiting)
                waiting = []
        if waiting:
            yield _stacked(waiting)

    def _decoded(self, number: int, encoded: bytes) -> Tiles:
        row = self.images.rows[number]
        if sha256_bytes(encoded) != row["sha256"]:
            raise InputError(
                f"{self.images.root}: tile {row['key']} is not the one that {self.images.index} names; "
                "the set was changed: fetch or freeze it again"
            )
        pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
        if pixels is None or pixels.shape != (*self.images.image_hw, 3):
            raise InputError(f"{self.images.root}: tile {row['key']} cannot be decoded; freeze the set again")
        return pixels.astype(np.uint8, copy=False)


def _stacked(waiting: Sequence[tuple[int, Tiles]]) -> tuple[list[int], Tiles]:
    return [number for number, _ in waiting], np.stack([pixels for _, pixels in waiting])


def freeze(photos: Path, tiles: Path, out: Path, run: Run) -> dict[str, object]:
    """Write the test tiles of `tiles`, cut from `photos`, as an evaluation set.

    Without test tiles it takes the validation tiles, as `evaluate` does; the gate leaves out what chose a model, so
    they can only judge models of other photos.

    Raises:
        InputError: no tiles of either, or photos and tiles do not belong together.
    """
    with new_directory(out) as folder:
        write_set(photos, tiles, folder, run)
    frozen = open_set(out)
    return {
        "tiles": f"{len(frozen.images)} of {len(set(frozen.truth.photo_N.tolist()))} photos",
        "digest": frozen.digest,
        "written": out,
    }


def write_set(photos: Path, tiles: Path, folder: Path, run: Run) -> None:
    """Write an evaluation set into an empty folder; see `freeze`."""
    images = ImageSet.open(tiles)
    test = set(images.where("test") or images.where("val"))
    if not test:
        raise InputError(f"{tiles} has no test and no validation tiles; set tile.test_fraction above 0")
    origins = _origins(photos, tiles)
    widths = _Widths(photos, origins)
    with closing(ImageSetWriter(folder)) as writer:
        for number, encoded in run.track(images.encoded(), "freezing test tiles", len(images)):
            if number in test:
                row = images.rows[number]
                kept = {name: row[name] for name in TAKEN_COLUMNS}
                kept |= {"photo_sha256": _origin(origins, row, tiles)["sha256"]}
                writer.add(row["key"], encoded, **kept, crack_width_px=widths.of(row))
        writer.finish("tiles.csv", images.classes, images.image_hw)


def training_photos(photos: Path, tiles: Path) -> list[dict[str, Any]]:
    """Photos of the training and validation tiles with the sha256 of their files, rows of PHOTO_COLUMNS."""
    origins = _origins(photos, tiles)
    counted: dict[tuple[str, str], int] = {}
    for row in ImageSet.open(tiles).rows:
        if row["split"] != "test":
            counted[row["photo"], row["split"]] = counted.get((row["photo"], row["split"]), 0) + 1
    return [
        {
            "photo": photo,
            "source": origins[photo]["source"],
            "sha256": origins[photo]["sha256"],
            "split": split,
            "num_tiles": number,
        }
        for (photo, split), number in sorted(counted.items())
        if _origin(origins, {"photo": photo}, tiles)
    ]


def _origins(photos: Path, tiles: Path) -> dict[str, Row]:
    """Rows of the photos and ready tiles that `tiles` were cut from, by name."""
    if not (photos / "photos.csv").is_file():
        raise InputError(f"{photos} holds no photos.csv; give the photos that {tiles} were cut from")
    ready = ImageSet.open(photos / "ready").rows if (photos / "ready").is_dir() else ()
    return {row["photo"]: row for row in (*read_csv(photos / "photos.csv"), *ready)}


def _origin(origins: Mapping[str, Row], row: Row, tiles: Path) -> Row:
    if row["photo"] not in origins:
        raise InputError(
            f"{tiles} has tiles of {row['photo']}, which is not among the photos; give those that it was cut from"
        )
    return origins[row["photo"]]


class _Widths:
    """Crack widths of tiles; the mask of the last photo is kept, as tiles come photo by photo."""

    def __init__(self, photos: Path, origins: Mapping[str, Row]) -> None:
        self._photos, self._origins = photos, origins
        self._photo, self._to_wall = "", np.zeros((0, 0), np.float32)

    def of(self, row: Row) -> float | str:
        """Width in pixels, or "" where there is no mask."""
        if not row["x0_px"]:
            return "" if row["label"] == "1" else 0.0
        if row["photo"] != self._photo:
            mask = decode_file(self._photos / self._origins[row["photo"]]["mask"], decode_mask)
            marked = (mask != 0).astype(np.uint8)
            self._to_wall = np.asarray(
                cv2.distanceTransform(marked, cv2.DIST_L2, cv2.DIST_MASK_5), np.float32
            )
            self._photo = row["photo"]
        x0, y0, x1, y1 = (int(row[name]) for name in ("x0_px", "y0_px", "x1_px", "y1_px"))
        farthest = float(self._to_wall[y0:y1, x0:x1].max())
        return round(max(0.0, 2 * farthest - 1), 2)


def open_set(root: Path, expected: str | None = None) -> FrozenSet:
    """Open an evaluation set, which must have the `expected` digest if one is given.

    Raises:
        InputError: no evaluation set, a column missing, no tiles, or another digest.
    """
    images = ImageSet.open(root)
    missing = [name for name in NEEDED_COLUMNS if not images.rows or name not in images.rows[0]]
    if missing:
        raise InputError(
            f"{root} is no evaluation set: {'columns ' + str(missing) + ' are' if images.rows else 'every tile is'} "
            "missing; make one with `damcrack freeze`"
        )
    _check_digest(str(root), images.digest, expected)
    return FrozenSet(images)


def fetch_set(
    place: str, expected: str | None, open_source: Callable[[str], Source], scratch: Path
) -> FrozenSet:
    """Open an evaluation set in a folder or under s3://bucket/prefix; the latter needs its digest.

    It is fetched once, and kept by its digest. Only names that an evaluation set has are read.

    Raises:
        InputError: as `open_set`; the source cannot be read, or no digest is given for it.
    """
    if "://" not in place:
        return open_set(Path(place), expected)
    if expected is None:
        raise InputError(
            f"evaluation set {place}: its digest is missing; give the one that `damcrack freeze` printed, "
            "as evaluation_sha256"
        )
    kept = scratch / KEPT / expected
    if not kept.is_dir():
        source = open_source(place)
        with new_directory(kept) as folder:
            (folder / "shards").mkdir()
            for name in ("set.json", "tiles.csv"):
                write_bytes(folder / name, _read(source, place, name))
            settings = json.loads((folder / "set.json").read_text())
            if settings.get("index") != "tiles.csv":
                raise InputError(
                    f"{place} is no evaluation set: its set.json names another index than tiles.csv"
                )
            _check_digest(place, sha256_file(folder / "tiles.csv"), expected)
            for shard in sorted({row["shard"] for row in read_csv(folder / "tiles.csv")}):
                if not SHARD.fullmatch(shard):
                    raise InputError(
                        f"{place}: tiles.csv names the shard {shard!r}; expected 00000.tar and so on"
                    )
                write_bytes(folder / "shards" / shard, _read(source, place, f"shards/{shard}"))
    return open_set(kept, expected)


def _read(source: Source, place: str, name: str) -> bytes:
    try:
        return source.read(name)
    except FileNotFoundError as error:
        raise InputError(f"{place} is no evaluation set: {name} is missing; mend the address") from error


def _check_digest(place: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise InputError(
            f"the evaluation set {place} has digest {found[:12]}, expected {expected[:12]}: it was changed; "
            "give the set that was agreed on, or agree on this one by its digest (evaluation_sha256)"
        )
