"""Masks thinned to lines of one pixel, and the lines as ordered points.

Shapes: masks (H, W) of bool or uint8 0/1; points (P, 2) as x, y in pixels.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]
Points = npt.NDArray[np.int64]
Place = tuple[slice, slice]

# Neighbours in circular order from the one above, as bits of an 8-bit code; _BITS (256, 8) are those of every code.
_KERNEL = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)
_BITS = np.asarray((np.arange(256)[:, None] >> np.arange(8)) & 1, np.int64)
# Runs of neighbours around a pixel: 1 at an end of a line, 2 within it, 3 and more where lines meet.
_RUNS = np.asarray(((_BITS == 1) & (np.roll(_BITS, -1, axis=1) == 0)).sum(axis=1), np.uint8)


class Branch(NamedTuple):
    """`points` (P, 2) in order; `joined` tells for the first and the last whether a junction is beside it."""

    points: Points
    joined: tuple[bool, bool]
    closed: bool


def _half_steps() -> list[Mask]:
    """For each half step: 1 where the pixel of that code may go (Guo & Hall 1989, algorithm A1)."""
    b = _BITS.astype(np.bool_)
    around = [b[:, k % 8] for k in range(9)]
    crossings = sum((~around[k] & (around[k + 1] | around[(k + 2) % 8])).astype(int) for k in (0, 2, 4, 6))
    first, second = (
        sum((around[(k + shift) % 8] | around[(k + shift + 1) % 8]).astype(int) for k in (0, 2, 4, 6))
        for shift in (0, 1)
    )
    few = np.minimum(first, second)
    removable = (crossings == 1) & (few >= 2) & (few <= 3)
    up, up_right, right, down_right, down, down_left, left, up_left = b.T
    kept = ((down | down_left | ~up_left) & left, (up | up_right | ~down_right) & right)
    return [(removable & ~keep).astype(np.uint8) for keep in kept]


def _corners() -> list[Mask]:
    """For each of four directions: 1 where a pixel only rounds a corner that its two neighbours cut anyway."""
    tables = []
    for turn in range(4):
        bits = np.roll(_BITS, -2 * turn, axis=1)
        beside, across = bits[:, 0] & bits[:, 2], bits[:, 1] | bits[:, 4] | bits[:, 5] | bits[:, 6]
        tables.append((beside & (across == 0)).astype(np.uint8))
    return tables


_HALF_STEPS = _half_steps()
_CORNERS = _corners()


def box_around(mask: Mask, margin_px: int = 0) -> Place:
    """Rows and columns of a mask (H, W) that hold all its pixels, and a margin."""
    x, y, width, height = cv2.boundingRect(mask)
    top, left = max(0, y - margin_px), max(0, x - margin_px)
    return slice(top, y + height + margin_px), slice(left, x + width + margin_px)


def thin(mask: Mask) -> Mask:
    """Thin a mask to lines of one pixel, as connected as it was (Guo & Hall 1989); uint8 0/1.

    Each half step looks all neighbourhoods up in a table at once, so there is no loop over pixels.
    """
    whole = (np.asarray(mask) > 0).astype(np.uint8)
    drawn = box_around(whole)
    line = np.pad(whole[drawn], 1)
    place: Place | None = (slice(0, line.shape[0]), slice(0, line.shape[1]))
    while place is not None:
        before = line[place].copy()
        _remove(line[place], _HALF_STEPS)
        place = _around_changes(before, line[place], place)
    _remove(line, _CORNERS)
    whole[drawn] = line[1:-1, 1:-1]
    return whole


def _around_changes(before: Mask, after: Mask, place: Place) -> Place | None:
    """Where pixels may still go: around those that went; None if none did. Wide places take many steps, most few."""
    x, y, width, height = cv2.boundingRect(before ^ after)
    if not width:
        return None
    top, left = place[0].start + y, place[1].start + x
    return slice(max(0, top - 3), top + height + 3), slice(max(0, left - 3), left + width + 3)


def _remove(line: Mask, tables: list[Mask]) -> None:
    """Take pixels away as the tables say, but for those at the border, whose neighbours are not all there."""
    for table in tables:
        gone = cv2.LUT(_codes(line), table)
        inner = line[1:-1, 1:-1]
        np.bitwise_and(inner, 1 - gone[1:-1, 1:-1], out=inner)


def _codes(line: Mask) -> Mask:
    return np.asarray(cv2.filter2D(line, cv2.CV_8U, _KERNEL, borderType=cv2.BORDER_CONSTANT), np.uint8)


def branches(line: Mask) -> list[Branch]:
    """The branches of a thinned mask: what is left between the places where three and more lines meet.

    A place is the meeting pixel with its eight neighbours; else two lines that pass it on one side would stay one.
    """
    junctions = line & (cv2.LUT(_codes(line), _RUNS) >= 3).astype(np.uint8)
    places, beside_junction = (
        np.asarray(cv2.dilate(junctions, np.ones((side, side), np.uint8)), np.uint8) for side in (3, 5)
    )
    pieces = line & (1 - places)
    if not pieces.any():
        return []
    ends = pieces & (cv2.LUT(_codes(pieces), _RUNS) <= 1).astype(np.uint8)
    contours, hierarchy = cv2.findContours(pieces, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    # Level 1, without a parent, holds the outer border of every piece, level 2 the inside of rings.
    outer = (ring for ring, place in zip(contours, hierarchy[0], strict=True) if place[3] < 0)
    return [
        _branch(np.asarray(ring[:, 0], np.int64), np.asarray(ends, np.uint8), beside_junction)
        for ring in outer
    ]


def _branch(ring: Points, ends: Mask, beside_junction: Mask) -> Branch:
    """The border of a line of one pixel runs along it and back: from an end on, half of it is the line."""
    at_end = np.flatnonzero(ends[ring[:, 1], ring[:, 0]])
    if len(at_end):
        ring = np.roll(ring, -at_end[0], axis=0)[: len(ring) // 2 + 1]
    (x0, y0), (x1, y1) = ring[0], ring[-1]
    joined = bool(beside_junction[y0, x0]), bool(beside_junction[y1, x1])
    return Branch(ring, joined, closed=not len(at_end))


def length_px(path: npt.NDArray[np.float64], closed: bool = False) -> float:
    """Length of a smoothed line (P, 2) of pixels: the staircase of a slanted line is 8 % too long.

    A single pixel has length 1: half a pixel is added at each end, because a line covers its first and last pixel.
    """
    steps = np.diff(path, axis=0, append=path[:1]) if closed else np.diff(path, axis=0)
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum()) + (0.0 if closed else 1.0)


def smoothed(points: Points, closed: bool = False, half: int = 3) -> npt.NDArray[np.float64]:
    """Moving average (P, 2) over 2 * half + 1 neighbours; the ends of an open line stay where they are."""
    if len(points) < 3:
        return points.astype(np.float64)
    if closed:
        padded = np.pad(points, ((half, half), (0, 0)), mode="wrap")
    else:  # mirrored through the end point, which therefore stays
        padded = np.pad(points, ((half, half), (0, 0)), mode="reflect", reflect_type="odd")
    kernel = np.full(2 * half + 1, 1 / (2 * half + 1))
    return np.stack([np.convolve(padded[:, axis], kernel, mode="valid") for axis in (0, 1)], axis=1)
