"""Photographs of formed concrete with branching cracks and exact masks, rendered from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from damcrack.files import InputError
from damcrack.sample.cracks import (
    Crack,
    crack_ground,
    crack_mask,
    crack_network,
    dampen,
    fill_with_lime,
    grow_crack,
    leach_lime,
    light_rims,
    open_seam,
    spall_edges,
)
from damcrack.sample.grounds import lay_ground
from damcrack.sample.hostile import ABOVE, BELOW, add_marks
from damcrack.sample.marks import scratches, shadows, stains
from damcrack.sample.strokes import Bytes, Floats, Stroke, coverage, painted
from damcrack.sample.surface import Field, concrete_surface, smooth_noise
from damcrack.sample.wall import OPAQUE, Wall, bare_wall, cast_shade, cut

NO_CRACK_CHANCE = 0.25
WIDE_CRACK_CHANCE = 1 / 6  # of a photo with cracks to have one of 12 to 40 px
NETWORK_CHANCE = 0.12
SEAM_CHANCE = 0.45  # of a crack in masonry to follow its joints
CRACKS_PER_MEGAPIXEL = 3.2
MIN_SIDE_PX = 64
WIDE_PX = 8.0  # wider cracks show their ground
# Red, green, blue of grey, bluish, beige, greenish, pinkish, blue and brown concrete.
TINTS = (
    (1, 1, 1), (0.96, 1, 1.04), (1.06, 1, 0.89), (0.98, 1.01, 0.98), (1.04, 1, 0.96), (1.02, 1, 0.95),
    (0.85, 0.98, 1.13), (1.1, 0.99, 0.85),
)  # fmt: skip


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
    wall = bare_wall(concrete_surface(rng, size_hw))
    ground = lay_ground(rng, wall)
    _scratch(rng, wall)
    cracks = _place_cracks(rng, size_hw, ground.seams)
    num_marks = _num_marks(rng, bool(cracks))
    num_below = int(rng.binomial(num_marks, 0.5))
    add_marks(rng, wall, num_below, BELOW)
    colour = stains(rng, size_hw, ground.run_off_xy)
    area = _open_cracks(rng, wall, colour, cracks)
    add_marks(rng, wall, num_marks - num_below, ABOVE)
    strokes = [crack.stroke for crack in cracks]
    mask = crack_mask(strokes, size_hw, area)
    mask[wall.hidden >= OPAQUE] = 0
    return ConcretePhoto(_expose(rng, wall, colour), mask, tuple(strokes))


def encode_photo(rgb: Bytes, index: int) -> bytes:
    """JPEG bytes; quality (70 to 95, seldom down to 40) and colour subsampling depend on `index` alone."""
    rng = np.random.default_rng([70_95, index])
    halved = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if rng.random() < 0.7 else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    )
    quality = int(rng.integers(40, 70) if rng.random() < 0.15 else rng.integers(70, 96))
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, halved]
    written, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    assert written
    return bytes(encoded.tobytes())


def _num_marks(rng: np.random.Generator, has_cracks: bool) -> int:
    """How many hostile marks: one to three on sound concrete, on cracked concrete fewer."""
    return int(rng.choice(4, p=(0.4, 0.3, 0.2, 0.1) if has_cracks else (0.1, 0.35, 0.35, 0.2)))


def _place_cracks(rng: np.random.Generator, size_hw: tuple[int, int], seams: Sequence[Floats]) -> list[Crack]:
    """Cracks of one photo, their number growing with its area; some photos have none. Some follow the seams."""
    if rng.random() < NO_CRACK_CHANCE:
        return []
    height, width = size_hw
    expected = CRACKS_PER_MEGAPIXEL * height * width / 1e6
    num_cracks = max(1, rng.poisson(expected * rng.uniform(0.5, 1.5)))
    widths_px = np.exp(rng.uniform(np.log(0.7), np.log(9), num_cracks))
    if rng.random() < WIDE_CRACK_CHANCE:
        widths_px[0] = np.exp(rng.uniform(np.log(12), np.log(38)))
    cracks: list[Crack] = []
    for width_px in widths_px:
        if seams and rng.random() < SEAM_CHANCE:
            cracks += open_seam(rng, seams[int(rng.integers(len(seams)))], float(width_px))
            continue
        start_xy = rng.uniform(-0.05, 1.05, 2) * (width, height)
        towards_xy = rng.uniform(0.2, 0.8, 2) * (width, height) - start_xy
        heading = float(np.arctan2(towards_xy[1], towards_xy[0]) + rng.normal(0, 0.3))
        length_px = float(np.clip(np.exp(rng.normal(6.35, 0.5)), max(150, 20 * width_px), 2200))
        cracks += grow_crack(rng, start_xy, heading, (length_px, float(width_px)))
    if rng.random() < NETWORK_CHANCE:
        cracks += crack_network(rng, rng.uniform(0.1, 0.9, 2) * (width, height))
    return cracks


def _open_cracks(rng: np.random.Generator, wall: Wall, colour: Field, cracks: Sequence[Crack]) -> Bytes:
    """Draw the cracks, most of them open, some filled with dirt or lime or damp, and return their coverage."""
    light, strokes = wall.light, [crack.stroke for crack in cracks]
    area = coverage(strokes, wall.size_hw)
    if not area.any():
        return area
    wide = max(stroke.width_px.max() for stroke in strokes) > WIDE_PX
    if rng.random() < (0.7 if wide else 0.2):
        spall_edges(rng, light, area)
    if wide:
        light_rims(rng, light, area)
    kind = rng.choice(["open", "dirty", "limed", "damp"], p=(0.79, 0.08, 0.05, 0.08))
    if kind == "limed":
        fill_with_lime(rng, light, area)
    else:
        fade = rng.uniform(0.25, 0.6) if kind == "dirty" else 1.0
        # Darker ones last, or a faint branch would leave a pale stripe across a wide crack.
        ordered = sorted(cracks, key=lambda one: (one.stroke.width_px.max() > WIDE_PX, one.darkness.mean()))
        values = [fade * crack.darkness for crack in ordered]
        depth = painted([crack.stroke for crack in ordered], values, wall.size_hw)
        cut(light, area, depth, crack_ground(rng, wall.size_hw) if wide else None)
    if kind == "damp":
        dampen(rng, colour, area)
    if kind == "limed" or rng.random() < 0.3:
        leach_lime(rng, colour, area)
    return area


def _scratch(rng: np.random.Generator, wall: Wall) -> None:
    strokes = scratches(rng, wall.size_hw)
    split = int(rng.integers(0, len(strokes) + 1))
    for some, low, high in ((strokes[:split], 0.2, 0.6), (strokes[split:], -0.35, -0.1)):
        if some:
            cast_shade(wall, coverage(some, wall.size_hw), rng.uniform(low, high))


def _expose(rng: np.random.Generator, wall: Wall, colour: Field) -> Bytes:
    """Light the wall and take the picture: shadows, uneven light, vignette, blur, noise, haze, pale colours."""
    if rng.random() < 0.5:
        cast_shade(wall, shadows(rng, wall), rng.uniform(0.2, 0.55))
    colour *= _lighting(rng, colour.shape[:2])[..., None]
    tint = np.array(TINTS[rng.integers(len(TINTS))]) * rng.normal(1, 0.012, 3)
    # From walls in the shade to sunlit ones: no one grey level tells a crack from its wall.
    exposure = np.exp(rng.uniform(np.log(85), np.log(255)))
    colour *= (tint * exposure).astype(np.float32)
    size_wh = wall.size_hw[::-1]
    full = np.asarray(cv2.resize(colour, size_wh, interpolation=cv2.INTER_LINEAR), np.float32)
    full *= _blurred(rng, wall)
    _haze(rng, full, exposure)
    return _developed(full)


def _blurred(rng: np.random.Generator, wall: Wall) -> Field:
    """What lens, motion and sensor make of the wall: float32 around 1, (H, W, 3), or (H, W, 1) if it is unpainted."""
    painted_anywhere = bool((wall.tint != 1).any())
    seen = np.multiply(wall.tint, wall.light[..., None], out=wall.tint) if painted_anywhere else wall.light
    cv2.GaussianBlur(seen, (0, 0), float(rng.uniform(0.35, 0.9)), dst=seen)
    if rng.random() < 0.1:
        seen = np.asarray(cv2.filter2D(seen, -1, _motion(rng)), np.float32)
    loudest = 0.05 if rng.random() < 0.15 else 0.02
    grain = rng.standard_normal(wall.size_hw, dtype=np.float32)
    grain *= np.float32(rng.uniform(0.004, loudest))
    seen = seen.reshape(*wall.size_hw, -1)
    seen += grain[..., None]
    return seen


def _motion(rng: np.random.Generator) -> Field:
    """A straight, centred smear of 3 to 9 px, as a 9x9 kernel."""
    kernel = np.zeros((9, 9), np.float32)
    angle, reach = rng.uniform(0, np.pi), rng.uniform(1, 4)
    tip = np.round(np.array([np.cos(angle), np.sin(angle)]) * reach * 16).astype(int)
    first, last = (4 * 16 - tip).tolist(), (4 * 16 + tip).tolist()
    cv2.line(kernel, first, last, 1.0, 1, cv2.LINE_8, 4)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _haze(rng: np.random.Generator, linear: Field, exposure: float) -> None:
    """Take colour away from some photos and contrast from some."""
    if rng.random() < 0.15:
        grey = linear.mean(axis=2, keepdims=True)
        linear += np.float32(rng.uniform(0.4, 1.0)) * (grey - linear)
    if rng.random() < 0.15:
        share = np.float32(rng.uniform(0.15, 0.5))
        linear += share * (np.float32(rng.uniform(0.8, 1.2) * exposure) - linear)


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
    shoulder = over + np.float32(65)
    over *= over
    over /= shoulder
    linear -= over
    return np.asarray(cv2.convertScaleAbs(np.maximum(linear, 0, out=linear)), np.uint8)
