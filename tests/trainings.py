"""Short trainings of a small network, for tests of the training room."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from damcrack.data.imageset import ImageSet, ImageSetWriter
from damcrack.data.targets import encode_targets
from damcrack.train.batches import DeviceImages
from damcrack.train.checkpoint import Checkpoint
from damcrack.train.config import TaughtConfig, TemperatureConfig, TrainingConfig
from damcrack.train.frozen import Frozen
from damcrack.train.networks import NETWORKS, Architecture
from damcrack.train.objectives import Distillation, Objective
from damcrack.train.pixels import with_pixel_head
from damcrack.train.training import Trained, train

DYNAMIC = TemperatureConfig("dynamic", ramp_epochs=2)


def write_set(
    root: Path,
    images: np.ndarray,
    labels: Sequence[int],
    splits: Sequence[str],
    masks: Mapping[int, np.ndarray] | None = None,
) -> ImageSet:
    """An image set of RGB images (N, side, side, 3) in PNG; some carry codes of their pixels, by number."""
    writer = ImageSetWriter(root)
    for number, (image, label, split) in enumerate(zip(images, labels, splits, strict=True)):
        encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        writer.add(f"{number}.png", encoded, label=label, split=split)
        if masks and number in masks:
            writer.add_mask(encode_targets(masks[number]))
    writer.finish("tiles.csv", ("no crack", "crack"), images.shape[1:3])
    return ImageSet.open(root)


class SmallResNet(ResNet):  # type: ignore[misc]  # torchvision carries no types
    """A ResNet18 of half the blocks and an eighth of the width: every kind of layer, a hundredth of the weights."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=1, zero_init_residual=True)
        self.fc = nn.Linear(512 // 8, num_classes)

    def _make_layer(self, block: Any, planes: int, *rest: Any, **options: Any) -> nn.Module:
        layers: nn.Module = super()._make_layer(block, planes // 8, *rest, **options)
        return layers


def small_network(seed: int = 0, pixel_channels: int | None = None) -> nn.Module:
    """A small network with random weights drawn from `seed`, with both heads if `pixel_channels` are given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallResNet()
    return network if pixel_channels is None else with_pixel_head(network, 2, pixel_channels, seed)


def lively(network: nn.Module, seed: int = 1) -> nn.Module:
    """The network with batch norms that hold something, so that no branch is zero and no folding idle."""
    random = torch.Generator().manual_seed(seed)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=random)
        nn.init.uniform_(norm.bias, -0.5, 0.5, generator=random)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.uniform_(-0.5, 0.5, generator=random)
        norm.running_var.uniform_(0.5, 1.5, generator=random)
    return network.eval()


@contextmanager
def small_by_name() -> Iterator[None]:
    """Meanwhile `small` is the name of the small network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "small", Architecture(SmallResNet, 32))
        yield


def config(**values: object) -> TrainingConfig:
    """Three epochs of SGD in float32, but for the values given."""
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05, "precision": "float32", "compile": "off"}
    return TrainingConfig(**{**settings, **values})  # type: ignore[arg-type]


def distillation(
    teacher: nn.Module, temperature: TemperatureConfig = DYNAMIC, epochs: int = 4
) -> Distillation:
    """Distillation from a teacher in float32."""
    taught = TaughtConfig(epochs=epochs, learning_rate=0.1, temperature=temperature)
    return Distillation(Frozen(teacher, bfloat16=False), taught)


def run(
    images: DeviceImages,
    network: nn.Module,
    objective: Objective,
    settings: TrainingConfig,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train without a word."""
    return train(network, objective, images, settings, checkpoint, lambda row: None)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether names and bits are equal."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class PowerCut(Exception):  # noqa: N818 - plays a cut, is no error of ours
    """Stops a training."""


def cut(row: dict[str, float]) -> None:
    """A log that stops the training in its third epoch, before that is kept."""
    if row["epoch"] == 3:
        raise PowerCut


def resumed(
    images: DeviceImages,
    fresh: Callable[[], tuple[nn.Module, Objective]],
    settings: TrainingConfig,
    folder: Path,
) -> Trained:
    """A training of what `fresh` makes that was cut in epoch 3 and resumed."""
    with pytest.raises(PowerCut):
        train(*fresh(), images, settings, Checkpoint(folder / "key", 0), cut)
    return run(images, *fresh(), settings, Checkpoint(folder / "key", 0))
