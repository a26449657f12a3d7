"""Object outlines of the pretraining classes, as inside-outside fields on a unit disc."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
# Object coordinates in, out how deep inside (positive) or outside (negative) each point lies, in about the same unit.
Outline = Callable[[np.random.Generator, Field, Field], Field]


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


def _limbs(rng: np.random.Generator, x: Field, y: Field) -> Field:
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


OUTLINES: dict[str, Outline] = {
    "blob": _blob,
    "wheel": _wheel,
    "beast": _limbs,
    "star": _star,
    "ring": _ring,
    "spindle": _spindle,
    "cluster": _cluster,
    "burr": _burr,
    "crescent": _crescent,
    "cross": _cross,
}
