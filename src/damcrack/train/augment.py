"""Augmentation in whole batches on the device, and per-channel normalisation.

Shape suffixes: B images of a batch, N of a set, C channels, H rows, W columns.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from damcrack.data.targets import CRACK
from damcrack.train.config import Appearance, Augmentation, Flips

# Shares of red, green and blue in brightness (ITU-R BT.601).
LUMA_C = (0.299, 0.587, 0.114)
FOCUS_CELL_PX = 16  # crack pixels to centre on are chosen in cells of so many
FAR_PX_PER_PX = 1.41  # from so many pixels of the tile per pixel of the view on, they are averaged first
# A binomial filter, close to a Gaussian of one pixel.
SOFT = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class Draws(NamedTuple):
    """What chance says of each image of a set in one view.

    Coins (N, 3), angles (N,) in rad, shifts (N, 2) in px, scales (N,), centres (N, 2) in -1..1 of the room that a crop
    leaves, factors (N, 3) of brightness, contrast and saturation, softness (N,) in 0..1, grain (N,) as a deviation in
    grey values, and where its pattern begins (N, 2); chances (N, 2) of whether and on which crack pixel it is centred.
    """

    coins_N3: Tensor
    angles_N: Tensor
    shifts_N2: Tensor
    scales_N: Tensor
    centres_N2: Tensor
    factors_N3: Tensor
    softness_N: Tensor
    grain_N: Tensor
    grain_start_N2: Tensor
    focus_N2: Tensor

    def of(self, rows_B: Tensor) -> "Draws":
        """The draws of some images."""
        return Draws(*(part[rows_B] for part in self))

    def to(self, device: torch.device) -> "Draws":
        """The same draws on a device."""
        return Draws(*(part.to(device) for part in self))


def draw(num: int, how: Augmentation, seed: int) -> Draws:
    """Draw for `num` images, each for itself; on the CPU, so the draws are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    look = how.appearance or Appearance(0, 0, 0, 0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    coins_N3 = (uniform(3, num) < 0.5).T
    angles_N = (uniform(num) * 2 - 1) * math.radians(how.rotate_deg)
    shifts_N2 = (uniform(num, 2) * 2 - 1) * how.shift_px
    least, most = (math.log(scale) for scale in how.scales)
    scales_N = torch.exp(least + (most - least) * uniform(num))
    centres_N2 = uniform(num, 2) * 2 - 1
    factors_N3 = 1 + (uniform(num, 3) * 2 - 1) * look.jitter
    factors_N3[:, 2] *= uniform(num) >= look.grey
    softness_N = (uniform(num) < look.blur) * uniform(num)
    grain_N = uniform(num) * look.noise
    starts_N2 = torch.randint(1 << 20, (num, 2), generator=generator)
    focus_N2 = uniform(num, 2)  # drawn last: the others are the same without it
    look_of_all = (factors_N3, softness_N, grain_N, starts_N2)
    return Draws(coins_N3, angles_N, shifts_N2, scales_N, centres_N2, *look_of_all, focus_N2)


def augment(
    images_BCHW: Tensor, how: Augmentation, draws: Draws, codes_BHW: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return changed copies of square uint8 or float images of 0..255, each by its own draws.

    Reflection fills the corners. Colour images (C = 3) only, if `how` has an appearance. The codes of their pixels
    keep to the images, and are never mixed.
    """
    images_BCHW = _flip(images_BCHW, how.flips, draws.coins_N3)
    codes_B1HW = None if codes_BHW is None else _flip(codes_BHW[:, None], how.flips, draws.coins_N3)
    if how.resamples:
        view = _view(images_BCHW.shape[-1], how, draws, codes_B1HW)
        images_BCHW = _resample(images_BCHW.float(), view, F.avg_pool2d, "bilinear")
        if codes_B1HW is not None:
            codes_B1HW = _resample(codes_B1HW.float(), view, F.max_pool2d, "nearest").to(codes_B1HW.dtype)
    if how.appearance:
        images_BCHW = _look(images_BCHW.float(), draws)
    return images_BCHW, None if codes_B1HW is None else codes_B1HW[:, 0]


def _flip(images_BCHW: Tensor, flips: Flips, coins_B3: Tensor) -> Tensor:
    left_right, up_down, transpose = coins_B3.T[:, :, None, None, None]
    if flips == "none":
        return images_BCHW
    images_BCHW = torch.where(left_right, images_BCHW.flip(3), images_BCHW)
    if flips == "horizontal":
        return images_BCHW
    images_BCHW = torch.where(up_down, images_BCHW.flip(2), images_BCHW)
    return torch.where(transpose, images_BCHW.transpose(2, 3), images_BCHW)


class View(NamedTuple):
    """Where the pixels of a view lie in its image (B, H, W, 2), and which views (B,) are from far away."""

    grid: Tensor
    far_B: Tensor


def _view(side: int, how: Augmentation, draws: Draws, codes_B1HW: Tensor | None) -> View:
    out_px, room_B1 = how.view_px or side, (1 - draws.scales_N).clamp(min=0)[:, None]
    centres_B2 = draws.centres_N2 * room_B1
    if codes_B1HW is not None:
        centres_B2 = _focused(centres_B2, room_B1, codes_B1HW[:, 0], how, draws)
    cos, sin = draws.scales_N * torch.cos(draws.angles_N), draws.scales_N * torch.sin(draws.angles_N)
    places_B2 = draws.shifts_N2 * 2 / side + centres_B2
    rows = [torch.stack([cos, -sin, places_B2[:, 0]], dim=1), torch.stack([sin, cos, places_B2[:, 1]], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), [len(cos), 1, out_px, out_px], align_corners=False)
    return View(grid, draws.scales_N * side / out_px > FAR_PX_PER_PX)


def _focused(drawn_B2: Tensor, room_B1: Tensor, codes_BHW: Tensor, how: Augmentation, draws: Draws) -> Tensor:
    """Where each view is centred (B, 2), x and y in -1..1: as drawn, or near a crack pixel that was drawn."""
    side = codes_BHW.shape[-1]
    cells_BHW = F.max_pool2d((codes_BHW == CRACK).float()[:, None], FOCUS_CELL_PX, ceil_mode=True)[:, 0]
    running_BN = cells_BHW.flatten(1).cumsum(1)
    total_B = running_BN[:, -1]
    cell_B = (running_BN > (draws.focus_N2[:, 1] * total_B).floor()[:, None]).int().argmax(1)
    columns = cells_BHW.shape[-1]
    cell_B2 = torch.stack([cell_B % columns, cell_B // columns], dim=1)
    at_B2 = (cell_B2 + 0.5) * FOCUS_CELL_PX / side * 2 - 1
    # Not always in the middle: anywhere in the inner half of the view.
    near_B2 = (at_B2 + draws.centres_N2 * draws.scales_N[:, None] / 2).clamp(-1, 1)
    near_B2 = near_B2.clamp(-room_B1, room_B1)
    # A cell in a corner would be turned or shifted out of a view that keeps to the image.
    turned_B1 = (draws.angles_N.cos().abs() + draws.angles_N.sin().abs())[:, None]
    reach_B1 = (draws.scales_N[:, None] / turned_B1 - FOCUS_CELL_PX / side).clamp(min=0)
    shift_B2 = draws.shifts_N2 * 2 / side
    near_B2 = near_B2.clamp(at_B2 - reach_B1 - shift_B2, at_B2 + reach_B1 - shift_B2)
    focused_B1 = ((draws.focus_N2[:, 0] < how.focus) & (total_B > 0))[:, None]
    return torch.where(focused_B1, near_B2, drawn_B2)


def _resample(values_BCHW: Tensor, view: View, halve: Callable[..., Tensor], mode: str) -> Tensor:
    def sampled(of_BCHW: Tensor) -> Tensor:
        return F.grid_sample(of_BCHW, view.grid, mode, padding_mode="reflection", align_corners=False)

    near_BCHW = sampled(values_BCHW)
    if not view.far_B.any():
        return near_BCHW
    # Seen from far away, several pixels fall into one: they are averaged, as a camera would.
    return torch.where(view.far_B[:, None, None, None], sampled(halve(values_BCHW, 2)), near_BCHW)


def _look(images_BCHW: Tensor, draws: Draws) -> Tensor:
    """Softened, in other light and colours, with grain; values stay in 0..255."""
    soft_BCHW = _softened(images_BCHW)
    images_BCHW = torch.lerp(images_BCHW, soft_BCHW, draws.softness_N[:, None, None, None])
    brightness, contrast, saturation = draws.factors_N3.T[:, :, None, None, None]
    luma_C = _constant(LUMA_C, images_BCHW.device)
    luma_B1HW = (images_BCHW * luma_C[:, None, None]).sum(dim=1, keepdim=True)
    images_BCHW = luma_B1HW + (images_BCHW - luma_B1HW) * saturation
    mean_B111 = luma_B1HW.mean(dim=(2, 3), keepdim=True)
    images_BCHW = ((images_BCHW - mean_B111) * contrast + mean_B111) * brightness
    pattern_BCHW = _grain(draws.grain_start_N2, images_BCHW)
    return (images_BCHW + pattern_BCHW * draws.grain_N[:, None, None, None]).clamp(0, 255)


def _softened(images_BCHW: Tensor) -> Tensor:
    channels = images_BCHW.shape[1]
    kernel = _constant(SOFT, images_BCHW.device).expand(channels, 1, 1, -1)
    padded = F.pad(images_BCHW, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)


def _grain(starts_B2: Tensor, like_BCHW: Tensor) -> Tensor:
    """One pattern of standard normal values for all, begun at another place for each image."""
    channels, side = like_BCHW.shape[1:3]
    pattern_CHW = _pattern(channels, side, like_BCHW.device)
    steps = torch.arange(side, device=like_BCHW.device)
    rows_BH, columns_BW = (start_B[:, None] % side + steps for start_B in starts_B2.T)
    return pattern_CHW[:, rows_BH[:, :, None] % side, columns_BW[:, None] % side].transpose(0, 1)


@lru_cache(maxsize=4)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)  # made once, since the device would be waited for each time


@lru_cache(maxsize=4)
def _pattern(channels: int, side: int, device: torch.device) -> Tensor:
    return torch.randn(channels, side, side, generator=torch.Generator().manual_seed(0)).to(device)


def normalise(images_BCHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """Scale 0..255 values to zero mean and unit deviation per channel; mean and std are of values in 0..1."""
    scale_C, offset_C = 1 / (255 * std_C), -mean_C / std_C
    return torch.addcmul(offset_C[:, None, None], images_BCHW.float(), scale_C[:, None, None])
