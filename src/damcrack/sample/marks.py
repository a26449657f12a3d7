"""What is on concrete and is no crack: joints, scratches, tie-rod holes, stains, run-off, shadows."""

import cv2
import numpy as np

from damcrack.sample.strokes import Bytes, Floats, Stroke, walk
from damcrack.sample.surface import Field, smooth_noise
from damcrack.sample.wall import Wall, draw_line

STAIN_SHRINK = 4  # stains are soft: drawn at a quarter of the size

# Linear colour left of white light (red, green, blue) by each kind of stain at full strength.
DIRT, RUST, LIME, ALGAE = (0.50, 0.49, 0.47), (0.85, 0.60, 0.40), (1.30, 1.30, 1.27), (0.60, 0.66, 0.50)


def joints(rng: np.random.Generator, size_hw: tuple[int, int]) -> list[Stroke]:
    """Formwork joints: nearly straight dark gaps from edge to edge, on a grid of panels."""
    height, width = size_hw
    tilt = float(np.radians(rng.normal(0, 1.2)))
    panel_px, gap_px = rng.uniform(320, 1000), rng.uniform(1.5, 8.0)
    strokes = []
    for reach_px, length_px, upright in ((width, height, True), (height, width, False)):
        if rng.random() < 0.55:
            continue
        for at_px in np.arange(rng.uniform(0, panel_px), reach_px, panel_px):
            strokes.append(_joint(rng, (float(at_px), length_px, tilt), gap_px, upright))
    return strokes


def _joint(rng: np.random.Generator, place: tuple[float, int, float], gap_px: float, upright: bool) -> Stroke:
    at_px, length_px, tilt = place
    along = np.arange(-8.0, length_px + 16, 8.0)
    aside = at_px + along * np.tan(tilt) + 0.25 * rng.standard_normal(len(along))
    aside += np.interp(along, np.linspace(0, length_px, 9), rng.normal(0, 0.8, 9))
    points_xy = np.stack([aside, along] if upright else [along, aside], axis=1)
    uneven = np.exp(rng.normal(0, 0.14, len(along)))
    # Mortar bridges part of the gap.
    uneven *= np.clip(np.interp(along, np.linspace(0, length_px, 14), rng.uniform(0.2, 1.8, 14)), 0.3, 1.0)
    return Stroke(points_xy, gap_px * uneven)


def scratches(rng: np.random.Generator, size_hw: tuple[int, int]) -> list[Stroke]:
    """A few bundles of straight or slightly bent scratches, 0.6 to 3 px wide."""
    height, width = size_hw
    strokes = []
    for _ in range(rng.poisson(1.2 + height * width / 7e5)):
        heading = rng.uniform(0, np.pi)
        centre_xy = rng.uniform(0, 1, 2) * (width, height)
        for _ in range(rng.integers(1, 5)):
            start_xy = centre_xy + rng.normal(0, 25, 2)
            bend_per_px, length_px = rng.normal(0, 0.0012), rng.uniform(40, 420)
            along = np.arange(0.0, length_px, 6.0)
            points_xy = walk(start_xy, heading + rng.normal(0, 0.12) + bend_per_px * along, 6.0)
            fade = np.minimum(1.0, 6 * np.minimum(along, length_px - along) / length_px + 0.2)
            strokes.append(Stroke(points_xy, rng.uniform(0.6, 3.0) * fade))
    return strokes


def press_tie_holes(rng: np.random.Generator, light: Field) -> Floats:
    """Draw tie-rod holes on a grid onto `light`; return their centres (N, 2) in pixels."""
    height, width = light.shape
    spacing_px, radius_px = rng.uniform(200, 450), rng.uniform(7, 19)
    columns = np.arange(rng.uniform(0, spacing_px), width, spacing_px)
    rows = np.arange(rng.uniform(0, spacing_px), height, spacing_px * rng.uniform(0.7, 1.3))
    centres_xy = np.array([(x, y) for y in rows for x in columns]).reshape(-1, 2)
    centres_xy += rng.normal(0, 6, centres_xy.shape)
    plugged, depth = rng.random() < 0.3, rng.uniform(0.65, 0.93)
    for x, y in centres_xy:
        _press_hole(light, (x, y), radius_px, 0.1 if plugged else depth)
    return centres_xy


def _press_hole(light: Field, centre_xy: tuple[float, float], radius_px: float, depth: float) -> None:
    half = int(radius_px * 1.8) + 3
    x0, y0 = round(centre_xy[0]) - half, round(centre_xy[1]) - half
    window = light[max(y0, 0) : max(y0 + 2 * half, 0), max(x0, 0) : max(x0 + 2 * half, 0)]
    if window.size == 0:
        return
    rows = np.arange(window.shape[0])[:, None] + max(y0, 0) - centre_xy[1]
    columns = np.arange(window.shape[1])[None, :] + max(x0, 0) - centre_xy[0]
    from_rim_px = np.hypot(columns, rows) - radius_px
    inside = np.clip(0.5 - from_rim_px, 0, 1)
    lip = np.exp(-((from_rim_px / 1.6) ** 2)) * np.sign(rows) * 0.16
    shadow = np.clip(0.8 - 0.35 * rows / radius_px, 0.3, 1.0)
    window *= (1 - inside * depth * shadow + lip).astype(np.float32)


