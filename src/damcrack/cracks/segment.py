"""Crack pixels from a network's probabilities: grown from confident pixels over less confident ones."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.config import Segmentation

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Mask = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.int64]


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
    faint = _pieces(crack_prob >= how.min_prob, how.bridge_px)
    return CrackMasks(sure, faint.keep(faint.long(how.min_length_px / 2)) | sure)


def without_specks(crack_map: Floats, cell_px: int, how: Segmentation) -> Floats:
    """The map (h, w) of cells with pieces too short for a possible crack at 0: they say nothing about their block."""
    grown = _pieces(crack_map >= how.grow, how.bridge_px // cell_px)
    short = ~grown.long(how.min_length_px / 2 / cell_px)
    short[0] = False
    return np.where(short[grown.labels], np.float32(0), crack_map)


class _Pieces(NamedTuple):
    """Connected pieces: `labels` (H, W), 0 for none, and `diagonal_px` (L,) of the box of each."""

    labels: Labels
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
    side = bridge_px | 1  # an even kernel would move what it closes
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    closed = np.asarray(cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, kernel), np.uint8)
    labels = np.asarray(cv2.connectedComponents(closed, connectivity=8)[1], np.int32)
    _, boxes_xyxy = pieces(labels, closed)
    return _Pieces(labels, np.hypot(*(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).T))


def pieces(labels: Labels, mask: Mask) -> tuple[Numbers, Numbers]:
    """Area (L,) and box (L, 4) as x0, y0, x1, y1 of each label (H, W), of the pixels of a mask (H, W) alone.

    In a quarter of the time of OpenCV's statistics, which look at all pixels.
    """
    at = np.flatnonzero(mask > 0)
    of, num = labels.ravel()[at], int(labels.max()) + 1
    low, high = np.full((num, 2), labels.size), np.zeros((num, 2), np.int64)
    for axis, values in enumerate((at % mask.shape[1], at // mask.shape[1])):
        np.minimum.at(low[:, axis], of, values)
        np.maximum.at(high[:, axis], of, values + 1)
    return np.bincount(of, minlength=num), np.hstack([low, high])
