"""The deployed form of a network that also says where in a tile it sees the crack."""

import copy

import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from damcrack.engine.detector import CRACK
from damcrack.engine.networks import head
from damcrack.engine.resize import shrink
from damcrack.engine.weights import ModelInfo

GREY_LEVELS = 255.0


class Locator(nn.Module):
    """Raw tiles in; calibrated crack probability, logits, and the class activation map of "crack" out.

    The map (Zhou et al. 2016) is the head applied at every place of the last feature map instead of to their mean:
    the crack's logit less the other's, so its mean is the tile's. Networks with more than one linear layer at their
    end have no such map; theirs is one cell with the tile's value.
    """

    grey_mean: Tensor

    def __init__(self, network: nn.Module, info: ModelInfo, temperature: float = 1.0) -> None:
        super().__init__()
        network = _with_scale_in_weights(network, info)
        self.body = nn.Sequential(*list(network.children())[:-2]) if isinstance(network, ResNet) else None
        self.network = network if self.body is None else None
        self.head = head(network)
        self.image_px = info.image_px
        self.temperature = temperature
        # At full size: onnxruntime takes one number per channel off in ten times the time.
        mean = GREY_LEVELS * torch.tensor(info.mean)[:, None, None]
        self.register_buffer("grey_mean", mean.expand(-1, info.image_px, info.image_px).contiguous())

    def forward(self, tiles_BHWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score uint8 RGB tiles (B, tile, tile, 3): probability (B,), logits (B, 2), map (B, h, w)."""
        images_BCHW = shrink(tiles_BHWC.permute(0, 3, 1, 2), self.image_px)
        logits_BC, map_BHW = self._read(images_BCHW - self.grey_mean)
        return torch.softmax(logits_BC / self.temperature, dim=1)[:, CRACK], logits_BC, map_BHW

    def _read(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        if self.body is None:
            assert self.network is not None
            logits_BC = self.network(images_BCHW)
            return logits_BC, (logits_BC[:, CRACK] - logits_BC[:, 1 - CRACK])[:, None, None]
        features_BFHW = self.body(images_BCHW)
        # As a convolution the head is quantised like the rest, and the tile's logits are the mean of its places'.
        places_BCHW = nn.functional.conv2d(features_BFHW, self.head.weight[:, :, None, None], self.head.bias)
        return places_BCHW.mean(dim=(2, 3)), places_BCHW[:, CRACK] - places_BCHW[:, 1 - CRACK]


def _with_scale_in_weights(network: nn.Module, info: ModelInfo) -> nn.Module:
    """A copy whose first convolution divides by the standard deviations: one pass over the pixels less.

    The mean cannot go into its bias, because it pads with zeros after the mean has been taken off.
    """
    network = copy.deepcopy(network)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        first.weight /= GREY_LEVELS * torch.tensor(info.std)[:, None, None]
    return network
