"""The one way that tiles become smaller, for training, inference and the exported model alike."""

import torch
from torch import Tensor
from torch.nn import functional as F


def shrink(images_BCHW: Tensor, image_px: int) -> Tensor:
    """Average whole blocks of pixels and round to whole grey values; float in 0..255 comes back.

    Raises:
        ValueError: the side is not a multiple of `image_px`.
    """
    side_px = int(images_BCHW.shape[-1])
    if side_px % image_px:
        divisors = [px for px in range(32, side_px + 1) if side_px % px == 0]
        raise ValueError(f"image_px: {image_px}; images of {side_px} px can be reduced to {divisors}")
    factor = side_px // image_px
    if factor == 1:
        return images_BCHW.float()
    return torch.round(F.avg_pool2d(images_BCHW.float(), factor))
