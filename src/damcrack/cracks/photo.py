"""One photo from pixels to findings: crack map, block probabilities, crack pixels, cracks with their measures."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.cracks.config import Segmentation
from damcrack.cracks.detector import OnnxDetector
from damcrack.cracks.findings import Block, Pixels, Verdict
from damcrack.cracks.measure import Crack, confidence, measure_cracks
from damcrack.cracks.quality import doubt as why_doubtful
from damcrack.cracks.segment import CrackMasks, Mask, crack_masks, pieces, without_specks
from damcrack.cracks.width import LARGEST_REACH_PX
from damcrack.cracks.windows import CELL_PX, num_cells
from damcrack.data.tiling import Boxes, tile_boxes_xyxy

Floats = npt.NDArray[np.float32]
Gaps = npt.NDArray[np.bool_]

AROUND_CELLS = num_cells(int(LARGEST_REACH_PX))  # brightness profiles across a crack reach so far beside it


@dataclass(frozen=True)
class Rules:
    """At which scales a photo is seen, when blocks and photos are called cracked, and how cracks are traced."""

    scales: tuple[float, ...]
    double_megapixels: float
    refine_from: float
    threshold: float
    uncertain: tuple[float, float]
    confident: tuple[float, float]
    overlap: float
    join_px: int
    segmentation: Segmentation

    @classmethod
    def of(cls, config: Any) -> "Rules":
        """Those values of an `InspectConfig` that findings depend on."""
        return cls(*(getattr(config, field.name) for field in fields(cls)))

    def scales_of(self, size_hw: tuple[int, ...]) -> tuple[float, ...]:
        """At which of the scales a photo of this size is seen: a large one is not enlarged."""
        large = size_hw[0] * size_hw[1] > 1e6 * self.double_megapixels
        return tuple(scale for scale in self.scales if scale <= 1 or not large)


@dataclass(frozen=True)
class Inspected:
    """What one photo (H, W) shows, best cracks first.

    `levels` (H, W) is 2 at crack pixels, 1 at fainter ones, which nobody should call new.
    """

    blocks: list[Block]
    levels: Mask
    cracks: list[Crack]
    verdict: Verdict
    doubt: str


def look_at(
    rgb: Pixels, detector: OnnxDetector, rules: Rules, workers: Executor, gaps: Gaps | None = None
) -> Inspected:
    """Map the cracks of a photo (H, W, 3), judge its blocks, and trace the cracks that touch a cracked block.

    Blocks that lie wholly in `gaps` (H, W), where there is no picture, are no blocks.

    Raises:
        PhotoError: the photo is smaller than one block.
    """
    size_hw = rgb.shape[0], rgb.shape[1]
    boxes = tile_boxes_xyxy(size_hw, detector.tile_px, rules.overlap)
    if gaps is not None:
        boxes = boxes[[not gaps[y0:y1, x0:x1].all() for x0, y0, x1, y1 in boxes.tolist()]]
    crack_map = detector.map_photo(rgb, workers, rules.scales_of(size_hw), rules.refine_from)
    crack_prob = detector.block_probs(without_specks(crack_map, CELL_PX, rules.segmentation), boxes)
    levels, cracks = np.zeros(size_hw, np.uint8), list[Crack]()
    tracing = Tracing(rgb, crack_map, boxes[crack_prob >= rules.threshold], rules)
    for (x0, y0, x1, y1), masks, found in workers.map(tracing.trace, tracing.regions):
        whole = levels[y0:y1, x0:x1]
        np.maximum(whole, masks.sure + masks.possible, out=whole)
        cracks += found
    cracks.sort(key=lambda crack: (-crack.evidence, crack.box_xyxy))
    megapixels = (size_hw[0] * size_hw[1] - (0 if gaps is None else int(gaps.sum()))) / 1e6
    cracks = [replace(crack, confidence=confidence(crack.evidence, megapixels)) for crack in cracks]
    blocks = [
        Block(x0, y0, x1, y1, round(float(prob), 4))
        for (x0, y0, x1, y1), prob in zip(boxes.tolist(), crack_prob, strict=True)
    ]
    doubt = why_doubtful(rgb)
    return Inspected(blocks, levels, cracks, verdict(cracks, bool(doubt), rules), doubt)


def verdict(cracks: Sequence[Crack], doubtful: bool, rules: Rules) -> Verdict:
    """What a photo shows by its most convincing line, which comes first; a doubtful one is never called clean."""
    unsure, crack = rules.confident
    best = cracks[0].confidence if cracks else 0.0
    return "crack" if best >= crack else "unsure" if best >= unsure or doubtful else "no crack"


def inside_blocks(boxes: Boxes, part: tuple[int, int, int, int]) -> Mask:
    """1 where a part (x0, y0, x1, y1) of a photo lies in one of the boxes (N, 4), 0 elsewhere (h, w)."""
    left, top, right, bottom = part
    inside = np.zeros((bottom - top, right - left), np.uint8)
    touching = boxes[(boxes[:, :2] < (right, bottom)).all(axis=1) & (boxes[:, 2:] > (left, top)).all(axis=1)]
    for x0, y0, x1, y1 in np.maximum(touching - (left, top, left, top), 0).tolist():
        inside[y0:y1, x0:x1] = 1
    return inside


class Region(NamedTuple):
    """Cells (left, top, right, bottom) of a photo's map around all that may be one crack, and its label there."""

    label: int
    cells: tuple[int, int, int, int]