def stains(rng: np.random.Generator, size_hw: tuple[int, int], sources_xy: Floats) -> Field:
    """Colour that dirt, rust, lime and algae leave, at a quarter of the size: float32 (H/4, W/4, 3) around 1.

    `sources_xy` (N, 2) are points in photo pixels that water runs from.
    """
    small_hw = (-(-size_hw[0] // STAIN_SHRINK), -(-size_hw[1] // STAIN_SHRINK))
    gain = np.ones((*small_hw, 3), np.float32)
    for colour, chance in ((DIRT, 0.6), (LIME, 0.35), (ALGAE, 0.2), (RUST, 0.15)):
        if rng.random() < chance:
            _apply(gain, _blotches(rng, small_hw), colour)
    for colour, chance in ((DIRT, 0.55), (LIME, 0.3)):
        if rng.random() < chance:
            _apply(gain, _streaks(rng, small_hw), colour)
    colour = RUST if rng.random() < 0.5 else DIRT
    for x, y in sources_xy[rng.random(len(sources_xy)) < 0.5]:
        _run_down(rng, gain, (x / STAIN_SHRINK, y / STAIN_SHRINK), colour)
    return gain


def _apply(gain: Field, strength: Field, colour: tuple[float, float, float]) -> None:
    for channel, left in enumerate(colour):
        gain[..., channel] *= 1 + strength * np.float32(left - 1)


def _blotches(rng: np.random.Generator, small_hw: tuple[int, int]) -> Field:
    """Patches with ragged edges, some crisp like a dried puddle, some soft."""
    period_px = rng.uniform(25, 90)
    noise = smooth_noise(rng, small_hw, (period_px * rng.uniform(1, 2), period_px))
    for ragged_yx, strength in (((8, 6), 0.4), ((2, 2), 0.2)):
        noise += np.float32(strength) * smooth_noise(rng, small_hw, ragged_yx)
    edge = np.clip((noise - np.float32(rng.uniform(0.5, 1.8))) * np.float32(rng.uniform(0.6, 4)), 0, 1)
    return np.asarray(edge * np.float32(rng.uniform(0.2, 0.75)))


def _streaks(rng: np.random.Generator, small_hw: tuple[int, int]) -> Field:
    """Vertical run-off, strongest at the top of each streak."""
    height, width = small_hw
    across = smooth_noise(rng, (1, width), (1, rng.uniform(2, 14)))[0]
    strength = np.clip(across - np.float32(rng.uniform(0.5, 1.5)), 0, 1)
    ends = np.interp(np.arange(width), np.linspace(0, width, 12), rng.uniform(0.1, 1.4, 12)) * height
    fall = np.clip(1 - np.arange(height)[:, None] / ends[None, :], 0, 1).astype(np.float32)
    ragged = 1 + np.float32(0.3) * smooth_noise(rng, small_hw, (50, 2))
    return np.asarray(np.clip(strength[None, :] * fall * ragged, 0, 1) * np.float32(rng.uniform(0.4, 0.95)))


def _run_down(
    rng: np.random.Generator, gain: Field, start_xy: tuple[float, float], colour: tuple[float, float, float]
) -> None:
    x, y = start_xy
    length, half = rng.uniform(15, 70), rng.uniform(1.0, 4.0)
    y0, x0 = max(int(y), 0), max(int(x - 4 * half), 0)
    window = gain[y0 : int(y + length) + 1, x0 : int(x + 4 * half) + 1]
    rows = (np.arange(window.shape[0])[:, None] + y0 - y) / length
    columns = np.arange(window.shape[1])[None, :] + x0 - x
    strength = np.exp(-((columns / half) ** 2)) * np.clip(1 - rows, 0, 1) * rng.uniform(0.3, 0.9)
    _apply(window, strength.astype(np.float32), colour)


def shadows(rng: np.random.Generator, wall: Wall) -> Bytes:
    """Shade of things outside the picture, 255 = full: an edge, a railing, cables and twigs."""
    shade = wall.canvas()
    if rng.random() < 0.55:
        _shade_edge(rng, shade)
    if rng.random() < 0.6:
        for _ in range(rng.integers(1, 5)):
            _shade_cable(rng, shade)
    return np.asarray(cv2.GaussianBlur(shade, (0, 0), float(rng.uniform(0.8, 4.0))), np.uint8)


def _shade_edge(rng: np.random.Generator, shade: Bytes) -> None:
    height, width = shade.shape
    across = np.array([np.cos(angle := rng.uniform(0, 2 * np.pi)), np.sin(angle)])
    along = np.array([-across[1], across[0]])
    foot = rng.uniform(0.15, 0.85, 2) * (width, height)
    far = 2.0 * (height + width)
    corners = np.array(
        [foot - far * along, foot + far * along, foot + far * (along + across), foot + far * (across - along)]
    )
    cv2.fillPoly(shade, [np.round(corners).astype(np.int32)], 255, cv2.LINE_AA)


def _shade_cable(rng: np.random.Generator, shade: Bytes) -> None:
    """A long, smooth, slightly sagging line: curved and dark like a crack, but soft and even."""
    height, width = shade.shape
    ends = rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)
    at = np.linspace(0, 1, 40)[:, None]
    sag = rng.normal(0, 0.08, 2) * max(height, width)
    path = ends[0] * (1 - at) + ends[1] * at + 4 * at * (1 - at) * sag
    draw_line(shade, path, value=float(rng.uniform(110, 255)), thickness=int(rng.integers(2, 9)))
