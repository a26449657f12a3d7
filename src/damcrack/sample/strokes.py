"""Lines of changing width, drawn with exact area coverage.

Coordinates are continuous: pixel (row, column) is the square [column, column + 1) x [row, row + 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

SUPERSAMPLE = 8
BLOCK_PX = 128
CENTRELINE_STEP_PX = 0.05
SHIFT_BITS = 4  # fractional bits of the corner coordinates that cv2 draws
# cv2 fills the outline too, which widens a shape by about so many supersampled pixels a side (measured).
OUTLINE_SUBPX = 0.5


@dataclass(frozen=True)
class Stroke:
    """A polyline `points_xy` (N, 2) with the full width at each point (N,), both in pixels."""

    points_xy: Floats
    width_px: Floats

    @property
    def length_px(self) -> float:
        return float(np.hypot(*np.diff(self.points_xy, axis=0).T).sum())


def across_path(points_xy: Floats) -> Floats:
    """Unit vectors (N, 2) across a path (N, 2)."""
    along = np.gradient(points_xy, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def points_at(at: Floats, known_at: Floats, points_xy: Floats) -> Floats:
    """Points (M, 2) between those of a path (K, 2), at places `at` (M,) on the scale of `known_at` (K,)."""
    return np.stack([np.interp(at, known_at, points_xy[:, axis]) for axis in (0, 1)], axis=1)


def places_on(points_xy: Floats) -> Floats:
    """Length of a path from its first point to each of its points (K,)."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points_xy, axis=0).T))])


def walk(start_xy: Floats, headings_rad: Floats, step_px: float) -> Floats:
    """Points (N, 2) of a path in steps of one length, one along each of the headings (N,)."""
    moves = np.stack([np.cos(headings_rad), np.sin(headings_rad)], axis=1)
    return np.asarray(start_xy + step_px * np.cumsum(moves, axis=0))


def coverage(strokes: Sequence[Stroke], size_hw: tuple[int, int]) -> Bytes:
    """Share of each pixel's area that lies in the union of the strokes: uint8 HxW, 255 = all of it."""
    area = np.zeros(size_hw, np.uint8)
    if not strokes:
        return area
    quads = np.concatenate([_quads(stroke) for stroke in strokes])
    low, high = quads.min(axis=1), quads.max(axis=1)
    visible = np.all((high > 0) & (low <= np.array(size_hw[::-1]) - 1), axis=1)
    for y0, x0 in product(range(0, size_hw[0], BLOCK_PX), range(0, size_hw[1], BLOCK_PX)):
        corner = np.array([x0, y0], np.float64)
        touching = np.all((high > corner) & (low < corner + BLOCK_PX), axis=1)
        if (touching & visible).any():
            height, width = min(BLOCK_PX, size_hw[0] - y0), min(BLOCK_PX, size_hw[1] - x0)
            area[y0 : y0 + height, x0 : x0 + width] = _draw(quads[touching] - corner, (height, width))
    return area


def centreline_pixels(
    strokes: Sequence[Stroke], size_hw: tuple[int, int], below_px: float
) -> NDArray[np.bool_]:
    """Pixels that the centreline passes through where the stroke is narrower than `below_px`: bool HxW."""
    inside = np.zeros(size_hw, np.bool_)
    for stroke in strokes:
        at_px = places_on(stroke.points_xy)
        fine_px = np.arange(0.0, at_px[-1], CENTRELINE_STEP_PX)
        thin_px = fine_px[np.interp(fine_px, at_px, stroke.width_px) < below_px]
        column, row = np.floor(points_at(thin_px, at_px, stroke.points_xy)).astype(np.int64).T
        seen = (row >= 0) & (row < size_hw[0]) & (column >= 0) & (column < size_hw[1])
        inside[row[seen], column[seen]] = True
    return inside


def painted(strokes: Sequence[Stroke], values: Sequence[Floats], size_hw: tuple[int, int]) -> Bytes:
    """A soft map that holds each stroke's own value, 0 to 1, on it and 4 px around: uint8 HxW, 255 = 1."""
    canvas = np.zeros(size_hw, np.uint8)
    for stroke, value in zip(strokes, values, strict=True):
        corners = np.round(stroke.points_xy - 0.5).astype(np.int32)
        thickness = np.ceil(stroke.width_px + 8).astype(int)
        shades = np.round(np.clip(value, 0, 1) * 255)
        for i in range(len(corners) - 1):
            cv2.line(
                canvas, corners[i].tolist(), corners[i + 1].tolist(), float(shades[i]), int(thickness[i])
            )
    return canvas


def _quads(stroke: Stroke) -> Floats:
    """One quadrilateral per segment, (N - 1, 4, 2); neighbours share an edge."""
    half_px = np.maximum(stroke.width_px / 2 - OUTLINE_SUBPX / SUPERSAMPLE, 0.0)[:, None]
    aside = across_path(stroke.points_xy) * half_px
    left, right = stroke.points_xy + aside, stroke.points_xy - aside
    return np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)


def _draw(quads: Floats, size_hw: tuple[int, int]) -> Bytes:
    canvas = np.zeros((size_hw[0] * SUPERSAMPLE, size_hw[1] * SUPERSAMPLE), np.uint8)
    corners = np.round((quads * SUPERSAMPLE - 0.5) * 2**SHIFT_BITS).astype(np.int32)
    for corner in corners:
        cv2.fillConvexPoly(canvas, corner, 255, cv2.LINE_8, SHIFT_BITS)
    return np.asarray(cv2.resize(canvas, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
