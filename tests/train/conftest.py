"""Small sets that a network can learn."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import torch

from damcrack.data.targets import CRACK, UNKNOWN
from damcrack.train.batches import DeviceImages
from damcrack.train.config import Augmentation
from damcrack.train.decoded import DecodedSet
from trainings import small_by_name

STATISTICS = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
DIHEDRAL = Augmentation("dihedral", 0, 0)

MakeImages = Callable[..., DeviceImages]
MakeTiles = Callable[..., DecodedSet]


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Stages know the small network as `small`."""
    with small_by_name():
        yield


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


@pytest.fixture
def tiles() -> MakeTiles:
    """Grey noise, every other tile with a dark line whose pixels are known; some of dark squares without a label."""

    def make(num_train: int = 8, num_val: int = 4, num_unlabelled: int = 0, side: int = 64) -> DecodedSet:
        random = np.random.default_rng(0)
        num = num_train + num_val + num_unlabelled
        pixels = random.normal(150, 12, (num, side, side, 3))
        labels, targets = np.arange(num) % 2, np.zeros((num, side, side), np.uint8)
        for number in np.flatnonzero(labels):
            ends = random.integers(0, side, (2, 2))
            ends[:, number // 2 % 2] = (0, side)  # from one edge to the opposite one
            cv2.line(targets[number], *ends.tolist(), CRACK, 3)
        pixels[targets == CRACK] -= 90
        labels[num_train + num_val :] = -1
        targets[num_train + num_val :] = UNKNOWN
        pixels[num_train + num_val :, :8, :8] = 10
        train, val, unlabelled = np.split(np.arange(num), [num_train, num_train + num_val])
        rows_of = {"train": train, "val": val, "test": train[:0], "unlabelled": unlabelled}
        images = np.clip(pixels, 0, 255).astype(np.uint8)
        return DecodedSet(images, labels, rows_of, ("no crack", "crack"), "digest", targets)

    return make
