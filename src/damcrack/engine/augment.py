"""Augmentation in whole batches on the device, and per-channel normalisation.

Shape suffixes: B images of a batch, N of a set, C channels, H rows, W columns.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Flips = Literal["none", "horizontal", "dihedral"]


@dataclass(frozen=True)
class Augmentation:
    """`flips`: none, left-right, or all eight symmetries of the square; then rotation and shift in between.

    `rotate_deg` and `shift_px` are the ends of symmetric uniform ranges; 0 and 0 skip the resampling.
    """

    flips: Flips
    rotate_deg: float
    shift_px: float


class Draws(NamedTuple):
    """What chance says of each image of a set in one view: coins (3, N), angles (N,) in rad, shifts (N, 2) in px."""

    coins_3N: Tensor
    angles_N: Tensor
    shifts_N2: Tensor

    def of(self, rows_B: Tensor) -> "Draws":
        """The draws of some images."""
        return Draws(self.coins_3N[:, rows_B], self.angles_N[rows_B], self.shifts_N2[rows_B])

    def to(self, device: torch.device) -> "Draws":
        """The same draws on a device."""
        return Draws(*(part.to(device) for part in self))


def draw(num: int, how: Augmentation, seed: int) -> Draws:
    """Draw for `num` images, each for itself; on the CPU, so the draws are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    coins_3N = torch.rand(3, num, generator=generator) < 0.5
    angles_N = (torch.rand(num, generator=generator) * 2 - 1) * math.radians(how.rotate_deg)
    shifts_N2 = (torch.rand(num, 2, generator=generator) * 2 - 1) * how.shift_px
    return Draws(coins_3N, angles_N, shifts_N2)


def augment(images_BCHW: Tensor, how: Augmentation, draws: Draws) -> Tensor:
    """Return turned copies of square uint8 or float images, each by its own draws; reflection fills the corners."""
    images_BCHW = _flip(images_BCHW, how.flips, draws.coins_3N)
    if how.rotate_deg or how.shift_px:
        shifts_B2 = draws.shifts_N2 * 2 / images_BCHW.shape[-1]
        images_BCHW = _resample(images_BCHW.float(), draws.angles_N, shifts_B2)
    return images_BCHW


def _flip(images_BCHW: Tensor, flips: Flips, coins_3B: Tensor) -> Tensor:
    left_right, up_down, transpose = coins_3B[:, :, None, None, None]
    if flips == "none":
        return images_BCHW
    images_BCHW = torch.where(left_right, images_BCHW.flip(3), images_BCHW)
    if flips == "horizontal":
        return images_BCHW
    images_BCHW = torch.where(up_down, images_BCHW.flip(2), images_BCHW)
    return torch.where(transpose, images_BCHW.transpose(2, 3), images_BCHW)


def _resample(images_BCHW: Tensor, angles_B: Tensor, shifts_B2: Tensor) -> Tensor:
    cos, sin = torch.cos(angles_B), torch.sin(angles_B)
    rows = [torch.stack([cos, -sin, shifts_B2[:, 0]], dim=1), torch.stack([sin, cos, shifts_B2[:, 1]], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, padding_mode="reflection", align_corners=False)


def normalise(images_BCHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """Scale 0..255 values to zero mean and unit deviation per channel; mean and std are of values in 0..1."""
    scale_C, offset_C = 1 / (255 * std_C), -mean_C / std_C
    return torch.addcmul(offset_C[:, None, None], images_BCHW.float(), scale_C[:, None, None])
