"""Cracks: tortuous random walks with branches, networks of them, their masks, and what age does to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from damcrack.sample.strokes import (
    Bytes,
    Floats,
    Stroke,
    across_path,
    centreline_pixels,
    coverage,
    places_on,
    points_at,
)
from damcrack.sample.surface import Field, smooth_noise

MIN_WIDTH_PX, MAX_WIDTH_PX = 0.4, 40.0
STEP_PX = 3.0
HAIRLINE_PX = 1.0
SHRINK = 4  # what lies around a crack is soft: drawn at a quarter of the size
RAGGED_FROM_PX = 4.0  # from here on the two edges of a crack run differently


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
    rng: np.random.Generator, start_xy: Floats, heading_rad: float, size_px: tuple[float, float]
) -> list[Crack]:
    """Grow one crack of `size_px` = (length, width) with its branches; widths stay within 0.4 and 40 px."""
    length_px, width_px = size_px
    # Thin cracks are seldom deep black: light reaches their ground, and the lens blurs them.
    darkness = float(np.clip(rng.normal(0.66 + 0.02 * min(width_px, 10.0), 0.13), 0.4, 0.95))
    jagged = float(rng.uniform(0.15, 1.1))  # from cracks of glazed tiles to those around stones
    return _grow(rng, start_xy, heading_rad, _Habit(length_px, width_px, darkness, jagged), depth=0)


def open_seam(rng: np.random.Generator, path_xy: Floats, width_px: float) -> list[Crack]:
    """A crack along a path (K, 2) of straight pieces: joints that came open."""
    reach_px = places_on(path_xy)
    num_points = max(int(reach_px[-1] / STEP_PX), 8)
    points_xy = points_at(np.linspace(0, reach_px[-1], num_points), reach_px, path_xy)
    points_xy += 0.8 * np.stack([_drift(rng, num_points, 6) for _ in range(2)], axis=1)
    widths_px = _widths(rng, width_px, num_points, from_stem=False)
    darkness = rng.uniform(0.55, 0.95) * (1 + 0.12 * _drift(rng, num_points, 40))
    return [Crack(Stroke(points_xy, widths_px), np.clip(darkness, 0.3, 0.97))]


def crack_network(rng: np.random.Generator, centre_xy: Floats) -> list[Crack]:
    """Map cracking around a point: mostly cells of four to six sides."""
    cell_px, num_cells = float(np.exp(rng.uniform(np.log(30), np.log(130)))), int(rng.integers(5, 11))
    width_px, darkness = float(np.exp(rng.uniform(np.log(0.6), np.log(4)))), float(rng.uniform(0.4, 0.8))
    at = np.arange(num_cells) - (num_cells - 1) / 2
    knots_xy = np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1)
    knots_xy += rng.uniform(-0.36, 0.36, knots_xy.shape)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    knots_xy = centre_xy + cell_px * knots_xy @ turn
    cracks = []
    for i, j in np.ndindex(num_cells, num_cells):
        for k, m in ((i, j + 1), (i + 1, j)):
            # Every other upright side is left out, as in brickwork: three cracks meet at most knots.
            absent = max(k, m) == num_cells or (k > i and (i + j) % 2) or rng.random() < 0.08
            if not absent:
                cracks.append(_side(rng, (knots_xy[i, j], knots_xy[k, m]), width_px, darkness))
    return cracks


def _side(
    rng: np.random.Generator, ends_xy: tuple[Floats, Floats], width_px: float, darkness: float
) -> Crack:
    along = ends_xy[1] - ends_xy[0]
    length_px = float(np.hypot(*along))
    num_points = max(int(length_px / STEP_PX), 8)
    at = np.linspace(0, 1, num_points)
    aside_px = (
        0.14 * length_px * _drift(rng, num_points, 12) + 0.7 * rng.standard_normal(num_points)
    ) * np.minimum(1, 4 * np.minimum(at, 1 - at))
    across = np.array([-along[1], along[0]]) / max(length_px, 1e-9)
    points_xy = ends_xy[0] + at[:, None] * along + aside_px[:, None] * across
    uneven = np.exp(rng.normal(0, 0.35) + 0.3 * _drift(rng, num_points, 6))
    widths_px = np.clip(width_px * uneven, MIN_WIDTH_PX, MAX_WIDTH_PX)
    return Crack(Stroke(points_xy, widths_px), np.full(num_points, darkness * rng.uniform(0.7, 1.1)))


@dataclass(frozen=True)
class _Habit:
    length_px: float
    width_px: float
    darkness: float
    jagged: float


def _grow(
    rng: np.random.Generator, start_xy: Floats, heading_rad: float, habit: _Habit, depth: int
) -> list[Crack]:
    step_px = max(STEP_PX, habit.width_px / 4)
    num_points = max(int(habit.length_px / step_px), 8)
    points_xy = _walk(rng, (start_xy, heading_rad), num_points, (step_px, habit.jagged))
    widths_px = _widths(rng, habit.width_px, num_points, from_stem=depth > 0)
    shades = np.clip(habit.darkness * (1 + 0.12 * _drift(rng, num_points, 40)), 0.3, 0.97)
    cracks = [Crack(Stroke(points_xy, widths_px), shades)]
    if habit.width_px >= RAGGED_FROM_PX:
        for edge in _ragged_edges(rng, cracks[0].stroke):
            at_edge = np.linspace(0, num_points - 1, len(edge.width_px))
            cracks.append(Crack(edge, np.interp(at_edge, np.arange(num_points), shades)))
    for _ in range(rng.poisson(habit.length_px / 450) if depth < 2 else 0):
        at = int(rng.integers(num_points // 8, num_points - num_points // 8))
        along = points_xy[min(at + 4, num_points - 1)] - points_xy[at]
        turn_rad = np.radians(rng.uniform(25, 75)) * rng.choice([-1, 1])
        branch = _Habit(
            habit.length_px * rng.uniform(0.15, 0.5),
            max(widths_px[at] * rng.uniform(0.25, 0.75), MIN_WIDTH_PX),
            habit.darkness * rng.uniform(0.85, 1.0),
            habit.jagged,
        )
        heading = float(np.arctan2(along[1], along[0]) + turn_rad)
        cracks += _grow(rng, points_xy[at], heading, branch, depth + 1)
    return cracks


def _walk(
    rng: np.random.Generator, start: tuple[Floats, float], num_points: int, steps: tuple[float, float]
) -> Floats:
    """A path that keeps its direction on the whole, bends at large, and jags around single stones."""
    (start_xy, heading_rad), (step_px, jagged) = start, steps
    wander = 0.35 * _drift(rng, num_points, 60) + jagged * rng.uniform(0.3, 0.55) * _drift(rng, num_points, 7)
    jags = jagged * 0.55 * np.repeat(rng.standard_normal(num_points // 3 + 1), 3)[:num_points]
    headings = heading_rad + wander - wander[0] + jags
    moves = step_px * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    moves[0] = 0.0
    return np.asarray(start_xy + np.cumsum(moves, axis=0), np.float64)


def _ragged_edges(rng: np.random.Generator, stem: Stroke) -> list[Stroke]:
    """Narrower strokes along both edges that chips widen in places: part of the opening, so part of the mask."""
    at = np.arange(len(stem.width_px), dtype=np.float64)
    fine = np.linspace(0, at[-1], max(int(stem.length_px / STEP_PX), 8))
    points_xy, width_px = points_at(fine, at, stem.points_xy), np.interp(fine, at, stem.width_px)
    across, edges = across_path(points_xy), []
    for side in (-1, 1):
        chips = np.clip(_drift(rng, len(fine), 5) - 0.6, 0, 1) + 0.12 * rng.standard_normal(len(fine))
        offset_px = side * width_px * rng.uniform(0.25, 0.4)
        widths_px = np.clip(width_px * (0.4 + 0.5 * chips), MIN_WIDTH_PX, MAX_WIDTH_PX)
        edges.append(Stroke(points_xy + across * offset_px[:, None], widths_px))
    return edges


def _widths(rng: np.random.Generator, width_px: float, num_points: int, from_stem: bool) -> Floats:
    """Widest in the middle (a stem) or at the root (a branch), tapering to a tip, uneven on the way."""
    at = np.linspace(0.0, 1.0, num_points)
    taper = (1 - at) ** 0.6 if from_stem else np.minimum(1.0, 4 * np.minimum(at, 1 - at)) ** 0.7
    rough = min(1.0, 6 / width_px)  # a wide opening varies less in proportion
    uneven = np.exp(rough * (0.28 * _drift(rng, num_points, 12) + 0.16 * rng.standard_normal(num_points)))
    return np.clip(width_px * taper * uneven, MIN_WIDTH_PX, MAX_WIDTH_PX)


def _drift(rng: np.random.Generator, num_points: int, period: int) -> NDArray[np.float64]:
    """Smooth noise of unit size along a line that changes over about `period` points."""
    knots = rng.standard_normal(num_points // period + 3)
    return np.interp(np.arange(num_points) / period + rng.uniform(), np.arange(len(knots)), knots)


def spall_edges(rng: np.random.Generator, light: Field, area: Bytes) -> None:
    """Break shallow, ragged flakes off beside a crack of coverage `area`: rough, with a shaded upper edge."""
    small_hw = (light.shape[0] // SHRINK + 1, light.shape[1] // SHRINK + 1)
    reach = float(rng.uniform(1.5, 5))
    near = _near(area, small_hw, (reach, reach)) / 255
    ragged = near + np.float32(0.12) * smooth_noise(rng, small_hw, (12, 12)) * (near > np.float32(0.01))
    ragged += np.float32(0.04) * smooth_noise(rng, small_hw, (2, 2))
    flakes = np.clip((ragged - np.float32(rng.uniform(0.12, 0.4))) * 12, 0, 1)
    full = np.asarray(cv2.resize(flakes, light.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    step = full - np.roll(full, (3, int(rng.integers(-2, 3))), (0, 1))
    rough = np.float32(rng.uniform(-0.15, 0.2)) + np.float32(0.07) * smooth_noise(rng, light.shape, (3, 3))
    light *= 1 + full * rough - step * np.float32(rng.uniform(0.2, 0.5))


def crack_ground(rng: np.random.Generator, size_hw: tuple[int, int]) -> Field:
    """Share of a crack's darkness that its ground keeps: less on grains, least on debris; float32 HxW, 0.3 to 1."""
    debris = smooth_noise(rng, size_hw, (rng.uniform(6, 16), rng.uniform(6, 16)))
    debris += np.float32(0.6) * smooth_noise(rng, size_hw, (3, 3))
    kept = 1 - np.clip(debris - np.float32(rng.uniform(0.7, 2.5)), 0, 1) * np.float32(rng.uniform(0.2, 0.65))
    kept -= np.float32(rng.uniform(0.02, 0.1)) * np.abs(debris)
    return np.asarray(np.clip(kept, 0.3, 1), np.float32)


