"""Image sets: JPEGs in tar shards with one CSV index.

    SET/set.json             format, classes, image size
    SET/tiles.csv            (or images.csv) one row per image: key, shard, label, split, sha256, and more
    SET/shards/00000.tar     the JPEGs, named by key
    SET/masks/00000.tar      PNGs of damcrack.data.targets, named by key, of the tiles that have one

Forty thousand loose files are slow in DVC and object stores; a few tar files are not (WebDataset's layout).
"""

import io
import tarfile
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.files import (
    InputError,
    check_output,
    new_directory,
    read_csv,
    read_json,
    replacing,
    sha256_bytes,
    sha256_file,
    write_csv,
    write_json,
)
from damcrack.run import Run

FORMAT = 1
REQUIRED_COLUMNS = ("key", "shard", "label", "split", "sha256")
SPLITS = ("train", "val", "test")
UNLABELLED = "unlabelled"  # split of the images that carry no label; theirs is -1

CLASSES = ("no crack", "crack")  # of tiles

SHARDS, MASKS = "shards", "masks"


class ImageSetWriter:
    """Stream encoded images into shards of about `shard_mib`; `finish` writes the index.

    The same images in the same order give the same bytes: tar members carry no time, owner or mode.
    """

    def __init__(self, root: Path, shard_mib: int = 64) -> None:
        self.root = root
        self.rows: list[dict[str, Any]] = []
        self._limit = shard_mib * 2**20
        self._tar: tarfile.TarFile | None = None
        self._masks: tarfile.TarFile | None = None
        self._written = 0
        self._num_shards = 0
        (root / SHARDS).mkdir(parents=True)

    def add(self, key: str, encoded: bytes, **columns: Any) -> None:
        """Append one encoded image under `key` (unique, no path separators)."""
        if self._tar is None or self._written >= self._limit:
            self._open_next()
        assert self._tar is not None
        _append(self._tar, key, encoded)
        self._written += len(encoded)
        shard = f"{self._num_shards - 1:05d}.tar"
        self.rows.append({"key": key, "shard": shard, "sha256": sha256_bytes(encoded), **columns})

    def add_mask(self, encoded: bytes) -> None:
        """Give the image that was added last its mask."""
        row = self.rows[-1]
        if self._masks is None:
            (self.root / MASKS).mkdir(exist_ok=True)
            self._masks = _new_tar(self.root / MASKS / row["shard"])
        _append(self._masks, row["key"], encoded)
        row["mask_sha256"] = sha256_bytes(encoded)

    def _open_next(self) -> None:
        self.close()
        self._tar = _new_tar(self.root / SHARDS / f"{self._num_shards:05d}.tar")
        self._num_shards += 1
        self._written = 0

    def drop(self, unwanted: Sequence[bool]) -> None:
        """Take images out again, True per row; only shards that hold one of them are written again."""
        self.close()
        shards = {row["shard"] for row, drop in zip(self.rows, unwanted, strict=True) if drop}
        self.rows = [row for row, drop in zip(self.rows, unwanted, strict=True) if not drop]
        for shard in sorted(shards):
            kept = {row["key"] for row in self.rows if row["shard"] == shard}
            for folder in (SHARDS, MASKS):
                if (path := self.root / folder / shard).is_file():
                    _keep_members(path, kept)

    def close(self) -> None:
        """Close the open shard; needed only when giving up before `finish`."""
        files, self._tar, self._masks = (self._tar, self._masks), None, None
        with ExitStack() as stack:  # each is closed, whatever a full disk does to the others, and only once
            for tar in filter(None, files):
                stack.callback(tar.close)

    def finish(self, index: str, classes: Sequence[str], image_hw: tuple[int, int]) -> None:
        """Write the index from `rows` (every row now carries label and split) and close the set."""
        self.close()
        if any("mask_sha256" in row for row in self.rows):
            self.rows = [{"mask_sha256": "", **row} for row in self.rows]
        columns = list(dict.fromkeys([*REQUIRED_COLUMNS, *(name for row in self.rows[:1] for name in row)]))
        write_csv(self.root / index, columns, self.rows)
        settings = {"format": FORMAT, "index": index, "classes": list(classes), "image_hw": list(image_hw)}
        write_json(self.root / "set.json", settings)


