"""OUT/cracks.coco.json: images, and an annotation per traced line whose polygons are its pixels exactly.

The polygons run along the edges of pixels, so pycocotools draws the crack's own mask and area from them. COCO's
polygons have no holes: a crack around a piece of wall is cut at it into several polygons.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from damcrack.cracks.findings import Findings, Pixels, read_picture
from damcrack.cracks.measure import Crack, joined
from damcrack.cracks.skeleton import box_around
from damcrack.inspection.decisions import CLASSES
from damcrack.inspection.drawings import class_of
from damcrack.inspection.tables import Add, json_list

HEAD = '{"info": {"description": "damcrack inspection"}, "licenses": [],\n"annotations": ['


@contextmanager
def coco(path: Path, join_px: int) -> Iterator[Add]:
    """Write images and annotations of photo after photo; pieces of a mask at most `join_px` apart are one crack."""
    images, used, num = list[dict[str, Any]](), {CLASSES[0]}, 0
    with json_list(path, HEAD, lambda: _tail(images, used)) as write:

        def add(folder: Path, findings: Findings) -> None:
            nonlocal num
            size = {"height": findings.height_px, "width": findings.width_px}
            images.append({"id": len(images) + 1, "file_name": findings.photo, **size})
            for annotation in _annotations(folder, findings, join_px):
                num += 1
                write({"id": num, "image_id": len(images), **annotation})
            used.update(map(class_of, findings.cracks))

        yield add


def _tail(images: Sequence[dict[str, Any]], used: set[str]) -> str:
    categories = [
        {"id": identity, "name": name, "supercategory": "defect"}
        for identity, name in enumerate(CLASSES, 1)
        if name in used
    ]
    return f'],\n"categories": {json.dumps(categories)},\n"images": {json.dumps(images)}}}'


def _annotations(folder: Path, findings: Findings, join_px: int) -> Iterator[dict[str, Any]]:
    if not findings.cracks:
        return
    mask = read_picture(folder / "mask.png", cv2.IMREAD_GRAYSCALE)
    for crack, own in zip(findings.cracks, own_masks(mask, findings.cracks, join_px), strict=True):
        x0, y0, x1, y1 = crack.box_xyxy
        yield {
            "category_id": CLASSES.index(class_of(crack)) + 1,
            "iscrowd": 0,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": int(np.count_nonzero(own)),
            "segmentation": polygons(own, x0, y0),
            "attributes": {name: getattr(crack, name) for name in ("length_px", "width_px", "width_max_px")},
        }


def own_masks(mask: Pixels, cracks: Sequence[Crack], join_px: int) -> Iterator[Pixels]:
    """0/1 of each crack's own pixels in its box, of a photo's mask (H, W), without its neighbours'."""
    place = box_around(mask, join_px)
    top, left = place[0].start, place[1].start
    around = (mask[place] > 0).astype(np.uint8)
    labels = joined(around, join_px)
    for crack in cracks:
        x0, y0, x1, y1 = crack.box_xyxy
        inside = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        x, y = crack.samples[0, :2].astype(int).tolist()
        yield around[inside] * (labels[inside] == labels[y - top, x - left])


def polygons(mask: Pixels, x0: int, y0: int) -> list[list[int]]:
    """Outlines of a mask (h, w) along the edges of its pixels as x, y, x, y, ...; its corner lies at x0, y0."""
    found = list[list[int]]()
    for start, end in pairwise([0, *_cuts(mask), mask.shape[1]]):
        # Where each pixel is four, the outer of them are its corners, once rounded outwards.
        large = cv2.resize(mask[:, start:end], None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours:
            points = (contour[:, 0] + 1) // 2 + (x0 + start, y0)
            # Both pixels at an inner corner have become one point.
            before = np.concatenate([points[-1:], points[:-1]])
            found.append(points[(points != before).any(axis=1)].ravel().tolist())
    return found


def _cuts(mask: Pixels) -> list[int]:
    """As few columns as open every hole to one side, where the mask is cut before them."""
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parents = [] if tree is None else tree[0, :, 3].tolist()
    holes_x = [contour[:, 0, 0] for contour, of in zip(contours, parents, strict=True) if of >= 0]
    # OpenCV's outline of a hole lies around it.
    ends = sorted((int(x.max()) - 1, int(x.min()) + 1) for x in holes_x)
    cuts = list[int]()
    for last, first in ends:
        if not cuts or cuts[-1] < first:
            cuts.append(last)
    return cuts