class Traced(NamedTuple):
    """What a region shows: its box in the photo (x0, y0, x1, y1), masks (h, w), cracks in the photo's coordinates."""

    box: tuple[int, int, int, int]
    masks: CrackMasks
    cracks: list[Crack]


class Tracing:
    """Traces the cracks of a photo (H, W, 3) region by region; `regions` has them in the order of their labels.

    Pieces so close that they are one crack are in one region, and each cell of the map counts in one region only.
    `called` (N, 4) are the blocks that are called cracked.
    """

    def __init__(self, rgb: Pixels, crack_map: Floats, called: Boxes, rules: Rules) -> None:
        self._rgb, self._crack_map, self._called, self._rules = rgb, crack_map, called, rules
        how = rules.segmentation
        found = (crack_map >= how.min_prob).astype(np.uint8)
        # The largest gap inside of a crack, by half from both sides, and a cell for what interpolation adds.
        reach = num_cells(max(rules.join_px, how.bridge_px) // 2) + 1
        kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
        self._labels = np.asarray(cv2.connectedComponents(cv2.dilate(found, kernel))[1], np.int32)
        _, boxes = pieces(self._labels, found)
        boxes += (-AROUND_CELLS, -AROUND_CELLS, AROUND_CELLS, AROUND_CELLS)
        size_wh = np.array(crack_map.shape[::-1])
        longest_px = CELL_PX * np.hypot(*(boxes[:, 2:] - boxes[:, :2] - 2 * AROUND_CELLS + 1).T)
        clipped = np.hstack([np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, 2:], size_wh)]).tolist()
        self.regions = [
            Region(label, tuple(clipped[label]))
            for label in range(1, len(clipped))
            if longest_px[label] >= how.min_length_px / 2
        ]

    def trace(self, region: Region) -> Traced:
        """Find and measure the cracks of a region."""
        left, top, right, bottom = region.cells
        inside = slice(top, bottom), slice(left, right)
        cells = np.where(self._labels[inside] == region.label, self._crack_map[inside], np.float32(0))
        large = cv2.resize(
            cells, (CELL_PX * (right - left), CELL_PX * (bottom - top)), interpolation=cv2.INTER_LINEAR
        )
        x0, y0 = CELL_PX * left, CELL_PX * top
        rgb = self._rgb[y0 : CELL_PX * bottom, x0 : CELL_PX * right]
        box, how = (x0, y0, x0 + rgb.shape[1], y0 + rgb.shape[0]), self._rules.segmentation
        crack_prob = np.asarray(large[: rgb.shape[0], : rgb.shape[1]], np.float32)
        masks = crack_masks(crack_prob, inside_blocks(self._called, box), how)
        if not masks.sure.any():
            return Traced(box, masks, [])
        grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
        cracks = measure_cracks(grey, masks.sure, crack_prob, self._rules.join_px, how.min_length_px)
        return Traced(box, masks, [moved(crack, x0, y0) for crack in cracks])


def moved(crack: Crack, x: int, y: int) -> Crack:
    """The crack so many pixels further to the right and down."""
    left, top, right, bottom = crack.box_xyxy
    return replace(
        crack,
        box_xyxy=(left + x, top + y, right + x, bottom + y),
        lines=tuple(line + np.array([x, y]) for line in crack.lines),
        samples=crack.samples + np.array([x, y, 0]),
    )
