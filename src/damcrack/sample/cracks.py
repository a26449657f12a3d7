"""Cracks: tortuous random walks with branches, and their masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from damcrack.sample.strokes import Bytes, Floats, Stroke, centreline_pixels, coverage

MIN_WIDTH_PX, MAX_WIDTH_PX = 0.5, 12.0
STEP_PX = 3.0
HAIRLINE_PX = 1.0


@dataclass(frozen=True)
class Crack:
    """One stroke of a crack, main stem or branch, and how dark it is at each of its points (N,), 0 to 1."""

    stroke: Stroke
    darkness: Floats


def crack_mask(strokes: Sequence[Stroke], size_hw: tuple[int, int], area: Bytes | None = None) -> Bytes:
    """Exact mask, uint8 HxW of 0 and 255: pixels of which at least half is crack.

    A stroke below 1 px has no such pixels, or few: there it is the pixels that its centreline passes through.
    `area` is `coverage(strokes, size_hw)` where the caller has it already.
    """
    area = coverage(strokes, size_hw) if area is None else area
    inside = area >= 128
    inside |= centreline_pixels(strokes, size_hw, below_px=HAIRLINE_PX)
    return inside.astype(np.uint8) * np.uint8(255)


def grow_crack(
    rng: np.random.Generator, start_xy: Floats, heading_rad: float, length_px: float
) -> list[Crack]:
    """Grow one crack with its branches; widths stay within 0.5 and 12 px."""
    width_px = float(np.exp(rng.uniform(np.log(1.5), np.log(9.5))))
    # Thin cracks are seldom deep black: light reaches their ground, and the lens blurs them.
    darkness = float(np.clip(rng.normal(0.68 + 0.02 * width_px, 0.11), 0.45, 0.93))
    return _grow(rng, start_xy, heading_rad, (length_px, width_px, darkness), depth=0)


def _grow(
    rng: np.random.Generator,
    start_xy: Floats,
    heading_rad: float,
    size: tuple[float, float, float],
    depth: int,
) -> list[Crack]:
    length_px, width_px, darkness = size
    num_points = max(int(length_px / STEP_PX), 8)
    points_xy = _walk(rng, start_xy, heading_rad, num_points)
    widths_px = _widths(rng, width_px, num_points, from_stem=depth > 0)
    shades = np.clip(darkness * (1 + 0.12 * _drift(rng, num_points, 40)), 0.3, 0.97)
    cracks = [Crack(Stroke(points_xy, widths_px), shades)]
    for _ in range(rng.poisson(length_px / 450) if depth < 2 else 0):
        at = int(rng.integers(num_points // 8, num_points - num_points // 8))
        along = points_xy[min(at + 4, num_points - 1)] - points_xy[at]
        turn_rad = np.radians(rng.uniform(25, 75)) * rng.choice([-1, 1])
        branch = (
            length_px * rng.uniform(0.15, 0.5),
            max(widths_px[at] * rng.uniform(0.4, 0.8), MIN_WIDTH_PX),
            darkness * rng.uniform(0.85, 1.0),
        )
        cracks += _grow(
            rng, points_xy[at], float(np.arctan2(along[1], along[0]) + turn_rad), branch, depth + 1
        )
    return cracks


def _walk(rng: np.random.Generator, start_xy: Floats, heading_rad: float, num_points: int) -> Floats:
    """A path that keeps its direction on the whole, bends at large, and jags around single stones."""
    wander = 0.35 * _drift(rng, num_points, 60) + rng.uniform(0.3, 0.55) * _drift(rng, num_points, 7)
    jags = 0.55 * np.repeat(rng.standard_normal(num_points // 3 + 1), 3)[:num_points]
    headings = heading_rad + wander - wander[0] + jags
    steps = STEP_PX * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    steps[0] = 0.0
    return np.asarray(start_xy + np.cumsum(steps, axis=0), np.float64)


def _widths(rng: np.random.Generator, width_px: float, num_points: int, from_stem: bool) -> Floats:
    """Widest in the middle (a stem) or at the root (a branch), tapering to a tip, uneven on the way."""
    at = np.linspace(0.0, 1.0, num_points)
    taper = (1 - at) ** 0.6 if from_stem else np.minimum(1.0, 4 * np.minimum(at, 1 - at)) ** 0.7
    uneven = np.exp(0.28 * _drift(rng, num_points, 12) + 0.16 * rng.standard_normal(num_points))
    return np.clip(width_px * taper * uneven, MIN_WIDTH_PX, MAX_WIDTH_PX)


def _drift(rng: np.random.Generator, num_points: int, period: int) -> NDArray[np.float64]:
    """Smooth noise of unit size along a line that changes over about `period` points."""
    knots = rng.standard_normal(num_points // period + 3)
    return np.interp(np.arange(num_points) / period + rng.uniform(), np.arange(len(knots)), knots)
