"""A photo with its cracks drawn in, as one picture to send: lines, numbers and widths, readable at every size."""

import io
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image

from damcrack.data.photo import decode_photo
from damcrack.inspection.camera import UNREADABLE
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
LONGEST_VALUE, LONGEST_EXIF = 4096, 65_000  # a JPEG has 64 kB for all of it

Box = tuple[int, int, int, int]


def annotated(encoded: bytes, findings: Findings, max_pixels: int) -> bytes:
    """Draw the cracks of a photo on it; a JPEG, upright, with the photo's EXIF and colour profile.

    Raises:
        PhotoError: the photo cannot be decoded.
    """
    rgb = np.array(decode_photo(encoded, max_pixels))  # Pillow's own memory cannot be drawn on
    thickness = max(2, round(max(rgb.shape) / 800))
    lines = [line.astype(np.int32) for crack in findings.cracks for line in crack.lines]
    for width, colour in ((thickness + 2, HALO), (thickness, LINE)):
        cv2.polylines(rgb, lines, False, colour, width, cv2.LINE_AA)
    _write_labels(rgb, findings)
    with Image.open(io.BytesIO(encoded)) as image:
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
    picture, file = preview(rgb, LARGEST_PX), io.BytesIO()
    exif = _kept_exif(encoded, picture)
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY, exif=exif, icc_profile=profile)
    return file.getvalue()


def label(number: int, crack: Crack, gsd: float | None) -> str:
    """The crack's number in its photo, its median width and its widest place."""
    if gsd is None:
        return f"#{number} {crack.width_px:.1f} (max {crack.width_max_px:.1f}) px"
    return f"#{number} {crack.width_px * gsd:.2f} (max {crack.width_max_px * gsd:.2f}) mm"


def _write_labels(rgb: Pixels, findings: Findings) -> None:
    text_px = max(9.0, max(rgb.shape) * TEXT_SHARE)
    scale, weight = text_px / 22, max(1, round(text_px / 12))
    taken = [
        (int(x), int(y), int(x) + 1, int(y) + 1)
        for one in findings.cracks
        for x, y, _ in one.samples.tolist()
    ]
    for number, crack in enumerate(findings.cracks, 1):
        text = label(number, crack, findings.gsd_mm_per_px)
        (width, height), below = cv2.getTextSize(text, FONT, scale, weight)
        pad = max(2, height // 4)
        size_wh = width + 2 * pad, height + below + 2 * pad
        box = _free_place(crack, size_wh, (rgb.shape[1], rgb.shape[0]), np.array(taken))
        taken.append(box)
        cv2.rectangle(rgb, box[:2], box[2:], PAPER, cv2.FILLED)
        corner = box[0] + pad, box[1] + pad + height
        cv2.putText(rgb, text, corner, FONT, scale, INK, weight, cv2.LINE_AA)


def _free_place(crack: Crack, size_wh: tuple[int, int], photo_wh: tuple[int, int], taken: Any) -> Box:
    """Box of a label beside the crack and inside of the photo that covers the least of `taken` (N, 4)."""
    size, gap = np.array(size_wh), size_wh[1] // 2
    middle_first = np.argsort(np.abs(np.arange(len(crack.samples)) - len(crack.samples) // 2), kind="stable")
    beside = np.array(
        [[gap, gap], [gap, -gap - size[1]], [-gap - size[0], gap], [-gap - size[0], -gap - size[1]]]
    )
    places = crack.samples[middle_first[:: max(1, len(middle_first) // 12)], None, :2] + beside
    corners = np.clip(places.reshape(-1, 2), 0, np.maximum(0, np.array(photo_wh) - size - 1)).astype(int)
    boxes = np.hstack([corners, corners + size])
    shared = np.minimum(boxes[:, None, 2:], taken[:, 2:]) - np.maximum(boxes[:, None, :2], taken[:, :2])
    covered = np.maximum(shared, 0).prod(axis=2).sum(axis=1)
    x0, y0, x1, y1 = boxes[np.argmin(covered)].tolist()
    return x0, y0, x1, y1


def _kept_exif(encoded: bytes, picture: Pixels) -> bytes:
    """EXIF of the photo for the upright picture made of it; empty where it is damaged."""
    kept = Image.Exif()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            tags = image.getexif()
            kept.update({tag: tags[tag] for tag in KEPT if tag in tags and _is_short(tags[tag])})
            for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                values = {tag: value for tag, value in tags.get_ifd(part).items() if _is_short(value)}
                values.pop(MAKER_NOTE, None)
                if values:
                    kept.get_ifd(part).update(values)
        camera = kept.get_ifd(ExifTags.IFD.Exif)
        camera[ExifTags.Base.ExifImageHeight], camera[ExifTags.Base.ExifImageWidth] = picture.shape[:2]
        kept[ExifTags.Base.Orientation] = 1
        content = kept.tobytes()
    except UNREADABLE:
        return b""
    return content if len(content) <= LONGEST_EXIF else b""


def _is_short(value: Any) -> bool:
    return not isinstance(value, (bytes, str)) or len(value) <= LONGEST_VALUE
