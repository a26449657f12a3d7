"""Training and distillation at 224 px, and transfer with a frozen body, each beside the plain loop, on CPUs.

    python -m benchmarks.steps
    python -m benchmarks.steps --rounds 3

All variants read the same JPEG tiles, use the same networks and the same optimiser. On a GPU: `benchmarks.gpu`.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch
from torch import nn

from benchmarks import plain
from benchmarks.harness import Timing, Variant, as_table, compare
from damcrack.data.imageset import ImageSetWriter
from damcrack.sample.concrete import render_photo
from damcrack.train.augment import Augmentation
from damcrack.train.batches import Batch, Batches, DeviceImages, StoredViews
from damcrack.train.checkpoint import NoCheckpoint
from damcrack.train.decoded import decode_set
from damcrack.train.frozen import Frozen, answers, feature_tables
from damcrack.train.hardware import Precision, compiled
from damcrack.train.networks import build_network, head, set_trainable, set_training_mode
from damcrack.train.objectives import Distillation, Forward, Objective, Supervised, Teaching
from damcrack.train.temperature import TemperatureConfig
from damcrack.train.training import TrainingConfig, autocast, new_optimiser, train

TILE_PX = 224
STATISTICS = (plain.MEAN, plain.STD)
FLIPS = Augmentation("dihedral", 0, 0)
TRANSFER_EPOCHS, TRANSFER_VIEWS = 10, 2


@dataclass(frozen=True)
class Size:
    """How much one portion of work is."""

    device: torch.device
    batch_size: int
    steps: int
    num_train: int
    num_val: int
    image_px: int = TILE_PX


ON_CPU = Size(torch.device("cpu"), batch_size=32, steps=3, num_train=192, num_val=32)


@dataclass(frozen=True)
class Way:
    """What is trained and how: `taught` by a ResNet50, whose answers may be `stored`; all `compiled`."""

    precision: Precision
    network: str = "resnet18"
    taught: bool = False
    stored: bool = False
    compiled: bool = False


CONFIG = TrainingConfig(
    epochs=TRANSFER_EPOCHS,
    warmup_epochs=1,
    batch_size=32,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    flips="dihedral",
    rotate_deg=0.0,
    shift_px=0.0,
    scales=(1.0, 1.0),
    appearance=None,
    views=None,
    precision="bfloat16",
    compile="off",
    seed=0,
)
TEACHING = Teaching(plain.ALPHA, "kl", "inside", TemperatureConfig("dynamic"))


Sections = dict[str, list[Timing]]


def measure(rounds: int = 5) -> Sections:
    """Time all variants on the CPU, one section after the other, printing each table when it is there."""
    found: Sections = {}
    with tempfile.TemporaryDirectory() as folder:
        root, size = Path(folder), ON_CPU
        write_tiles(root, size)
        for title, variants in {
            **{training_title(name, size): _training(root, size, name) for name in ("resnet18", "resnet50")},
            distillation_title(size): _distillation(root, size),
            f"Frozen body, {TRANSFER_EPOCHS} epochs of the head": _transfer(root, size),
        }.items():
            found[title] = compare(variants, rounds)
            print(as_section(title, found[title]), end="\n\n", flush=True)
    return found


def training_title(name: str, size: Size) -> str:
    """Heading of a network's training."""
    return f"Training of {name}, batches of {size.batch_size}"


def distillation_title(size: Size) -> str:
    """Heading of the distillation."""
    return f"Distillation ResNet50 to ResNet18, batches of {size.batch_size}"


def as_section(title: str, timings: list[Timing]) -> str:
    """Markdown; a second student is also compared with the live teacher before it."""
    table = f"### {title}\n\n{as_table(timings)}"
    return f"{table}\n\n{as_table(timings[-2:])}" if "second student" in timings[-1].name else table


def _training(root: Path, size: Size, name: str) -> dict[str, Variant]:
    return {
        "plain loop": plain.training(root / "train", name, size.batch_size, size.steps, size.device),
        "damcrack, float32": stepping(root, size, Way("float32", name)),
        "damcrack, bfloat16": stepping(root, size, Way("bfloat16", name)),
    }


