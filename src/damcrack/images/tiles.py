"""Tiles as files: cut from one decoded photo, fingerprinted, encoded as JPEG."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from damcrack.errors import InputError, PhotoError
from damcrack.images.photo import decode_photo
from damcrack.math.duplicates import Hashes, Thumbnails, fingerprint
from damcrack.math.tiling import Boxes, Image

# Photos were checked against the user's limit when they were taken in.
MAX_PIXELS = 2**31 - 1


@dataclass(frozen=True)
class EncodedTiles:
    """JPEGs with the difference hashes (N,) and thumbnails (N, 16, 16) of the pixels they were made from."""

    encoded: list[bytes]
    hashes: Hashes
    thumbnails: Thumbnails


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


def cut_photo(path: Path, size_hw: tuple[int, int], boxes: Boxes, quality: int) -> EncodedTiles:
    """Decode a photo once and encode its tiles at `boxes` (N, 4).

    Raises:
        InputError: the photo cannot be read or has another size than `size_hw`.
    """
    photo = decode_file(path, decode_photo)
    if photo.shape[:2] != size_hw:
        raise InputError(
            f"{path}: {photo.shape[1]}x{photo.shape[0]} px, photos.csv says {size_hw[1]}x{size_hw[0]}; "
            "run the photos stage again"
        )
    tiles = [photo[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist()]
    return _fingerprinted([encode_tile(tile, quality) for tile in tiles], tiles)


def fit_ready_tiles(encoded: Sequence[bytes], tile_px: int, quality: int) -> EncodedTiles:
    """Bring ready-made JPEG tiles to `tile_px` square; those that fit already keep their bytes."""
    tiles, jpegs = [], []
    for original in encoded:
        tile = decode_photo(original, MAX_PIXELS)
        if tile.shape[:2] == (tile_px, tile_px):
            jpegs.append(original)
        else:
            shrinks = min(tile.shape[:2]) > tile_px
            way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            tile = np.asarray(cv2.resize(tile, (tile_px, tile_px), interpolation=way), np.uint8)
            jpegs.append(encode_tile(tile, quality))
        tiles.append(tile)
    return _fingerprinted(jpegs, tiles)


def _fingerprinted(encoded: list[bytes], tiles: Sequence[Image]) -> EncodedTiles:
    hashes, thumbnails = zip(*map(fingerprint, tiles), strict=True)
    return EncodedTiles(encoded, np.array(hashes), np.stack(thumbnails))


class Spool:
    """Byte strings kept in a nameless file until it is known which of them are wanted."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._ends = [0]

    def add(self, content: bytes) -> None:
        """Append; the first is number 0."""
        self._file.write(content)
        self._ends.append(self._ends[-1] + len(content))

    def read(self, number: int) -> bytes:
        """The byte string that was added as `number`."""
        start, end = self._ends[number : number + 2]
        self._file.seek(start)
        return self._file.read(end - start)

    def close(self) -> None:
        """Give the space back."""
        self._file.close()