@dataclass(frozen=True)
class ImageSet:
    """An image set on disk; `rows` follow the index, all values as text."""

    root: Path
    index: str
    classes: tuple[str, ...]
    image_hw: tuple[int, int]
    rows: tuple[dict[str, str], ...]

    @classmethod
    def open(cls, root: Path) -> Self:
        """Read the index of a finished set.

        Raises:
            InputError: no set there, another format, or a column missing.
        """
        settings = read_json(root / "set.json", "run the stage that writes this image set")
        if settings.get("format") != FORMAT:
            raise InputError(
                f"{root}: image set format {settings.get('format')!r}, expected {FORMAT}; make it again"
            )
        try:
            index, classes, (height, width) = (settings[name] for name in ("index", "classes", "image_hw"))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{root / 'set.json'} is damaged ({error!r}); make the set again") from error
        rows = tuple(read_csv(root / index))
        missing = [name for name in REQUIRED_COLUMNS if rows and name not in rows[0]]
        if missing:
            raise InputError(f"{root / index}: columns {missing} are missing; make the set again")
        return cls(root, index, tuple(classes), (height, width), rows)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the index; the index holds each image's hash, so this names the content."""
        return sha256_file(self.root / self.index)

    @cached_property
    def labels(self) -> list[int]:
        """Class index per row, -1 without a label.

        Raises:
            InputError: one is no number of a class.
        """
        numbers = {str(number): number for number in range(-1, len(self.classes))}
        try:
            return [numbers[row["label"]] for row in self.rows]
        except KeyError as error:
            raise InputError(
                f"{self.root / self.index}: label {error}, expected {[*numbers]}; make the set again"
            ) from error

    def where(self, split: str) -> list[int]:
        """Row numbers of one split, in index order."""
        return [number for number, row in enumerate(self.rows) if row["split"] == split]

    def encoded(self) -> Iterator[tuple[int, bytes]]:
        """Yield (row number, encoded bytes) for every image, shard by shard in file order.

        Raises:
            InputError: a shard is missing, cut short, or holds other images than the index says, by name or by hash.
        """
        yield from self._stored(SHARDS, "sha256", range(len(self)))

    def masks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (row number, PNG bytes) for every image that has a mask, shard by shard in file order.

        Raises:
            InputError: as `encoded`.
        """
        numbers = [n for n, row in enumerate(self.rows) if row.get("mask_sha256")]
        yield from self._stored(MASKS, "mask_sha256", numbers)

    def _stored(self, folder: str, hashes: str, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        number_of = {(self.rows[n]["shard"], self.rows[n]["key"]): n for n in numbers}
        seen = 0
        for shard in sorted({shard for shard, _ in number_of}):
            for key, encoded in _members(self.root / folder / shard):
                if (shard, key) not in number_of:
                    raise InputError(
                        f"{self.root}: {key} in {folder}/{shard} is not in {self.index}; make the set again"
                    )
                number = number_of[shard, key]
                if sha256_bytes(encoded) != self.rows[number][hashes]:
                    raise InputError(
                        f"{self.root}: {key} in {folder}/{shard} is not the one that {self.index} names; "
                        "make the set again"
                    )
                seen += 1
                yield number, encoded
        if seen != len(numbers):
            raise InputError(
                f"{self.root}: {seen} images in {folder}, {len(numbers)} rows in {self.index}; make the set again"
            )


def decode_image(row: int, encoded: bytes, grey: bool = False) -> npt.NDArray[np.uint8]:
    """Pixels of the image of this row: RGB (H, W, 3), or grey (H, W).

    Raises:
        InputError: it cannot be decoded.
    """
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB
    # OpenCV raises where there are no bytes, and answers None to all other damage.
    pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), flag) if encoded else None
    if pixels is None:
        raise InputError(f"image of row {row} cannot be decoded; make the set again")
    return pixels.astype(np.uint8, copy=False)


def _keep_members(path: Path, kept: Container[str]) -> None:
    """Write a tar file again with some of its members; without any it is removed."""
    members = [(key, encoded) for key, encoded in _members(path) if key in kept]
    if not members:
        path.unlink()
        return
    with replacing(path) as temporary, _new_tar(temporary) as tar:
        for key, encoded in members:
            _append(tar, key, encoded)


def _new_tar(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)


def _append(tar: tarfile.TarFile, key: str, encoded: bytes) -> None:
    member = tarfile.TarInfo(key)
    member.size = len(encoded)
    tar.addfile(member, io.BytesIO(encoded))


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                # A sparse file of a few bytes can be gigabytes of zeros; a link has no content here.
                if not member.isreg() or member.issparse() or member.size > path.stat().st_size:
                    raise InputError(
                        f"{path} holds {member.name!r}, which is no plain file; make the set again"
                    )
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, file.read()
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} cannot be read ({error}); make the set again") from error


def tiles_to_folders(tiles: Path, out: Path, run: Run) -> dict[str, object]:
    """Write every image of a set to OUT/<split>/<class>/<key>, bytes unchanged: the paper's layout.

    Spaces in classes become "-"; tiles without a label lie in OUT/unlabelled.

    Raises:
        InputError: `tiles` is no image set, or its shards do not fit its index.
    """
    kind = "tiles-to-folders"
    check_output(out, kind)
    images = ImageSet.open(tiles)
    folders = [name.replace(" ", "-") for name in images.classes]
    with new_directory(out, kind) as root:
        for split in sorted({row["split"] for row in images.rows}):
            for folder in folders if split != UNLABELLED else [""]:
                (root / split / folder).mkdir(parents=True)
        for number, encoded in run.track(images.encoded(), "writing tiles", len(images)):
            row, label = images.rows[number], images.labels[number]
            place = root / row["split"] / (folders[label] if label >= 0 else "")
            (place / row["key"]).write_bytes(encoded)
    return {"tiles": len(images), "written": str(out)}
