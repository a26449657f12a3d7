"""All photos of one survey, one after the other: each is kept when it is done, so a later call goes on.

OUT/photos/NAME-HASH/findings.json    blocks, cracks, scale, hashes: everything that is known of the photo
OUT/photos/NAME-HASH/mask.png         its crack pixels
OUT/photos/NAME-HASH/possible.png     the same and fainter lines: what `damcrack compare` never calls new
OUT/photos/NAME-HASH/preview.jpg      the photo, small
OUT/photos/NAME-HASH/detail.jpg       its positive blocks at full size, the rest blurred
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from damcrack.errors import PhotoError
from damcrack.images.photo import decode_photo, encode_jpeg
from damcrack.outputs import new_directory, sha256_bytes, write_bytes, write_json
from damcrack.parallel import num_workers
from damcrack.stages.inspection.detector import OnnxDetector
from damcrack.stages.inspection.kept import Pixels, folder_name, known_findings, preview
from damcrack.stages.inspection.photo import Findings, Rules, as_rows, look_at
from damcrack.stages.inspection.review import block_files
from damcrack.stages.inspection.scale import Scale, position
from damcrack.stages.inspection.sources import Photo, Unusable
from damcrack.stages.run import Run

Item = TypeVar("Item")
Result = TypeVar("Result")

PREVIEW_PX = 1024
PREVIEW_QUALITY = 80
DETAIL_QUALITY = 85
BLURRED_SHRINK = 8


@dataclass(frozen=True)
class Decoded:
    """A photo that can be looked at; `key` names everything that its findings depend on, `kept` is their folder."""

    photo: Photo
    key: str
    kept: Path
    rgb: Pixels | None  # None: it was looked at before
    gsd_mm_per_px: float | None
    lon_lat: tuple[float, float] | None


@dataclass(frozen=True)
class Survey:
    """What is the same for all photos of a survey."""

    root: Path
    detector: OnnxDetector
    rules: Rules
    scale: Scale
    max_pixels: int

    def look_at_all(self, photos: Iterable[Photo | Unusable], run: Run) -> Iterator[Path | Unusable]:
        """Look at photo after photo, unless that was done before; yields the folder of each.

        The next photo is decoded while one is looked at: two are in memory, however many there are.
        """
        with ThreadPoolExecutor(num_workers()) as workers, ThreadPoolExecutor(1) as ahead:
            for item in _one_ahead(self._decode, photos, ahead):
                if isinstance(item, Unusable):
                    run.say(f"set aside: {item.name}: {item.reason}")
                    yield item
                    continue
                try:
                    if item.rgb is not None:
                        self._keep(item, workers)
                except PhotoError as error:
                    run.say(f"set aside: {item.photo.name}: {error}")
                    yield Unusable(item.photo.name, str(error))
                    continue
                yield item.kept

    def _decode(self, photo: Photo | Unusable) -> Decoded | Unusable:
        if isinstance(photo, Unusable):
            return photo
        digest = sha256_bytes(photo.encoded)
        kept = self.root / "photos" / folder_name(photo.name, digest)
        try:
            known = known_findings(kept)
            rgb = None if known else decode_photo(photo.encoded, self.max_pixels)
            gsd = None
            if rgb is not None:
                gsd = self.scale.of(photo.name, photo.encoded, rgb.shape[1], rgb.shape[0])
            elif known:
                gsd = self.scale.of(photo.name, photo.encoded, known["width_px"], known["height_px"])
            key = self._key(photo.name, digest, gsd)
            if known and known["key"] != key:
                rgb = decode_photo(photo.encoded, self.max_pixels)
            return Decoded(photo, key, kept, rgb, gsd, position(photo.encoded))
        except PhotoError as error:
            return Unusable(photo.name, str(error))

    def _key(self, name: str, digest: str, gsd: float | None) -> str:
        return sha256_bytes(repr((name, digest, self.detector.sha256, self.rules, gsd)).encode())

    def _keep(self, decoded: Decoded, workers: Executor) -> None:
        assert decoded.rgb is not None
        findings = look_at(decoded.rgb, self.detector, self.rules, workers)
        rows = {
            "photo": decoded.photo.name,
            "sha256": sha256_bytes(decoded.photo.encoded),
            "key": decoded.key,
            "gsd_mm_per_px": decoded.gsd_mm_per_px,
            "lon_lat": decoded.lon_lat,
            "block_px": self.detector.tile_px,
            "threshold": self.rules.threshold,
            "uncertain": list(self.rules.uncertain),
            **as_rows(findings),
        }
        with new_directory(decoded.kept) as folder:
            write_bytes(
                folder / "preview.jpg", encode_jpeg(preview(decoded.rgb, PREVIEW_PX), PREVIEW_QUALITY)
            )
            if findings.verdict == "crack":
                write_bytes(folder / "mask.png", _png(findings.masks.sure))
                write_bytes(folder / "possible.png", _png(findings.masks.possible))
                sharp = positive_only(decoded.rgb, findings, self.rules.threshold)
                write_bytes(folder / "detail.jpg", encode_jpeg(sharp, DETAIL_QUALITY))
            for name, encoded in block_files(decoded.rgb, rows, self.rules.uncertain).items():
                (folder / "review").mkdir(exist_ok=True)
                write_bytes(folder / "review" / name, encoded)
            write_json(folder / "findings.json", rows)


def positive_only(rgb: Pixels, findings: Findings, threshold: float) -> Pixels:
    """The photo, blurred but for its positive blocks: a tenth of the bytes, and every crack at full size."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb, (max(1, width // BLURRED_SHRINK), max(1, height // BLURRED_SHRINK)))
    image = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    for x0, y0, x1, y1 in findings.boxes[findings.crack_prob >= threshold].tolist():
        image[y0:y1, x0:x1] = rgb[y0:y1, x0:x1]
    return image


def _png(mask: Pixels) -> bytes:
    done, encoded = cv2.imencode(".png", mask * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert done
    return bytes(encoded)


def _one_ahead(work: Callable[[Item], Result], items: Iterable[Item], ahead: Executor) -> Iterator[Result]:
    """Yield `work(item)` in order, with the next one under way."""
    waiting = None
    for item in items:
        coming = ahead.submit(work, item)
        if waiting is not None:
            yield waiting.result()
        waiting = coming
    if waiting is not None:
        yield waiting.result()
