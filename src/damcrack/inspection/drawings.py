"""The cracks of a photo as drawings: on the photo, as one picture to send, and in DXF for CAD.

In DXF, one drawing per photo, its lower left corner is the origin; millimetres where the scale is known, else pixels.
Cracks lie on layers by their width, each polyline as wide as its crack; joints, edges and stains on their own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.cracks.findings import Findings, Pixels
from damcrack.cracks.measure import Crack, Floats
from damcrack.data.photo import encode_jpeg
from damcrack.inspection.decisions import CLASSES, Box

LINE, HALO, PAPER, INK = (255, 59, 47), (255, 255, 255), (255, 255, 255), (20, 20, 20)
QUALITY = 92
TEXT_SHARE = 1 / 70  # of the longer side: 4 mm on a page of A4
FONT = cv2.FONT_HERSHEY_SIMPLEX

# Up to these widths engineers tell cracks of concrete apart; colours of AutoCAD from grey to red.
WIDTH_BANDS_MM, COLOURS = (0.1, 0.2, 0.3, 0.5, 1.0), (8, 3, 4, 2, 30, 1)
UNKNOWN = "CRACK"


def class_of(crack: Crack) -> str:
    """What a person called the line: a crack, unless they said otherwise."""
    return crack.decided.get("class", "crack")


def label(crack: Crack, gsd: float | None) -> str:
    """The crack's number in its photo, its class where it is none, its median width and its widest place."""
    kind = class_of(crack)
    name = f"#{crack.number}" if kind == "crack" else f"#{crack.number} {kind}"
    if gsd is None:
        return f"{name} {crack.width_px:.1f} (max {crack.width_max_px:.1f}) px"
    return f"{name} {crack.width_px * gsd:.2f} (max {crack.width_max_px * gsd:.2f}) mm"


def annotated(rgb: Pixels, findings: Findings) -> bytes:
    """Draw the cracks of a photo on it, shown in (h, w, 3) at any size; a JPEG."""
    rgb = rgb.copy()
    scale = rgb.shape[1] / findings.width_px
    thickness = max(2, round(max(rgb.shape) / 800))
    lines = [(line * scale).astype(np.int32) for crack in findings.cracks for line in crack.lines]
    for width, colour in ((thickness + 2, HALO), (thickness, LINE)):
        cv2.polylines(rgb, lines, False, colour, width, cv2.LINE_AA)
    along = [crack.samples[:, :2] * scale for crack in findings.cracks]
    _write_labels(rgb, along, [label(crack, findings.gsd_mm_per_px) for crack in findings.cracks])
    return encode_jpeg(rgb, QUALITY)


def _write_labels(rgb: Pixels, along: Sequence[Floats], texts: Sequence[str]) -> None:
    """Write a text beside each crack, which runs `along` (S, 2)."""
    text_px = max(9.0, max(rgb.shape) * TEXT_SHARE)
    scale, weight = text_px / 22, max(1, round(text_px / 12))
    taken = [(int(x), int(y), int(x) + 1, int(y) + 1) for one in along for x, y in one.tolist()]
    for points, text in zip(along, texts, strict=True):
        (width, height), below = cv2.getTextSize(text, FONT, scale, weight)
        pad = max(2, height // 4)
        size_wh = width + 2 * pad, height + below + 2 * pad
        box = _free_place(points, size_wh, (rgb.shape[1], rgb.shape[0]), np.array(taken))
        taken.append(box)
        cv2.rectangle(rgb, box[:2], box[2:], PAPER, cv2.FILLED)
        corner = box[0] + pad, box[1] + pad + height
        cv2.putText(rgb, text, corner, FONT, scale, INK, weight, cv2.LINE_AA)


def _free_place(points: Floats, size_wh: tuple[int, int], photo_wh: tuple[int, int], taken: Any) -> Box:
    """Box of a label beside a crack and inside of the photo that covers the least of `taken` (N, 4)."""
    size, gap = np.array(size_wh), size_wh[1] // 2
    middle_first = np.argsort(np.abs(np.arange(len(points)) - len(points) // 2), kind="stable")
    beside = np.array(
        [[gap, gap], [gap, -gap - size[1]], [-gap - size[0], gap], [-gap - size[0], -gap - size[1]]]
    )
    places = points[middle_first[:: max(1, len(middle_first) // 12)], None] + beside
    corners = np.clip(places.reshape(-1, 2), 0, np.maximum(0, np.array(photo_wh) - size - 1)).astype(int)
    boxes = np.hstack([corners, corners + size])
    shared = np.minimum(boxes[:, None, 2:], taken[:, 2:]) - np.maximum(boxes[:, None, :2], taken[:, :2])
    covered = np.maximum(shared, 0).prod(axis=2).sum(axis=1)
    x0, y0, x1, y1 = boxes[np.argmin(covered)].tolist()
    return x0, y0, x1, y1


def layer_of(width_px: float, gsd: float | None) -> str:
    """Layer of a crack by its median width."""
    if gsd is None:
        return UNKNOWN
    lower = 0.0
    for upper in WIDTH_BANDS_MM:
        if width_px * gsd < upper:
            return f"CRACK {lower:g} TO {upper:g} MM" if lower else f"CRACK BELOW {upper:g} MM"
        lower = upper
    return f"CRACK FROM {lower:g} MM"


def _layers(gsd: float | None) -> dict[str, int]:
    """Colours of all layers."""
    bands = {
        layer_of(width, 1.0): colour for width, colour in zip((0.0, *WIDTH_BANDS_MM), COLOURS, strict=True)
    }
    plain = ("PHOTO", "LABEL", *map(str.upper, CLASSES[1:]))
    return dict.fromkeys(plain, 7) | ({UNKNOWN: 1} if gsd is None else bands)


def write_dxf(path: Path, findings: Findings) -> None:
    """Write the drawing of one photo."""
    from ezdxf import units
    from ezdxf.filemanagement import new

    gsd = findings.gsd_mm_per_px
    scale = 1.0 if gsd is None else gsd
    drawing = new("R2010", units=0 if gsd is None else units.MM)
    for name, colour in _layers(gsd).items():
        drawing.layers.add(name, color=colour)
    space = drawing.modelspace()
    width, height = findings.width_px * scale, findings.height_px * scale
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    space.add_lwpolyline(corners, close=True, dxfattribs={"layer": "PHOTO"})
    text_height = max(width, height) * TEXT_SHARE
    _write(space, findings.photo, (0, -2 * text_height), text_height, "PHOTO")
    for crack in findings.cracks:
        kind = class_of(crack)
        layer = layer_of(crack.width_px, gsd) if kind == "crack" else kind.upper()
        for line in crack.lines:
            points = [((x + 0.5) * scale, (findings.height_px - y - 0.5) * scale) for x, y in line.tolist()]
            points = points if len(points) > 1 else points * 2
            space.add_lwpolyline(points, dxfattribs={"layer": layer, "const_width": crack.width_px * scale})
        x, y = crack.samples[len(crack.samples) // 2, :2].tolist()
        place = (x * scale + text_height, (findings.height_px - y) * scale)
        _write(space, label(crack, gsd), place, text_height, "LABEL")
    drawing.saveas(path)


def _write(space: Any, text: str, place: tuple[float, float], height: float, layer: str) -> None:
    plain = "".join(c if c.isprintable() else "?" for c in text)
    space.add_text(plain, height=height, dxfattribs={"layer": layer}).set_placement(place)
