"""A photo with its cracks drawn in, as one picture to send: lines, numbers and widths, readable at every size."""

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image

from damcrack.data.photo import decode_photo
from damcrack.inspection.findings import Findings, Pixels, preview
from damcrack.inspection.measure import Crack

LINE, HALO, PAPER, INK = (255, 59, 47), (255, 255, 255), (255, 255, 255), (20, 20, 20)
QUALITY = 92
LARGEST_PX = 65_500  # of a JPEG
TEXT_SHARE = 1 / 70  # of the longer side: 4 mm on a page of A4
FONT = cv2.FONT_HERSHEY_SIMPLEX
# What describes the photo and its camera; the rest of the first part describes how the file is stored.
KEPT = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
MAKER_NOTE = 0x927C  # its offsets would lead nowhere
LONGEST_VALUE = 4096  # all of EXIF must fit into 64 kB

Box = tuple[int, int, int, int]


def annotated(encoded: bytes, findings: Findings, max_pixels: int) -> bytes:
    """Draw the cracks of a photo on it; a JPEG, upright, with the photo's EXIF and colour profile.

    Raises:
        PhotoError: the photo cannot be decoded.
    """
    rgb = np.ascontiguousarray(decode_photo(encoded, max_pixels))
    thickness = max(1, round(max(rgb.shape) / 1500))
    for halo, colour in ((thickness + 2, HALO), (thickness, LINE)):
        for crack in findings.cracks:
            lines = [line.astype(np.int32) for line in crack.lines]
            cv2.polylines(rgb, lines, False, colour, halo, cv2.LINE_AA)
    _write_labels(rgb, findings)
    file = io.BytesIO()
    Image.fromarray(preview(rgb, LARGEST_PX)).save(file, "JPEG", quality=QUALITY, **_kept(encoded, rgb))
    return file.getvalue()


def label(number: int, crack: Crack, gsd: float | None) -> str:
    """The crack's number in its photo, its median width and its widest place."""
    scale, unit = (1.0, "px") if gsd is None else (gsd, "mm")
    return f"#{number} {crack.width_px * scale:.2g} (max {crack.width_max_px * scale:.2g}) {unit}"


def _write_labels(rgb: Pixels, findings: Findings) -> None:
    text_px = max(9.0, max(rgb.shape) * TEXT_SHARE)
    scale, weight = text_px / 22, max(1, round(text_px / 12))
    taken = list[Box]()
    for number, crack in enumerate(findings.cracks, 1):
        text = label(number, crack, findings.gsd_mm_per_px)
        (width, height), below = cv2.getTextSize(text, FONT, scale, weight)
        pad = max(2, height // 4)
        size_wh = width + 2 * pad, height + below + 2 * pad
        x, y = box = _free_place(crack.samples, size_wh, (rgb.shape[0], rgb.shape[1]), taken)
        taken.append((x, y, x + size_wh[0], y + size_wh[1]))
        cv2.rectangle(rgb, box, (x + size_wh[0], y + size_wh[1]), PAPER, cv2.FILLED)
        cv2.putText(rgb, text, (x + pad, y + pad + height), FONT, scale, INK, weight, cv2.LINE_AA)


def _free_place(
    samples: Any, size_wh: tuple[int, int], photo_hw: tuple[int, int], taken: Sequence[Box]
) -> tuple[int, int]:
    """Corner of a label beside the crack and inside of the photo, where it covers the least of the others."""
    width, height = size_wh
    gap = height // 2
    middle_first = sorted(range(len(samples)), key=lambda at: abs(at - len(samples) // 2))
    best, least = (0, 0), np.inf
    for at in middle_first[:: max(1, len(samples) // 12)]:
        x, y = samples[at, :2].astype(int).tolist()
        for left, top in ((x + gap, y + gap), (x + gap, y - gap - height), (x - gap - width, y + gap)):
            left = min(max(0, left), max(0, photo_hw[1] - width - 1))
            top = min(max(0, top), max(0, photo_hw[0] - height - 1))
            covered = sum(_overlap((left, top, left + width, top + height), other) for other in taken)
            if covered == 0:
                return left, top
            if covered < least:
                best, least = (left, top), covered
    return best


def _overlap(one: Box, other: Box) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


def _kept(encoded: bytes, rgb: Pixels) -> dict[str, Any]:
    """EXIF and colour profile of the photo for the picture made of it, which is upright."""
    with Image.open(io.BytesIO(encoded)) as image:
        tags, profile = image.getexif(), image.info.get("icc_profile") if image.mode == "RGB" else None
    kept = Image.Exif()
    kept.update({tag: tags[tag] for tag in KEPT if tag in tags and _is_short(tags[tag])})
    for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        values = {tag: value for tag, value in tags.get_ifd(part).items() if _is_short(value)}
        values.pop(MAKER_NOTE, None)
        if values:
            kept.get_ifd(part).update(values)
    camera = kept.get_ifd(ExifTags.IFD.Exif)
    camera[ExifTags.Base.ExifImageWidth], camera[ExifTags.Base.ExifImageHeight] = rgb.shape[1], rgb.shape[0]
    kept[ExifTags.Base.Orientation] = 1
    return {"exif": kept.tobytes(), "icc_profile": profile}


def _is_short(value: Any) -> bool:
    return not isinstance(value, (bytes, str)) or len(value) <= LONGEST_VALUE
