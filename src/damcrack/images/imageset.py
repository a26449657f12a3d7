"""Image sets: JPEGs in tar shards with one CSV index.

    SET/set.json             format, classes, image size
    SET/tiles.csv            (or images.csv) one row per image: key, shard, label, split, sha256, and more
    SET/shards/00000.tar     the JPEGs, named by key

Forty thousand loose files are slow in DVC and object stores; a few tar files are not (WebDataset's layout).
"""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Self

from damcrack.errors import InputError
from damcrack.outputs import read_csv, sha256_bytes, sha256_file, write_csv, write_json

FORMAT = 1
REQUIRED_COLUMNS = ("key", "shard", "label", "split", "sha256")
SPLITS = ("train", "val", "test")

_LONGEST_KEY = 100  # bytes
# The header of a member without name and size, and what its checksum lacks then (it counts itself as spaces).
_TAR_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_TAR_CHECKSUM = int(_TAR_HEADER[148:154], 8) - sum(b"0" * 11)


class ImageSetWriter:
    """Stream encoded images into shards of about `shard_mib`; `finish` writes the index.

    The same images in the same order give the same bytes: tar members carry no time, owner or mode.
    """

    def __init__(self, root: Path, shard_mib: int = 64) -> None:
        self.root = root
        self.rows: list[dict[str, Any]] = []
        self._limit = shard_mib * 2**20
        self._tar: BinaryIO | None = None
        self._written = 0
        self._num_shards = 0
        (root / "shards").mkdir(parents=True)

    def add(self, key: str, encoded: bytes, **columns: Any) -> None:
        """Append one encoded image under `key` (unique, no path separators)."""
        if self._tar is None or self._written >= self._limit:
            self._open_next()
        assert self._tar is not None
        self._tar.write(_tar_member(key, encoded))
        self._written += len(encoded)
        shard = f"{self._num_shards - 1:05d}.tar"
        self.rows.append({"key": key, "shard": shard, "sha256": sha256_bytes(encoded), **columns})

    def _open_next(self) -> None:
        self.close()
        self._tar = (self.root / "shards" / f"{self._num_shards:05d}.tar").open("wb", buffering=2**20)
        self._num_shards += 1
        self._written = 0

    def drop(self, unwanted: Sequence[bool]) -> None:
        """Take images out again, True per row; only shards that hold one of them are written anew."""
        self.close()
        shards = {row["shard"] for row, drop in zip(self.rows, unwanted, strict=True) if drop}
        self.rows = [row for row, drop in zip(self.rows, unwanted, strict=True) if not drop]
        for shard in sorted(shards):
            kept = {row["key"] for row in self.rows if row["shard"] == shard}
            path = self.root / "shards" / shard
            old = path.rename(path.with_suffix(".old"))
            if kept:
                with path.open("wb") as tar:
                    for key, encoded in _members(old):
                        if key in kept:
                            tar.write(_tar_member(key, encoded))
                    tar.write(_tar_end(tar.tell()))
            old.unlink()

    def close(self) -> None:
        """Close the open shard; needed only when giving up before `finish`."""
        if self._tar is not None:
            self._tar.write(_tar_end(self._tar.tell()))
            self._tar.close()
            self._tar = None

    def finish(self, index: str, classes: Sequence[str], image_hw: tuple[int, int]) -> None:
        """Write the index from `rows` (every row now carries label and split) and close the set."""
        self.close()
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
        try:
            settings: Mapping[str, Any] = json.loads((root / "set.json").read_text())
        except FileNotFoundError as error:
            raise InputError(
                f"{root} is not an image set: set.json is missing; run the stage that makes it"
            ) from error
        if settings.get("format") != FORMAT:
            raise InputError(
                f"{root}: image set format {settings.get('format')!r}, expected {FORMAT}; make it again"
            )
        rows = tuple(read_csv(root / settings["index"]))
        missing = [name for name in REQUIRED_COLUMNS if rows and name not in rows[0]]
        if missing:
            raise InputError(f"{root / settings['index']}: columns {missing} are missing; make the set again")
        height, width = settings["image_hw"]
        return cls(root, settings["index"], tuple(settings["classes"]), (height, width), rows)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the index; the index holds each image's hash, so this names the content."""
        return sha256_file(self.root / self.index)

    @cached_property
    def labels(self) -> list[int]:
        """Class index per row."""
        return [int(row["label"]) for row in self.rows]

    def where(self, split: str) -> list[int]:
        """Row numbers of one split, in index order."""
        return [number for number, row in enumerate(self.rows) if row["split"] == split]

    def encoded(self) -> Iterator[tuple[int, bytes]]:
        """Yield (row number, encoded bytes) for every image, shard by shard in file order.

        Raises:
            InputError: a shard is missing, cut short, or holds other images than the index says.
        """
        number_of = {(row["shard"], row["key"]): number for number, row in enumerate(self.rows)}
        seen = 0
        for shard in sorted({row["shard"] for row in self.rows}):
            for key, encoded in _members(self.root / "shards" / shard):
                if (shard, key) not in number_of:
                    raise InputError(
                        f"{self.root}: {key} in {shard} is not in {self.index}; make the set again"
                    )
                seen += 1
                yield number_of[shard, key], encoded
        if seen != len(self.rows):
            raise InputError(
                f"{self.root}: {seen} images in the shards, {len(self.rows)} rows in {self.index}"
            )


def _tar_member(key: str, encoded: bytes) -> bytes:
    # What TarInfo.tobuf makes, in a tenth of its time: with forty thousand members it would be a tenth of all tiling.
    name, size = key.encode(), b"%011o" % len(encoded)
    if len(name) > _LONGEST_KEY:
        raise ValueError(f"key: {key!r} has {len(name)} bytes, a tar header holds {_LONGEST_KEY}")
    header = bytearray(_TAR_HEADER)
    header[: len(name)], header[124:135] = name, size
    header[148:154] = b"%06o" % (_TAR_CHECKSUM + sum(name) + sum(size))
    return b"".join([header, encoded, bytes(-len(encoded) % tarfile.BLOCKSIZE)])


def _tar_end(written: int) -> bytes:
    end = 2 * tarfile.BLOCKSIZE
    return bytes(end + -(written + end) % tarfile.RECORDSIZE)


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, file.read()
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} cannot be read ({error}); make the set again") from error
