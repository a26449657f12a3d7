"""Pictures of a pair of photos: the old one brought over the new one, both with their changes marked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.cracks.findings import Findings, Pixels, preview, read_picture
from damcrack.cracks.measure import Crack
from damcrack.data.photo import encode_jpeg
from damcrack.inspection.align import Registration, moved
from damcrack.inspection.changes import Change

SIDE_PX, QUALITY = 900, 80
COLOURS = {
    "new": (255, 59, 47),
    "grown": (255, 160, 0),
    "vanished": (190, 90, 255),
    "unchanged": (0, 200, 230),
    "unclear": (150, 150, 150),
}


def lay_over(old: Path, new: Path, registration: Registration, found: Sequence[Change]) -> list[bytes]:
    """JPEGs of the old photo as seen from the new one's place, and of the new one, cracks coloured by what became.

    Where they could not be registered, the old photo is shown as it is.
    """
    sides = [Findings.read(folder) for folder in (old, new)]
    pictures = [preview(_read(folder), SIDE_PX) for folder in (old, new)]
    scales = [picture.shape[1] / side.width_px for picture, side in zip(pictures, sides, strict=True)]
    to_new = registration.old_to_new if not registration.reason else np.eye(3)
    if not registration.reason:
        small = np.diag([scales[1], scales[1], 1.0]) @ to_new @ np.diag([1 / scales[0], 1 / scales[0], 1.0])
        height, width = pictures[1].shape[:2]
        pictures[0] = np.asarray(
            cv2.warpPerspective(pictures[0], small, (width, height), flags=cv2.INTER_LINEAR), np.uint8
        )
        scales[0] = scales[1]
    for change in found:
        gone = change.status == "vanished"
        crack = sides[0 if gone else 1].cracks[change.crack]
        _draw(pictures[0 if gone else 1], crack, to_new if gone else np.eye(3), scales[1], change.status)
    return [encode_jpeg(picture, QUALITY) for picture in pictures]


def _draw(picture: Pixels, crack: Crack, homography: Any, scale: float, status: str) -> None:
    for line in crack.lines:
        points = moved(homography, line.astype(np.float64)) * scale
        cv2.polylines(picture, [np.rint(points).astype(np.int32)], False, COLOURS[status], 2, cv2.LINE_AA)


def _read(folder: Path) -> Pixels:
    return read_picture(folder / "preview.jpg")
