"""How much each pixel looks like the middle of a dark line, at several widths."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Standard deviations in pixels: lines of about 1 to 20 px. Each is taken on an image halved often enough that the
# filter stays small, which makes the wide ones nearly free.
SCALES_PX = (1.0, 2.0, 4.0, 8.0)
SMALLEST_FILTER_PX = 2.0
ALONG_SCALES = 4.0
# Parts that stay in the processor's cache, with a margin that no filter reaches beyond; a multiple of all halvings.
PART_PX, MARGIN_SCALES = 512, 8


class Ridge(NamedTuple):
    """`strength` (H, W) in grey levels, 0 where there is no dark line; `scale_px` (H, W) of the best scale."""

    strength: Floats
    scale_px: Floats


def dark_ridge(grey: Grey, scales_px: Sequence[float] = SCALES_PX) -> Ridge:
    """Strength of dark lines in an image (H, W), the largest over the scales, which rise.

    At scale s it is s^2 (a - |b|), where a >= b are the eigenvalues of the Hessian at that scale (Lindeberg 1998):
    positive where the brightness is a valley, 0 on pits, which are as curved along as across. What the pixels around
    agree on counts: the directions of the lines (as double angles) are averaged over ALONG_SCALES scales, and where
    they contradict each other, as in rough concrete, the average is small.
    """
    strength, best_px = np.empty(grey.shape, np.float32), np.empty(grey.shape, np.float32)
    margin = MARGIN_SCALES * round(max(scales_px))
    height, width = grey.shape
    for y0 in range(0, height, PART_PX):
        for x0 in range(0, width, PART_PX):
            top, left = max(0, y0 - margin), max(0, x0 - margin)
            y1, x1 = min(height, y0 + PART_PX), min(width, x0 + PART_PX)
            part = grey[top : min(height, y1 + margin), left : min(width, x1 + margin)]
            inner = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            found = _strongest(part, scales_px)
            strength[y0:y1, x0:x1], best_px[y0:y1, x0:x1] = found.strength[inner], found.scale_px[inner]
    return Ridge(strength, best_px)


def _strongest(grey: Grey, scales_px: Sequence[float]) -> Ridge:
    strength, best_px = _at_scale(grey, scales_px[0]), np.full(grey.shape, scales_px[0], np.float32)
    for scale_px in scales_px[1:]:
        found = _at_scale(grey, scale_px)
        # The scales rise; writing through a mask would take several times as long.
        np.maximum(best_px, np.float32(scale_px) * (found > strength), out=best_px)
        np.maximum(strength, found, out=strength)
    return Ridge(strength, best_px)


def _at_scale(grey: Grey, scale_px: float) -> Floats:
    shrink = 1
    while scale_px / shrink > SMALLEST_FILTER_PX and min(grey.shape) >= 8 * shrink:
        shrink *= 2
    image = grey
    if shrink > 1:
        size_wh = (max(1, grey.shape[1] // shrink), max(1, grey.shape[0] // shrink))
        image = np.asarray(cv2.resize(grey, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    strength = _valley(image, scale_px / shrink)
    if shrink > 1:
        strength = np.asarray(
            cv2.resize(strength, grey.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32
        )
    return strength


def _valley(image: Grey, sigma_px: float) -> Floats:
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma_px)
    xx, yy, xy = (
        cv2.sepFilter2D(smooth, cv2.CV_32F, np.array(across, np.float32), np.array(down, np.float32))
        for across, down in (([1, -2, 1], [0, 1, 0]), ([0, 1, 0], [1, -2, 1]), ([-0.5, 0, 0.5],) * 2)
    )
    del smooth
    cos, mean = cv2.addWeighted(xx, 0.5, yy, -0.5, 0), cv2.addWeighted(xx, 0.5, yy, 0.5, 0, dst=xx)
    del yy
    spread = np.asarray(cv2.magnitude(cos, xy), np.float32)
    # The eigenvalues are mean + spread and mean - spread, so a - |b| is twice the smaller of mean and spread.
    strength = np.asarray(cv2.min(mean, spread, dst=mean), np.float32)
    np.maximum(strength, 0, out=strength)
    strength *= np.float32(2 * sigma_px**2)
    share = np.divide(strength, np.maximum(spread, np.float32(1e-6), out=spread), out=spread)
    window = (2 * round(ALONG_SCALES * sigma_px) + 1,) * 2
    along = (cv2.blur(cv2.multiply(part, share, dst=part), window) for part in (cos, xy))
    agreed = cv2.magnitude(*along)
    return np.asarray(cv2.sqrt(cv2.multiply(strength, agreed, scale=window[0])), np.float32)
