"""Networks by name, with a head that can be replaced for transfer (paper, section 2.3)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torchvision.models as zoo
from torch import Tensor, nn

from damcrack.files import InputError
from damcrack.train.cbam import resnet18_cbam
from damcrack.train.config import Trainable
from damcrack.train.pixels import PixelNetwork, with_pixel_head

Forward = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]


class Architecture(NamedTuple):
    """A network's constructor, and the side of the smallest image that its strides leave a pixel of."""

    build: Callable[..., nn.Module]
    min_px: int


def _timm(name: str) -> Callable[..., nn.Module]:
    """Constructor of a timm network; timm is an extra, imported when one is built."""

    def build(weights: None, num_classes: int) -> nn.Module:
        try:
            import timm
        except ImportError as error:
            raise InputError(f'{name} needs timm: pip install "damcrack[encoders]"') from error
        # Published weights were trained with TensorFlow's epsilon of the batch norms.
        network: nn.Module = timm.create_model(name, num_classes=num_classes, bn_eps=1e-3)
        return network

    return build


# One line per network. A new network is a new line here and a value in params.yaml.
# Residual branches start at zero (Goyal et al. 2017): without it a ResNet50 hardly moves in the first epochs.
NETWORKS = {
    "resnet18": Architecture(partial(zoo.resnet18, zero_init_residual=True), 32),
    "resnet34": Architecture(partial(zoo.resnet34, zero_init_residual=True), 32),
    "resnet50": Architecture(partial(zoo.resnet50, zero_init_residual=True), 32),
    "resnet18_cbam": Architecture(partial(resnet18_cbam, zero_init_residual=True), 32),
    "alexnet": Architecture(zoo.alexnet, 63),
    "vgg16": Architecture(zoo.vgg16, 32),
    **{f"efficientnet_lite{n}": Architecture(_timm(f"efficientnet_lite{n}"), 32) for n in range(3)},
}


def build_network(
    name: str, num_classes: int, seed: int, pixel_channels: int | None = None
) -> nn.Module | PixelNetwork:
    """Make a network with random weights drawn from `seed`; the global generator is left as it was.

    With `pixel_channels` it has a pixel head beside the tile head.
    """
    if name not in NETWORKS:
        raise ValueError(f"network: {name!r}; expected one of {sorted(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = NETWORKS[name].build(weights=None, num_classes=num_classes)
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


def set_trainable(network: nn.Module, part: Trainable) -> None:
    """Let all weights train, or the head alone (the backbone's batch norms then keep their statistics)."""
    network.requires_grad_(part == "all")
    head(network).requires_grad_(True)


def is_body_frozen(network: nn.Module) -> bool:
    """Tell whether nothing but the head trains."""
    trained = {weight for weight in network.parameters() if weight.requires_grad}
    return trained <= set(head(network).parameters())


def set_training_mode(network: nn.Module) -> None:
    """Training mode, but for a frozen body: its batch norms keep their statistics and its dropout rests."""
    network.train(not is_body_frozen(network))
