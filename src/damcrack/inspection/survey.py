"""All photos of one survey, one after the other: each is kept when it is done, so a later call goes on.

OUT/photos/NAME-HASH/findings.json    blocks, cracks, scale, hashes: everything that is known of the photo
OUT/photos/NAME-HASH/mask.png         its crack pixels
OUT/photos/NAME-HASH/possible.png     the same and fainter pieces of any block: what `damcrack compare` never calls new
OUT/photos/NAME-HASH/preview.jpg      the photo, small
OUT/photos/NAME-HASH/detail.jpg       its blocks with cracks at full size, the rest blurred
"""

import ctypes
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Condition
from typing import Any

import cv2
import numpy as np
import simplejpeg

from damcrack.data.photo import decode_with_gaps, encode_mask, photo_size_hw
from damcrack.files import (
    PhotoError,
    in_order,
    new_directory,
    num_workers,
    sha256_bytes,
    write_bytes,
    write_json,
)
from damcrack.inspection.detector import OnnxDetector
from damcrack.inspection.findings import Pixels, folder_name, known_findings, preview
from damcrack.inspection.gaps import filled
from damcrack.inspection.photo import Findings, Rules, as_rows, look_at
from damcrack.inspection.places import Unusable
from damcrack.inspection.review import block_files
from damcrack.inspection.scale import Scale, position
from damcrack.inspection.sources import Photo

PREVIEW_PX = 1024
PREVIEW_QUALITY = 80
DETAIL_QUALITY = 85
BLURRED_SHRINK = 8
LONGEST_JPEG_PX = 65_500
BYTES_PER_PIXEL = 10  # measured: decoded, mapped, traced and drawn
MEMORY_BYTES = 640 * 2**20

# Of glibc; other C libraries have none.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Survey:
    """What is the same for all photos of a survey."""

    root: Path
    detector: OnnxDetector
    rules: Rules
    scale: Scale
    max_pixels: int

    def look_at_all(self, photos: Iterable[Photo | Unusable]) -> Iterator[Path | Unusable]:
        """Look at all photos, unless that was done before; yields the folder of each, in order.

        As many photos as there are cores are in memory, however many there are, and fewer where they are large:
        while one is read or its cracks are traced, the network looks at another. A single photo has all cores to
        itself.
        """
        memory = Memory(MEMORY_BYTES)
        with ThreadPoolExecutor(num_workers()) as workers:
            yield from in_order(partial(self._look_at, workers, memory), self._admitted(photos, memory))

    def _admitted(
        self, photos: Iterable[Photo | Unusable], memory: "Memory"
    ) -> Iterator[tuple[Photo | Unusable, int]]:
        """Let the next photo in when there is memory for it."""
        for photo in photos:
            need = 0 if isinstance(photo, Unusable) else needed_bytes(photo.encoded, self.max_pixels)
            memory.take(need)
            yield photo, need

    def _look_at(
        self, workers: Executor, memory: "Memory", admitted: tuple[Photo | Unusable, int]
    ) -> Path | Unusable:
        photo, need = admitted
        if isinstance(photo, Unusable):
            return photo
        try:
            return self._kept(photo, workers)
        except PhotoError as error:
            return Unusable(photo.name, str(error))
        finally:
            memory.give_back(need)

    def _kept(self, photo: Photo, workers: Executor) -> Path:
        """Folder of the photo's findings: from an earlier call, or made now."""
        digest = photo.sha256
        folder = self.root / "photos" / folder_name(photo.name, digest)
        known = known_findings(folder)
        if known and known["key"] == self._key(photo, digest, (known["height_px"], known["width_px"])):
            return folder
        rgb, gaps = decode_with_gaps(photo.encoded, self.max_pixels)
        size_hw = rgb.shape[0], rgb.shape[1]
        facts = {
            "photo": photo.name,
            "sha256": digest,
            "key": self._key(photo, digest, size_hw),
            "gsd_mm_per_px": self._gsd(photo, size_hw),
            "lon_lat": position(photo.encoded),
            "block_px": self.detector.tile_px,
            "threshold": self.rules.threshold,
            "uncertain": list(self.rules.uncertain),
        }
        seen = rgb if gaps is None else filled(rgb, gaps)
        self._keep(folder, rgb, facts, look_at(seen, self.detector, self.rules, workers))
        del rgb, gaps, seen
        _give_memory_back()
        return folder

    def _gsd(self, photo: Photo, size_hw: tuple[int, int]) -> float | None:
        return self.scale.of(photo.name, photo.encoded, size_hw[1], size_hw[0])

    def _key(self, photo: Photo, digest: str, size_hw: tuple[int, int]) -> str:
        """Names everything that the findings depend on."""
        gsd = self._gsd(photo, size_hw)
        return sha256_bytes(repr((photo.name, digest, self.detector.sha256, self.rules, gsd)).encode())

    def _keep(self, out: Path, rgb: Pixels, facts: dict[str, Any], findings: Findings) -> None:
        rows = facts | as_rows(findings)
        with new_directory(out) as folder:
            write_bytes(folder / "preview.jpg", _jpeg(preview(rgb, PREVIEW_PX), PREVIEW_QUALITY))
            if findings.verdict == "crack":
                write_bytes(folder / "mask.png", encode_mask(findings.masks.sure))
                sharp = positive_only(rgb, findings, self.rules.threshold)
                write_bytes(folder / "detail.jpg", _jpeg(sharp, DETAIL_QUALITY))
            if findings.masks.possible.any():
                write_bytes(folder / "possible.png", encode_mask(findings.masks.possible))
            for name, encoded in block_files(rgb, rows, self.rules.uncertain).items():
                (folder / "review").mkdir(exist_ok=True)
                write_bytes(folder / "review" / name, encoded)
            write_json(folder / "findings.json", rows)


class Memory:
    """Bytes that the photos in work may take together; one that needs more than all of it is alone."""

    def __init__(self, num_bytes: int) -> None:
        self._all, self._taken, self._changed = num_bytes, 0, Condition()

    def take(self, num_bytes: int) -> None:
        """Wait until there is so much."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + num_bytes <= self._all)
            self._taken += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Let others have it."""
        with self._changed:
            self._taken -= num_bytes
            self._changed.notify_all()


def needed_bytes(encoded: bytes, max_pixels: int) -> int:
    """Memory that looking at a photo takes; one that will be set aside takes no more than its file."""
    try:
        height, width = photo_size_hw(encoded)
    except PhotoError:
        return len(encoded)
    return 2 * len(encoded) + (BYTES_PER_PIXEL * height * width if height * width <= max_pixels else 0)


def _give_memory_back() -> None:
    """Have the C library hand freed memory to the system; what it keeps by itself falls into pieces and grows."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def positive_only(rgb: Pixels, findings: Findings, threshold: float) -> Pixels:
    """The photo, blurred but for blocks that are positive or hold crack pixels: every crack at full size."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (max(1, width // BLURRED_SHRINK), max(1, height // BLURRED_SHRINK)))
    image = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    for (x0, y0, x1, y1), prob in zip(findings.boxes.tolist(), findings.crack_prob, strict=True):
        if prob >= threshold or findings.masks.sure[y0:y1, x0:x1].any():
            image[y0:y1, x0:x1] = rgb[y0:y1, x0:x1]
    return image


def _jpeg(rgb: Pixels, quality: int) -> bytes:
    """In a third of OpenCV's time; these pictures are to be looked at, no network sees them.

    A longer side than a JPEG can have is scaled down.
    """
    rgb = preview(rgb, LONGEST_JPEG_PX)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB", "420"))
