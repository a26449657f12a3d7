"""A small set that a network can learn."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from damcrack.engine.augment import Augmentation
from damcrack.engine.batches import DeviceImages
from damcrack.engine.decoded import DecodedSet

STATISTICS = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
DIHEDRAL = Augmentation("dihedral", 0, 0)

MakeImages = Callable[..., DeviceImages]


@pytest.fixture
def images() -> MakeImages:
    """Bright and dark noise: two classes that a network can tell apart."""

    def make(
        num_train: int = 16,
        num_val: int = 8,
        how: Augmentation = DIHEDRAL,
        device: str = "cpu",
        **options: object,
    ) -> DeviceImages:
        random = np.random.default_rng(0)
        labels = np.arange(num_train + num_val) % 2
        pixels = random.integers(0, 128, (len(labels), 32, 32, 3)) + 100 * labels[:, None, None, None]
        rows = np.arange(len(labels))
        rows_of = {"train": rows[:num_train], "val": rows[num_train:], "test": rows[:0]}
        decoded = DecodedSet(pixels.astype(np.uint8), labels, rows_of, ("no crack", "crack"), "digest")
        return DeviceImages(decoded, STATISTICS, how, torch.device(device), **options)  # type: ignore[arg-type]

    return make
