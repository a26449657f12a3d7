"""A photo with its cracks drawn in, as one picture to send: lines, numbers and widths, readable at every size."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from damcrack.cracks.findings import Findings, Pixels
from damcrack.cracks.measure import Crack
from damcrack.data.photo import encode_jpeg

LINE, HALO, PAPER, INK = (255, 59, 47), (255, 255, 255), (255, 255, 255), (20, 20, 20)
QUALITY = 92
TEXT_SHARE = 1 / 70  # of the longer side: 4 mm on a page of A4
FONT = cv2.FONT_HERSHEY_SIMPLEX

Box = tuple[int, int, int, int]


def annotated(rgb: Pixels, findings: Findings) -> bytes:
    """Draw the cracks of a photo on it, shown in (h, w, 3) at any size; a JPEG."""
    rgb = rgb.copy()
    scale = rgb.shape[1] / findings.width_px
    cracks = [_at_scale(crack, scale) for crack in findings.cracks]
    thickness = max(2, round(max(rgb.shape) / 800))
    lines = [line.astype(np.int32) for crack in cracks for line in crack.lines]
    for width, colour in ((thickness + 2, HALO), (thickness, LINE)):
        cv2.polylines(rgb, lines, False, colour, width, cv2.LINE_AA)
    texts = [label(crack, findings.gsd_mm_per_px) for crack in findings.cracks]
    _write_labels(rgb, cracks, texts)
    return encode_jpeg(rgb, QUALITY)


def _at_scale(crack: Crack, scale: float) -> Crack:
    return replace(
        crack,
        lines=tuple((line * scale).astype(np.int64) for line in crack.lines),
        samples=crack.samples * (scale, scale, 1.0),
    )


def label(crack: Crack, gsd: float | None) -> str:
    """The crack's number in its photo, its class where it is none, its median width and its widest place."""
    kind = class_of(crack)
    name = f"#{crack.number}" if kind == "crack" else f"#{crack.number} {kind}"
    if gsd is None:
        return f"{name} {crack.width_px:.1f} (max {crack.width_max_px:.1f}) px"
    return f"{name} {crack.width_px * gsd:.2f} (max {crack.width_max_px * gsd:.2f}) mm"


def class_of(crack: Crack) -> str:
    """What a person called the line: a crack, unless they said otherwise."""
    return crack.decided.get("class", "crack")


def _write_labels(rgb: Pixels, cracks: Sequence[Crack], texts: Sequence[str]) -> None:
    text_px = max(9.0, max(rgb.shape) * TEXT_SHARE)
    scale, weight = text_px / 22, max(1, round(text_px / 12))
    taken = [(int(x), int(y), int(x) + 1, int(y) + 1) for one in cracks for x, y, _ in one.samples.tolist()]
    for crack, text in zip(cracks, texts, strict=True):
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
