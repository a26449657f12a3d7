"""ResNet18 training at 224 px: our data path and precision beside a plain float32 torchvision loop.

The plain loop is what a careful newcomer writes: ImageFolder, PIL, torchvision transforms, a DataLoader with one
worker per core, float32, eager. Both train on the same JPEG tiles with the same optimiser.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.harness import Variant, as_table, compare
from damcrack.engine.augment import Augmentation
from damcrack.engine.batches import DeviceImages
from damcrack.engine.decoded import decode_set
from damcrack.engine.networks import build_network, set_training_mode
from damcrack.engine.objectives import Supervised
from damcrack.engine.training import Precision, autocast
from damcrack.images.imageset import ImageSetWriter
from damcrack.sample.concrete import render_photo

TILE_PX, BATCH_SIZE, STEPS, NUM_TILES = 224, 32, 3, 240
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def main(rounds: int = 5) -> str:
    """Return the table of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_tiles(root)
        variants: dict[str, Variant] = {
            "plain float32 torchvision loop": _plain(root / "folders"),
            "damcrack, float32": _ours(root, "float32"),
            "damcrack, bfloat16": _ours(root, "bfloat16"),
        }
        return as_table(compare(variants, rounds))


def _write_tiles(root: Path) -> None:
    """Write the same JPEG tiles as an image set and as two folders."""
    writer = ImageSetWriter(root / "set")
    photo = render_photo(seed=0, index=0, size_hw=(12 * TILE_PX, 20 * TILE_PX)).rgb
    for number in range(NUM_TILES):
        row, column = divmod(number, 20)
        tile = photo[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX, ::-1]
        encoded = cv2.imencode(".jpg", tile, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        writer.add(f"{number:05d}.jpg", encoded, label=number % 2, split="train")
        path = root / "folders" / str(number % 2) / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    writer.finish("tiles.csv", ("no crack", "crack"), (TILE_PX, TILE_PX))


def _optimiser(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


def _forever(batches: Any) -> Iterator[Any]:
    while True:
        yield from batches()


def _plain(folder: Path) -> Variant:
    steps = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    workers = os.cpu_count() or 1
    loader = DataLoader(
        ImageFolder(str(folder), transforms.Compose(steps)),
        BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
    )
    network = build_network("resnet18", 2, 0).train()
    optimiser, batches = _optimiser(network), _forever(lambda: loader)

    def portion() -> int:
        for _ in range(STEPS):
            images, labels = next(batches)
            loss = nn.functional.cross_entropy(network(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return STEPS * BATCH_SIZE

    return portion


def _ours(root: Path, precision: Precision) -> Variant:
    decoded = decode_set(root / "set", None, root / "cache")
    images = DeviceImages(decoded, (MEAN, STD), torch.device("cpu"))
    network = build_network("resnet18", 2, 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_training_mode(network)
    optimiser, objective = _optimiser(network), Supervised()
    flips = Augmentation("dihedral", 0, 0)
    batches = _forever(lambda: images.shuffled(BATCH_SIZE, flips, seed=0))

    def portion() -> int:
        num_images = 0
        for _ in range(STEPS):
            images_BCHW, labels_B = next(batches)
            with autocast(torch.device("cpu"), precision):
                terms = objective(network, images_BCHW, labels_B, 1)
            optimiser.zero_grad(set_to_none=True)
            terms.total.backward()
            optimiser.step()
            num_images += len(labels_B)
        return num_images

    return portion


if __name__ == "__main__":
    print(main())
