"""Bring an older photo of a wall over a newer one: features, a homography, and whether it can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.findings import Findings, read_picture

Grey = npt.NDArray[np.uint8]
Homography = npt.NDArray[np.float64]

NUM_FEATURES = 6000
RATIO = 0.8  # a match must be so much better than the second best (Lowe 2004)
INLIER_PX = 3.0
MIN_INLIERS = 25
MIN_SPREAD = 0.1  # of the photo's area that the matches span
LARGEST_ERROR_PX = 1.0  # median distance of the matches, in the pixels of the small photos
LARGEST_STRETCH = 2.0  # a wall photographed from half or twice the distance


@dataclass(frozen=True)
class Registration:
    """`old_to_new` (3, 3) for pixels of the full photos; `reason` says why it is no good, and is empty if it is.

    `error_px` is the median distance of matched places, in full pixels of the new photo.
    """

    old_to_new: Homography
    num_matches: int
    error_px: float
    reason: str


def register(old: Grey, new: Grey, old_scale: float, new_scale: float) -> Registration:
    """Register two small grey photos; `scale` is full size over small size of each."""
    found = _matches(old, new)
    if len(found[0]) < MIN_INLIERS:
        return _failed(len(found[0]), "too few places of the two photos look alike")
    fitted, inliers = cv2.findHomography(*found, cv2.USAC_MAGSAC, INLIER_PX, maxIters=5000, confidence=0.999)
    if inliers is None or not inliers.any():
        return _failed(0, "no view of one wall explains both photos")
    at_old, at_new = (points[inliers.ravel() > 0] for points in found)
    if len(at_old) < MIN_INLIERS:
        return _failed(len(at_old), "too few places of the two photos agree on one view")
    small = np.asarray(fitted, np.float64)
    distance = np.linalg.norm(moved(small, at_old) - at_new, axis=1)
    error_px = float(np.median(distance))
    to_full, from_full = np.diag([new_scale, new_scale, 1.0]), np.diag([1 / old_scale, 1 / old_scale, 1.0])
    whole = to_full @ small @ from_full
    reason = _doubt(small, at_new, error_px, new.shape)
    return Registration(whole / whole[2, 2], len(at_old), error_px * new_scale, reason)


def register_photos(folders: Sequence[Path], findings: Sequence[Findings]) -> Registration:
    """Register the old and the new of two inspected photos by their previews."""
    old, new = (read_picture(folder / "preview.jpg", cv2.IMREAD_GRAYSCALE) for folder in folders)
    return register(old, new, findings[0].width_px / old.shape[1], findings[1].width_px / new.shape[1])


def _failed(num: int, reason: str) -> Registration:
    return Registration(np.eye(3), num, float("nan"), f"{reason} ({num}, needed {MIN_INLIERS})")


def _matches(old: Grey, new: Grey) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Places (M, 2) of each photo that look alike."""
    features = cv2.SIFT.create(nfeatures=NUM_FEATURES, contrastThreshold=0.01)
    levelled = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8))  # concrete is flat grey
    (old_at, old_looks), (new_at, new_looks) = (
        features.detectAndCompute(levelled.apply(photo), np.ones_like(photo)) for photo in (old, new)
    )
    if old_looks is None or new_looks is None or min(len(old_looks), len(new_looks)) < 2:
        return np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(old_looks, new_looks, k=2)
    good = [best for best, second in pairs if best.distance < RATIO * second.distance]
    old_points = np.array([old_at[match.queryIdx].pt for match in good], np.float32).reshape(-1, 2)
    new_points = np.array([new_at[match.trainIdx].pt for match in good], np.float32).reshape(-1, 2)
    return old_points, new_points


def _doubt(
    small: Homography, at_new: npt.NDArray[np.float32], error_px: float, size_hw: tuple[int, ...]
) -> str:
    spread = cv2.contourArea(cv2.convexHull(at_new)) / (size_hw[0] * size_hw[1])
    stretch = scale_at(small, np.array([[size_hw[1] / 2, size_hw[0] / 2]]))[0]
    if spread < MIN_SPREAD:
        return f"the matching places cover {spread:.0%} of the photo, needed {MIN_SPREAD:.0%}"
    if not error_px <= LARGEST_ERROR_PX:
        return f"matching places lie {error_px:.1f} px apart, allowed {LARGEST_ERROR_PX:g}"
    if not 1 / LARGEST_STRETCH <= stretch <= LARGEST_STRETCH:
        return f"one photo is {stretch:.1f} times as large as the other, allowed {LARGEST_STRETCH:g}"
    return ""


def moved(homography: Homography, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Where points (P, 2) come to lie."""
    if not len(points):
        return np.empty((0, 2))
    placed = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return np.asarray(placed[:, :2] / placed[:, 2:], np.float64)


def scale_at(homography: Homography, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """How many times larger (P,) things around points (P, 2) become."""
    origin = moved(homography, points)
    right, down = (moved(homography, points + np.array(step)) - origin for step in ((1.0, 0.0), (0.0, 1.0)))
    area = np.abs(right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0])
    return np.asarray(np.sqrt(area), np.float64)
