"""Windows that cover a photo of any size: what each of them sees, and which part of its map counts.

A window sees a margin that is thrown away, so that neighbouring windows agree where they meet. Beyond the border of the
photo it sees its reflection.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

WINDOW_PX, MARGIN_PX = 512, 32
MULTIPLE_PX = 32  # the network halves an image five times
CELL_PX = 2  # side of the square of pixels that one cell of a map stands for


def up_to_multiple(length: int, multiple: int) -> int:
    """The smallest multiple that is not below a length."""
    return -(-length // multiple) * multiple


def num_cells(length: int) -> int:
    """Cells of a map along a side of so many pixels."""
    return -(-length // CELL_PX)


@dataclass(frozen=True)
class Side:
    """Windows along one side of a photo: each keeps `step_px` and sees `margin_px` more at both ends."""

    length_px: int
    step_px: int
    margin_px: int

    @classmethod
    def of(cls, length_px: int) -> "Side":
        """As few windows as cover the side, as small as possible; one without a margin if it holds the whole side."""
        if length_px <= WINDOW_PX:
            return cls(length_px, up_to_multiple(length_px, MULTIPLE_PX), 0)
        num = -(-length_px // (WINDOW_PX - 2 * MARGIN_PX))
        return cls(length_px, up_to_multiple(-(-length_px // num), MULTIPLE_PX), MARGIN_PX)

    @property
    def seen_px(self) -> int:
        """Side of a window."""
        return self.step_px + 2 * self.margin_px

    def cells(self, start: int, shrink: int) -> slice:
        """Cells of the map of the whole photo, `shrink` times larger, that the window at `start` sees."""
        first, stop = start - self.margin_px, start + self.step_px + self.margin_px
        return slice(max(0, first) * shrink // CELL_PX, stop * shrink // CELL_PX)

    def own_part(self, start: int) -> tuple[slice, slice]:
        """Cells of the photo's map that the window at `start` fills, and where they lie in its own map."""
        first, margin = start // CELL_PX, self.margin_px // CELL_PX
        num = min(self.step_px // CELL_PX, num_cells(self.length_px) - first)
        return slice(first, first + num), slice(margin, margin + num)


@dataclass(frozen=True)
class Windows:
    """Windows of a photo (H, W, 3) that is seen `shrink` times smaller than it is."""

    down: Side
    across: Side
    shrink: int

    @classmethod
    def of(cls, size_hw: tuple[int, int], shrink: int) -> "Windows":
        """Windows for a photo of this size."""
        down, across = (Side.of(-(-length // shrink)) for length in size_hw)
        return cls(down, across, shrink)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Top and left of what each window keeps, row by row, in pixels of the smaller photo."""
        for top in range(0, self.down.length_px, self.down.step_px):
            for left in range(0, self.across.length_px, self.across.step_px):
                yield top, left

    @property
    def seen_hw(self) -> tuple[int, int]:
        """Height and width of every window."""
        return self.down.seen_px, self.across.seen_px

    def cells(self, top: int, left: int) -> tuple[slice, slice]:
        """Rows and columns of the photo's map that the window at `top`, `left` sees."""
        return self.down.cells(top, self.shrink), self.across.cells(left, self.shrink)

    def cut(self, rgb: Pixels, top: int, left: int) -> Pixels:
        """What the window at `top`, `left` sees of the photo, its pixels averaged: (h, w, 3)."""
        first = [start - side.margin_px for start, side in ((top, self.down), (left, self.across))]
        low = [self.shrink * start for start in first]
        high = [start + self.shrink * seen for start, seen in zip(low, self.seen_hw, strict=True)]
        part = reflected(rgb, (low[0], low[1]), (high[0], high[1]))
        if self.shrink == 1:
            return part
        return np.asarray(cv2.resize(part, self.seen_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def reflected(rgb: Pixels, low_yx: tuple[int, int], high_yx: tuple[int, int]) -> Pixels:
    """Part of a photo from `low_yx` to before `high_yx`, which may lie outside: the photo is reflected there."""
    (y0, x0), (y1, x1) = low_yx, high_yx
    height, width = rgb.shape[:2]
    inside = rgb[max(0, y0) : y1, max(0, x0) : x1]
    beyond = max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)
    return np.asarray(cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REFLECT_101), np.uint8)
