"""Marks that look like cracks to a detector and are none: paint, letters, cables, boards, edges, plants, water."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from damcrack.sample.strokes import Bytes, Floats, walk
from damcrack.sample.surface import smooth_noise
from damcrack.sample.wall import (
    OPAQUE,
    Rgb,
    Wall,
    blurred,
    box_around,
    cast_shade,
    draw_line,
    draw_tapering,
    jagged_blob,
    lay,
    lay_bar,
    path_across,
    smooth_path,
    warped,
    worn_paint,
)

FONTS = tuple(range(8)) + tuple(font | cv2.FONT_ITALIC for font in range(2))
# Linear reflectance beside that of concrete.
PAINTS: tuple[Rgb, ...] = (
    (0.12, 0.12, 0.13), (1.7, 1.7, 1.65), (1.3, 0.25, 0.2), (0.2, 0.3, 0.9), (1.5, 1.2, 0.2), (0.2, 0.7, 0.3),
    (0.45, 0.44, 0.42), (1.3, 1.3, 1.27),
)  # fmt: skip
PLANTS: tuple[Rgb, ...] = (
    (0.35, 0.5, 0.2), (0.2, 0.26, 0.14), (0.5, 0.38, 0.26), (0.25, 0.2, 0.16), (0.9, 0.8, 0.6),
)  # fmt: skip


def paint_curves(rng: np.random.Generator, wall: Wall) -> None:
    """Brushed or sprayed curves of one colour and thickness, worn in places."""
    alpha = wall.canvas()
    thickness = int(np.exp(rng.uniform(np.log(2), np.log(30))))
    for _ in range(rng.integers(1, 6)):
        draw_line(alpha, smooth_path(rng, wall, rng.uniform(80, 700)), thickness)
    if rng.random() < 0.4:
        alpha = blurred(alpha, thickness / 4 + 0.5)
    lay(wall, worn_paint(rng, alpha), _pick(rng, PAINTS))


def painted_bands(rng: np.random.Generator, wall: Wall) -> None:
    """Straight painted lines from edge to edge, one or some side by side."""
    alpha = wall.canvas()
    ends_xy = rng.uniform(-0.2, 1.2, (2, 2)) * wall.size_xy
    if rng.random() < 0.6:
        ends_xy[1, 1] = ends_xy[0, 1] + rng.normal(0, 12)
        ends_xy[:, 0] = (-20, wall.size_xy[0] + 20)
    thickness, gap_px = int(rng.integers(2, 40)), rng.uniform(30, 120)
    for i in range(rng.integers(1, 4)):
        draw_line(alpha, ends_xy + np.array([0, i * gap_px]), thickness)
    lay(wall, worn_paint(rng, alpha), _pick(rng, PAINTS))


def letters(rng: np.random.Generator, wall: Wall) -> None:
    """Stencilled or written letters, numbers and dates, seen aslant."""
    text = "".join(rng.choice(list("ABCDEFGHKLMNPRSTVXYZabeghkrs0123456789./-:"), rng.integers(1, 13)))
    font, weight = int(rng.choice(FONTS)), int(rng.integers(2, 9))
    (width, height), base = cv2.getTextSize(text, font, 3, weight)
    sheet = np.zeros((height + base + 20, width + 20), np.uint8)
    cv2.putText(sheet, text, (10, height + 10), font, 3, 255, weight, cv2.LINE_AA)
    alpha = warped(rng, wall, sheet, rng.uniform(14, 160) / height)
    lay(wall, worn_paint(rng, alpha), _pick(rng, PAINTS))


def wood_grain(rng: np.random.Generator, wall: Wall) -> None:
    """The strong grain of rough boards: long wavy lines that close around knots."""
    height, width = wall.size_hw
    field = smooth_noise(rng, (height, width), (rng.uniform(120, 400), rng.uniform(30, 90)))
    field *= np.float32(rng.uniform(0.5, 2.5))
    field += np.arange(width, dtype=np.float32) / np.float32(rng.uniform(7, 22))
    ridges = 1 - np.abs(np.sin(field, out=field), out=field)
    ridges *= ridges * np.float32(rng.choice([-1, -1, 1]) * rng.uniform(0.08, 0.3))
    if rng.random() < 0.5:
        ridges *= np.clip(smooth_noise(rng, (height, width), (200, 120)) + 0.6, 0, 1)
    np.multiply(wall.light, 1 + ridges, out=wall.light)


def water_line(rng: np.random.Generator, wall: Wall) -> None:
    """The wet or once wet foot of a wall, darker below a ragged level, often with a pale rim."""
    height, width = wall.size_hw
    level = rng.uniform(0.15, 0.9) * height + rng.normal(0, 0.04) * np.arange(width)
    for period_px, swing_px in ((200, 14), (40, 5), (7, 1.5)):
        level += rng.uniform(0, swing_px) * smooth_noise(rng, (1, width), (1, period_px))[0]
    below_px = np.arange(height, dtype=np.float32)[:, None] - level.astype(np.float32)[None, :]
    wet = np.clip(below_px / np.float32(rng.uniform(1, 14)), 0, 1) * np.float32(rng.uniform(-0.55, -0.15))
    if rng.random() < 0.5:
        wet += np.exp(-np.square(below_px / np.float32(rng.uniform(2, 7)))) * np.float32(
            rng.uniform(-0.2, 0.35)
        )
    np.multiply(wall.light, 1 + wet, out=wall.light)


def aggregate(rng: np.random.Generator, wall: Wall) -> None:
    """Exposed stones, over the whole wall or in a spalled hollow with a shaded upper and a lit lower edge."""
    patch, depth, size_px, contrast = np.full(wall.size_hw, 255, np.uint8), 0.0, rng.uniform(1.5, 4), 18.0
    if rng.random() < 0.7:
        patch, depth = jagged_blob(rng, wall, rng.uniform(25, 190)), rng.uniform(0.2, 0.6)
        size_px, contrast = rng.uniform(2, 8), rng.uniform(12, 32)
    box = box_around(patch)
    window = patch[box].astype(np.float32) / 255
    stones = _stones(rng, window.shape, size_px, contrast).astype(np.float32) / 128
    relief = cv2.GaussianBlur(window, (0, 0), float(rng.uniform(1, 3)))
    step = relief - np.roll(relief, 3, axis=0)
    shade = window * (stones * np.float32(rng.uniform(0.7, 1.15)) - 1)
    wall.light[box] *= np.clip(1 + shade - np.float32(depth) * step * 2, 0.1, 2)


def cable(rng: np.random.Generator, wall: Wall) -> None:
    """Smooth cables, ropes and pipes of constant width with a lit side and a shadow on the wall."""
    width_px = float(np.exp(rng.uniform(np.log(1.5), np.log(60))))
    away_xy = rng.normal(0, 0.5, 2) * width_px + rng.uniform(-8, 8, 2)
    colour = _pick(rng, PAINTS)
    for _ in range(rng.integers(1, 4) if width_px < 12 else 1):
        bend = rng.normal(0, 0.1) * (width_px < 15)
        path_xy = path_across(rng, wall, bend)
        shadow = draw_line(wall.canvas(), path_xy + away_xy, round(width_px))
        cast_shade(wall, blurred(shadow, rng.uniform(0.8, 5)), rng.uniform(0.2, 0.6))
        lay_bar(wall, path_xy, width_px, colour)


def gauge(rng: np.random.Generator, wall: Wall) -> None:
    """A gauge board or scale with ticks and numbers."""
    height, width = int(rng.integers(240, 900)), int(rng.integers(60, 130))
    sheet = np.full((height, width), 255, np.uint8)
    step = int(rng.integers(8, 24))
    for i, y in enumerate(range(step, height, step)):
        reach = int(width * (0.6 if i % 5 == 0 else 0.3))
        cv2.line(sheet, (0, y), (reach, y), 60, max(step // 5, 1))
        if i % 10 == 0:
            cv2.putText(sheet, str(i // 10), (reach, y + 14), int(rng.choice(FONTS)), 1.1, 60, 2, cv2.LINE_AA)
    sheet[:, [0, 1, -2, -1]] = 90
    drawn = warped(rng, wall, sheet, rng.uniform(0.25, 1.0))
    board = cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    bright, dark = [(1.6, 1.6, 1.55), (1.5, 1.2, 0.2), (1.2, 1.2, 1.2)][rng.integers(3)], (0.12, 0.12, 0.15)
    opaque = np.where(board > 40, np.uint8(255), np.uint8(0))
    cast_shade(wall, blurred(np.roll(opaque, (4, 3), (0, 1)), 3), 0.4)
    lay(wall, opaque, dark, hides=True)
    lay(wall, np.minimum(drawn, opaque), bright)


def beam(rng: np.random.Generator, wall: Wall) -> None:
    """A beam, slab or frame at the side of the picture or a window in it: straight edges, strong steps."""
    size_xy, tone = wall.size_xy, rng.uniform(0.05, 1.8)
    if rng.random() < 0.6:
        corners_xy = _half_plane(rng, size_xy)
    else:
        low_xy, span_xy = rng.uniform(0, 0.8, 2) * size_xy, rng.uniform(60, 320, 2)
        corners_xy = low_xy + np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * span_xy + rng.normal(0, 8, (4, 2))
    shape = wall.canvas()
    cv2.fillPoly(shape, [np.round(corners_xy * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    away = np.array([[1, 0, rng.uniform(-9, 9)], [0, 1, rng.uniform(0, 14)]])
    shadow = np.asarray(cv2.warpAffine(shape, away, shape.shape[::-1]), np.uint8)
    cast_shade(wall, blurred(shadow, rng.uniform(1, 5)), rng.uniform(0, 0.6))
    lay(wall, shape, (tone, tone * rng.uniform(0.9, 1.1), tone * rng.uniform(0.85, 1.15)), hides=True)
    for thickness in rng.integers(1, 26, rng.integers(0, 3)):
        edge = draw_line(wall.canvas(), corners_xy[[0, 1, 2, 3, 0]], int(thickness))
        lay(wall, edge, _pick(rng, PAINTS), hides=True)


def moss(rng: np.random.Generator, wall: Wall) -> None:
    """Cushions of moss, lichen or leaves with a dotted edge."""
    height, width = wall.size_hw
    period_px = rng.uniform(25, 110)
    noise = smooth_noise(rng, (height, width), (period_px, period_px * rng.uniform(0.5, 1)))
    noise += smooth_noise(rng, (height, width), (4, 4)) * np.float32(rng.uniform(0.3, 0.8))
    texture = smooth_noise(rng, (height, width), (2.5, 2.5)) * np.float32(0.25)
    alpha = np.clip((noise - np.float32(rng.uniform(1.3, 2.4))) * 400, 0, 255 * rng.uniform(0.6, 1))
    wall.light[:] *= 1 + texture * (alpha > OPAQUE)
    lay(wall, alpha.astype(np.uint8), _pick(rng, PLANTS), hides=True)


def stems(rng: np.random.Generator, wall: Wall) -> None:
    """Creepers and roots in front of the wall: smooth tapering stems, some with leaves, over their shadow."""
    alpha, colour = wall.canvas(), _pick(rng, PLANTS)
    start_xy, leafy = rng.uniform(0, 1, 2) * wall.size_xy, rng.random() < 0.5
    for _ in range(rng.integers(1, 6)):
        path_xy = smooth_path(rng, wall, rng.uniform(100, 600), start_xy)
        draw_tapering(alpha, path_xy, rng.uniform(2, 9))
        for x, y in path_xy[:: int(rng.integers(3, 9))] if leafy else ():
            at = (int(x + rng.normal(0, 7)), int(y + rng.normal(0, 7)))
            axes = (int(rng.integers(3, 13)), int(rng.integers(2, 7)))
            cv2.ellipse(alpha, at, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    cast_shade(wall, blurred(np.roll(alpha, (4, 3), (0, 1)), 2.0), rng.uniform(0.2, 0.5))
    lay(wall, alpha, colour, hides=True)


def branch_shadow(rng: np.random.Generator, wall: Wall) -> None:
    """The soft shadow of a tree's bare branches."""
    shade = wall.canvas()
    start_xy = rng.uniform(-0.1, 1.1, 2) * wall.size_xy
    towards_xy = rng.uniform(0.2, 0.8, 2) * wall.size_xy - start_xy
    heading = float(np.arctan2(towards_xy[1], towards_xy[0]))
    _branch(rng, shade, (start_xy, heading), (rng.uniform(200, 500), rng.uniform(4, 22)), 4)
    cast_shade(wall, blurred(shade, rng.uniform(1, 5)), rng.uniform(0.2, 0.6))


