"""Scores of blocks and counts of pixels of each photo, for any function that gives each pixel a crack probability."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.pixel_scores import near
from damcrack.cracks.skeleton import thin
from damcrack.data.tiling import crack_fractions, tile_boxes_xyxy
from damcrack.files import InputError
from experiments.unseen.sources import TOLERANCE_PX, UNMARKED_CRACKS, Photo, read_pixels

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

Score = Callable[[Pixels], Floats]  # uint8 RGB (H, W, 3) -> float32 (H, W), the chance of crack of each pixel
Draw = Callable[[Pixels, Pixels | None, Pixels], bytes]  # photo, true mask, found mask -> an encoded picture

BLOCK_PX = 224
CUT_FROM_PX = 448  # photos with a longer side than that are cut in blocks; smaller ones are one block
CRACKED_SHARE = 0.003  # of a block's pixels: 150 of 224 x 224. Blocks with fewer, but some, are left out
SCORED_SHARE = 0.003  # a block's score is the mean over so many of its most confident pixels
CUT = 0.5
LINE_TOLERANCE_PX = 4  # of the clIoU, as in OmniCrack30k
HALF, FULL = "hires, half size", "hires"
SCALES = {"hires": {HALF: 0.5, FULL: 1.0}}


class Counts(NamedTuple):
    """Pixels of one photo; near means within the source's tolerance, of lines within LINE_TOLERANCE_PX."""

    found: int
    found_near_true: int
    true: int
    true_near_found: int
    line_hit: int
    line_missed: int
    line_false: int


@dataclass(frozen=True)
class Measured:
    """One photo at one size. `row` names the line of the table; labels (N,) and scores (N,) are of its clear blocks."""

    row: str
    photo: Photo
    labels: Ints
    scores: Floats
    counts: Counts | None
    picture: bytes = b""


def measure(photos: Iterable[Photo], score: Score, draw: Draw | None = None) -> Iterator[Measured]:
    """Score each photo once at each of its sizes; with `draw` each result carries a picture.

    Raises:
        InputError: a photo or mask cannot be used, or the scores have another size than the photo.
    """
    for photo in photos:
        rgb, true = read_pixels(photo)
        for row, scale in SCALES.get(photo.source, {photo.source: 1.0}).items():
            yield _measured(row, photo, _scaled(rgb, scale), _scaled_mask(true, scale), score, draw)


def _measured(
    row: str, photo: Photo, rgb: Pixels, true: Pixels | None, score: Score, draw: Draw | None
) -> Measured:
    probs = score(rgb)
    if probs.shape != rgb.shape[:2]:
        raise InputError(
            f"{photo.file}: scores of shape {probs.shape}, expected {rgb.shape[:2]}, one a pixel"
        )
    found = (probs >= CUT).astype(np.uint8)
    boxes = blocks_xyxy(probs.shape)
    labels = _labels(photo, true, boxes)
    clear = labels >= 0
    tolerance_px = TOLERANCE_PX.get(photo.source)
    counts = None if true is None or tolerance_px is None else count(found, true, tolerance_px)
    picture = draw(rgb, true, found) if draw else b""
    return Measured(row, photo, labels[clear], block_scores(probs, boxes[clear]), counts, picture)


def _scaled(image: Pixels, scale: float) -> Pixels:
    if scale == 1:
        return image
    size_wh = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _scaled_mask(mask: Pixels | None, scale: float) -> Pixels | None:
    """At least half of a pixel has to be crack."""
    return None if mask is None else (_scaled(mask * np.uint8(255), scale) > 127).astype(np.uint8)


def blocks_xyxy(size_hw: tuple[int, ...]) -> Ints:
    """Boxes (N, 4) of a photo: a grid of blocks, or the whole of a small photo."""
    height, width = size_hw
    if max(height, width) >= CUT_FROM_PX and min(height, width) >= BLOCK_PX:
        return tile_boxes_xyxy((height, width), BLOCK_PX)
    return np.array([[0, 0, width, height]], np.int64)


def _labels(photo: Photo, true: Pixels | None, boxes: Ints) -> Ints:
    """Of each block (N,): 1 cracked, 0 clean, -1 to leave out."""
    if true is None:
        return np.full(len(boxes), photo.label, np.int64)
    share = crack_fractions(true, boxes)
    labels = np.where(share >= CRACKED_SHARE, 1, -1)
    if photo.source not in UNMARKED_CRACKS:
        labels[share == 0] = 0
    return labels


def block_scores(probs: Floats, boxes: Ints) -> Floats:
    """Mean over the most confident pixels of each box, (N,)."""
    return np.array(
        [_mean_of_top(probs[y0:y1, x0:x1].ravel()) for x0, y0, x1, y1 in boxes.tolist()], np.float32
    )


def _mean_of_top(values: Floats) -> float:
    num = max(1, round(SCORED_SHARE * len(values)))
    return float(np.partition(values, -num)[-num:].mean())


def count(found: Pixels, true: Pixels, tolerance_px: int) -> Counts:
    """Compare two masks (H, W) of 0/1, and their centre lines.

    Lines as in OmniCrack30k (Benz & Rodehorst, CVPRW 2024), with a tolerance t of 4 px: hit are the pixels of the
    true line within t of the found line, missed the other ones of the true line, false the pixels of the found line
    beyond t of the true one. Near is cv2's ellipse, where they take a disk.
    """
    line_found, line_true = thin(found), thin(true)
    hit = int(np.count_nonzero(line_true & near(line_found, LINE_TOLERANCE_PX)))
    near_line = int(np.count_nonzero(line_found & near(line_true, LINE_TOLERANCE_PX)))
    return Counts(
        found=int(np.count_nonzero(found)),
        found_near_true=int(np.count_nonzero(found & near(true, tolerance_px))),
        true=int(np.count_nonzero(true)),
        true_near_found=int(np.count_nonzero(true & near(found, tolerance_px))),
        line_hit=hit,
        line_missed=int(np.count_nonzero(line_true)) - hit,
        line_false=int(np.count_nonzero(line_found)) - near_line,
    )


def by_row(results: Iterable[Measured]) -> dict[str, list[Measured]]:
    """Results under the names of their lines of the table, in the order in which these came."""
    rows: dict[str, list[Measured]] = {}
    for one in results:
        rows.setdefault(one.row, []).append(one)
    return rows
