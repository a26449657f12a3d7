"""Crack pixels from a network's probabilities: grown from confident pixels over less confident ones."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.inspection.pieces import pieces

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Mask = npt.NDArray[np.uint8]

POSSIBLE = 0.75  # share of `grow` from which a pixel may be part of a crack


@dataclass(frozen=True)
class Segmentation:
    """Which pixels are a crack.

    A crack holds a pixel whose probability is at least `seed`, and reaches over neighbours of at least `grow`; it must
    be `min_length_px` long. Gaps up to `bridge_px` are closed.
    """

    seed: float = 0.5
    grow: float = 0.35
    min_length_px: float = 40.0
    bridge_px: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.seed <= 1:
            raise ValueError(f"seed: {self.seed}; expected a probability above 0, at most 1")
        if not 0 < self.grow <= self.seed:
            raise ValueError(f"grow: {self.grow}; expected more than 0 and at most seed ({self.seed})")
        if not self.min_length_px >= 0:
            raise ValueError(f"min_length_px: {self.min_length_px}; expected 0 or more")
        if not 1 <= self.bridge_px <= 99:
            raise ValueError(f"bridge_px: {self.bridge_px}; expected 1 to 99")

    @property
    def least_prob(self) -> float:
        """Below it a pixel counts for nothing."""
        return POSSIBLE * self.grow


class CrackMasks(NamedTuple):
    """Pixels (H, W) of 0/1: `sure` are the cracks; `possible` has fainter pieces too, which nobody should call new."""

    sure: Mask
    possible: Mask


def crack_masks(crack_prob: Floats, called: Mask, how: Segmentation) -> CrackMasks:
    """Crack pixels from the probability of each pixel (H, W); a piece is sure only if it touches `called` (H, W)."""
    grown = _pieces(crack_prob >= how.grow, how.bridge_px)
    sure = grown.keep(
        grown.long(how.min_length_px) & grown.touch(crack_prob >= how.seed) & grown.touch(called > 0)
    )
    faint = _pieces(crack_prob >= how.least_prob, how.bridge_px)
    return CrackMasks(sure, faint.keep(faint.long(how.min_length_px / 2)) | sure)


class _Pieces(NamedTuple):
    """Connected pieces: `labels` (H, W), 0 for none, and `diagonal_px` (L,) of the box of each."""

    labels: npt.NDArray[np.int32]
    diagonal_px: npt.NDArray[np.float64]

    def long(self, min_length_px: float) -> Bools:
        return np.asarray(self.diagonal_px >= min_length_px)

    def touch(self, where: Bools) -> Bools:
        touched = np.zeros(len(self.diagonal_px), np.bool_)
        touched[self.labels[where]] = True
        return touched

    def keep(self, kept: Bools) -> Mask:
        values = kept.astype(np.uint8)
        values[0] = 0
        mask: Mask = values[self.labels]
        return mask


def _pieces(found: Bools, bridge_px: int) -> _Pieces:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (bridge_px, bridge_px))
    closed = np.asarray(cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, kernel), np.uint8)
    _, labels = cv2.connectedComponents(closed, connectivity=8)
    _, boxes_xyxy = pieces(np.asarray(labels, np.int32), closed)
    return _Pieces(np.asarray(labels, np.int32), np.hypot(*(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).T))