Mark = Callable[[np.random.Generator, Wall], None]
# Marks with their relative frequency. A crack runs through those that are part of the surface.
BELOW: tuple[tuple[Mark, float], ...] = (
    (paint_curves, 1.5), (painted_bands, 1), (letters, 1.8), (wood_grain, 1.2), (water_line, 1.0),
    (aggregate, 1.5),
)  # fmt: skip
# They and their shadows cover cracks.
ABOVE: tuple[tuple[Mark, float], ...] = (
    (cable, 2), (gauge, 1), (beam, 1.8), (moss, 0.8), (stems, 1.2), (branch_shadow, 1.5),
)  # fmt: skip


def add_marks(
    rng: np.random.Generator, wall: Wall, num_marks: int, marks: Sequence[tuple[Mark, float]]
) -> None:
    """Draw so many of these marks, each at most once."""
    chances = np.array([chance for _, chance in marks])
    for i in rng.choice(len(marks), num_marks, replace=False, p=chances / chances.sum()):
        marks[i][0](rng, wall)


def _stones(rng: np.random.Generator, size_hw: tuple[int, int], size_px: float, contrast: float) -> Bytes:
    """Flat stones of different tones around 128, lying over one another."""
    canvas = np.full(size_hw, 128, np.uint8)
    num_stones = min(int(0.25 * canvas.size / size_px**2), 7000)
    centres = (rng.uniform(0, 1, (num_stones, 2)) * size_hw[::-1]).astype(int).tolist()
    axes = np.ceil(size_px * rng.uniform(0.4, 1.3, (num_stones, 2))).astype(int).tolist()
    turns, tones = rng.uniform(0, 180, num_stones).tolist(), rng.normal(128, contrast, num_stones).tolist()
    for centre, axis, turn, tone in zip(centres, axes, turns, tones, strict=True):
        cv2.ellipse(canvas, centre, axis, turn, 0, 360, tone, -1)
    return canvas


