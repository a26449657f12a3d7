"""How well a mask of crack pixels agrees with a true one, counted so that photos can be added up."""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.skeleton import thin

Mask = npt.NDArray[np.uint8]

TOLERANCE_PX = 2  # annotators draw a line a pixel or two beside it


@dataclass(frozen=True)
class PixelCounts:
    """Counts over masks: add them, then ask for the shares. Near means within TOLERANCE_PX."""

    found: int = 0
    found_near_true: int = 0
    true: int = 0
    true_near_found: int = 0
    both: int = 0
    either: int = 0
    width_points: int = 0
    width_error_px: float = 0.0
    width_too_wide_px: float = 0.0

    def __add__(self, other: Self) -> Self:
        pairs = zip(self.__dict__.values(), other.__dict__.values(), strict=True)
        return type(self)(*(a + b for a, b in pairs))

    def shares(self) -> dict[str, float | None]:
        """Precision, recall and F1 with tolerance, IoU without, and the width's error in pixels.

        The width's error is the mean over the points of the true lines that were found: absolute, and signed
        (above 0: too wide). None where there is nothing to divide by.
        """
        precision, recall = _share(self.found_near_true, self.found), _share(self.true_near_found, self.true)
        f1 = 2 * precision * recall / (precision + recall) if precision and recall else None
        return {
            "precision": precision,
            "recall": recall,
            "f1": f1 if f1 is not None or not (self.found or self.true) else 0.0,
            "iou": _share(self.both, self.either),
            "width_error_px": _share(self.width_error_px, self.width_points),
            "width_bias_px": _share(self.width_too_wide_px, self.width_points),
        }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def count_pixels(found: Mask, true: Mask) -> PixelCounts:
    """Compare two masks (H, W) of 0/1."""
    near_true, near_found = near(true, TOLERANCE_PX), near(found, TOLERANCE_PX)
    points, error, too_wide = _width_errors(found, true, near_found)
    return PixelCounts(
        found=int(np.count_nonzero(found)),
        found_near_true=int(np.count_nonzero(found & near_true)),
        true=int(np.count_nonzero(true)),
        true_near_found=int(np.count_nonzero(true & near_found)),
        both=int(np.count_nonzero(found & true)),
        either=int(np.count_nonzero(found | true)),
        width_points=points,
        width_error_px=error,
        width_too_wide_px=too_wide,
    )


def near(mask: Mask, px: int) -> Mask:
    """1 (H, W) at most `px` pixels from a mask."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * px + 1,) * 2)
    return np.asarray(cv2.dilate(mask, kernel), np.uint8)


def _width_errors(found: Mask, true: Mask, near_found: Mask) -> tuple[int, float, float]:
    """At the points of the true line that were found: number, sums of absolute and of signed differences."""
    line, own_line = thin(true), thin(found)
    at = (line & near_found) > 0
    if not at.any() or not own_line.any():
        return 0, 0.0, 0.0
    _, nearest = cv2.distanceTransformWithLabels(
        1 - own_line, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    width_of = np.zeros(int(nearest.max()) + 1, np.float32)
    width_of[nearest[own_line > 0]] = widths_by_distance(found)[own_line > 0]
    difference = width_of[nearest[at]] - widths_by_distance(true)[at]
    return int(at.sum()), float(np.abs(difference).sum()), float(difference.sum())


def widths_by_distance(mask: Mask) -> npt.NDArray[np.float32]:
    """Twice the distance to the nearest pixel outside less one: the width (H, W), right on the middle line."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(2 * distance - 1, np.float32)
