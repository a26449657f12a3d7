"""Surface textures of the pretraining classes, as brightness around 0 on object coordinates."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from damcrack.sample.surface import smooth_noise

Field = NDArray[np.floating[Any]]
Coat = Callable[[np.random.Generator, Field, Field], Field]

# Coordinates x, y run from about -1 to 1 over the object; every coat stays within about -1 to 1.


def _plain(rng: np.random.Generator, x: Field, y: Field) -> Field:
    shape = (x.shape[0], x.shape[1])
    return 0.5 * smooth_noise(rng, shape, (shape[0] / 4, shape[1] / 4))


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
    top = (
        table[row % height, column % width] * (1 - right) + table[row % height, (column + 1) % width] * right
    )
    row += 1
    low = (
        table[row % height, column % width] * (1 - right) + table[row % height, (column + 1) % width] * right
    )
    return np.asarray(top * (1 - down) + low * down, np.float32)


COATS: dict[str, Coat] = {
    "furry": _furry,
    "bricked": _bricked,
    "wavy": _wavy,
    "spotted": _spotted,
    "sandy": _sandy,
    "scaly": _scaly,
    "barky": _barky,
    "checked": _checked,
    "veined": _veined,
    "plain": _plain,
}
