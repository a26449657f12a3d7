"""The tile grid: where tiles lie in a photo, cutting them, putting them back, how much crack they hold."""

import numpy as np
import numpy.typing as npt

from damcrack.files import PhotoError

Image = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.int64]


def tile_boxes_xyxy(size_hw: tuple[int, int], tile_px: int) -> Boxes:
    """Boxes (N, 4) as x0, y0, x1, y1 in pixels, row by row, of a grid that covers every pixel.

    Tiles start at 0, tile_px, 2 * tile_px, ...; the last row and column are shifted inward where the photo is
    no multiple of the tile, and overlap their neighbours there: 4032x3024 gives 18 x 14 tiles of 224.

    Raises:
        PhotoError: the photo is smaller than one tile.
    """
    height, width = size_hw
    if min(height, width) < tile_px:
        raise PhotoError(
            f"{width}x{height} px is smaller than one tile of {tile_px} px; "
            "use larger photos or smaller tiles"
        )
    tops, lefts = _starts(height, tile_px), _starts(width, tile_px)
    y0, x0 = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
    return np.stack([x0, y0, x0 + tile_px, y0 + tile_px], axis=1)


def _starts(length: int, tile_px: int) -> npt.NDArray[np.int64]:
    starts = np.arange(0, length, tile_px, dtype=np.int64)
    return np.minimum(starts, length - tile_px)


def tile_box_xyxy(size_hw: tuple[int, int], tile_px: int, position: int) -> tuple[int, int, int, int]:
    """Box number `position` of `tile_boxes_xyxy`, without making the others."""
    line, column = divmod(position, num_columns(size_hw[1], tile_px))
    x0 = min(column * tile_px, size_hw[1] - tile_px)
    y0 = min(line * tile_px, size_hw[0] - tile_px)
    return x0, y0, x0 + tile_px, y0 + tile_px


def num_columns(width: int, tile_px: int) -> int:
    """Tiles in one row of the grid of a photo `width` pixels wide."""
    return -(-width // tile_px)


def cut_tiles(image: Image, boxes: Boxes) -> Image:
    """Copies of the boxes of one tile size out of an (H, W) or (H, W, 3) image: (N, tile, tile[, 3])."""
    if not len(boxes):
        return np.empty((0, 0, 0, *image.shape[2:]), image.dtype)
    return np.stack([image[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist()])


def stitch_tiles(tiles: Image, boxes: Boxes, size_hw: tuple[int, int]) -> Image:
    """Put tiles (N, tile, tile[, 3]) back at their boxes; the exact inverse of `cut_tiles` on a whole grid.

    Where tiles overlap the later one wins; pixels that no box covers stay 0.
    """
    image = np.zeros((*size_hw, *tiles.shape[3:]), tiles.dtype)
    for tile, (x0, y0, x1, y1) in zip(tiles, boxes.tolist(), strict=True):
        image[y0:y1, x0:x1] = tile
    return image


def crack_fractions(mask: Image, boxes: Boxes) -> npt.NDArray[np.float64]:
    """Share of non-zero mask pixels in each box, (N,) in [0, 1].

    `mask` is (H, W); any non-zero value is crack.
    """
    # Counting box by box takes 1 ms for the 252 tiles of 12 megapixels, a summed-area table 8 ms.
    cracked = [np.count_nonzero(mask[y0:y1, x0:x1]) for x0, y0, x1, y1 in boxes.tolist()]
    x0, y0, x1, y1 = boxes.T
    return np.asarray(np.array(cracked) / ((x1 - x0) * (y1 - y0)), dtype=np.float64)
