"""Width of a crack at every point of its line, finer than a pixel, from brightness profiles across it.

Shapes: points (P, 2) as x, y in pixels; profiles (P, T) along offsets across the line.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Points = npt.NDArray[np.int64]

STEP_PX = 0.25
SMOOTHED_ALONG = (
    5  # profiles of neighbouring points are averaged: noise falls, a crack hardly changes over 5 px
)
LARGEST_REACH_PX = 80.0
# Up to the first the profile of any line is as wide as the blur of lens and pixel; from the second on, as the line.
BLUR_PX, RESOLVED_PX = 2.0, 3.5
# A thin line is as wide as it takes away light, if it is at least so much darker inside than the wall (see widths_px).
INSIDE_DARKER = 0.6
REMAP_LIMIT_PX = 32_767  # of cv2.remap, for rows and columns
PART_POINTS = 4096


class Profiles(NamedTuple):
    """`darkness` (P, T): how much darker than the wall beside it; `wall` (P,) its brightness; `offsets_px` (T,)."""

    darkness: Floats
    wall: Floats
    offsets_px: Floats


def widths_px(grey: Grey, points: Points, path: Floats, rough_px: float) -> Floats:
    """Width (P,) at each of the ordered points of a crack about `rough_px` wide; `path` (P, 2) is their smoothed line.

    A wide crack is as wide as its profile at half its depth. A thin one is blurred over two pixels, whatever its
    width; there the light that it takes away, divided by the depth of an unblurred crack, is the width. That depth
    is taken to be at least INSIDE_DARKER of the wall's brightness, so a thin crack that is lighter inside (filled
    with lime) comes out too narrow. Between the two, one passes into the other.
    """
    across = _normals(path)
    reach_px = min(LARGEST_REACH_PX, 2.0 * rough_px + 4.0)
    darkness, wall, offsets_px = _profiles(grey, points, across, reach_px)
    middle = np.abs(offsets_px) <= max(1.5, rough_px / 2 + 1)
    place = np.flatnonzero(middle)[np.argmax(darkness[:, middle], axis=1)]
    depth = darkness[np.arange(len(place)), place]
    left = _half_depth(darkness[:, ::-1], len(offsets_px) - 1 - place, depth)
    at_half = (left + _half_depth(darkness, place, depth)) * STEP_PX
    near = np.abs(offsets_px - offsets_px[place][:, None]) <= RESOLVED_PX
    taken_away = np.maximum(darkness * near, 0).sum(axis=1) * STEP_PX
    by_light = taken_away / np.maximum(np.maximum(depth, INSIDE_DARKER * wall), 1)
    resolved = np.clip((at_half - BLUR_PX) / (RESOLVED_PX - BLUR_PX), 0, 1)
    widths: Floats = resolved * at_half + (1 - resolved) * np.minimum(at_half, by_light)
    return widths


def _normals(path: Floats) -> Floats:
    """Unit vectors (P, 2) across an ordered line."""
    along = np.gradient(path, axis=0) if len(path) > 1 else np.array([[1.0, 0.0]])
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def _profiles(grey: Grey, points: Points, across: Floats, reach_px: float) -> Profiles:
    offsets_px = np.arange(-reach_px, reach_px + STEP_PX / 2, STEP_PX)
    x = (points[:, :1] + across[:, :1] * offsets_px).astype(np.float32)
    y = (points[:, 1:] + across[:, 1:] * offsets_px).astype(np.float32)
    light = _brightness(grey, x, y).astype(np.float32)
    light = np.asarray(cv2.blur(light, (1, SMOOTHED_ALONG), borderType=cv2.BORDER_REPLICATE), np.float32)
    # The wall is the median of the outer quarter on each side, and runs straight from one side to the other.
    outer = max(1, len(offsets_px) // 8)
    one, other = medians(light[:, :outer]), medians(light[:, -outer:])
    share = (offsets_px + reach_px) / (2 * reach_px)
    wall = one[:, None] + (other - one)[:, None] * share
    return Profiles(wall - light, (one + other) / 2, offsets_px)


def _brightness(grey: Grey, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> Grey:
    """Grey values at places (P, T) between pixels; in parts where a crack or its photo is too long for OpenCV."""
    if max(*grey.shape, len(x)) < REMAP_LIMIT_PX:
        return np.asarray(cv2.remap(grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    parts = []
    for start in range(0, len(x), PART_POINTS):
        part_x, part_y = x[start : start + PART_POINTS], y[start : start + PART_POINTS]
        left, top = max(0, int(part_x.min()) - 1), max(0, int(part_y.min()) - 1)
        part = np.ascontiguousarray(grey[top : int(part_y.max()) + 3, left : int(part_x.max()) + 3])
        parts.append(
            cv2.remap(part, part_x - left, part_y - top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )
    return np.asarray(np.concatenate(parts), np.uint8)


def medians(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Medians over the last axis; `np.median` takes several times as long for a few values."""
    ordered, num = np.sort(values, axis=-1), values.shape[-1]
    return np.asarray((ordered[..., (num - 1) // 2] + ordered[..., num // 2]) / 2)


def _half_depth(darkness: Floats, place: npt.NDArray[np.int64], depth: Floats) -> Floats:
    """Steps from `place` to the right until the darkness first falls to half of `depth`, between samples too."""
    num = darkness.shape[1]
    below = (darkness < depth[:, None] / 2) & (np.arange(num) > place[:, None])
    found = below.any(axis=1)
    after = np.where(found, np.argmax(below, axis=1), num - 1)
    rows = np.arange(len(darkness))
    high, low = darkness[rows, after - 1], darkness[rows, after]
    part = np.where(high > low, (high - depth / 2) / np.maximum(high - low, 1e-9), 1.0)
    steps: Floats = after - 1 - place + np.clip(part, 0, 1)
    return steps
