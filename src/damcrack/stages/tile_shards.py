"""Tiles that several machines have cut, each from its share of the photos, for the `tile` stage to put together.

SHARDS/K/cut.json            which share of which photos with which values
SHARDS/K/fingerprints.npz    hashes (N,) and thumbnails (N, 16, 16)
SHARDS/K/tiles.csv, set.json, shards/    an image set in the order of the photos

Which tiles are taken is decided over all photos' masks, by each machine alike; masks are a small part of the
work. So a shard holds chosen tiles only, and photos without one are decoded nowhere.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from damcrack.errors import InputError
from damcrack.images.imageset import ImageSet, ImageSetWriter
from damcrack.images.tiles import EncodedTiles
from damcrack.outputs import new_directory, sha256_bytes, write_json

Job = Callable[[], EncodedTiles]


@dataclass(frozen=True)
class Share:
    """Share `number` of `count`: every photo whose place among the labelled ones leaves that remainder."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise InputError(f"--shard {self.number} --of {self.count}: expected 0 <= shard < of")


def write_shard(
    out: Path, share: Share, inputs: dict[str, Any], cut: Iterable[EncodedTiles], tile_px: int
) -> int:
    """Write the tiles of a share; return how many. `inputs` are what they are a function of."""
    hashes, thumbnails = [np.zeros(0, np.uint64)], [np.zeros((0, 16, 16), np.uint8)]
    with new_directory(out) as folder, closing(ImageSetWriter(folder)) as writer:
        for tiles in cut:
            for encoded in tiles.encoded:
                writer.add(f"{len(writer.rows):06d}.jpg", encoded, label="", split="")
            hashes.append(tiles.hashes)
            thumbnails.append(tiles.thumbnails)
        writer.finish("tiles.csv", (), (tile_px, tile_px))
        np.savez(
            folder / "fingerprints.npz", hashes=np.concatenate(hashes), thumbnails=np.concatenate(thumbnails)
        )
        write_json(folder / "cut.json", {"number": share.number, "count": share.count, "inputs": inputs})
        return len(writer.rows)


class CutShards:
    """All shards of a cut; `taken` gives each photo's tiles in turn.

    Raises:
        InputError: a shard is missing, damaged, or was cut from other photos or with other values.
    """

    def __init__(self, root: Path, inputs: dict[str, Any]) -> None:
        found = sorted(root.glob("*/cut.json"))
        if not found:
            raise InputError(f"{root} holds no shards; cut them with `damcrack tile-shard`")
        wanted = json.loads(json.dumps(inputs))
        self._tiles: dict[int, Iterator[tuple[bytes, Any, Any]]] = {}
        for path in found:
            cut = json.loads(path.read_text())
            if cut["inputs"] != wanted:
                raise InputError(
                    f"{path.parent} was cut from other photos or with other values; cut it again"
                )
            self.count = cut["count"]
            self._tiles[cut["number"]] = _tiles(path.parent)
        missing = sorted(set(range(self.count)) - set(self._tiles))
        if missing or len(found) != self.count:
            raise InputError(
                f"{root}: {len(found)} shards of {self.count}, missing {missing}; cut them with "
                f"`damcrack tile-shard --shard K --of {self.count}`"
            )

    def taken(self, origin: int, num: int) -> EncodedTiles:
        """The next `num` tiles of the shard that has this photo; ask in the order of the photos."""
        number = origin % self.count
        tiles = list(islice(self._tiles[number], num))
        if len(tiles) != num:
            raise InputError(f"shard {number} holds too few tiles; cut it again")
        encoded, hashes, thumbnails = zip(*tiles, strict=True)
        return EncodedTiles(list(encoded), np.array(hashes), np.stack(thumbnails))


def _tiles(folder: Path) -> Iterator[tuple[bytes, Any, Any]]:
    images = ImageSet.open(folder)
    with np.load(folder / "fingerprints.npz") as kept:
        hashes, thumbnails = kept["hashes"], kept["thumbnails"]
    for number, encoded in images.encoded():
        if sha256_bytes(encoded) != images.rows[number]["sha256"]:
            raise InputError(f"{folder}: {images.rows[number]['key']} is damaged; cut this shard again")
        yield encoded, hashes[number], thumbnails[number]
