"""Networks with two heads: the paper's tile head, and a pixel head that says which pixels are crack.

Shape suffixes: B images, C channels or classes, H rows, W columns.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet

from damcrack.files import InputError


class ResNetEncoder(nn.Module):
    """Features of a torchvision ResNet at strides 2, 4, 8, 16 and 32."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu)
        self.pool = network.maxpool
        self.stages = nn.ModuleList([network.layer1, network.layer2, network.layer3, network.layer4])
        self.channels = [network.conv1.out_channels, *map(_channels_out, self.stages)]

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Features, the finest first."""
        features = [self.stem(images_BCHW)]
        x = self.pool(features[0])
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class EfficientNetEncoder(nn.Module):
    """Features of a timm EfficientNet at strides 2, 4, 8, 16 and 32."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.blocks = network.blocks
        self.channels = [info["num_chs"] for info in network.feature_info]
        names = [name for name, _ in network.blocks.named_children()]
        self._last_of_stride = {names.index(info["module"].split(".")[1]) for info in network.feature_info}

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Features, the finest first."""
        x, features = self.stem(images_BCHW), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self._last_of_stride:
                features.append(x)
        return features


def _channels_out(stage: nn.Module) -> int:
    # The widest, not the last: an attention's batch norm has one channel.
    return max(layer.num_features for layer in stage.modules() if isinstance(layer, nn.BatchNorm2d))


class PixelNetwork(nn.Module):
    """An encoder with a tile head on its last features, and a feature pyramid (Lin et al. 2017) over all of them.

    The pyramid has `channels` channels, half as many at its finest level, where most of its time goes. `forward`
    gives the tile's logits alone, `both` those of its pixels too.
    """

    def __init__(self, encoder: ResNetEncoder | EfficientNetEncoder, num_classes: int, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.tile_head = nn.Linear(encoder.channels[-1], num_classes)
        widths = [max(8, channels // 2), channels, channels, channels]
        self.lateral = nn.ModuleList(
            nn.Conv2d(num_in, width, 1)
            for num_in, width in zip(encoder.channels, [*widths, channels], strict=True)
        )
        coarser = [*widths[1:], channels]
        self.narrow = nn.ModuleList(
            nn.Conv2d(above, width, 1) if above != width else nn.Identity()
            for above, width in zip(coarser, widths, strict=True)
        )
        self.smooth = nn.ModuleList(_smooth(width) for width in widths)
        self.pixel_head = nn.Conv2d(widths[0], 1, 1)
        # Few pixels are crack: starting from that share, the first steps need not learn it.
        assert self.pixel_head.bias is not None
        nn.init.constant_(self.pixel_head.bias, -4.0)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of the tiles (B, classes)."""
        return self._tile(self.encoder(images_BCHW))

    def both(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the tiles (B, classes), and of "crack" at every pixel (B, H, W)."""
        features = self.encoder(images_BCHW)
        half_B1HW = self._pyramid(features)
        size_hw = images_BCHW.shape[-2:]
        full_B1HW = F.interpolate(half_B1HW, size=size_hw, mode="bilinear", align_corners=False)
        return self._tile(features), full_B1HW[:, 0]

    def both_at_half_size(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """As `both`, with the pixels' logits as the head gives them: one for 2 by 2 pixels (B, H / 2, W / 2).

        H and W are multiples of 32: the exported graph holds scales, by which onnxruntime resizes faster than to sizes.
        """
        features = self.encoder(images_BCHW)
        return self._tile(features), self._pyramid(features, doubling=True)[:, 0]

    def _tile(self, features: Sequence[Tensor]) -> Tensor:
        logits_BC: Tensor = self.tile_head(features[-1].mean(dim=(2, 3)))
        return logits_BC

    def _pyramid(self, features: Sequence[Tensor], doubling: bool = False) -> Tensor:
        x: Tensor = self.lateral[-1](features[-1])
        for level in range(len(features) - 2, -1, -1):
            finer = features[level]
            larger: dict[str, Any] = {"scale_factor": 2.0} if doubling else {"size": finer.shape[-2:]}
            # Narrowing first is the same and cheaper: both are linear.
            x = F.interpolate(self.narrow[level](x), mode="bilinear", align_corners=False, **larger)
            x = self.smooth[level](x + self.lateral[level](finer))
        logits_B1HW: Tensor = self.pixel_head(x)
        return logits_B1HW


def _smooth(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def with_pixel_head(network: nn.Module, num_classes: int, channels: int, seed: int) -> PixelNetwork:
    """A classification network's body under two fresh heads, whose weights are drawn from `seed`.

    Raises:
        InputError: it is neither a ResNet of torchvision nor an EfficientNet of timm.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PixelNetwork(_encoder(network), num_classes, channels)


def _encoder(network: nn.Module) -> ResNetEncoder | EfficientNetEncoder:
    if isinstance(network, ResNet):
        return ResNetEncoder(network)
    if hasattr(network, "conv_stem") and hasattr(network, "feature_info"):
        return EfficientNetEncoder(network)
    raise InputError(
        f"pixel_channels: a pixel head fits a ResNet or an EfficientNet, not a {type(network).__name__}; "
        "set pixel_channels: null"
    )
