"""What age does to a crack: spalled edges, ground and debris in it, lime, damp."""

import cv2
import numpy as np

from damcrack.sample.strokes import Bytes
from damcrack.sample.surface import Field, smooth_noise

SHRINK = 4


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
    small_hw = (colour.shape[0], colour.shape[1])
    near = _near(area, small_hw, (float(rng.uniform(1.5, 4)), float(rng.uniform(3, 10))))
    here = np.clip(smooth_noise(rng, small_hw, (30, 20)), 0, 1)
    here *= 1 + np.float32(0.6) * smooth_noise(rng, small_hw, (3, 2))
    colour *= (1 + np.clip(near * here * np.float32(0.012), 0, np.float32(0.25)))[..., None]


def dampen(rng: np.random.Generator, colour: Field, area: Bytes) -> None:
    """A dark wet halo around the cracks, with a rather sharp outer edge."""
    small_hw = (colour.shape[0], colour.shape[1])
    reach = float(rng.uniform(2, 6))
    near = _near(area, small_hw, (reach, reach * float(rng.uniform(1, 2)))) / 255
    near *= 1 + np.float32(0.5) * smooth_noise(rng, small_hw, (12, 9))
    wet = np.clip(near * np.float32(rng.uniform(15, 40)) - np.float32(0.4), 0, 1)
    colour *= (1 - wet * np.float32(rng.uniform(0.2, 0.5)))[..., None]


def _near(area: Bytes, small_hw: tuple[int, int], reach_xy: tuple[float, float]) -> Field:
    small = cv2.resize(area, small_hw[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), sigmaX=reach_xy[0], sigmaY=reach_xy[1]), np.float32)