def _distillation(root: Path, size: Size) -> dict[str, Variant]:
    return {
        "plain loop, teacher without gradient": plain.distillation(
            root / "train", size.batch_size, size.steps, size.device
        ),
        "damcrack, float32": stepping(root, size, Way("float32", taught=True)),
        "damcrack, bfloat16, live teacher": stepping(root, size, Way("bfloat16", taught=True)),
        "damcrack, bfloat16, stored soft targets, second student": stepping(
            root, size, Way("bfloat16", taught=True, stored=True)
        ),
    }


def _transfer(root: Path, size: Size) -> dict[str, Variant]:
    return {
        "plain loop, body without gradient": plain.frozen_transfer(
            root / "train", root / "val", size.batch_size, TRANSFER_EPOCHS, size.device
        ),
        "damcrack, bfloat16, new views each epoch": _transferring(root, size, None),
        f"damcrack, bfloat16, {TRANSFER_VIEWS} views, features kept": _transferring(
            root, size, TRANSFER_VIEWS
        ),
    }


def write_tiles(root: Path, size: Size) -> None:
    """Write the same JPEG tiles as an image set (ROOT/set) and as folders (ROOT/train, ROOT/val)."""
    writer = ImageSetWriter(root / "set")
    columns = 16
    rows = -(-(size.num_train + size.num_val) // columns)
    photo = render_photo(seed=0, index=0, size_hw=(min(rows, 32) * TILE_PX, columns * TILE_PX)).rgb
    for number in range(size.num_train + size.num_val):
        row, column = divmod(number % (min(rows, 32) * columns), columns)
        tile = photo[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX, ::-1]
        encoded = cv2.imencode(".jpg", tile, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        split = "train" if number < size.num_train else "val"
        writer.add(f"{number:05d}.jpg", encoded, label=number % 2, split=split)
        path = root / split / str(number % 2) / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    writer.finish("tiles.csv", ("no crack", "crack"), (TILE_PX, TILE_PX))


def images(root: Path, size: Size, views: int | None = None, compile_views: bool = False) -> DeviceImages:
    """The decoded set on the device."""
    decoded = decode_set(root / "set", size.image_px, root / "cache")
    return DeviceImages(decoded, STATISTICS, FLIPS, size.device, views, compile_views=compile_views)


def stepping(root: Path, size: Size, way: Way) -> Variant:
    """Some steps of a training, as the training loop takes them."""
    network = build_network(way.network, 2, 0).to(size.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_training_mode(network)
    objective: Objective = Supervised()
    data = images(root, size, 1 if way.stored else None, way.compiled)
    source: Batches = data
    if way.taught:
        teacher = Frozen(build_network("resnet50", 2, 1).to(size.device), way.precision == "bfloat16")
        if way.compiled and not way.stored:
            teacher.compile(size.device)
        objective = Distillation(teacher, TEACHING, CONFIG.epochs).to(size.device)
        source = StoredViews(data, answers(teacher, data)) if way.stored else data
    forward: Forward = compiled(network, size.device) if way.compiled else network
    optimiser = new_optimiser(network, objective, CONFIG)
    batches = plain.forever(_Epochs(source, size.batch_size))

    def portion() -> int:
        num_images = 0
        for _ in range(size.steps):
            batch = next(batches)
            with autocast(size.device, way.precision):
                terms = objective(forward, batch, 1)
            terms.total.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            num_images += len(batch.labels_B)
        if size.device.type == "cuda":
            torch.cuda.synchronize()
        return num_images

    return portion


class _Epochs:
    def __init__(self, data: Batches, batch_size: int) -> None:
        self._data, self._batch_size, self._epoch = data, batch_size, 0

    def __iter__(self) -> Iterator[Batch]:
        self._epoch += 1
        return self._data.shuffled(self._batch_size, 0, self._epoch)


def _transferring(root: Path, size: Size, views: int | None) -> Variant:
    config = replace(CONFIG, batch_size=size.batch_size, views=views)

    def portion() -> int:
        network: nn.Module = build_network("resnet18", 2, 0)
        set_trainable(network.to(size.device, memory_format=torch.channels_last), "head")  # type: ignore[call-overload]
        data = images(root, size, views)
        source: Batches = data
        forward: Forward = network
        if views:
            source, forward = StoredViews(data, features=feature_tables(network, data, True)), head(network)
        train(network, Supervised(), source, config, NoCheckpoint(), lambda row: None, forward)
        return TRANSFER_EPOCHS * size.num_train

    return portion


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    print(f"{os.cpu_count()} cores", flush=True)
    measure(parser.parse_args().rounds)
