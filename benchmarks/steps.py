"""Training and distillation at 224 px, and transfer with a frozen body, each beside the plain loop.

    python -m benchmarks.steps              # this machine's GPU if it has one, else its CPU
    python -m benchmarks.steps --rounds 3

All variants read the same JPEG tiles, use the same networks and the same optimiser.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch
from torch import nn

from benchmarks import plain
from benchmarks.harness import Timing, Variant, as_table, compare
from damcrack.engine.augment import Augmentation
from damcrack.engine.batches import Batches, DeviceImages, StoredViews
from damcrack.engine.checkpoint import NoCheckpoint
from damcrack.engine.decoded import decode_set
from damcrack.engine.frozen import Frozen, answers, feature_tables
from damcrack.engine.hardware import Precision, best_device, compiled
from damcrack.engine.networks import NETWORKS, build_network, head, set_trainable, set_training_mode
from damcrack.engine.objectives import Distillation, Forward, Objective, Supervised, Teaching
from damcrack.engine.training import TrainingConfig, autocast, new_optimiser, train
from damcrack.images.imageset import ImageSetWriter
from damcrack.math.temperature import TemperatureConfig
from damcrack.sample.concrete import render_photo

TILE_PX = 224
STATISTICS = (plain.MEAN, plain.STD)
FLIPS = Augmentation("dihedral", 0, 0)
TRANSFER_EPOCHS, TRANSFER_VIEWS = 10, 2


@dataclass(frozen=True)
class Size:
    """How much one portion of work is; more on a GPU, where a CPU's portion would be over at once."""

    device: torch.device
    batch_size: int
    steps: int
    num_train: int
    num_val: int


def size_for(device: torch.device) -> Size:
    """A few seconds of the plain loop on either device."""
    if device.type == "cuda":
        return Size(device, batch_size=256, steps=20, num_train=4096, num_val=256)
    return Size(device, batch_size=32, steps=3, num_train=192, num_val=32)


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
    """Time all variants on this machine, one section after the other, printing each table when it is there."""
    size = size_for(best_device())
    found: Sections = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tiles(root, size)
        # The others of the paper's Table 2 take too long on a CPU.
        names = [*NETWORKS] if size.device.type == "cuda" else ["resnet18", "resnet50"]
        for title, variants in {
            **{training_title(name, size.batch_size): _training(root, size, name) for name in names},
            f"Distillation ResNet50 to ResNet18, batches of {size.batch_size}": _distillation(root, size),
            f"Frozen body, {TRANSFER_EPOCHS} epochs of the head": _transfer(root, size),
        }.items():
            found[title] = compare(variants, rounds)
            print(as_section(title, found[title]), end="\n\n", flush=True)
    return found


def training_title(name: str, batch_size: int) -> str:
    """Heading of a network's training."""
    return f"Training of {name}, batches of {batch_size}"


def as_section(title: str, timings: list[Timing]) -> str:
    """Markdown; a second student is also compared with the live teacher before it."""
    table = f"### {title}\n\n{as_table(timings)}"
    return f"{table}\n\n{as_table(timings[-2:])}" if "second student" in timings[-1].name else table


def _training(root: Path, size: Size, name: str) -> dict[str, Variant]:
    variants = {
        "plain loop": plain.training(root / "train", name, size.batch_size, size.steps, size.device),
        "damcrack, float32": _stepping(root, size, "float32", name),
        "damcrack, bfloat16": _stepping(root, size, "bfloat16", name),
    }
    if size.device.type == "cuda":
        variants["damcrack, bfloat16, compiled"] = _stepping(root, size, "bfloat16", name, compile_it=True)
    return variants


def _distillation(root: Path, size: Size) -> dict[str, Variant]:
    return {
        "plain loop, teacher without gradient": plain.distillation(
            root / "train", size.batch_size, size.steps, size.device
        ),
        "damcrack, float32": _stepping(root, size, "float32", taught=True),
        "damcrack, bfloat16, live teacher": _stepping(root, size, "bfloat16", taught=True),
        "damcrack, bfloat16, stored soft targets, second student": _stepping(
            root, size, "bfloat16", taught=True, stored=True
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


def images(root: Path, device: torch.device, views: int | None = None) -> DeviceImages:
    """The decoded set on the device."""
    return DeviceImages(decode_set(root / "set", None, root / "cache"), STATISTICS, FLIPS, device, views)


def _stepping(
    root: Path,
    size: Size,
    precision: Precision,
    name: str = "resnet18",
    taught: bool = False,
    stored: bool = False,
    compile_it: bool = False,
) -> Variant:
    network = build_network(name, 2, 0).to(size.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_training_mode(network)
    objective: Objective = Supervised()
    data: Batches = images(root, size.device, views=1 if stored else None)
    if taught:
        teacher = Frozen(build_network("resnet50", 2, 1).to(size.device), precision == "bfloat16")
        objective = Distillation(teacher, TEACHING, CONFIG.epochs).to(size.device)
        if stored:
            assert isinstance(data, DeviceImages)
            data = StoredViews(data, answers(teacher, data))
    forward: Forward = compiled(network, size.device) if compile_it else network
    optimiser = new_optimiser(network, objective, CONFIG)
    batches = plain.forever(_Epochs(data, size.batch_size))

    def portion() -> int:
        num_images = 0
        for _ in range(size.steps):
            batch = next(batches)
            with autocast(size.device, precision):
                terms = objective(forward, batch, 1)
            optimiser.zero_grad(set_to_none=True)
            terms.total.backward()
            optimiser.step()
            num_images += len(batch.labels_B)
        if size.device.type == "cuda":
            torch.cuda.synchronize()
        return num_images

    return portion


class _Epochs:
    def __init__(self, data: Batches, batch_size: int) -> None:
        self._data, self._batch_size, self._epoch = data, batch_size, 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        self._epoch += 1
        return self._data.shuffled(self._batch_size, 0, self._epoch)


def _transferring(root: Path, size: Size, views: int | None) -> Variant:
    config = replace(CONFIG, batch_size=size.batch_size, views=views)

    def portion() -> int:
        network: nn.Module = build_network("resnet18", 2, 0)
        set_trainable(network.to(size.device, memory_format=torch.channels_last), "head")  # type: ignore[call-overload]
        data = images(root, size.device, views)
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
    print(f"{os.cpu_count()} cores, {best_device()}", flush=True)
    measure(parser.parse_args().rounds)
