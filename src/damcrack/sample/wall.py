"""A wall to draw marks on, and the ways to draw them: paint, shade, lines, blobs, sheets."""

from dataclasses import dataclass

import cv2
import numpy as np

from damcrack.sample.strokes import Bytes, Floats, walk
from damcrack.sample.surface import Field, smooth_noise

Rgb = tuple[float, float, float]
OPAQUE = 128  # of 255: what covers at least half of a pixel hides the crack in it


@dataclass(frozen=True)
class Wall:
    """A wall to draw on: brightness `light` HxW, reflectance `tint` HxWx3 around 1, and `hidden`, what covers it."""

    light: Field
    tint: Field
    hidden: Bytes

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.hidden.shape[0], self.hidden.shape[1]

    def canvas(self) -> Bytes:
        """An empty one of its size, to draw on it what is then laid on the wall."""
        return np.zeros_like(self.hidden)

    @property
    def size_xy(self) -> Floats:
        return np.array(self.hidden.shape[::-1], np.float64)


def bare_wall(light: Field) -> Wall:
    """A wall of the brightness `light` with nothing on it; `light` is drawn on in place."""
    return Wall(light, np.ones((*light.shape, 3), np.float32), np.zeros(light.shape, np.uint8))


def cut(light: Field, area: Bytes, depth: Bytes, ground: Field | None = None) -> None:
    """Darken what `area` covers by `depth`, where given times `ground`, with a soft shoulder and a lit lower edge."""
    if not area.any():
        return
    dark = cv2.multiply(area, depth, scale=1 / 255).astype(np.float32)
    shoulder = np.asarray(cv2.GaussianBlur(dark, (0, 0), 1.6), np.float32)
    lit = np.roll(shoulder, 2, axis=0)
    lit -= shoulder
    dark *= np.float32(0.8) if ground is None else ground * np.float32(0.8)
    dark += np.float32(0.28) * (shoulder if ground is None else shoulder * ground)
    np.clip(lit, 0, None, out=lit)
    dark -= np.float32(0.25) * lit
    dark *= np.float32(-1 / 255)
    dark += 1
    light *= np.clip(dark, np.float32(0.01), None, out=dark)


def box_around(alpha: Bytes) -> tuple[slice, slice]:
    """Rows and columns that hold all of `alpha` above 0; none if there is none."""
    x, y, width, height = cv2.boundingRect(alpha)
    return np.s_[y : y + height, x : x + width]


def lay(wall: Wall, alpha: Bytes, colour: Rgb, *, hides: bool = False) -> None:
    """Give the wall `colour` where `alpha`; what hides it also flattens its relief and covers its cracks."""
    if not alpha.any():
        return
    box = box_around(alpha)
    share = alpha[box].astype(np.float32) / 255
    wall.tint[box] += share[..., None] * (np.array(colour, np.float32) - wall.tint[box])
    if hides:
        wall.light[box] += share * (
            np.float32(0.2) * wall.light[box].mean() + np.float32(0.8) - wall.light[box]
        )
        np.maximum(wall.hidden[box], alpha[box], out=wall.hidden[box])


def cast_shade(wall: Wall, shade: Bytes, strength: float) -> None:
    """Take up to `strength` of the light away where `shade`; below 0 it is added."""
    box = box_around(shade)
    wall.light[box] *= 1 - shade[box].astype(np.float32) * np.float32(strength / 255)


def worn_paint(rng: np.random.Generator, alpha: Bytes) -> Bytes:
    """Paint that came off in places and lets some of the concrete through."""
    if not alpha.any():
        return alpha
    box = box_around(alpha)
    size_hw, worn = alpha[box].shape, np.zeros_like(alpha)
    left = smooth_noise(rng, size_hw, (3, 3)) * np.float32(0.5) + smooth_noise(rng, size_hw, (25, 25))
    left = np.clip((left + np.float32(rng.uniform(0.2, 3))) * 2, 0, 1) * np.float32(rng.uniform(0.4, 1))
    worn[box] = alpha[box] * left
    return worn


def draw_line(canvas: Bytes, path_xy: Floats, thickness: int, value: float = 255) -> Bytes:
    """Draw an open path of one thickness onto a canvas, to a sixteenth of a pixel."""
    points = np.round(path_xy * 16).astype(np.int32)
    cv2.polylines(canvas, [points], False, value, max(thickness, 1), cv2.LINE_AA, 4)
    return canvas