def _half_plane(rng: np.random.Generator, size_xy: Floats) -> Floats:
    """A strip along one side of the picture, its edge nearly parallel to that side: four corners."""
    depth, tilt = rng.uniform(0.05, 0.35), rng.normal(0, 0.03)
    corners = np.array([(-0.1, -0.1), (1.1, -0.1), (1.1, depth + tilt), (-0.1, depth - tilt)])
    if rng.random() < 0.5:
        corners = 1 - corners
    return (corners[:, ::-1] if rng.random() < 0.5 else corners) * size_xy


def _branch(
    rng: np.random.Generator,
    shade: Bytes,
    place: tuple[Floats, float],
    size: tuple[float, float],
    levels: int,
) -> None:
    (start_xy, heading), (length_px, width_px) = place, size
    headings = heading + np.cumsum(rng.normal(0, 0.12, 12))
    path_xy = walk(start_xy, headings, length_px / 12)
    draw_tapering(shade, np.concatenate([[start_xy], path_xy]), width_px)
    for at in rng.integers(3, 12, 3) if levels else ():
        turned = float(headings[at] + rng.choice([-1, 1]) * rng.uniform(0.3, 0.9))
        smaller = length_px * rng.uniform(0.4, 0.75), width_px * 0.55
        _branch(rng, shade, (path_xy[at], turned), smaller, levels - 1)


def _pick(rng: np.random.Generator, colours: Sequence[Rgb]) -> Rgb:
    """One of the colours, brighter or darker and faded towards grey."""
    colour = np.array(colours[int(rng.integers(len(colours)))])
    red, green, blue = rng.uniform(0.7, 1.2) * (colour + rng.uniform(0, 0.8) * (colour.mean() - colour))
    return float(red), float(green), float(blue)
