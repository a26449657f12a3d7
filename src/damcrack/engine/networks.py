"""Networks by name, with a head that can be replaced for transfer (paper, section 2.3)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torchvision.models as zoo
from torch import nn

Trainable = Literal["all", "head"]

# One line per network: its constructor. A new network is a new line here and a value in params.yaml.
# Residual branches start at zero (Goyal et al. 2017): without it a ResNet50 hardly moves in the first epochs.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(zoo.resnet18, zero_init_residual=True),
    "resnet34": partial(zoo.resnet34, zero_init_residual=True),
    "resnet50": partial(zoo.resnet50, zero_init_residual=True),
}


def build_network(name: str, num_classes: int, seed: int) -> nn.Module:
    """Make a network with random weights drawn from `seed`; the global generator is left as it was."""
    if name not in NETWORKS:
        raise ValueError(f"network: {name!r}; expected one of {sorted(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name](weights=None, num_classes=num_classes)


def head(network: nn.Module) -> nn.Linear:
    """The last linear layer: its name is `fc` in all networks above."""
    layer = network.get_submodule("fc")
    assert isinstance(layer, nn.Linear)
    return layer


def replace_head(network: nn.Module, num_classes: int, seed: int) -> None:
    """Put a fresh linear head for `num_classes` on a pretrained network, in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.register_module("fc", nn.Linear(head(network).in_features, num_classes))


def without_head(network: nn.Module) -> nn.Module:
    """Let the network give the features (B, F) that its head works on, in place."""
    network.register_module("fc", nn.Identity())
    return network


def set_trainable(network: nn.Module, part: Trainable) -> None:
    """Let all weights train, or the head alone (the backbone's batch norms then keep their statistics)."""
    network.requires_grad_(part == "all")
    head(network).requires_grad_(True)


def is_body_frozen(network: nn.Module) -> bool:
    """Tell whether nothing but the head trains."""
    trained = {weight for weight in network.parameters() if weight.requires_grad}
    return trained <= set(head(network).parameters())


def set_training_mode(network: nn.Module) -> None:
    """Training mode for what trains; modules without a trainable weight stay in evaluation mode."""
    network.eval()
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        if not own or any(parameter.requires_grad for parameter in own):
            module.training = True
