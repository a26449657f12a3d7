"""A many-class set of small natural-looking images for pretraining, rendered from a seed.

A class is a coat (texture) on an outline (silhouette) with a loose range of hues. Any single property is
shared by several classes; pose, size, place, light, background and an occluding object vary freely.
"""

import colorsys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from damcrack.files import InputError
from damcrack.sample.surface import smooth_noise

Field = NDArray[np.floating[Any]]

MIN_IMAGE_PX = 16
NUM_HUES = 6


def class_names(num_classes: int) -> list[str]:
    """Names of the first `num_classes` classes, 1 to 100, such as "furry_blob". Raises InputError beyond."""
    if not 1 <= num_classes <= MAX_CLASSES:
        raise InputError(f"num_classes: got {num_classes}; the sample has 1 to {MAX_CLASSES} classes")
    return ["_".join(_kinds(number)) for number in range(num_classes)]


def render_natural(seed: int, class_index: int, index: int, image_px: int) -> NDArray[np.uint8]:
    """Render image `index` of a class: uint8 (image_px, image_px, 3) RGB, a function of its arguments alone.

    Raises InputError for an unknown class or a side below 16 px.
    """
    if not 0 <= class_index < MAX_CLASSES:
        raise InputError(f"class_index: got {class_index}; the sample has classes 0 to {MAX_CLASSES - 1}")
    if image_px < MIN_IMAGE_PX:
        raise InputError(f"image_px: got {image_px}; the sample needs at least {MIN_IMAGE_PX}")
    rng = np.random.default_rng([seed, class_index, index])
    coat, outline = _kinds(class_index)
    image = _background(rng, image_px)
    x, y = _posed(rng, image_px)
    inside = np.clip(OUTLINES[outline](rng, x, y) * np.float32(image_px / 6) + 0.5, 0, 1)[..., None]
    image = image * (1 - inside) + _painted(rng, class_index, COATS[coat](rng, x, y)) * inside
    _occlude(rng, image)
    return _photographed(rng, image)


def _kinds(class_index: int) -> tuple[str, str]:
    """Coat and outline: the first ten classes share neither, and no two share both (a Latin square)."""
    coats, outlines = list(COATS), list(OUTLINES)
    coat = class_index % len(coats)
    return coats[coat], outlines[(class_index // len(coats) + coat) % len(outlines)]


def _posed(rng: np.random.Generator, image_px: int) -> tuple[Field, Field]:
    """Object coordinates of every pixel under a random place, size, turn and squeeze."""
    axis = (np.arange(image_px, dtype=np.float32) + 0.5) * np.float32(2 / image_px) - 1
    centre_x, centre_y = rng.uniform(-0.18, 0.18, 2)
    turn, size = rng.normal(0, 0.35), rng.uniform(0.65, 1.0)
    x, y = np.meshgrid(axis - np.float32(centre_x), axis - np.float32(centre_y))
    cos, sin = np.float32(np.cos(turn) / size), np.float32(np.sin(turn) / size)
    squeeze = np.float32(rng.uniform(0.8, 1.25))
    return (x * cos + y * sin) * squeeze, (y * cos - x * sin) / squeeze


def _colour(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    return np.array(colorsys.hsv_to_rgb(hue % 1, np.clip(saturation, 0, 1), np.clip(value, 0, 1)), np.float32)


def _background(rng: np.random.Generator, image_px: int) -> Field:
    """Two blurred colours that mix over a soft pattern, with some grain."""
    first, second = (_colour(rng.uniform(), rng.uniform(0, 0.35), rng.uniform(0.25, 0.9)) for _ in range(2))
    size_hw = (image_px, image_px)
    pattern = smooth_noise(rng, size_hw, tuple(image_px / rng.uniform(1.5, 10, 2)))
    mix = np.clip(0.5 + np.float32(rng.uniform(0.1, 0.5)) * pattern, 0, 1)[..., None]
    return np.asarray(first * mix + second * (1 - mix), np.float32)


def _painted(rng: np.random.Generator, class_index: int, brightness: Field) -> Field:
    """Two shades of the object's colour; hues overlap between classes, and one image in eight has any."""
    hue = rng.normal((class_index * 5 % NUM_HUES) / NUM_HUES, 0.08) if rng.random() < 0.88 else rng.uniform()
    saturation, value = rng.uniform(0.3, 0.75), rng.normal((0.4, 0.6, 0.8)[class_index % 3], 0.08)
    contrast = rng.uniform(0.14, 0.4)
    light = _colour(hue, saturation * 0.8, value + contrast)
    dark = _colour(hue + rng.normal(0, 0.05), saturation, value - contrast)
    mix = np.clip(0.5 + 0.5 * brightness, 0, 1)[..., None]
    return np.asarray(light * mix + dark * (1 - mix), np.float32)


def _occlude(rng: np.random.Generator, image: Field) -> None:
    """Sometimes a bar or a stone stands in front."""
    if rng.random() < 0.6:
        return
    image_px = image.shape[0]
    colour = _colour(rng.uniform(), rng.uniform(0, 0.6), rng.uniform(0.2, 0.9)).tolist()
    if rng.random() < 0.5:
        ends = np.round(rng.uniform(0, image_px, (2, 2))).astype(int)
        cv2.line(image, ends[0].tolist(), ends[1].tolist(), colour, max(2, image_px // 12), cv2.LINE_AA)
    else:
        centre = np.round(rng.uniform(0, image_px, 2)).astype(int).tolist()
        axes = np.round(rng.uniform(0.08, 0.24, 2) * image_px).astype(int).tolist()
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)


def _photographed(rng: np.random.Generator, image: Field) -> NDArray[np.uint8]:
    image_px = image.shape[0]
    axis = np.linspace(-1, 1, image_px, dtype=np.float32)
    slope_x, slope_y = rng.normal(0, 0.2, 2).astype(np.float32)
    light = rng.uniform(0.75, 1.15) + slope_x * axis[None, :] + slope_y * axis[:, None]
    image *= light[..., None].astype(np.float32)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.9))), np.float32)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0.005, 0.025))
    return np.clip(image * 255, 0, 255).astype(np.uint8)


