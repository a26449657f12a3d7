"""The form in which a network with a pixel head travels: raw tiles in, crack probabilities out.

Shape suffixes: B tiles, H rows, W columns, h and w those of the map, K most confident cells.
"""

import copy

import torch
from torch import Tensor, nn

from damcrack.train.pixels import PixelNetwork
from damcrack.train.weights import ModelInfo

GREY_LEVELS = 255.0
# A tile is judged by the mean of this share of its cells, the most confident ones.
BLOCK_SHARE = 0.003
MIN_PROB = 1e-6


class Deployed(nn.Module):
    """Uint8 RGB tiles (B, H, W, 3) in; crack probability (B,) and probability of each 2 by 2 pixels (B, h, w) out.

    Sides are multiples of 32. `temperature` calibrates the tile's probability (Guo et al. 2017), not the map.
    """

    def __init__(self, network: PixelNetwork, info: ModelInfo, temperature: float = 1.0) -> None:
        super().__init__()
        mean, std = set(info.mean), set(info.std)
        assert len(mean) == len(std) == 1, "networks with a pixel head see all channels alike"
        self.network = copy.deepcopy(network)
        self._mean = GREY_LEVELS * mean.pop()
        first = next(layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d))
        with torch.no_grad():  # one pass over the pixels less
            first.weight /= GREY_LEVELS * std.pop()
        self.temperature = temperature

    def forward(self, tiles_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Score tiles."""
        images_BCHW = tiles_BHWC.permute(0, 3, 1, 2).float() - self._mean
        _, logits_Bhw = self.network.both_at_half_size(images_BCHW)
        map_Bhw = torch.sigmoid(logits_Bhw)
        return self._of_tile(map_Bhw), map_Bhw

    def _of_tile(self, map_Bhw: Tensor) -> Tensor:
        flat_BN = map_Bhw.flatten(1)
        num = torch.sym_max(1, torch.sym_int(flat_BN.shape[1] * BLOCK_SHARE))
        score_B = flat_BN.topk(num, dim=1, sorted=False)[0].mean(dim=1).clamp(MIN_PROB, 1 - MIN_PROB)
        return torch.sigmoid(torch.logit(score_B) / self.temperature)
