"""Parts of a picture that hold no photo, filled so that no edge is left for the network to call a crack."""

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
