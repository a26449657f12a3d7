"""Speed beside a plain loop: tiling, a training step, an inspection; and an inspection's memory.

    python -m experiments.speed                       # about 15 minutes on two free cores
    python -m experiments.speed --parts inspection
    python -m experiments.speed --against ../old       # `damcrack inspect` of another checkout and of this one

Variants run in turn in one process (A B A B ...), and ratios are taken round by round, because machines drift.
"""

import io
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from damcrack.cracks.detector import SHIPPED, OnnxDetector
from damcrack.cracks.photo import Rules
from damcrack.data.config import SAMPLE, PhotosConfig, TileConfig
from damcrack.data.imageset import ImageSet
from damcrack.data.photo import decode_photo, encode_jpeg
from damcrack.data.photos import photos
from damcrack.data.snapshot import snapshot
from damcrack.data.tile import tile
from damcrack.data.tiling import tile_boxes_xyxy
from damcrack.files import in_order, write_bytes
from damcrack.inspection.config import InspectConfig
from damcrack.inspection.scale import Scale
from damcrack.inspection.sources import Photo
from damcrack.inspection.survey import Survey
from damcrack.run import Run
from damcrack.sample.concrete import encode_photo, render_photo
from damcrack.storage.source import open_source
from damcrack.train.batches import DeviceImages
from damcrack.train.config import Augmentation, Precision, TaughtConfig
from damcrack.train.decoded import decode_set
from damcrack.train.frozen import Frozen
from damcrack.train.hardware import best_device, uses_bfloat16
from damcrack.train.networks import build_network, set_training_mode
from damcrack.train.objectives import Distillation, Objective, Supervised
from damcrack.train.training import autocast
from damcrack.train.weights import load_model
from experiments.commands import command, table
from experiments.large_survey import peak_mib, render

SIZE_HW, TILE_PX, QUALITY = (3024, 4032), 224, 95
MAX_PIXELS = 400 * 10**6
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TEMPERATURE, ALPHA, BATCH, STEPS = 4.0, 0.6, 32, 3

Variant = Callable[[], int]  # does one portion of work; how many images that was
Variants = dict[str, Variant]


