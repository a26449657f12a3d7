"""Networks by name, with a head that can be replaced for transfer (paper, section 2.3).

Shape suffixes: B images, C channels or classes, H rows, W columns.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from damcrack.files import InputError
from damcrack.train.config import Trainable
from damcrack.train.pixels import PixelNetwork, with_pixel_head

Forward = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]

CBAM_REDUCTION, CBAM_KERNEL_PX = 16, 7


class Answer(NamedTuple):
    """Float32 logits of the tiles, and of "crack" at every pixel if the network has a pixel head."""

    tile_BC: Tensor
    pixel_BHW: Tensor | None = None


def answer(forward: Forward, inputs: Tensor) -> Answer:
    """What a network says of a batch, whether it has one head or two."""
    said = forward(inputs)
    return Answer(said.float()) if isinstance(said, Tensor) else Answer(said[0].float(), said[1].float())


class ChannelAttention(nn.Module):
    """What to look at: a weight per channel, from its mean and its maximum through one shared perceptron."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // CBAM_REDUCTION
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
        self.conv = nn.Conv2d(2, 1, CBAM_KERNEL_PX, padding=CBAM_KERNEL_PX // 2, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        seen = torch.cat([x_BCHW.amax(1, keepdim=True), x_BCHW.mean(1, keepdim=True)], dim=1)
        weight = torch.sigmoid(self.bn(self.conv(seen)))
        return x_BCHW * weight


class CbamBlock(BasicBlock):  # type: ignore[misc]  # torchvision carries no types
    """A residual block whose branch passes through both attentions before it is added.

    CBAM, Woo et al., ECCV 2018: a rival in the paper's Table 2.
    """

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


class Architecture(NamedTuple):
    """A network's constructor, and the side of the smallest image that its strides leave a pixel of."""

    build: Callable[..., nn.Module]
    min_px: int


def _timm(name: str, num_classes: int) -> nn.Module:
    """A network of timm, an extra that is imported when one is built."""
    try:
        import timm
    except ImportError as error:
        raise InputError(f'{name} needs timm: pip install "damcrack[encoders]"') from error
    # Published weights were trained with TensorFlow's epsilon of the batch norms.
    network: nn.Module = timm.create_model(name, num_classes=num_classes, bn_eps=1e-3)
    return network


# One line per network. A new network is a new line here and a value in params.yaml.
# Residual branches start at zero (Goyal et al. 2017): without it a ResNet50 hardly moves in the first epochs.
NETWORKS = {
    "resnet18": Architecture(partial(zoo.resnet18, zero_init_residual=True), 32),
    "resnet34": Architecture(partial(zoo.resnet34, zero_init_residual=True), 32),
    "resnet50": Architecture(partial(zoo.resnet50, zero_init_residual=True), 32),
    "resnet18_cbam": Architecture(partial(ResNet, CbamBlock, [2, 2, 2, 2], zero_init_residual=True), 32),
    "alexnet": Architecture(zoo.alexnet, 63),
    "vgg16": Architecture(zoo.vgg16, 32),
    **{f"efficientnet_lite{n}": Architecture(partial(_timm, f"efficientnet_lite{n}"), 32) for n in range(3)},
}


def build_network(
    name: str, num_classes: int, seed: int, pixel_channels: int | None = None
) -> nn.Module | PixelNetwork:
    """Make a network with random weights drawn from `seed`; the global generator is left as it was.

    With `pixel_channels` it has a pixel head beside the tile head.
    """
    if name not in NETWORKS:
        raise InputError(f"network: {name!r}; expected one of {sorted(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = NETWORKS[name].build(num_classes=num_classes)
    return network if pixel_channels is None else with_pixel_head(network, num_classes, pixel_channels, seed)


def forward_of(network: nn.Module) -> Forward:
    """What gives all that a network can say: the answers of both heads, where it has two."""
    return network.both if isinstance(network, PixelNetwork) else network


def check_size(name: str, image_px: int) -> None:
    """Refuse images too small for a network.

    Raises:
        InputError: their side is below the network's least.
    """
    least = NETWORKS[name].min_px
    if image_px < least:
        raise InputError(
            f"{name} needs images of {least} px or more, these are {image_px} px; raise image_px"
        )


def _head_name(network: nn.Module) -> str:
    names: list[str] = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return names[-1]


def head(network: nn.Module) -> nn.Linear:
    """The last linear layer, which gives the logits."""
    layer = network.get_submodule(_head_name(network))
    assert isinstance(layer, nn.Linear)
    return layer


def replace_head(network: nn.Module, num_classes: int, seed: int) -> None:
    """Put a fresh linear head for `num_classes` on a pretrained network, in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = nn.Linear(head(network).in_features, num_classes)
    network.set_submodule(_head_name(network), fresh)


def with_fresh_heads(
    network: nn.Module, num_classes: int, seed: int, pixel_channels: int | None
) -> nn.Module:
    """A pretrained network's body under a fresh tile head, and with `pixel_channels` a pixel head beside it."""
    if pixel_channels is not None:
        return with_pixel_head(network, num_classes, pixel_channels, seed)
    replace_head(network, num_classes, seed)
    return network


def set_trainable(network: nn.Module, part: Trainable) -> None:
    """Let all weights train, or the head alone (the backbone's batch norms then keep their statistics)."""
    network.requires_grad_(part == "all")
    head(network).requires_grad_(True)


def set_training_mode(network: nn.Module) -> None:
    """Training mode, but for a frozen body: its batch norms keep their statistics and its dropout rests."""
    trained = {weight for weight in network.parameters() if weight.requires_grad}
    network.train(not trained <= set(head(network).parameters()))
