"""Tiles as files: cut from one decoded photo, fingerprinted, encoded as JPEG."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from damcrack.data.duplicates import Hashes, Thumbnails, fingerprints, row_averages
from damcrack.data.photo import decode_mask, decode_photo
from damcrack.data.targets import MaskQuality, encode_targets, targets_of
from damcrack.data.tiling import Boxes, Image
from damcrack.files import InputError, PhotoError

# Photos were checked against the user's limit when they were taken in.
MAX_PIXELS = 2**31 - 1

_thread = threading.local()


@dataclass(frozen=True)
class EncodedTiles:
    """JPEGs with the difference hashes (N,) and thumbnails (N, 16, 16) of the pixels they were made from.

    `targets` are PNGs of damcrack.data.targets, one per tile, None where the label says all.
    """

    encoded: list[bytes]
    hashes: Hashes
    thumbnails: Thumbnails
    targets: list[bytes | None]


@dataclass(frozen=True)
class MaskFile:
    """Where a photo's mask lies, and how good the masks of its source are."""

    path: Path
    quality: MaskQuality


def decode_file(path: Path, decode: Callable[[bytes, int], Image]) -> Image:
    """Read a photo or mask that the photos stage has checked.

    Raises:
        InputError: it is gone or damaged since.
    """
    try:
        return decode(path.read_bytes(), MAX_PIXELS)
    except (OSError, PhotoError) as error:
        raise InputError(f"{path}: {error}; run the photos stage again") from error


def encode_tile(tile_rgb: Image, quality: int) -> bytes:
    """JPEG bytes of a tile (H, W, 3) without chroma subsampling, which would smear coloured stains."""
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(tile_rgb, cv2.COLOR_RGB2BGR), settings)
    assert done
    return bytes(encoded)


def cut_photo(
    path: Path, size_hw: tuple[int, int], boxes: Boxes, quality: int, mask: MaskFile | None = None
) -> EncodedTiles:
    """Decode a photo once and encode its tiles at `boxes` (N, 4), with what the pixels of its mask teach.

    Raises:
        InputError: the photo cannot be read or has another size than `size_hw`.
    """
    photo = decode_file(path, partial(decode_photo, memory=_kept_memory(3 * size_hw[0] * size_hw[1])))
    if photo.shape[:2] != size_hw:
        raise InputError(
            f"{path}: {photo.shape[1]}x{photo.shape[0]} px, photos.csv says {size_hw[1]}x{size_hw[0]}; "
            "run the photos stage again"
        )
    tiles = (photo[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist())
    targets: list[bytes | None] = [None] * len(boxes) if mask is None else _cut_targets(mask, boxes)
    return _collected(((encode_tile(tile, quality), tile) for tile in tiles), targets)


def _cut_targets(mask: MaskFile, boxes: Boxes) -> list[bytes | None]:
    """PNGs of the tiles in which not every pixel is known to be clean; a clean tile needs none."""
    pixels = decode_file(mask.path, decode_mask)
    codes = targets_of(pixels, mask.quality)
    return [
        encode_targets(codes[y0:y1, x0:x1]) if codes[y0:y1, x0:x1].any() else None
        for x0, y0, x1, y1 in boxes.tolist()
    ]


def _kept_memory(num_bytes: int) -> Image:
    """Memory of this thread, kept from photo to photo: fresh memory costs a fifth of the decoding time."""
    if not hasattr(_thread, "memory") or len(_thread.memory) < num_bytes:
        _thread.memory = np.empty(num_bytes, np.uint8)
    memory: Image = _thread.memory
    return memory


def fit_ready_tiles(encoded: Sequence[bytes], tile_px: int, quality: int) -> EncodedTiles:
    """Bring ready-made JPEG tiles to `tile_px` square; those that fit already keep their bytes."""
    return _collected((_fitted(original, tile_px, quality) for original in encoded), [None] * len(encoded))


def _fitted(original: bytes, tile_px: int, quality: int) -> tuple[bytes, Image]:
    tile = decode_photo(original, MAX_PIXELS)
    if tile.shape[:2] == (tile_px, tile_px):
        return original, tile
    way = cv2.INTER_AREA if min(tile.shape[:2]) > tile_px else cv2.INTER_CUBIC
    tile = np.asarray(cv2.resize(tile, (tile_px, tile_px), interpolation=way), np.uint8)
    return encode_tile(tile, quality), tile


def _collected(tiles: Iterable[tuple[bytes, Image]], targets: list[bytes | None]) -> EncodedTiles:
    # Tile by tile: its pixels are still in the processor's cache from encoding, which halves the time of the averages.
    jpegs, rows = zip(*((encoded, row_averages(tile)) for encoded, tile in tiles), strict=True)
    return EncodedTiles(list(jpegs), *fingerprints(rows), targets)
