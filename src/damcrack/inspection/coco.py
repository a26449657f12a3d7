"""OUT/cracks.coco.json: images, and an annotation per crack whose polygons are its pixels exactly.

The polygons run along the edges of pixels, so pycocotools draws the crack's own mask and area from them. COCO's
polygons have no holes: a crack around a piece of wall is cut at it into several polygons.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.inspection.findings import Findings, Pixels
from damcrack.inspection.json_list import write_json_list
from damcrack.inspection.measure import Crack, joined

CATEGORIES = [{"id": 1, "name": "crack", "supercategory": "defect"}]


def write_coco(path: Path, folders: Sequence[Path], join_px: int) -> None:
    """Write images and annotations of all photos; pieces of a mask at most `join_px` apart are one crack."""
    images = "".join(
        ("," if number else "") + "\n" + json.dumps(_image(number, Findings.read(folder)))
        for number, folder in enumerate(folders)
    )
    head = (
        '{"info": {"description": "damcrack inspection"}, "licenses": [], '
        f'"categories": {json.dumps(CATEGORIES)},\n"images": [{images}],\n"annotations": ['
    )
    write_json_list(path, head, _annotations(folders, join_px), "]}")


def _image(number: int, findings: Findings) -> dict[str, Any]:
    return {
        "id": number + 1,
        "file_name": findings.photo,
        "height": findings.height_px,
        "width": findings.width_px,
    }


def _annotations(folders: Iterable[Path], join_px: int) -> Iterator[dict[str, Any]]:
    identity = 0
    for image_id, folder in enumerate(folders, 1):
        findings = Findings.read(folder)
        if not findings.cracks:
            continue
        mask = np.asarray(cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE), np.uint8)
        for crack in findings.cracks:
            identity += 1
            x0, y0, x1, y1 = crack.box_xyxy
            own = own_mask(mask, crack, join_px)
            yield {
                "id": identity,
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(np.count_nonzero(own)),
                "segmentation": polygons(own, x0, y0),
                "attributes": {
                    name: getattr(crack, name) for name in ("length_px", "width_px", "width_max_px")
                },
            }


def own_mask(mask: Pixels, crack: Crack, join_px: int) -> Pixels:
    """0/1 of the crack's own pixels in its box, of a photo's mask (H, W), without its neighbours'."""
    x0, y0, x1, y1 = crack.box_xyxy
    left, top = max(0, x0 - join_px), max(0, y0 - join_px)
    around = (mask[top : y1 + join_px, left : x1 + join_px] > 0).astype(np.uint8)
    labels = joined(around, join_px)
    x, y = crack.samples[0, :2].astype(int).tolist()
    own = around & (labels == labels[y - top, x - left])
    return np.ascontiguousarray(own[y0 - top : y1 - top, x0 - left : x1 - left], np.uint8)


def polygons(mask: Pixels, x0: int, y0: int) -> list[list[int]]:
    """Outlines of a mask (h, w) along the edges of its pixels as x, y, x, y, ...; its corner lies at x0, y0."""
    found = list[list[int]]()
    for start, end in pairwise([0, *_hole_columns(mask), mask.shape[1]]):
        # Twice as large, the middles of a pixel's outer quarters are its corners, rounded outwards.
        large = np.kron(mask[:, start:end], np.ones((2, 2), np.uint8))
        contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        found += [
            _corners((contour[:, 0] + 1) // 2 + (x0 + start, y0)).ravel().tolist() for contour in contours
        ]
    return found


def _hole_columns(mask: Pixels) -> list[int]:
    """First column of each hole: cut there, it is open to one side."""
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    holes = (
        []
        if tree is None
        else [one for one, (*_, parent) in zip(contours, tree[0], strict=True) if parent >= 0]
    )
    return sorted(
        {int(hole[:, 0, 0].min()) + 1 for hole in holes}
    )  # OpenCV's outline of a hole lies around it


def _corners(points: Any) -> Any:
    """Points (P, 2) of a closed outline without those in the middle of its straight parts."""
    points = points[np.any(points != np.roll(points, 1, axis=0), axis=1)]
    turns = np.any(points - np.roll(points, 1, axis=0) != np.roll(points, -1, axis=0) - points, axis=1)
    return points[turns]