def light_rims(rng: np.random.Generator, light: Field, area: Bytes) -> None:
    """Light one rim of a wide crack and shade the other, by 2 to 5 px."""
    soft = cv2.GaussianBlur(area, (0, 0), float(rng.uniform(1, 2.5))).astype(np.float32) / 255
    shift = (int(rng.integers(2, 6)), int(rng.integers(-4, 5)))
    side = np.roll(soft, shift, (0, 1)) - np.roll(soft, (-shift[0], -shift[1]), (0, 1))
    side *= 1 - area.astype(np.float32) / 255
    light *= 1 + side * np.float32(rng.uniform(0.1, 0.4))


def fill_with_lime(rng: np.random.Generator, light: Field, area: Bytes) -> None:
    """Whiten a crack that efflorescence has closed, in lumps, a little darker in gaps."""
    lumps = np.clip(smooth_noise(rng, light.shape, (25, 9)) + np.float32(1.1), -0.4, 1)
    share = area.astype(np.float32) / 255
    light *= 1 + share * lumps * np.float32(rng.uniform(0.25, 0.7))


def leach_lime(rng: np.random.Generator, colour: Field, area: Bytes) -> None:
    """White lime around some of the cracks."""
    small_hw = colour.shape[:2]
    near = _near(area, small_hw, (float(rng.uniform(1.5, 4)), float(rng.uniform(3, 10))))
    here = np.clip(smooth_noise(rng, small_hw, (30, 20)), 0, 1)
    here *= 1 + np.float32(0.6) * smooth_noise(rng, small_hw, (3, 2))
    colour *= (1 + np.clip(near * here * np.float32(0.012), 0, np.float32(0.25)))[..., None]


def dampen(rng: np.random.Generator, colour: Field, area: Bytes) -> None:
    """A dark wet halo around the cracks, with a rather sharp outer edge."""
    small_hw = colour.shape[:2]
    reach = float(rng.uniform(2, 6))
    near = _near(area, small_hw, (reach, reach * float(rng.uniform(1, 2)))) / 255
    near *= 1 + np.float32(0.5) * smooth_noise(rng, small_hw, (12, 9))
    wet = np.clip(near * np.float32(rng.uniform(15, 40)) - np.float32(0.4), 0, 1)
    colour *= (1 - wet * np.float32(rng.uniform(0.2, 0.5)))[..., None]


def _near(area: Bytes, small_hw: tuple[int, int], reach_xy: tuple[float, float]) -> Field:
    small = cv2.resize(area, small_hw[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), sigmaX=reach_xy[0], sigmaY=reach_xy[1]), np.float32)
