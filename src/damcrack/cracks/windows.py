"""Windows that cover a photo of any size: what each of them sees, and which part of its map counts.

A window sees a margin that is thrown away, so that neighbouring windows agree where they meet. Beyond the border of the
photo it sees its reflection.
"""

import math
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

    def cells(self, start: int, shrink: float) -> slice:
        """Cells of the map of the whole photo, `shrink` times larger, that the window at `start` sees."""
        first, stop = start - self.margin_px, start + self.step_px + self.margin_px
        return slice(int(max(0, first) * shrink) // CELL_PX, int(stop * shrink) // CELL_PX)

    def own_part(self, start: int, cell_px: int = CELL_PX) -> tuple[slice, slice]:
        """Cells of the photo's map that the window at `start` fills, and where they lie in its own map."""
        first, margin = start // cell_px, self.margin_px // cell_px
        num = min(self.step_px // cell_px, -(-self.length_px // cell_px) - first)
        return slice(first, first + num), slice(margin, margin + num)


@dataclass(frozen=True)
class Windows:
    """Windows of a photo (H, W, 3) that is seen `shrink` times smaller than it is; 0.5 is twice as large."""

    down: Side
    across: Side
    shrink: float

    @classmethod
    def of(cls, size_hw: tuple[int, int], shrink: float) -> "Windows":
        """Windows for a photo of this size."""
        down, across = (Side.of(math.ceil(length / shrink)) for length in size_hw)
        return cls(down, across, shrink)

    @property
    def cell_px(self) -> int:
        """Pixels, as the windows see them, that make one cell of the photo's map; of a smaller photo, of its own."""
        return round(CELL_PX / min(1, self.shrink))

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
        """What the window at `top`, `left` sees of the photo, its pixels averaged or interpolated: (h, w, 3)."""
        first = [start - side.margin_px for start, side in ((top, self.down), (left, self.across))]
        low = [int(self.shrink * start) for start in first]
        high = [start + int(self.shrink * seen) for start, seen in zip(low, self.seen_hw, strict=True)]
        part = reflected(rgb, (low[0], low[1]), (high[0], high[1]))
        if self.shrink == 1:
            return part
        how = cv2.INTER_AREA if self.shrink > 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(part, self.seen_hw[::-1], interpolation=how), np.uint8)


def reflected(rgb: Pixels, low_yx: tuple[int, int], high_yx: tuple[int, int]) -> Pixels:
    """Part of a photo from `low_yx` to before `high_yx`, which may lie outside: the photo is reflected there."""
    (y0, x0), (y1, x1) = low_yx, high_yx
    height, width = rgb.shape[:2]
    inside = rgb[max(0, y0) : y1, max(0, x0) : x1]
    beyond = max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)
    return np.asarray(cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REFLECT_101), np.uint8)
