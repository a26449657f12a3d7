"""The block grid of an inspection: the tile grid, with overlap if asked for."""

import numpy as np
import numpy.typing as npt

from damcrack.data.tiling import Boxes, tile_boxes_xyxy


def block_boxes_xyxy(size_hw: tuple[int, int], block_px: int, overlap: float) -> Boxes:
    """Boxes (N, 4) of blocks that cover every pixel and overlap by a share of their side, row by row.

    Without overlap it is the grid of `tile_boxes_xyxy`: the last row and column are shifted inward.

    Raises:
        PhotoError: the photo is smaller than one block.
    """
    tile_boxes_xyxy(size_hw, block_px)  # refuses what is too small
    step = max(1, round(block_px * (1 - overlap)))
    tops, lefts = (_starts(length, block_px, step) for length in size_hw)
    y0, x0 = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
    return np.stack([x0, y0, x0 + block_px, y0 + block_px], axis=1)


def _starts(length: int, block_px: int, step: int) -> npt.NDArray[np.int64]:
    last = length - block_px
    starts = np.arange(0, last + 1, step, dtype=np.int64)
    return starts if starts[-1] == last else np.append(starts, last)
