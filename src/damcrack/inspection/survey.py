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

import cv2
import numpy as np
import simplejpeg

from damcrack.data.photo import decode_photo, encode_mask
from damcrack.files import (
    PhotoError,
    in_order,
    new_directory,
    num_workers,
    sha256_bytes,
    write_bytes,
)
from damcrack.inspection.detector import OnnxDetector
from damcrack.inspection.findings import Findings, Pixels, folder_name, preview
from damcrack.inspection.photo import Inspected, Rules, look_at
from damcrack.inspection.review import block_files
from damcrack.inspection.scale import Scale, position
from damcrack.inspection.sources import Photo, Unusable

PREVIEW_PX = 1024
PREVIEW_QUALITY = 80
DETAIL_QUALITY = 85
BLURRED_SHRINK = 8

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

        As many photos as there are cores are in memory, however many there are: while one is read or its cracks are
        traced, the network looks at another. A single photo has all cores to itself.
        """
        with ThreadPoolExecutor(num_workers()) as workers:
            yield from in_order(partial(self._look_at, workers), photos)

    def _look_at(self, workers: Executor, photo: Photo | Unusable) -> Path | Unusable:
        if isinstance(photo, Unusable):
            return photo
        try:
            return self._folder(photo, workers)
        except PhotoError as error:
            return Unusable(photo.name, str(error))

    def _folder(self, photo: Photo, workers: Executor) -> Path:
        """Folder of the photo's findings: from an earlier call, or made now."""
        digest = sha256_bytes(photo.encoded)
        folder = self.root / "photos" / folder_name(photo.name, digest)
        known = Findings.read_if_usable(folder)
        if known and known.key == self._key(photo, digest, (known.height_px, known.width_px)):
            return folder
        rgb = decode_photo(photo.encoded, self.max_pixels)
        size_hw = rgb.shape[0], rgb.shape[1]
        gsd = self._gsd(photo, size_hw)
        inspected = look_at(rgb, self.detector, self.rules, workers)
        findings = Findings(
            photo=photo.name,
            sha256=digest,
            key=self._key(photo, digest, size_hw),
            gsd_mm_per_px=gsd,
            lon_lat=position(photo.encoded),
            block_px=self.detector.tile_px,
            threshold=self.rules.threshold,
            uncertain=self.rules.uncertain,
            height_px=size_hw[0],
            width_px=size_hw[1],
            verdict=inspected.verdict,
            blocks=inspected.blocks,
            cracks=inspected.cracks,
        )
        self._write(folder, rgb, findings, inspected)
        del rgb
        _give_memory_back()
        return folder

    def _gsd(self, photo: Photo, size_hw: tuple[int, int]) -> float | None:
        return self.scale.of(photo.name, photo.encoded, size_hw[1], size_hw[0])

    def _key(self, photo: Photo, digest: str, size_hw: tuple[int, int]) -> str:
        """Names everything that the findings depend on."""
        gsd = self._gsd(photo, size_hw)
        return sha256_bytes(repr((photo.name, digest, self.detector.sha256, self.rules, gsd)).encode())

    def _write(self, out: Path, rgb: Pixels, findings: Findings, inspected: Inspected) -> None:
        with new_directory(out, "photo") as folder:
            write_bytes(folder / "preview.jpg", _jpeg(preview(rgb, PREVIEW_PX), PREVIEW_QUALITY))
            if findings.verdict == "crack":
                write_bytes(folder / "mask.png", encode_mask(inspected.masks.sure))
                sharp = positive_only(rgb, inspected, self.rules.threshold)
                write_bytes(folder / "detail.jpg", _jpeg(sharp, DETAIL_QUALITY))
            if inspected.masks.possible.any():
                write_bytes(folder / "possible.png", encode_mask(inspected.masks.possible))
            for name, encoded in block_files(rgb, findings).items():
                (folder / "review").mkdir(exist_ok=True)
                write_bytes(folder / "review" / name, encoded)
            findings.write(folder)


def _give_memory_back() -> None:
    """Have the C library hand freed memory to the system; what it keeps by itself falls into pieces and grows."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def positive_only(rgb: Pixels, inspected: Inspected, threshold: float) -> Pixels:
    """The photo, blurred but for blocks that are positive or hold crack pixels: every crack at full size."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (max(1, width // BLURRED_SHRINK), max(1, height // BLURRED_SHRINK)))
    image = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    for (x0, y0, x1, y1), prob in zip(inspected.boxes.tolist(), inspected.crack_prob, strict=True):
        if prob >= threshold or inspected.masks.sure[y0:y1, x0:x1].any():
            image[y0:y1, x0:x1] = rgb[y0:y1, x0:x1]
    return image


def _jpeg(rgb: Pixels, quality: int) -> bytes:
    """In a third of OpenCV's time; these pictures are to be looked at, no network sees them."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB", "420"))
