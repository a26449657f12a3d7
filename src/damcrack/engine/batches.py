"""Batches of a decoded set on the training device: gathered, augmented and normalised there.

Shape suffixes: B images, C channels, H rows, W columns.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from damcrack.engine.augment import Augmentation, augment, normalise
from damcrack.engine.decoded import DecodedSet

Batch = tuple[Tensor, Tensor]


class DeviceImages:
    """A decoded set and its channel statistics (mean, deviation), as seen from a device."""

    def __init__(
        self,
        images: DecodedSet,
        statistics: tuple[tuple[float, ...], tuple[float, ...]],
        device: torch.device,
    ) -> None:
        self._images = images
        self._mean_C, self._std_C = (torch.tensor(values, device=device) for values in statistics)
        self._device = device

    def num_batches(self, split: str, batch_size: int) -> int:
        """How many batches a pass over the split takes."""
        return -(-len(self._images.rows_of[split]) // batch_size)

    def shuffled(self, batch_size: int, augmentation: Augmentation, seed: int) -> Iterator[Batch]:
        """One training epoch in an order and with draws that depend on `seed` alone.

        Batches differ by at most one image, so none is left out and none is too small for batch norm.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = self._images.rows_of["train"]
        rows = rows[torch.randperm(len(rows), generator=generator).numpy()]
        for batch in np.array_split(rows, self.num_batches("train", batch_size)):
            images_BCHW, labels_B = self._fetch(batch)
            turned_BCHW = augment(images_BCHW, augmentation, generator)
            yield normalise(turned_BCHW, self._mean_C, self._std_C), labels_B

    def in_order(self, split: str, batch_size: int) -> Iterator[Batch]:
        """The images of a split as they are."""
        rows = self._images.rows_of[split]
        for start in range(0, len(rows), batch_size):
            images_BCHW, labels_B = self._fetch(rows[start : start + batch_size])
            yield normalise(images_BCHW, self._mean_C, self._std_C), labels_B

    def _fetch(self, rows: np.ndarray) -> Batch:
        pixels_BHWC = torch.from_numpy(self._images.images_NHWC[rows]).to(self._device, non_blocking=True)
        labels_B = torch.from_numpy(self._images.labels_N[rows]).to(self._device, non_blocking=True)
        return pixels_BHWC.permute(0, 3, 1, 2), labels_B  # strides of NHWC: channels-last without a copy
