"""Photos that nothing can be said about: too dark or bright, blurred, without contrast, under water, of many colours.

The limits lie outside of all concrete photos of 19 sources, and inside of what the same photos become at night, out of
focus and through green water (docs/inspection.md). What is no concrete is seen by its colours or not at all.
"""

from collections.abc import Iterator
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.findings import Pixels

PATCH_PX, PATCHES_A_SIDE = 512, 3
MIN_BRIGHT = 60.0  # 95th percentile of grey; concrete has 75 and more, at night 15
MIN_DETAIL = 1.3  # 99th percentile of differences at 2 px, in grey values; concrete has 1.4 and more
MIN_SHARPNESS = 0.5  # that over the differences at 4 px; concrete has 0.54 and more, blurred by 8 px 0.4
MIN_RED_GREEN = -12.0  # 90th percentile of a* of CIELAB; concrete has -8 and more, under water -20
MAX_WHITE = 0.4  # share of pixels from WHITE on; concrete has 0.13 at most, a page of text 0.8
WHITE = 250
MAX_COLOURS = 18.0  # median distance from the median colour, in a* and b*; concrete and brick have 14 at most


def doubt(rgb: Pixels) -> str:
    """Why a photo (H, W, 3) must not be called clean; empty where nothing speaks against it."""
    patches = list(_patches(rgb))
    grey = [cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float32) for patch in patches]
    if _percentile(grey, 95) < MIN_BRIGHT:
        return "too dark: take it again with more light"
    fine, coarse = (_percentile([_differences(one, px) for one in grey], 99) for px in (1, 2))
    if fine < MIN_SHARPNESS * coarse:
        return "blurred: take it again in focus"
    if fine < MIN_DETAIL:
        return "without contrast: take it again with other light, or nearer"
    if np.mean(np.concatenate([one.ravel() for one in grey]) >= WHITE) > MAX_WHITE:
        return "white for the most part, as overexposed or a page: take it again with less light"
    lab = [cv2.cvtColor(patch, cv2.COLOR_RGB2LAB).reshape(-1, 3) for patch in patches]
    colours = np.concatenate(lab)[:, 1:].astype(np.float32) - 128
    if np.percentile(colours[:, 0], 90) < MIN_RED_GREEN:
        return "green or blue throughout, as under water: the detector has not learned from such photos"
    if np.median(np.hypot(*(colours - np.median(colours, axis=0)).T)) > MAX_COLOURS:
        return "of many colours, as concrete is not: frame the concrete alone"
    return ""


def _patches(rgb: Pixels) -> Iterator[Pixels]:
    """At most three by three, spread over the photo, at half size: there the noise of a pixel is no detail."""
    tops, lefts = (
        np.unique(np.linspace(0, max(0, length - PATCH_PX), PATCHES_A_SIDE).astype(int)).tolist()
        for length in rgb.shape[:2]
    )
    for top, left in product(tops, lefts):
        part = rgb[top : top + PATCH_PX, left : left + PATCH_PX]
        size_wh = max(1, part.shape[1] // 2), max(1, part.shape[0] // 2)
        yield np.asarray(cv2.resize(part, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _differences(grey: npt.NDArray[np.float32], px: float) -> npt.NDArray[np.float32]:
    """What lies between two sizes of blur, as absolute values."""
    finer, coarser = (np.asarray(cv2.GaussianBlur(grey, (0, 0), blur)) for blur in (px, 2 * px))
    return np.asarray(np.abs(finer - coarser), np.float32)


def _percentile(parts: list[npt.NDArray[np.float32]], percent: float) -> float:
    return float(np.percentile(np.concatenate([part.ravel() for part in parts]), percent))
