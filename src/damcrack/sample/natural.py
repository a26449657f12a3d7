"""A many-class set of small natural-looking images for pretraining, rendered from a seed.

A class is a coat (texture) on an outline (silhouette) with a loose range of hues. Any single property is
shared by several classes; pose, size, place, light, background and an occluding object vary freely.
"""

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from damcrack.files import InputError
from damcrack.sample.coats import COATS
from damcrack.sample.silhouettes import OUTLINES, Field
from damcrack.sample.surface import smooth_noise

MAX_CLASSES = len(COATS) * len(OUTLINES)
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
