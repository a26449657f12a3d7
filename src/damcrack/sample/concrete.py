"""Photographs of formed concrete with branching cracks and exact masks, rendered from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from damcrack.errors import InputError
from damcrack.sample.cracks import Crack, crack_mask, grow_crack
from damcrack.sample.marks import cast_shadows, joints, press_tie_holes, scratches, stains
from damcrack.sample.strokes import Bytes, Floats, Stroke, coverage, painted
from damcrack.sample.surface import Field, board_marks, concrete_surface, smooth_noise

NO_CRACK_CHANCE = 0.12
CRACKS_PER_MEGAPIXEL = 3.2
MIN_SIDE_PX = 64
# Red, green, blue of grey, bluish, beige, greenish and pinkish cements.
TINTS = ((1, 1, 1), (0.96, 1, 1.04), (1.06, 1, 0.89), (0.98, 1.01, 0.98), (1.04, 1, 0.96), (1.02, 1, 0.95))


@dataclass(frozen=True)
class ConcretePhoto:
    """`rgb` uint8 HxWx3, `mask` uint8 HxW (255 = crack), and the strokes of every crack and branch."""

    rgb: Bytes
    mask: Bytes
    cracks: tuple[Stroke, ...] = field(default=())


def render_photo(seed: int, index: int, size_hw: tuple[int, int]) -> ConcretePhoto:
    """Render photo `index` of the sample `seed`: a function of its arguments alone.

    The scale in pixels is the same at every size: a larger photo shows more wall and more cracks.
    Raises InputError for a side below 64 px.
    """
    if min(size_hw) < MIN_SIDE_PX:
        raise InputError(f"size_hw: got {size_hw}; the sample needs at least {MIN_SIDE_PX} px a side")
    rng = np.random.default_rng([seed, index])
    light = concrete_surface(rng, size_hw)
    if rng.random() < 0.45:
        light *= board_marks(rng, size_hw)
    holes_xy = press_tie_holes(rng, light) if rng.random() < 0.5 else np.zeros((0, 2))
    gaps = joints(rng, size_hw) if rng.random() < 0.8 else []
    _cut(light, gaps, [np.full(len(gap.width_px), rng.uniform(0.35, 0.9)) for gap in gaps])
    _scratch(rng, light)
    cracks = _place_cracks(rng, size_hw)
    strokes = [crack.stroke for crack in cracks]
    area = _cut(light, strokes, [crack.darkness for crack in cracks])
    colour = stains(rng, size_hw, _run_off_sources(rng, holes_xy, gaps))
    _leach_lime(rng, colour, area)
    return ConcretePhoto(_expose(rng, light, colour), crack_mask(strokes, size_hw, area), tuple(strokes))


def encode_photo(rgb: Bytes, index: int) -> bytes:
    """JPEG bytes; the quality, 70 to 95, and the colour subsampling depend on `index` alone."""
    rng = np.random.default_rng([70_95, index])
    halved = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if rng.random() < 0.7 else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    )
    options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96)), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, halved]
    written, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    assert written
    return bytes(encoded.tobytes())


def _place_cracks(rng: np.random.Generator, size_hw: tuple[int, int]) -> list[Crack]:
    """Cracks of one photo, their number growing with its area; some photos have none."""
    if rng.random() < NO_CRACK_CHANCE:
        return []
    height, width = size_hw
    expected = CRACKS_PER_MEGAPIXEL * height * width / 1e6
    cracks: list[Crack] = []
    for _ in range(max(1, rng.poisson(expected * rng.uniform(0.5, 1.5)))):
        start_xy = rng.uniform(-0.05, 1.05, 2) * (width, height)
        towards_xy = rng.uniform(0.2, 0.8, 2) * (width, height) - start_xy
        heading = float(np.arctan2(towards_xy[1], towards_xy[0]) + rng.normal(0, 0.3))
        length_px = float(np.clip(np.exp(rng.normal(6.35, 0.5)), 150, 2200))
        cracks += grow_crack(rng, start_xy, heading, length_px)
    return cracks


def _cut(light: Field, strokes: Sequence[Stroke], darkness: Sequence[Floats]) -> Bytes:
    """Darken the strokes, with a soft shoulder and a lit lower edge, and return their coverage."""
    area = coverage(strokes, (light.shape[0], light.shape[1]))
    if not strokes:
        return area
    depth = painted(strokes, darkness, (light.shape[0], light.shape[1]))
    dark = cv2.multiply(area, depth, scale=1 / 255).astype(np.float32)
    shoulder = np.asarray(cv2.GaussianBlur(dark, (0, 0), 1.6), np.float32)
    lit = np.roll(shoulder, 2, axis=0)
    lit -= shoulder
    dark *= np.float32(0.8)
    dark += np.float32(0.28) * shoulder
    np.clip(lit, 0, None, out=lit)
    dark -= np.float32(0.25) * lit
    dark *= np.float32(-1 / 255)
    dark += 1
    light *= dark
    return area


def _scratch(rng: np.random.Generator, light: Field) -> None:
    strokes = scratches(rng, (light.shape[0], light.shape[1]))
    split = int(rng.integers(0, len(strokes) + 1))
    for some, low, high in ((strokes[:split], 0.2, 0.6), (strokes[split:], -0.35, -0.1)):
        if some:
            strength = np.float32(rng.uniform(low, high) / 255)
            light *= 1 - strength * coverage(some, (light.shape[0], light.shape[1])).astype(np.float32)


def _run_off_sources(rng: np.random.Generator, holes_xy: Floats, gaps: Sequence[Stroke]) -> Floats:
    """Points that stains run down from: the tie-rod holes and some places along the joints."""
    along = [gap.points_xy[rng.integers(0, len(gap.points_xy), 6)] for gap in gaps]
    return np.concatenate([holes_xy, *along])


def _leach_lime(rng: np.random.Generator, colour: Field, area: Bytes) -> None:
    """White lime around some of the cracks."""
    if rng.random() < 0.7 or not area.any():
        return
    size = (colour.shape[1], colour.shape[0])
    near = cv2.resize(area, size, interpolation=cv2.INTER_AREA)
    reach_x, reach_y = float(rng.uniform(1.5, 4)), float(rng.uniform(3, 10))
    near = cv2.GaussianBlur(near.astype(np.float32), (0, 0), sigmaX=reach_x, sigmaY=reach_y)
    here = np.clip(smooth_noise(rng, (size[1], size[0]), (30, 20)), 0, 1)
    here *= 1 + np.float32(0.6) * smooth_noise(rng, (size[1], size[0]), (3, 2))
    colour *= (1 + np.clip(near * here * np.float32(0.012), 0, np.float32(0.25)))[..., None]


def _expose(rng: np.random.Generator, light: Field, colour: Field) -> Bytes:
    """Light the wall and take the picture: shadows, uneven light, vignette, lens blur, sensor noise."""
    height, width = light.shape
    if rng.random() < 0.5:
        shade = cast_shadows(rng, (height, width)).astype(np.float32)
        light *= 1 - shade * np.float32(rng.uniform(0.2, 0.55) / 255)
    colour *= _lighting(rng, (colour.shape[0], colour.shape[1]))[..., None]
    tint = np.array(TINTS[rng.integers(len(TINTS))]) * rng.normal(1, 0.012, 3)
    # From walls in the shade to sunlit ones: no one grey level tells a crack from its wall.
    exposure = np.exp(rng.uniform(np.log(70), np.log(215)))
    colour *= (tint * exposure).astype(np.float32)
    light = np.asarray(cv2.GaussianBlur(light, (0, 0), float(rng.uniform(0.35, 0.9))), np.float32)
    light += rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.uniform(0.004, 0.02))
    full = np.asarray(cv2.resize(colour, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    full *= light[..., None]
    return _developed(full)


def _lighting(rng: np.random.Generator, small_hw: tuple[int, int]) -> Field:
    """Relative light over the photo: a slope, a broad glow and a vignette."""
    rows = np.linspace(-1, 1, small_hw[0], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, small_hw[1], dtype=np.float32)[None, :]
    slope_y, slope_x = rng.normal(0, 0.12, 2).astype(np.float32)
    glow = smooth_noise(rng, small_hw, (small_hw[0] / 1.5, small_hw[1] / 1.5)) * np.float32(0.06)
    vignette = np.float32(rng.uniform(0, 0.18)) * (rows**2 + columns**2)
    return np.asarray(np.clip(1 + slope_y * rows + slope_x * columns + glow - vignette, 0.35, 1.6))


def _developed(linear: Field) -> Bytes:
    """Bytes with a soft highlight shoulder: values above 190 approach 255."""
    over = np.maximum(linear - np.float32(190), 0)
    linear -= over * over / (over + np.float32(65))
    return np.asarray(cv2.convertScaleAbs(np.maximum(linear, 0)), np.uint8)
