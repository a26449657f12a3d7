"""One photo from pixels to findings: block probabilities, crack pixels, cracks with their measures."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.measure import Crack, measure_cracks
from damcrack.cracks.segment import CrackMasks, Segmentation, crack_masks
from damcrack.math.tiling import Boxes
from damcrack.stages.inspection.blocks import block_boxes_xyxy
from damcrack.stages.inspection.detector import BlockScores, OnnxDetector

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Verdict = Literal["crack", "unsure", "no crack"]

CONTEXT_PX = 48  # filters see so much beside the blocks that are searched
# How much of the network's belief in a block holds where its map sees nothing, so that no crack is torn at a cell.
LEAST_GATE = 0.25


@dataclass(frozen=True)
class Rules:
    """When a block is called cracked or goes to review, and how its cracks are traced."""

    threshold: float
    uncertain: tuple[float, float]
    overlap: float
    join_px: int
    segmentation: Segmentation


@dataclass(frozen=True)
class Findings:
    """What one photo (H, W) shows: boxes (N, 4) with their probability (N,), masks (H, W) of 0/1, cracks by length."""

    size_hw: tuple[int, int]
    boxes: Boxes
    crack_prob: Floats
    masks: CrackMasks
    cracks: list[Crack]
    verdict: Verdict


def look_at(rgb: Pixels, detector: OnnxDetector, rules: Rules, workers: Executor) -> Findings:
    """Score the blocks of a photo (H, W, 3) and trace the cracks in the positive ones.

    Raises:
        PhotoError: the photo is smaller than one block.
    """
    size_hw = rgb.shape[0], rgb.shape[1]
    boxes = block_boxes_xyxy(size_hw, detector.tile_px, rules.overlap)
    scores = detector.score(rgb, boxes, workers)
    masks = CrackMasks(np.zeros(size_hw, np.uint8), np.zeros(size_hw, np.uint8))
    cracks = list[Crack]()
    regions = list(positive_regions(boxes, scores, rules.threshold, size_hw))
    for region, (parts, found) in zip(
        regions, workers.map(lambda region: trace(rgb, region, rules), regions), strict=True
    ):
        x0, y0, x1, y1 = region.box
        for whole, part in zip(masks, parts, strict=True):
            np.maximum(whole[y0:y1, x0:x1], part, out=whole[y0:y1, x0:x1])
        cracks += found
    cracks.sort(key=lambda crack: (-crack.length_px, crack.box_xyxy))
    return Findings(size_hw, boxes, scores.crack_prob, masks, cracks, verdict(scores.crack_prob, rules))


def verdict(crack_prob: Floats, rules: Rules) -> Verdict:
    """A photo shows a crack if one of its blocks does, and is unsure if one of them may."""
    if (crack_prob >= rules.threshold).any():
        return "crack"
    return "unsure" if (crack_prob >= rules.uncertain[0]).any() else "no crack"


@dataclass(frozen=True)
class Region:
    """Positive blocks that touch: their box (x0, y0, x1, y1) with a margin, and belief (h, w) in it."""

    box: tuple[int, int, int, int]
    belief: Floats


def positive_regions(
    boxes: Boxes, scores: BlockScores, threshold: float, size_hw: tuple[int, int]
) -> Iterator[Region]:
    """Group positive blocks that touch each other, so that a crack across blocks stays one."""
    positive = np.flatnonzero(scores.crack_prob >= threshold)
    for members in _touching(boxes[positive]):
        blocks = positive[members]
        low, high = boxes[blocks, :2].min(axis=0), boxes[blocks, 2:].max(axis=0)
        x0, y0 = np.maximum(low - CONTEXT_PX, 0).tolist()
        x1, y1 = np.minimum(high + CONTEXT_PX, size_hw[::-1]).tolist()
        belief = np.zeros((y1 - y0, x1 - x0), np.float32)
        for block in blocks:
            left, top, right, bottom = (boxes[block] - (x0, y0, x0, y0)).tolist()
            gate = _gate(scores.crack_map[block], (right - left, bottom - top))
            part = belief[top:bottom, left:right]
            np.maximum(part, scores.crack_prob[block] * gate, out=part)
        yield Region((x0, y0, x1, y1), belief)


def _touching(boxes: Boxes) -> list[npt.NDArray[np.int64]]:
    """Row numbers of boxes in groups that share an edge or a corner."""
    if not len(boxes):
        return []
    side = int(boxes[0, 2] - boxes[0, 0])
    parent = np.arange(len(boxes))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    gap = np.abs(boxes[:, None, :2] - boxes[None, :, :2]).max(axis=2)
    for i, j in np.argwhere(np.triu(gap <= side, 1)).tolist():
        parent[root(j)] = root(i)
    roots = np.array([root(i) for i in range(len(boxes))])
    return [np.flatnonzero(roots == one) for one in np.unique(roots)]


def _gate(crack_map: Floats, size_wh: tuple[int, int]) -> Floats:
    """Where in a block (h, w) the network sees the crack: 1 at its strongest place, LEAST_GATE at its weakest."""
    low, high = crack_map.min(), crack_map.max()
    relative = (crack_map - low) / (high - low) if high > low else np.ones_like(crack_map)
    large = cv2.resize(relative.astype(np.float32), size_wh, interpolation=cv2.INTER_LINEAR)
    gate: Floats = LEAST_GATE + (1 - LEAST_GATE) * large
    return gate


def trace(rgb: Pixels, region: Region, rules: Rules) -> tuple[CrackMasks, list[Crack]]:
    """Crack pixels (h, w) of a region, and its cracks in the photo's coordinates."""
    x0, y0, x1, y1 = region.box
    grey = np.asarray(cv2.cvtColor(rgb[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY), np.uint8)
    masks = crack_masks(grey, region.belief, rules.segmentation)
    cracks = measure_cracks(grey, masks.sure, rules.join_px, rules.segmentation.min_length_px)
    return masks, [_moved(crack, x0, y0) for crack in cracks]


def _moved(crack: Crack, x0: int, y0: int) -> Crack:
    left, top, right, bottom = crack.box_xyxy
    return Crack(
        crack.length_px,
        crack.width_px,
        crack.width_max_px,
        crack.area_px,
        crack.num_branches,
        (left + x0, top + y0, right + x0, bottom + y0),
        tuple(line + np.array([x0, y0]) for line in crack.lines),
        crack.samples + np.array([x0, y0, 0]),
    )


def as_rows(findings: Findings) -> dict[str, Any]:
    """The findings as plain values for a json file."""
    return {
        "height_px": findings.size_hw[0],
        "width_px": findings.size_hw[1],
        "verdict": findings.verdict,
        "max_crack_prob": round(float(findings.crack_prob.max()), 4),
        "blocks": [
            [*box, round(float(prob), 4)]
            for box, prob in zip(findings.boxes.tolist(), findings.crack_prob, strict=True)
        ],
        "cracks": [
            {
                "length_px": round(crack.length_px, 1),
                "width_px": round(crack.width_px, 2),
                "width_max_px": round(crack.width_max_px, 2),
                "area_px": crack.area_px,
                "num_branches": crack.num_branches,
                "box_xyxy": list(crack.box_xyxy),
                "lines": [line.tolist() for line in crack.lines],
                "samples": [[int(x), int(y), round(width, 2)] for x, y, width in crack.samples.tolist()],
            }
            for crack in findings.cracks
        ],
    }
