"""Parts of a picture that hold no photo: found where no file declares them, and filled, so that no edge is left."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from damcrack.files import PhotoError

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

COARSE = 8  # the filling is worked out at this share of the size
MARGIN_PX = 2  # pixels beside a gap are mixed with it
# A collar is wider than a crack, larger than a mark, and ends at once; the night around a lamp does not.
CELL_PX, COLLAR_CELLS, COLLAR_SHARE, COLLAR_STEP = 4, 9, 0.002, 40
NOISE = 40  # of JPEG beside it, in grey values


def collar(rgb: Pixels) -> Mask | None:
    """True (H, W) where a mosaic, a rotated or a fisheye photo (H, W, 3) is exactly black or white around the picture.

    None if there is no such place: regions that touch the border, next to which the photo is far from their value.
    """
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])
    values = [value for value in (0, 255) if (border == value).all(axis=1).sum() >= CELL_PX * COLLAR_CELLS]
    height, width = rgb.shape[:2]
    if not values or min(height, width) < CELL_PX:
        return None
    whole = rgb[: height // CELL_PX * CELL_PX, : width // CELL_PX * CELL_PX]
    cells = cv2.resize(whole, (width // CELL_PX, height // CELL_PX), interpolation=cv2.INTER_AREA)
    found = np.zeros((height, width), np.bool_)
    for value in values:
        near = cv2.dilate(_collar_cells(np.asarray(cells, np.uint8), value), np.ones((7, 7), np.uint8))
        large = cv2.resize(near, whole.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        beyond = (0, height - whole.shape[0], 0, width - whole.shape[1])
        large = np.asarray(cv2.copyMakeBorder(large, *beyond, cv2.BORDER_REPLICATE), np.uint8)
        for rows in range(0, height, 512):
            part = rgb[rows : rows + 512] if value == 0 else ~rgb[rows : rows + 512]
            found[rows : rows + 512] |= (large[rows : rows + 512] > 0) & (part <= NOISE).all(axis=2)
    return found if found.any() else None


def _collar_cells(cells: Pixels, value: int) -> npt.NDArray[np.uint8]:
    """1 (h, w) in the regions of cells (h, w, 3) of one value that are a collar."""
    exact = (cells == value).all(axis=2).astype(np.uint8)
    side = np.ones((COLLAR_CELLS, COLLAR_CELLS), np.uint8)
    padded = np.pad(exact, COLLAR_CELLS, constant_values=1)
    wide = cv2.morphologyEx(padded, cv2.MORPH_OPEN, side)[
        COLLAR_CELLS:-COLLAR_CELLS, COLLAR_CELLS:-COLLAR_CELLS
    ]
    labels = cv2.connectedComponents(np.ascontiguousarray(wide))[1]
    grey = cells.mean(axis=2)
    found: npt.NDArray[np.uint8] = np.zeros_like(exact)
    for label in np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])):
        region = (labels == label).astype(np.uint8)
        near, far = (cv2.dilate(region, np.ones((px, px), np.uint8)) > 0 for px in (7, 13))
        around = far & ~near
        if label == 0 or region.mean() < COLLAR_SHARE or not around.any():
            continue
        if abs(float(np.median(grey[around])) - value) >= COLLAR_STEP:
            found |= region
    return found


def filled(rgb: Pixels, gaps: Mask) -> Pixels:
    """The photo (H, W, 3) with the mean colour of what lies nearest in its `gaps` (H, W), without texture.

    Raises:
        PhotoError: there is nothing but gaps.
    """
    height, width = rgb.shape[:2]
    wide = cv2.dilate(gaps.astype(np.uint8), np.ones((2 * MARGIN_PX + 1, 2 * MARGIN_PX + 1), np.uint8)) > 0
    if wide.all():
        raise PhotoError("nothing but transparent pixels or nodata, expected a photo; export it again")
    size_wh = -(-width // COARSE), -(-height // COARSE)
    seen = np.where(wide[..., None], np.uint8(0), rgb)
    colors = _smaller(seen, size_wh)
    shares = _smaller((~wide).astype(np.float32), size_wh)
    coarse = np.clip(_spread(colors, shares), 0, 255).astype(np.uint8)
    large = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    np.copyto(large, rgb, where=~wide[..., None])
    return np.asarray(large, np.uint8)


def _spread(colors: Floats, shares: Floats) -> Floats:
    """Colours (h, w, 3), weighed by their share (h, w), and where that is 0 those of the next coarser size."""
    own = colors / np.maximum(shares, 1e-6)[..., None]
    empty = shares < 0.01
    if not empty.any() or min(shares.shape) < 2:
        return own.astype(np.float32)
    half_wh = -(-shares.shape[1] // 2), -(-shares.shape[0] // 2)
    coarser = _spread(_smaller(colors, half_wh), _smaller(shares, half_wh))
    below = cv2.resize(coarser, shares.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(empty[..., None], below, own).astype(np.float32)


def _smaller(values: npt.NDArray[Any], size_wh: tuple[int, int]) -> Floats:
    return np.asarray(cv2.resize(values, size_wh, interpolation=cv2.INTER_AREA), np.float32)
