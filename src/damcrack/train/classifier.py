"""A two-class network with all that it needs: raw tiles in, crack probability out."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from damcrack.files import InputError
from damcrack.train.augment import normalise
from damcrack.train.weights import ModelInfo

CRACK = 1  # index of the class "crack"


def shrink(images_BCHW: Tensor, image_px: int) -> Tensor:
    """Average whole blocks of pixels and round to whole grey values; float in 0..255 comes back.

    Raises:
        InputError: the side is not a multiple of `image_px`.
    """
    side_px = int(images_BCHW.shape[-1])
    if side_px % image_px:
        divisors = [px for px in range(32, side_px + 1) if side_px % px == 0]
        raise InputError(f"image_px: {image_px}; images of {side_px} px can be reduced to {divisors}")
    factor = side_px // image_px
    if factor == 1:
        return images_BCHW.float()
    return torch.round(F.avg_pool2d(images_BCHW.float(), factor))


class TileClassifier(nn.Module):
    """Wraps a two-class network so that reduction, normalisation and softmax travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, info: ModelInfo) -> None:
        super().__init__()
        self.network = network
        self.image_px = info.image_px
        self.register_buffer("mean", torch.tensor(info.mean))
        self.register_buffer("std", torch.tensor(info.std))

    def forward(self, tiles_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Score raw uint8 RGB tiles (B, tile, tile, 3): crack probability (B,) and logits (B, classes)."""
        images_BCHW = shrink(tiles_BHWC.permute(0, 3, 1, 2), self.image_px)
        logits_BC = self.network(normalise(images_BCHW, self.mean, self.std))
        return torch.softmax(logits_BC, dim=1)[:, CRACK], logits_BC


@torch.inference_mode()
def predict_logits(
    classifier: TileClassifier,
    images_NHWC: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    batch_size: int = 64,
) -> npt.NDArray[np.float32]:
    """Float32 logits (len(rows), classes) of the images at `rows`; images raw or already reduced."""
    device = next(classifier.parameters()).device
    classifier = classifier.eval().to(memory_format=torch.channels_last)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    scored = [
        classifier(torch.from_numpy(images_NHWC[batch]).to(device))[1].float().cpu() for batch in batches
    ]
    return torch.cat(scored).numpy()
