"""Cracks as an engineer counts them: length, width and branches of each connected piece of a mask.

A crack is long, thin and clear to the network: its `evidence` is that in one number, the log odds of a logistic
regression. Clean walls show such lines too, the more of them the larger the photo: so a line is worth how unlikely it
is there by mistake (`confidence`).
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.segment import Labels, pieces
from damcrack.cracks.skeleton import Branch, branches, length_px, smoothed, thin
from damcrack.cracks.width import medians, widths_px

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Line = npt.NDArray[np.int64]
Probs = npt.NDArray[np.float32]

SIMPLIFIED_PX = 0.75  # how far a stored line may lie from its pixels
MIN_BRANCH_PX = 12.0
SAMPLE_PX = 4
MIN_WIDTH_PX = 0.3
# Fitted by `python -m experiments.triage`, as is the next.
PROB_WEIGHT, LENGTH_WEIGHT, WIDTH_WEIGHT, BIAS = 1.35, 1.36, -1.95, -3.10
FALSE_PER_MEGAPIXEL = (
    0.34  # lines of evidence 0 or more on clean walls; with each unit of evidence e times fewer
)
WEIGHTS = (PROB_WEIGHT, LENGTH_WEIGHT, WIDTH_WEIGHT, BIAS, FALSE_PER_MEGAPIXEL)


@dataclass(frozen=True)
class Crack:
    """One crack in pixels of its image: `lines` are its branches, each (P, 2) as x, y; `box_xyxy` holds its mask.

    `width_px` is the median over its length, `width_max_px` the 95th percentile: the widest place without outliers.
    `samples` (S, 3) are x, y and width every few pixels along it; `crack_prob` is the network's mean probability there.
    `confidence` is the chance that a clean wall of the photo's size shows no such line. `number`
    counts a photo's cracks from 1 on, the one with most evidence first; `decided` is what a person said of it: class,
    severity, note.
    """

    length_px: float
    width_px: float
    width_max_px: float
    area_px: int
    num_branches: int
    box_xyxy: tuple[int, int, int, int]
    lines: tuple[Line, ...]
    samples: Floats
    crack_prob: float
    confidence: float = 0.0
    number: int = 0
    decided: Mapping[str, str] = field(default_factory=dict)

    @property
    def evidence(self) -> float:
        """Log odds that it is a crack: 0 where as many are as are not."""
        prob = min(max(self.crack_prob, 1e-3), 1 - 1e-3)
        return (
            PROB_WEIGHT * math.log(prob / (1 - prob))
            + LENGTH_WEIGHT * math.log(self.length_px)
            + WIDTH_WEIGHT * math.log(self.width_max_px)
            + BIAS
        )


def confidence(evidence: float, megapixels: float) -> float:
    """Chance that a clean wall in a photo of so many megapixels shows no line of this evidence or more."""
    return math.exp(-megapixels * FALSE_PER_MEGAPIXEL * math.exp(-evidence))


@dataclass
class _Measured:
    branch: Branch
    length: float
    widths: Floats


def measure_cracks(
    grey: Grey, mask: Mask, crack_prob: Probs, join_px: int, min_length_px: float
) -> list[Crack]:
    """Measure the cracks of a mask (H, W); pieces at most `join_px` apart are one crack, short ones are dropped.

    `grey` (H, W) is the photo under it, for widths finer than a pixel; `crack_prob` (H, W) the network's probabilities.
    Longest first.
    """
    line = thin(mask)
    if not line.any():
        return []
    labels = joined(mask, join_px)
    # Where all pixels are crack, OpenCV's distance to the next other one is infinite.
    to_wall = np.minimum(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5), max(mask.shape))
    parts_of: dict[int, list[_Measured]] = defaultdict(list)
    for branch in branches(line):
        x, y = branch.points.T
        # The distance to the nearest pixel outside, from a pixel's middle: half a pixel more than to its edge.
        rough_px = max(1.0, 2 * float(medians(to_wall[y, x])) - 1)
        measured = _measure(grey, branch, rough_px)
        if measured is not None:
            parts_of[int(labels[y[0], x[0]])].append(measured)
    areas_px, boxes_xyxy = (found.tolist() for found in pieces(labels, mask))
    cracks = [
        _crack(parts, crack_prob, areas_px[label], tuple(boxes_xyxy[label]))
        for label, parts in parts_of.items()
    ]
    long = [crack for crack in cracks if crack.length_px >= min_length_px]
    return sorted(long, key=lambda crack: (-crack.length_px, crack.box_xyxy))


def joined(mask: Mask, join_px: int) -> Labels:
    """Labels (H, W) of cracks: pieces whose margins of half `join_px` touch are one."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (join_px | 1, join_px | 1))
    _, labels = cv2.connectedComponents(cv2.dilate(mask, kernel), connectivity=8)
    return np.asarray(labels, np.int32)


def _measure(grey: Grey, branch: Branch, rough_px: float) -> _Measured | None:
    """None for a spur, a free end no longer than the crack is wide, and for a trace too light to be a crack."""
    free_ends = 0 if branch.closed else 2 - sum(branch.joined)
    path = smoothed(branch.points, branch.closed)
    # Thinning eats half of the width at a free end, and a place where lines meet is 1.5 px from its middle; half a
    # pixel of it is in the length of a line of pixels.
    length = length_px(path, branch.closed) + free_ends * (rough_px - 1) / 2 + sum(branch.joined)
    if free_ends == 1 and length < max(MIN_BRANCH_PX, 1.5 * rough_px):
        return None
    widths = widths_px(grey, branch.points, path, rough_px)
    return _Measured(branch, length, widths) if medians(widths) >= MIN_WIDTH_PX else None


def _crack(parts: list[_Measured], crack_prob: Probs, area_px: int, box: tuple[int, int, int, int]) -> Crack:
    widths = np.concatenate([part.widths for part in parts])
    samples = np.concatenate([_samples(part) for part in parts])
    x, y = samples[:, :2].astype(np.int64).T
    return Crack(
        length_px=sum(part.length for part in parts),
        width_px=float(np.median(widths)),
        width_max_px=float(np.percentile(widths, 95)),
        area_px=area_px,
        num_branches=len(parts),
        box_xyxy=box,
        lines=tuple(_simplified(part.branch) for part in parts),
        samples=samples,
        crack_prob=float(crack_prob[y, x].mean()),
    )


def _samples(part: _Measured) -> Floats:
    """x, y and the median width around, every SAMPLE_PX pixels of one branch, and at its end."""
    points, num = part.branch.points, len(part.widths)
    at = np.unique(np.append(np.arange(0, num, SAMPLE_PX), num - 1))
    windows = np.clip(at[:, None] + np.arange(-SAMPLE_PX, SAMPLE_PX + 1), 0, num - 1)
    return np.column_stack([points[at], medians(part.widths[windows])])


def _simplified(branch: Branch) -> Line:
    points = branch.points.astype(np.int32)[:, None]
    few = cv2.approxPolyDP(points, SIMPLIFIED_PX, branch.closed)[:, 0].astype(np.int64)
    return np.concatenate([few, few[:1]]) if branch.closed else few