def draw_tapering(canvas: Bytes, path_xy: Floats, thickness: float) -> None:
    """Draw a path that thins to a seventh at its end."""
    parts = np.array_split(np.arange(len(path_xy)), 6)
    for i, part in enumerate(parts):
        draw_line(canvas, path_xy[part[0] : part[-1] + 2], round(thickness * (1 - i / 7)))


def smooth_path(
    rng: np.random.Generator, wall: Wall, length_px: float, start_xy: Floats | None = None
) -> Floats:
    """A curve without kinks, some 6 px a step."""
    start_xy = rng.uniform(0, 1, 2) * wall.size_xy if start_xy is None else start_xy
    num_points = max(int(length_px / 6), 8)
    turns = np.interp(np.linspace(0, 1, num_points), np.linspace(0, 1, 7), rng.normal(0, 0.09, 7))
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(turns)
    return walk(start_xy, headings, 6)


def path_across(rng: np.random.Generator, wall: Wall, bend: float) -> Floats:
    """A straight or evenly sagging path from edge to edge, (60, 2)."""
    angle, far_px = rng.uniform(0, np.pi), 2 * float(wall.size_xy.sum())
    if rng.random() < 0.5:
        angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.04)
    along = np.array([np.cos(angle), np.sin(angle)])
    at = np.linspace(-0.5, 0.5, 60)[:, None]
    aside = np.array([-along[1], along[0]]) * bend * far_px / 2 * (1 - 4 * at**2)
    return np.asarray(rng.uniform(0.05, 0.95, 2) * wall.size_xy + at * along * far_px + aside)


def warped(rng: np.random.Generator, wall: Wall, sheet: Bytes, scale: float) -> Bytes:
    """The sheet put somewhere on the picture, turned a little or fully, in weak perspective."""
    height, width = sheet.shape
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    turn = rng.normal(0, 0.1) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    turned = (corners - corners.mean(axis=0)) @ np.array(
        [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    )
    placed = turned * scale * rng.uniform(0.85, 1.15, (4, 1)) + rng.uniform(0.1, 0.9, 2) * wall.size_xy
    into = cv2.getPerspectiveTransform(corners, placed.astype(np.float32))
    reduced = cv2.GaussianBlur(sheet, (0, 0), max(0.4 / scale, 0.3)) if scale < 0.8 else sheet
    return np.asarray(cv2.warpPerspective(reduced, into, wall.hidden.shape[::-1]), np.uint8)


def jagged_blob(rng: np.random.Generator, wall: Wall, radius_px: float) -> Bytes:
    """A filled, jagged outline somewhere on the picture."""
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    knots = rng.normal(0, 0.25, 9)
    radii_px = radius_px * np.exp(np.interp(angles, np.linspace(0, 2 * np.pi, 10), [*knots, knots[0]]))
    radii_px *= np.exp(rng.normal(0, 0.05, 90))
    outline = np.stack([np.cos(angles) * radii_px, np.sin(angles) * radii_px * rng.uniform(0.4, 1)], axis=1)
    blob, outline = wall.canvas(), outline + rng.uniform(0.05, 0.95, 2) * wall.size_xy
    cv2.fillPoly(blob, [np.round(outline).astype(np.int32)], 255)
    return blob


def blurred(canvas: Bytes, sigma_px: float) -> Bytes:
    """The canvas under a Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), sigma_px), np.uint8)


def lay_bar(wall: Wall, path_xy: Floats, width_px: float, colour: Rgb) -> None:
    """A bar that is brightest a third of the way across, as a cylinder in the light is."""
    red, green, blue = colour
    whole = draw_line(wall.canvas(), path_xy, round(width_px))
    lay(wall, whole, (0.6 * red, 0.6 * green, 0.6 * blue), hides=True)
    for share, tone in ((0.7, 1.0), (0.3, 1.35)):
        if width_px * share >= 1:
            strip = draw_line(wall.canvas(), path_xy - 0.1 * width_px, round(width_px * share))
            soft = blurred(strip, 0.1 * width_px + 0.3)
            lay(wall, np.minimum(soft, whole), (tone * red, tone * green, tone * blue))
