"""Augmentation in whole batches on the device, and per-channel normalisation.

Shape suffixes: B images, C channels, H rows, W columns.
"""

import math
from dataclasses import dataclass
from typing import Literal

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


def augment(images_BCHW: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Return randomly turned copies of square uint8 or float images; each image draws for itself.

    The draws come from `generator` on the CPU, so they are the same on every device.
    Reflection fills the corners.
    """
    num = len(images_BCHW)
    coins_3B = torch.rand(3, num, generator=generator) < 0.5
    angles_B = (torch.rand(num, generator=generator) * 2 - 1) * math.radians(how.rotate_deg)
    shifts_B2 = (torch.rand(num, 2, generator=generator) * 2 - 1) * how.shift_px * 2 / images_BCHW.shape[-1]
    images_BCHW = _flip(images_BCHW, how.flips, coins_3B.to(images_BCHW.device))
    if how.rotate_deg or how.shift_px:
        device = images_BCHW.device
        images_BCHW = _resample(images_BCHW.float(), angles_B.to(device), shifts_B2.to(device))
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
