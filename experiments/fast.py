"""What speed costs: bfloat16 against exact float32, and stored soft targets against a live teacher.

    python -m experiments.fast data/source/metu-tiles --seeds 5

The first part fine-tunes ResNet18 on METU tiles (Positive/ and Negative/; any folder of ready tiles does) in both
precisions; the second distils on the built-in sample's many-class set. Prints markdown; docs/LOG.md reports it.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from damcrack.data.miniimagenet import MiniimagenetConfig, miniimagenet
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.data.tile import tile
from damcrack.params import read_params, stage_config
from damcrack.run import SilentRun
from damcrack.storage.source import open_source
from damcrack.train.augment import Augmentation
from damcrack.train.batches import DeviceImages
from damcrack.train.checkpoint import NoCheckpoint
from damcrack.train.decoded import DecodedSet, decode_set
from damcrack.train.detector import Detector, predict_logits
from damcrack.train.distill import DistillConfig, distill
from damcrack.train.networks import build_network, set_training_mode
from damcrack.train.objectives import Supervised
from damcrack.train.pretrain import pretrain
from damcrack.train.training import TrainingConfig, autocast, new_optimiser, train
from damcrack.train.weights import ModelInfo

WORK = Path(".bench/fast")
RUN = SilentRun(WORK / "scratch")
PARAMS = read_params(Path("params/real.yaml"))
CPU = torch.device("cpu")
METU_PX, METU_EPOCHS = 56, 5
VIEWS = (None, 4, 2, 1)


def once(stage: Callable[..., object], out: Path, **arguments: object) -> Path:
    """Call a stage unless its output is there."""
    if not out.exists():
        stage(out=out, run=RUN, **arguments)
    return out


def metu_tiles(folder: Path) -> DecodedSet:
    """Tiles of unseen blocks for testing, 500 + 500 for training and validation."""
    source = replace(stage_config(PARAMS, "photos", None), sources={"metu": str(folder)})
    listed = once(snapshot, WORK / "metu.csv", sources=source.sources, open_source=open_source)
    taken = once(photos, WORK / "metu-photos", snapshot=listed, config=source, open_source=open_source)
    config = replace(stage_config(PARAMS, "tile", None), test_sources=(), test_tiles_per_class=600)
    return decode_set(once(tile, WORK / "metu", photos=taken, config=config), METU_PX, WORK / "decoded")


def training_config(precision: str, seed: int) -> TrainingConfig:
    """The crack stage's values, shorter."""
    common = {**PARAMS["finetune"]["common"], "precision": precision, "seed": seed, "epochs": METU_EPOCHS}
    names = TrainingConfig.__dataclass_fields__
    return TrainingConfig(**{name: common[name] for name in names})


def accuracy(images: DecodedSet, precision: str, seed: int) -> float:
    """Percent of test tiles right, of the best epoch by validation, scored in float32."""
    config = training_config(precision, seed)
    statistics_ = images.channel_statistics("train")
    network = build_network("resnet18", 2, seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = DeviceImages(images, statistics_, config.augmentation, CPU)
    trained = train(network, Supervised(), data, config, NoCheckpoint(), lambda row: None)
    network.load_state_dict(trained.best)
    info = ModelInfo("", "resnet18", ("", ""), METU_PX, *statistics_, "", None, None, 0, {})
    rows = images.rows_of["test"]
    logits = predict_logits(Detector(network, info), images.images_NHWC, rows)
    return 100 * float((logits.argmax(1) == images.labels_N[rows]).mean())


def step_losses(images: DecodedSet, precision: str, steps: int = 50) -> list[float]:
    """Losses of the first steps, same weights, order and draws."""
    config = training_config(precision, seed=0)
    network = build_network("resnet18", 2, 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_training_mode(network)
    objective, losses, epoch = Supervised(), [], 0
    optimiser = new_optimiser(network, objective, replace(config, learning_rate=0.005))
    data = DeviceImages(images, images.channel_statistics("train"), Augmentation("dihedral", 0, 0), CPU)
    while len(losses) < steps:
        epoch += 1
        for batch in data.shuffled(config.batch_size, 0, epoch):
            with autocast(CPU, config.precision):
                loss = objective(network, batch, 1).total
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    return losses[:steps]


def precision_table(folder: Path, seeds: int) -> str:
    """Both precisions on the same tiles, order and seeds."""
    images = metu_tiles(folder)
    exact, fast = (np.array(step_losses(images, name)) for name in ("float32", "bfloat16"))
    off = np.abs(fast - exact)
    lines = [
        f"First {len(exact)} steps: losses differ by {off.mean():.4f} on average, {off.max():.4f} at most,"
    ]
    lines += [f"where the loss goes from {exact[0]:.3f} to {exact[-5:].mean():.3f}.", ""]
    lines += ["| seed | float32 | bfloat16 | difference |", "| --- | --- | --- | --- |"]
    pairs = [[accuracy(images, name, seed) for name in ("float32", "bfloat16")] for seed in range(seeds)]
    lines += [f"| {n} | {one:.2f} | {two:.2f} | {two - one:+.2f} |" for n, (one, two) in enumerate(pairs)]
    columns = [*zip(*pairs, strict=True), [two - one for one, two in pairs]]
    lines.append("| mean ± std | " + " | ".join(_spread(column) for column in columns) + " |")
    return "\n".join(lines)


def _spread(values: object) -> str:
    numbers = list(values)  # type: ignore[call-overload]
    return f"{statistics.mean(numbers):.2f} ± {statistics.stdev(numbers):.2f}"


def soft_target_table(seeds: int) -> str:
    """Students under a live teacher and under logits stored for a few views; the teacher is the same."""
    config = MiniimagenetConfig(
        source="sample",
        sample_classes=12,
        sample_per_class=120,
        sample_seed=11,
        image_px=56,
        max_classes=None,
        max_per_class=None,
        val_fraction=0.3,
        split_seed=0,
    )
    empty = Path("snapshots/miniimagenet.csv")
    images = once(miniimagenet, WORK / "sample", snapshot=empty, config=config, open_source=open_source)
    common = {"images": images, "item": "resnet50"}
    lecturer = replace(stage_config(PARAMS, "pretrain", "resnet50"), epochs=7)
    teacher = once(pretrain, WORK / "teacher", config=lecturer, **common)
    base = replace(stage_config(PARAMS, "distill", "dynamic"), epochs=4)
    lines = ["| teacher's answers | validation accuracy, best epoch, % | students |", "| --- | --- | --- |"]
    for views in VIEWS:
        found = [student_accuracy(images, teacher, replace(base, views=views, seed=n)) for n in range(seeds)]
        name = "live" if views is None else f"stored for {views} view{'s' if views > 1 else ''}"
        lines.append(f"| {name} | {_spread(found)} | {seeds} |")
    return "\n".join(lines)


def student_accuracy(images: Path, teacher: Path, config: DistillConfig) -> float:
    """Percent of validation images that the best epoch has right."""
    out = WORK / f"student-{config.views}-{config.seed}"
    once(distill, out, images=images, teacher=teacher, item="dynamic", config=config)
    rows = [line.split(",") for line in (out / "history.csv").read_text().splitlines()]
    column = rows[0].index("val_accuracy")
    return 100 * max(float(row[column]) for row in rows[1:])


def main() -> None:
    """Print both tables."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("tiles", type=Path, help="folder with Positive/ and Negative/")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print(precision_table(options.tiles, options.seeds), end="\n\n", flush=True)
    print(soft_target_table(options.seeds), flush=True)


if __name__ == "__main__":
    main()