def compare(variants: Variants, rounds: int, unit: str) -> str:
    """Markdown: rates of each variant, and their ratios to the first; one round before is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            started = time.perf_counter()
            rate = variant() / (time.perf_counter() - started)
            rates[name] += [rate] if number else []
    heads = ["variant", f"{unit}/s, median (min to max)", "times the first row, median (min to max)"]
    first = next(iter(rates.values()))
    rows = [
        [name, _spread(found), _spread([rate / plain for rate, plain in zip(found, first, strict=True)])]
        for name, found in rates.items()
    ]
    return table(heads, 3, rows)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


# Tiling ---------------------------------------------------------------------------------------------------------


def rendered(folder: Path, num: int, size_hw: tuple[int, int]) -> Path:
    """The output of the stage `photos` with rendered photos."""
    config = PhotosConfig(sources={SAMPLE: SAMPLE}, sample_photos=num, sample_size_hw=size_hw)
    listed, run = folder / "photos.csv", Run(folder)
    snapshot(config.sources, listed, open_source, run)
    photos(listed, folder / "photos", config, open_source, run)
    return folder / "photos"


def tiling(folder: Path, rounds: int, num_photos: int = 12) -> str:
    """The stage `tile` beside the obvious loop with Pillow, and beside decoding and encoding alone, on all cores."""
    made, out = rendered(folder, num_photos, SIZE_HW), folder / "tiles"
    config = TileConfig(tiles_per_class=40 * num_photos, split="random", test_fraction=0.0)
    tile(made, out, config, Run(folder))
    boxes: dict[str, list[tuple[int, ...]]] = {}
    for row in ImageSet.open(out).rows:
        box = tuple(int(row[name]) for name in ("x0_px", "y0_px", "x1_px", "y1_px"))
        boxes.setdefault(row["photo"], []).append(box)
    num_tiles = sum(map(len, boxes.values()))

    def stage() -> int:
        tile(made, out, config, Run(folder))
        return num_tiles

    def plain() -> int:
        for name, of_photo in boxes.items():
            photo = Image.open(made / "photos" / name).convert("RGB")
            mask = np.asarray(Image.open((made / "masks" / name).with_suffix(".png")).convert("L"))
            assert [(mask[y0:y1, x0:x1] > 0).mean() for x0, y0, x1, y1 in tile_boxes_xyxy(SIZE_HW, TILE_PX)]
            for box in of_photo:
                photo.crop(box).save(io.BytesIO(), "JPEG", quality=QUALITY)  # type: ignore[arg-type]
        return num_tiles

    def bare() -> int:
        def cut(name: str) -> int:
            rgb = decode_photo((made / "photos" / name).read_bytes(), MAX_PIXELS)
            return sum(
                len(encode_jpeg(rgb[y0:y1, x0:x1], QUALITY, full_colour=True))
                for x0, y0, x1, y1 in boxes[name]
            )

        return num_tiles if all(in_order(cut, boxes)) else 0

    variants = {"plain loop, Pillow, one core": plain, "stage `tile`": stage, "decode and encode alone": bare}
    return compare(variants, rounds, "tiles")


# Training -------------------------------------------------------------------------------------------------------


def training(folder: Path, rounds: int) -> str:
    """Steps of ResNet18 at 224 px, alone and under a ResNet50, beside a plain loop of the same networks.

    The plain loop is a careful newcomer's: ImageFolder, torchvision transforms, a DataLoader with a worker a core,
    float32, a teacher without gradient, the loss read every step.
    """
    made, tiles = rendered(folder, 2, (7 * TILE_PX, 16 * TILE_PX)), folder / "tiles"
    tile(made, tiles, TileConfig(split="random", test_fraction=0.0, duplicate_bits=0), Run(folder))
    images = ImageSet.open(tiles)
    for number, encoded in images.encoded():
        path = folder / "folders" / str(images.labels[number]) / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, encoded)
    parts = []
    for title, taught in (("alone", False), ("taught by a ResNet50", True)):
        variants = {
            "plain loop": _plain_steps(folder / "folders", taught),
            "damcrack": _our_steps(tiles, folder, taught),
        }
        parts.append(f"ResNet18 {title}:\n\n{compare(variants, rounds, 'images')}")
    return "\n\n".join(parts)


def _plain_steps(folders: Path, taught: bool) -> Variant:
    device = best_device()
    student, teacher = build_network("resnet18", 2, 0).to(device), build_network("resnet50", 2, 1).to(device)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    views = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip(), transforms.ToTensor()]
    given = ImageFolder(str(folders), transforms.Compose([*views, transforms.Normalize(MEAN, STD)]))
    batches = _forever(
        DataLoader(
            given,
            BATCH,
            shuffle=True,
            drop_last=True,
            num_workers=os.cpu_count() or 1,
            persistent_workers=True,
        )
    )
    student.train()
    teacher.eval()

    def portion() -> int:
        for _ in range(STEPS):
            inputs, labels = (part.to(device) for part in next(batches))
            logits = student(inputs)
            loss = F.cross_entropy(logits, labels)
            if taught:
                with torch.no_grad():
                    answers = F.softmax(teacher(inputs) / TEMPERATURE, 1)
                soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, 1), answers, reduction="batchmean")
                loss = ALPHA * TEMPERATURE**2 * soft + (1 - ALPHA) * loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()
        return STEPS * BATCH

    return portion


def _our_steps(tiles: Path, folder: Path, taught: bool) -> Variant:
    device = best_device()
    precision: Precision = "bfloat16" if uses_bfloat16("auto") else "float32"
    student: nn.Module = build_network("resnet18", 2, 0).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_training_mode(student)
    objective: Objective = Supervised()
    if taught:
        teacher = Frozen(build_network("resnet50", 2, 1).to(device), precision == "bfloat16")
        config = TaughtConfig(epochs=10, learning_rate=0.01, alpha=ALPHA)
        objective = Distillation(teacher, config).to(device)
    flips = Augmentation("dihedral", 0, 0)
    data = DeviceImages(decode_set(tiles, TILE_PX, folder / "decoded"), (MEAN, STD), flips, device)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batches = _forever(lambda epoch: data.shuffled(BATCH, 0, epoch))

    def portion() -> int:
        num = 0
        for _ in range(STEPS):
            batch = next(batches)
            with autocast(device, precision):
                terms = objective(student, batch, 1)
            terms.total.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            num += len(batch.labels_B)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return num

    return portion


def _forever(epochs: Any) -> Iterator[Any]:
    epoch = 0
    while True:
        epoch += 1
        yield from epochs(epoch) if callable(epochs) else epochs


# Inspection -----------------------------------------------------------------------------------------------------


def inspection(folder: Path, rounds: int, num_photos: int = 2) -> str:
    """Photos of 12 megapixels from file to map, by the shipped network in torch and by `damcrack inspect`.

    The plain loop has blocks of 224 px, one after the other, at full and at half size, in float32 without gradient, and
    ends with maps. `damcrack inspect` sees the same sizes and goes on to cracks, widths and files.
    """
    encoded = [encode_photo(render_photo(3, index, SIZE_HW).rgb, index) for index in range(num_photos)]
    network, info = load_model(SHIPPED / "training")
    network.eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in (info.mean, info.std))
    detector, rules = OnnxDetector.load(SHIPPED), Rules.of(InspectConfig())

    @torch.no_grad()
    def plain() -> int:
        for content in encoded:
            photo = Image.open(io.BytesIO(content)).convert("RGB")
            for scale in rules.scales_of(SIZE_HW):
                seen = photo.resize((int(photo.width * scale), int(photo.height * scale)))
                for box in tile_boxes_xyxy((seen.height, seen.width), TILE_PX, 0.0).tolist():
                    crop = torch.from_numpy(np.array(seen.crop(box))).permute(2, 0, 1).float() / 255
                    network.both(((crop - mean) / std)[None])  # type: ignore[operator]
        return num_photos

    def ours() -> int:
        with tempfile.TemporaryDirectory() as out:
            survey = Survey(Path(out), detector, rules, Scale(), MAX_PIXELS)
            photos = (Photo(f"{number}.jpg", content, str(number)) for number, content in enumerate(encoded))
            return len(list(survey.look_at_all(photos)))

    compared = compare({"plain loop, torch": plain, "damcrack inspect": ours}, rounds, "photos")
    return f"{compared}\n\n{_memory(folder)}"


def _memory(folder: Path) -> str:
    peaks = {}
    for num in (5, 100):
        photos = folder / f"memory-{num}"
        render(photos, num, (1200, 1600))
        peaks[num] = peak_mib(photos, folder / f"survey-{num}")
    rows = [[str(num), f"{mib:.0f}", f"{mib / peaks[5]:.3f}"] for num, mib in peaks.items()]
    return table(["photos of 1600x1200", "peak memory, MiB", "times the first row"], 3, rows)


def against(folder: Path, other: Path, rounds: int, num_photos: int = 2) -> str:
    """Photos of 12 megapixels through `damcrack inspect` of two checkouts, in turn; seconds of the whole command."""
    (folder / "photos").mkdir()
    for index in range(num_photos):
        encoded = encode_photo(render_photo(3, index, SIZE_HW).rgb, index)
        write_bytes(folder / "photos" / f"{index}.jpg", encoded)
    checkouts = {"old": other.resolve(), "new": Path(__file__).resolve().parents[1]}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
    for number in range(rounds):
        for name, checkout in checkouts.items():
            spent[name].append(_inspected_s(checkout, folder / "photos", folder / f"{name}-{number}"))
    rows = []
    for name, found in spent.items():
        wall_s, cpu_s = ([one[axis] for one in found] for axis in (0, 1))
        ratios = [one / old for one, (_, old) in zip(cpu_s, spent["old"], strict=True)]
        rows.append([name, *map(_spread, (wall_s, cpu_s, ratios))])
    return table(["checkout", "s, median (min to max)", "CPU s", "times the CPU s of old"], 4, rows)


def _inspected_s(checkout: Path, photos: Path, out: Path) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    command = [sys.executable, "-c", "from damcrack.cli.main import main; main()", "inspect", str(photos)]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True, env=environment)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


PARTS: dict[str, Callable[[Path, int], str]] = {
    "tiling": tiling,
    "training": training,
    "inspection": inspection,
}


def machine() -> str:
    """Processor features and versions that the numbers belong to."""
    capabilities = torch.cpu.get_capabilities()
    features = [name for name in ("avx2", "avx512_bf16", "avx512_vnni", "amx_bf16") if capabilities.get(name)]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{len(os.sched_getaffinity(0))} CPU cores ({', '.join(features)}), {gpu}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def main() -> None:
    """Measure and print Markdown; docs/speed.md quotes it."""
    parser = command("speed", __doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="compare inspections with its code instead"
    )
    options = parser.parse_args()
    print(f"Machine: {machine()}. {options.rounds} rounds.\n", flush=True)
    if options.against:
        with tempfile.TemporaryDirectory() as folder:
            print(against(Path(folder), options.against, options.rounds), flush=True)
        return
    for name in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[name](Path(folder), options.rounds)
        described = " ".join(str(PARTS[name].__doc__).split())
        print(f"## {name.capitalize()}\n\n{described}\n\n{found}\n", flush=True)


if __name__ == "__main__":
    main()
