"""Crack pixels in the blocks that a network calls cracked: dark lines, followed from their surest pixels.

No training: a ridge filter says where dark lines run, the network says which of them to believe, and half the depth
below the wall's brightness says how far they reach to both sides.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.pieces import box_around, pieces
from damcrack.cracks.ridge import Floats, Grey, dark_ridge
from damcrack.cracks.skeleton import thin

Mask = npt.NDArray[np.uint8]

WALL_PX = 96  # the wall's brightness and roughness are medians over about so much
WALL_SHRINK = 8
QUIET = 0.5  # grey levels: smoother than that no photograph is
ROUGHNESS_STEPS = 8
LARGEST_HALF_PX = 40
POSSIBLE = 0.75  # share of `grow` from which a ridge may be part of a crack


@dataclass(frozen=True)
class Segmentation:
    """How a dark line becomes a crack.

    A line grows from pixels whose ridge is `seed` times the wall's own roughness, weighted by the network's
    belief, over neighbours of `grow` times; it must be `min_length_px` long. Gaps up to `bridge_px` are closed.
    """

    seed: float = 9.0
    grow: float = 5.0
    min_length_px: float = 40.0
    bridge_px: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.grow <= self.seed:
            raise ValueError(f"grow: {self.grow}; expected more than 0 and at most seed ({self.seed})")
        if not self.min_length_px >= 0:
            raise ValueError(f"min_length_px: {self.min_length_px}; expected 0 or more")
        if not 1 <= self.bridge_px <= 99:
            raise ValueError(f"bridge_px: {self.bridge_px}; expected 1 to 99")


class CrackMasks(NamedTuple):
    """Pixels (H, W) of 0/1: `sure` are the cracks; `possible` has fainter lines too, which nobody should call new."""

    sure: Mask
    possible: Mask


def crack_masks(grey: Grey, belief: Floats, how: Segmentation) -> CrackMasks:
    """Crack pixels of a grey image (H, W); `belief` (H, W) in [0, 1] weighs what may start a crack.

    Nothing is found where `belief` is 0.
    """
    # Arrays of a photo's size are dropped as soon as they have been used: many photos are traced side by side.
    strength, scale_px = dark_ridge(grey)
    strength /= roughness(strength)
    looked_at = belief > 0
    strength[~looked_at] = 0
    lines = _grown(strength * belief >= how.seed, strength >= how.grow, how.min_length_px, how.bridge_px)
    faint = strength >= POSSIBLE * how.grow
    del strength
    possible = _grown(faint, faint, how.min_length_px / 2, how.bridge_px)
    if not lines.any():
        return CrackMasks(lines, possible)
    smooth = np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.8), np.uint8)
    darkness = np.asarray(cv2.subtract(local_median(smooth), smooth), np.uint8)
    near = box_around(lines, LARGEST_HALF_PX + 1)
    sure = np.zeros_like(lines)
    sure[near] = _widened(thin(lines[near]), scale_px[near], darkness[near], looked_at[near])
    return CrackMasks(sure, possible | sure)


def roughness(strength: Floats) -> Floats:
    """What ridges (H, W) the wall itself has around each pixel: the median over about WALL_PX, at least QUIET.

    Cracks are far less than half of the pixels, so they do not move it.
    """
    levels = np.asarray(cv2.convertScaleAbs(strength, alpha=ROUGHNESS_STEPS), np.uint8)
    floor: Floats = np.maximum(local_median(levels).astype(np.float32) / ROUGHNESS_STEPS, QUIET)
    return floor


def _grown(
    seeds: npt.NDArray[np.bool_], lines: npt.NDArray[np.bool_], min_length_px: float, bridge_px: int
) -> Mask:
    """Pieces of `lines` that hold a seed and are long enough (hysteresis, Canny 1986)."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (bridge_px, bridge_px))
    closed = np.asarray(cv2.morphologyEx(lines.astype(np.uint8), cv2.MORPH_CLOSE, kernel), np.uint8)
    num, labels = cv2.connectedComponents(closed, connectivity=8)
    keep = np.zeros(num, np.uint8)
    keep[np.unique(labels[seeds])] = 1
    keep[0] = 0
    area_px, boxes_xyxy = pieces(np.asarray(labels, np.int32), closed)
    diagonal = np.hypot(*(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).T)
    # A blot fills its box, a line does not.
    slender = area_px < 0.2 * diagonal**2
    keep &= ((diagonal >= min_length_px) & slender).astype(np.uint8)
    grown: Mask = keep[labels]
    return grown


def _widened(line: Mask, scale_px: Floats, darkness: Grey, looked_at: npt.NDArray[np.bool_]) -> Mask:
    """From thin lines to all pixels at least half as dark as the nearest point of the line, next to it."""
    # The darkest pixel near the line: the ridge's top and the darkest pixel may be a pixel apart.
    depth_at_line = _steadied(np.asarray(cv2.dilate(darkness, np.ones((3, 3), np.uint8)), np.uint8), line)
    distance, nearest = cv2.distanceTransformWithLabels(
        1 - line, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    at_line = line > 0
    num = int(nearest.max()) + 1
    half_depth_of, reach_of = np.zeros(num, np.float32), np.zeros(num, np.float32)
    half_depth_of[nearest[at_line]] = 0.5 * depth_at_line
    reach_of[nearest[at_line]] = np.minimum(2.0 * scale_px[at_line] + 1.0, LARGEST_HALF_PX)
    inside = darkness >= half_depth_of[nearest]
    inside &= distance <= reach_of[nearest]
    del distance, nearest
    inside &= looked_at
    inside |= at_line
    mask = inside.astype(np.uint8)
    # What is dark beside the line but not joined to it is not the crack.
    _, labels = cv2.connectedComponents(mask, connectivity=8)
    joined = np.zeros(int(labels.max()) + 1, np.uint8)
    joined[np.unique(labels[at_line])] = 1
    joined[0] = 0
    kept: Mask = joined[labels]
    return kept


def _steadied(depth: Grey, line: Mask) -> Floats:
    """Depth at the line's pixels, averaged over the line's pixels within 15 px: single dark grains do not count."""
    at_line = line > 0
    total, count = (
        cv2.boxFilter(image, cv2.CV_32F, (15, 15), normalize=False)[at_line]
        for image in (cv2.multiply(depth, line), line)
    )
    return np.asarray(total / np.maximum(count, 1), np.float32)


def local_median(image: Grey) -> Grey:
    """Median (H, W) over about WALL_PX around each pixel, coarsely sampled."""
    size_wh = (max(1, image.shape[1] // WALL_SHRINK), max(1, image.shape[0] // WALL_SHRINK))
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    small = cv2.medianBlur(small, WALL_PX // WALL_SHRINK | 1)
    return np.asarray(cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