# Object coordinates x, y run from about -1 to 1 over the object. An outline says how deep inside (positive) or outside
# (negative) each point lies, in about the same unit; a coat its brightness, within about -1 to 1.
Part = Callable[[np.random.Generator, Field, Field], Field]


def _polar(x: Field, y: Field) -> tuple[Field, Field]:
    return np.hypot(x, y), np.arctan2(y, x)


def _blob(rng: np.random.Generator, x: Field, y: Field) -> Field:
    radius, angle = _polar(x, y)
    edge = 0.75 + sum(rng.normal(0, 0.09) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (2, 3))
    return np.asarray(edge - radius)


def _star(rng: np.random.Generator, x: Field, y: Field) -> Field:
    radius, angle = _polar(x, y)
    arms = rng.integers(5, 8)
    return np.asarray(
        0.62 + rng.uniform(0.2, 0.3) * (2 * np.abs((angle * arms / 6.2832) % 1 - 0.5) * 2 - 1) - radius
    )


def _burr(rng: np.random.Generator, x: Field, y: Field) -> Field:
    radius, angle = _polar(x, y)
    spikes = rng.integers(13, 20)
    return np.asarray(0.62 + 0.26 * np.cos(spikes * angle) ** 3 - radius)


def _ring(rng: np.random.Generator, x: Field, y: Field) -> Field:
    radius = np.hypot(x, y * rng.uniform(1.0, 1.3))
    return np.asarray(rng.uniform(0.12, 0.22) - np.abs(radius - 0.66))


def _beast(rng: np.random.Generator, x: Field, y: Field) -> Field:
    field = 0.42 - np.hypot(x / 1.3, y)
    for start in (-0.42, -0.15, 0.15, 0.42):
        lean = rng.normal(0, 0.15)
        leg = np.minimum(0.09 - np.abs(x - start - lean * y), np.minimum(y + 0.05, 0.9 - y))
        field = np.maximum(field, leg)
    side = rng.choice([-1, 1])
    return np.asarray(np.maximum(field, 0.24 - np.hypot(x - side * 0.6, y + 0.4)))


def _wheel(rng: np.random.Generator, x: Field, y: Field) -> Field:
    radius, angle = _polar(x, y)
    spokes = rng.integers(4, 9)
    rim = 0.12 - np.abs(radius - 0.75)
    spoke = np.minimum(0.08 - radius * np.abs(np.sin(angle * spokes / 2)) * 2 / spokes, 0.8 - radius)
    return np.asarray(np.maximum(np.maximum(rim, spoke), 0.16 - radius))


def _cross(rng: np.random.Generator, x: Field, y: Field) -> Field:
    half, reach = rng.uniform(0.16, 0.26), rng.uniform(0.75, 0.9)
    bar = np.minimum(half - np.abs(x), reach - np.abs(y))
    return np.asarray(np.maximum(bar, np.minimum(half - np.abs(y), reach - np.abs(x))))


def _crescent(rng: np.random.Generator, x: Field, y: Field) -> Field:
    shift = rng.uniform(0.3, 0.5)
    return np.asarray(np.minimum(0.85 - np.hypot(x, y), np.hypot(x - shift, y) - 0.68))


