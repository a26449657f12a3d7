"""What the pixels of a tile teach: one code per pixel, so that every kind of label is the same kind of picture.

A source says how good its labels are; `encode` turns a mask into codes accordingly, and the loss reads the codes:

exact       the mask's edge follows the crack: every pixel teaches
fat         the mask is wider than the crack: its middle is crack, the rest of it teaches nothing
boxes       regions in which a crack runs somewhere
tiles       "there is a crack in here", no mask at all: somewhere in the tile
unlabelled  nothing is known; only a teacher's answer teaches
"""

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
MaskQuality = Literal["exact", "fat", "boxes"]

CLEAN, UNKNOWN, SOMEWHERE, CRACK = 0, 64, 128, 255
FAT_RIM_PX = 2  # so much of a fat mask's edge, inside and outside, teaches nothing
WITHOUT_MASK = {0: CLEAN, 1: SOMEWHERE, -1: UNKNOWN}  # of all pixels of a tile without a mask, by its label


def targets_of(mask: Pixels, quality: MaskQuality) -> Pixels:
    """Codes (H, W) of a mask (H, W), non-zero = crack, of a source with such masks."""
    inside = (mask != 0).astype(np.uint8)
    if quality != "fat":
        return np.asarray(inside * np.uint8(CRACK if quality == "exact" else SOMEWHERE))
    rim = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * FAT_RIM_PX + 1,) * 2)
    near, core = cv2.dilate(inside, rim) > 0, cv2.erode(inside, rim) > 0
    # Where the mask is too thin to have a core, a crack runs somewhere inside.
    cored = cv2.dilate(core.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2 * FAT_RIM_PX) > 0
    codes = np.where(near, UNKNOWN, CLEAN)
    codes[(inside > 0) & ~cored] = SOMEWHERE
    codes[core] = CRACK
    return codes.astype(np.uint8)


def encode_targets(codes: Pixels) -> bytes:
    """PNG bytes of codes (H, W)."""
    done, encoded = cv2.imencode(".png", codes)
    assert done
    return bytes(encoded)


def decode_targets(encoded: bytes) -> Pixels | None:
    """Codes (H, W) of a PNG that `encode_targets` wrote; None for a damaged one."""
    if not encoded:  # OpenCV raises, where it answers None to all other damage
        return None
    codes = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    return None if codes is None else codes.astype(np.uint8, copy=False)
