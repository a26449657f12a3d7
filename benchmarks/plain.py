"""The reference.

What a careful newcomer writes: ImageFolder, PIL, torchvision transforms, a DataLoader with one worker per core,
float32, eager, losses read every step; a teacher without gradient, a frozen body without gradient.

`mixed` is the same loop by someone who has read the performance guide: bfloat16 autocast and channels-last.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.harness import Variant
from damcrack.train.networks import build_network

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TEMPERATURE, ALPHA = 4.0, 0.6


def loader(folder: Path, batch_size: int, shuffle: bool = True) -> DataLoader[Any]:
    """Batches of a folder with one subfolder per class."""
    steps = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    return DataLoader(
        ImageFolder(str(folder), transforms.Compose(steps)),
        batch_size,
        shuffle=shuffle,
        drop_last=shuffle,
        num_workers=os.cpu_count() or 1,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


def forever(batches: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from batches


def training(
    folder: Path, network: str, batch_size: int, steps: int, device: torch.device, mixed: bool = False
) -> Variant:
    """Some steps of supervised training."""
    student = build_network(network, 2, 0).train().to(device)
    return _stepping(student, None, folder, batch_size, steps, device, mixed)


def distillation(
    folder: Path, batch_size: int, steps: int, device: torch.device, mixed: bool = False
) -> Variant:
    """Some steps of distillation from a ResNet50 to a ResNet18 at a fixed temperature."""
    student, teacher = build_network("resnet18", 2, 0).train(), build_network("resnet50", 2, 1).eval()
    return _stepping(student.to(device), teacher.to(device), folder, batch_size, steps, device, mixed)


def _stepping(
    student: nn.Module,
    teacher: nn.Module | None,
    folder: Path,
    batch_size: int,
    steps: int,
    device: torch.device,
    mixed: bool,
) -> Variant:
    layout = torch.channels_last if mixed else torch.contiguous_format
    for network in (student, teacher):
        if network is not None:
            network.to(memory_format=layout)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batches = forever(loader(folder, batch_size))

    def portion() -> int:
        for _ in range(steps):
            images, labels = (part.to(device, non_blocking=True) for part in next(batches))
            images = images.to(memory_format=layout)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
                logits = student(images)
                loss = F.cross_entropy(logits, labels)
                if teacher is not None:
                    with torch.no_grad():
                        taught = teacher(images)
                    loss = ALPHA * _soft_loss(logits, taught) + (1 - ALPHA) * loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()
        return steps * batch_size

    return portion


def _soft_loss(logits: Tensor, taught: Tensor) -> Tensor:
    student, teacher = F.log_softmax(logits / TEMPERATURE, 1), F.softmax(taught / TEMPERATURE, 1)
    return TEMPERATURE**2 * F.kl_div(student, teacher, reduction="batchmean")


def frozen_transfer(train: Path, val: Path, batch_size: int, epochs: int, device: torch.device) -> Variant:
    """Fine-tune the head of a frozen ResNet18 for some epochs, validating after each."""
    train_batches, val_batches = loader(train, batch_size), loader(val, batch_size, shuffle=False)

    def portion() -> int:
        network = build_network("resnet18", 2, 0).requires_grad_(False).eval().to(device)
        head = network.get_submodule("fc").requires_grad_(True)
        optimiser = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
        num_images = 0
        for _ in range(epochs):
            for images, labels in train_batches:
                loss = F.cross_entropy(network(images.to(device)), labels.to(device))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                loss.item()
                num_images += len(labels)
            with torch.no_grad():
                for images, labels in val_batches:
                    F.cross_entropy(network(images.to(device)), labels.to(device)).item()
        return num_images

    return portion