def _spindle(rng: np.random.Generator, x: Field, y: Field) -> Field:
    offset = rng.uniform(0.55, 0.85)
    reach = np.hypot(offset, 0.92)
    return np.asarray(np.minimum(reach - np.hypot(x, y - offset), reach - np.hypot(x, y + offset)))


def _cluster(rng: np.random.Generator, x: Field, y: Field) -> Field:
    field = np.full_like(x, -1.0)
    for k in range(num := int(rng.integers(4, 7))):
        angle = 6.2832 * k / num + rng.normal(0, 0.15)
        away = np.hypot(x - 0.58 * np.cos(angle), y - 0.58 * np.sin(angle))
        field = np.maximum(field, rng.uniform(0.2, 0.27) - away)
    return field


def _plain(rng: np.random.Generator, x: Field, y: Field) -> Field:
    return 0.5 * smooth_noise(rng, x.shape, (x.shape[0] / 4, x.shape[1] / 4))


def _sandy(rng: np.random.Generator, x: Field, y: Field) -> Field:
    return np.asarray(0.6 * rng.standard_normal(x.shape, dtype=np.float32), np.float32)


def _furry(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Short strokes that follow the object's own axis."""
    noise = rng.standard_normal((48, 10), dtype=np.float32)
    return np.asarray(0.7 * _looked_up(noise, x * 14 + 0.6 * np.sin(4 * y), y * 3))


def _barky(rng: np.random.Generator, x: Field, y: Field) -> Field:
    noise = rng.standard_normal((16, 6), dtype=np.float32)
    ridges = np.sin(16 * (x + 0.22 * _looked_up(noise, x * 3, y * 2)))
    return np.asarray(0.8 * np.abs(ridges) * 2 - 0.8)


def _wavy(rng: np.random.Generator, x: Field, y: Field) -> Field:
    return np.asarray(
        0.8 * np.sin(rng.uniform(11, 15) * y + 1.3 * np.sin(rng.uniform(4, 6) * x + rng.uniform(0, 6.3)))
    )


def _bricked(rng: np.random.Generator, x: Field, y: Field) -> Field:
    row = np.floor(y * 4)
    across = x * 2.2 + 0.5 * (row % 2) + rng.uniform()
    joint = np.minimum(np.abs(y * 4 - np.round(y * 4)) / 1.8, np.abs(across - np.round(across)))
    return np.where(joint < 0.09, -0.9, 0.35).astype(np.float32)


def _scaly(rng: np.random.Generator, x: Field, y: Field) -> Field:
    row = np.floor(y * 4)
    within_y = y * 4 - row
    within_x = (x * 4 + 0.5 * (row % 2)) % 1 - 0.5
    return np.asarray(1.5 * np.clip(1 - np.hypot(within_x * 1.4, within_y), 0, 1) - 0.6)


def _spotted(rng: np.random.Generator, x: Field, y: Field) -> Field:
    spots = np.full_like(x, 9.0)
    for spot_x, spot_y in rng.uniform(-1, 1, (14, 2)):
        spots = np.minimum(spots, np.hypot(x - spot_x, y - spot_y))
    return np.asarray(np.clip((0.17 - spots) * 12, -0.4, 0.9).astype(np.float32))


def _veined(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """A midrib with side veins, as on a leaf."""
    side = (np.abs(y) * 1.1 - x) * rng.uniform(3.2, 4.2)
    vein = np.minimum(np.abs(side - np.round(side)) * 0.3, np.abs(y))
    return np.where(vein < 0.045, 0.9, -0.25).astype(np.float32)


def _checked(rng: np.random.Generator, x: Field, y: Field) -> Field:
    pitch = rng.uniform(2.6, 3.6)
    return np.where((np.floor(x * pitch) + np.floor(y * pitch)) % 2 > 0, 0.6, -0.6).astype(np.float32)


def _looked_up(table: Field, x: Field, y: Field) -> Field:
    """Bilinear look-up of a periodic table at row `x` and column `y`."""
    row, column = np.floor(x).astype(int), np.floor(y).astype(int)
    down, right = x - row, y - column
    height, width = table.shape
    left, beyond = column % width, (column + 1) % width
    top, low = (
        table[at % height, left] * (1 - right) + table[at % height, beyond] * right for at in (row, row + 1)
    )
    return np.asarray(top * (1 - down) + low * down, np.float32)


def _named(*parts: Part) -> dict[str, Part]:
    return {part.__name__.removeprefix("_"): part for part in parts}


OUTLINES = _named(_blob, _wheel, _beast, _star, _ring, _spindle, _cluster, _burr, _crescent, _cross)
COATS = _named(_furry, _bricked, _wavy, _spotted, _sandy, _scaly, _barky, _checked, _veined, _plain)
MAX_CLASSES = len(COATS) * len(OUTLINES)
