"""ResNet18 with convolutional block attention (CBAM: Woo et al., ECCV 2018), a rival in the paper's Table 2.

Shape suffixes: B images, C channels, H rows, W columns.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

REDUCTION = 16
KERNEL_PX = 7


class ChannelAttention(nn.Module):
    """What to look at: a weight per channel, from its mean and its maximum through one shared perceptron."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight_BC = torch.sigmoid(self.mlp(x_BCHW.mean((2, 3))) + self.mlp(x_BCHW.amax((2, 3))))
        return x_BCHW * weight_BC[:, :, None, None]


class SpatialAttention(nn.Module):
    """Where to look: a weight per pixel, from mean and maximum over the channels through a 7x7 convolution.

    The convolution has a batch norm, as in the authors' own code.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, KERNEL_PX, padding=KERNEL_PX // 2, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        seen = torch.cat([x_BCHW.amax(1, keepdim=True), x_BCHW.mean(1, keepdim=True)], dim=1)
        weight = torch.sigmoid(self.bn(self.conv(seen)))
        return x_BCHW * weight


class CbamBlock(BasicBlock):  # type: ignore[misc]  # torchvision carries no types
    """A residual block whose branch passes through both attentions before it is added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.channel_attention = ChannelAttention(self.bn2.num_features)
        self.spatial_attention = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        branch = self.spatial_attention(self.channel_attention(branch))
        identity = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(branch + identity)
        return out


def resnet18_cbam(weights: None = None, **kwargs: Any) -> ResNet:
    """A ResNet18 of attention blocks with random weights; `weights` is there to be called like the others."""
    assert weights is None
    return ResNet(CbamBlock, [2, 2, 2, 2], **kwargs)
