"""All photos of one survey, one after the other: each is stored when it is done, so that a later call resumes.

OUT/photos/NAME-HASH/findings.json    blocks, cracks, scale, hashes: everything that is known of the photo
OUT/photos/NAME-HASH/mask.png         its crack pixels
OUT/photos/NAME-HASH/possible.png     the same and fainter pieces of any block: what `damcrack compare` never calls new
OUT/photos/NAME-HASH/preview.jpg      the photo, small
OUT/photos/NAME-HASH/detail.jpg       the photo, upright and at full size: what the page shows, and blocks are cut from
"""

import ctypes
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Condition
from typing import Any, Protocol

from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.findings import Findings, Pixels, encode_picture, folder_name, preview
from damcrack.cracks.gaps import collar, filled
from damcrack.cracks.measure import WEIGHTS
from damcrack.cracks.photo import Inspected, Rules, look_at
from damcrack.data.photo import decode_with_gaps, encode_mask, photo_size_hw, within_memory
from damcrack.files import (
    PhotoError,
    in_order,
    new_directory,
    num_workers,
    sha256_bytes,
    write_bytes,
)
from damcrack.inspection.camera import Camera
from damcrack.inspection.places import Unusable
from damcrack.inspection.scale import Scale
from damcrack.inspection.sources import Photo

FORMAT = 3  # of a photo's folder; folders of another format are written again
PREVIEW_PX = 1024
PREVIEW_QUALITY = 80
# At this quality blocks are at least 43 dB from those of the photo itself: good enough to be learned from.
DETAIL_QUALITY, DETAIL_PX = 95, 32_000
# Measured: a pixel decoded, mapped, traced and drawn; copies of the file, of which large ones are decoded by parts.
BYTES_PER_PIXEL, COPIES_OF_FILE = 7, 3.5
LARGEST_BYTES_PER_PIXEL = 8.5  # of a JPEG with as many pixels as are allowed
MEMORY_BYTES = 640 * 2**20

# Of glibc; other C libraries have none.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


class SharedPhotos(Protocol):
    """Where the machines store the folders of the photos: see cracks.findings for their names."""

    def bring(self, folder: Path, whole: bool = False) -> None:
        """Fill a photo's folder with what another machine found; with the picture of full size only if `whole`."""

    def send(self, folder: Path) -> None:
        """Store a photo's folder."""


@dataclass(frozen=True)
class Survey:
    """What is the same for all photos of a survey; where other machines work on it too, it has `shared` photos."""

    root: Path
    detector: OnnxDetector
    rules: Rules
    scale: Scale
    max_pixels: int
    shared: SharedPhotos | None = None

    def full_size(self, folder: Path) -> Path:
        """The picture of a photo at full size, on this machine."""
        if self.shared:
            self.shared.bring(folder, whole=True)
        return folder / "detail.jpg"

    def look_at_all(self, photos: Iterable[Photo | Unusable]) -> Iterator[tuple[str, Path] | Unusable]:
        """Look at all photos, unless that was done before; yields the name and folder of each, in order.

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
            most = LARGEST_BYTES_PER_PIXEL * self.max_pixels
            if need > most:
                reason = (
                    f"its pixels and its file take {need / 1e9:.1f} GB of memory, expected at most {most / 1e9:.1f}; "
                    "scale it down, save it as JPEG or raise max_megapixels"
                )
                photo, need = Unusable(photo.name, reason), 0
            memory.take(need)
            yield photo, need

    def _look_at(
        self, workers: Executor, memory: "Memory", admitted: tuple[Photo | Unusable, int]
    ) -> tuple[str, Path] | Unusable:
        photo, need = admitted
        if isinstance(photo, Unusable):
            return photo
        try:
            with within_memory():
                return photo.name, self._folder(photo, workers)
        except PhotoError as error:
            return Unusable(photo.name, str(error))
        finally:
            memory.give_back(need)

    def _folder(self, photo: Photo, workers: Executor) -> Path:
        """Folder of the photo's findings: from an earlier call, or made now."""
        folder = self.root / "photos" / folder_name(photo.name, photo.sha256)
        if self.shared:
            self.shared.bring(folder)
        known = Findings.read_if_usable(folder)
        if known and known.key == self._about(photo, (known.height_px, known.width_px))["key"]:
            return folder
        rgb, gaps = decode_with_gaps(photo.encoded, self.max_pixels)
        size_hw = rgb.shape[0], rgb.shape[1]
        about = self._about(photo, size_hw)
        gaps = collar(rgb) if gaps is None else gaps
        seen = rgb if gaps is None else filled(rgb, gaps)
        inspected = look_at(seen, self.detector, self.rules, workers, gaps)
        findings = Findings(
            photo=photo.name,
            sha256=photo.sha256,
            **about,
            block_px=self.detector.tile_px,
            threshold=self.rules.threshold,
            uncertain=self.rules.uncertain,
            height_px=size_hw[0],
            width_px=size_hw[1],
            verdict=inspected.verdict,
            doubt=inspected.doubt,
            blocks=inspected.blocks,
            cracks=inspected.cracks,
        )
        self._write(folder, rgb, findings, inspected)
        if self.shared:
            self.shared.send(folder)
        del rgb, gaps, seen
        _give_memory_back()
        return folder

    def _about(self, photo: Photo, size_hw: tuple[int, int]) -> dict[str, Any]:
        """Scale and place of a photo, and the key that names everything that its findings depend on."""
        gsd = self.scale.of(photo.name, photo.encoded, size_hw[1], size_hw[0])
        place = Camera.of(photo.encoded).lon_lat()
        depends_on = made_by(self.detector, self.rules), photo.name, photo.sha256, gsd, place
        return {"key": sha256_bytes(repr(depends_on).encode()), "gsd_mm_per_px": gsd, "lon_lat": place}

    def _write(self, out: Path, rgb: Pixels, findings: Findings, inspected: Inspected) -> None:
        with new_directory(out, "photo") as folder:
            write_bytes(folder / "preview.jpg", encode_picture(preview(rgb, PREVIEW_PX), PREVIEW_QUALITY))
            write_bytes(folder / "detail.jpg", encode_picture(preview(rgb, DETAIL_PX), DETAIL_QUALITY))
            if findings.cracks:
                write_bytes(folder / "mask.png", encode_mask(inspected.levels // 2))
            if inspected.levels.any():
                write_bytes(folder / "possible.png", encode_mask(inspected.levels))
            findings.write(folder)


def made_by(detector: OnnxDetector, rules: Rules) -> str:
    """Names model, values and the weights of evidence: photos that others of them judged are judged again."""
    return sha256_bytes(repr((FORMAT, detector.sha256, rules, WEIGHTS)).encode())


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
    """Memory that looking at a photo takes, by its header; one of too many pixels is refused before it takes any."""
    try:
        height, width = photo_size_hw(encoded)
    except PhotoError:
        return len(encoded)
    if height * width > max_pixels:
        return len(encoded)
    return round(COPIES_OF_FILE * len(encoded)) + BYTES_PER_PIXEL * height * width


def _give_memory_back() -> None:
    """Have the C library hand freed memory to the system; what it keeps by itself falls into pieces and grows."""
    if _malloc_trim is not None:
        _malloc_trim(0)
