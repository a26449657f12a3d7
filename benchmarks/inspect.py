"""From a 12-megapixel photo to its map: plain loops beside `damcrack inspect`, the parts, and memory.

    python -m benchmarks.inspect --model MODEL --export EXPORT --photos FOLDER     # about 8 minutes on two cores

MODEL is what `damcrack finetune` wrote (tiles of 224 px), EXPORT what `damcrack export` made of it. Of the photos in
FOLDER, those that give 4032x3024 are cut to it, and the first in which at most a fifth of the blocks are called cracked
are taken: on a dam few are. The plain loops are PIL, crops, float32 in torch without gradient, one block
after the other or 32 at a time; they end with the blocks' probabilities. `damcrack inspect` goes on to crack pixels,
lengths, widths and files. All have two cores; photos of a survey are worked on side by side.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.__main__ import machine
from benchmarks.harness import as_table, compare
from damcrack.data.photo import decode_photo, encode_jpeg
from damcrack.files import num_workers
from damcrack.inspection.blocks import block_boxes_xyxy
from damcrack.inspection.detector import OnnxDetector
from damcrack.inspection.inspect import InspectConfig
from damcrack.inspection.photo import Rules, Tracing, called_blocks, look_at
from damcrack.inspection.scale import Scale
from damcrack.inspection.sources import Photo
from damcrack.inspection.survey import Survey
from damcrack.sample.concrete import encode_photo, render_photo
from damcrack.train.weights import load_model

PAGE = Path("docs/inspection-speed.md")
SIZE_HW = (3024, 4032)
NUM_PHOTOS = 4
MOST_CRACKED = 0.2
MEMORY_SIZE_HW = (1200, 1600)
FEW, MANY = 5, 500
MAX_PIXELS = 400 * 10**6
CONFIG = InspectConfig()
RULES = Rules(
    CONFIG.scales, CONFIG.threshold, CONFIG.uncertain, CONFIG.overlap, CONFIG.join_px, CONFIG.segmentation
)


def plain_loop(
    network: torch.nn.Module, mean: list[float], std: list[float], files: list[Path], at_once: int
) -> int:
    """Block probabilities of each photo, the obvious way."""
    scale = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    for file in files:
        image = Image.open(file).convert("RGB")
        boxes = block_boxes_xyxy((image.height, image.width), 224, 0.0).tolist()
        with torch.no_grad():
            for start in range(0, len(boxes), at_once):
                crops = [np.array(image.crop(box)) for box in boxes[start : start + at_once]]
                tiles = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
                network((tiles - scale[0]) / scale[1])
    return len(files)


def inspection(detector: OnnxDetector, files: list[Path]) -> int:
    """All that `damcrack inspect` does with each photo, into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        survey = Survey(Path(folder), detector, RULES, Scale(), MAX_PIXELS)
        photos = (Photo(file.name, file.read_bytes()) for file in files)
        return len(list(survey.look_at_all(photos)))


def parts(detector: OnnxDetector, file: Path, rounds: int) -> str:
    """Markdown: seconds on one core of each part of one photo, one part after the other."""
    found: dict[str, list[float]] = {}
    cv2.setNumThreads(1)
    for _ in range(rounds):
        laps = [time.perf_counter()]
        rgb = decode_photo(file.read_bytes(), MAX_PIXELS)
        laps.append(time.perf_counter())
        with ThreadPoolExecutor(1) as worker:
            crack_map = detector.map_photo(rgb, worker, RULES.scales)
        laps.append(time.perf_counter())
        size_hw = rgb.shape[0], rgb.shape[1]
        boxes = block_boxes_xyxy(size_hw, detector.tile_px, RULES.overlap)
        crack_prob = detector.block_probs(crack_map, boxes)
        laps.append(time.perf_counter())
        called = called_blocks(boxes[crack_prob >= RULES.threshold], size_hw)
        tracing = Tracing(rgb, crack_map, called, RULES)
        for region in tracing.regions:
            tracing.trace(region)
        laps.append(time.perf_counter())
        names = ("decode", "network", "blocks", "cracks (pixels, lengths, widths)")
        for name, start, end in zip(names, laps, laps[1:], strict=False):
            found.setdefault(name, []).append(end - start)
    cv2.setNumThreads(num_workers())
    lines = ["| part | seconds on one core, median |", "| --- | --- |"]
    lines += [f"| {name} | {statistics.median(values):.2f} |" for name, values in found.items()]
    share = (crack_prob >= RULES.threshold).mean()
    return "\n".join(lines) + f"\n\n{share:.0%} of this photo's blocks are called cracked."


def cut_photos(given: Path, folder: Path, detector: OnnxDetector) -> list[Path]:
    """The first photos that are large enough and not full of cracks, cut to SIZE_HW."""
    files = []
    with ThreadPoolExecutor(num_workers()) as workers:
        for path in sorted(given.glob("*.jpg")):
            rgb = decode_photo(path.read_bytes(), MAX_PIXELS)[: SIZE_HW[0], : SIZE_HW[1]]
            if rgb.shape[:2] != SIZE_HW:
                continue
            if (look_at(rgb, detector, RULES, workers).crack_prob > RULES.threshold).mean() > MOST_CRACKED:
                continue
            files.append(folder / path.name)
            files[-1].write_bytes(encode_jpeg(np.ascontiguousarray(rgb)))
            if len(files) == NUM_PHOTOS:
                return files
    raise SystemExit(f"{given}: {len(files)} photos fit, {NUM_PHOTOS} are needed")


def peak_mib(photos: Path, export: Path) -> float:
    """Largest resident memory of `damcrack inspect` on a folder, in a process of its own."""
    code = (
        "from damcrack.cli.main import main\n"
        "try:\n    main()\nfinally:\n    print([l.split()[1] for l in open('/proc/self/status') if 'VmHWM' in l][0])"
    )
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable,
            "-c",
            code,
            "inspect",
            str(photos),
            "--model",
            str(export),
            "--out",
            f"{out}/survey",
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024


def memory(export: Path, folder: Path) -> str:
    """Markdown: peak memory of a small and a large survey of different photos of one size."""
    rows = []
    for num in (FEW, MANY):
        photos = folder / f"memory-{num}"
        photos.mkdir()
        for index in range(num):
            if index < FEW:
                rgb = render_photo(1, index, MEMORY_SIZE_HW).rgb
                (photos / f"{index:04d}.jpg").write_bytes(encode_photo(rgb, index))
            else:
                shutil.copy(photos / f"{index % FEW:04d}.jpg", photos / f"{index:04d}.jpg")
        rows.append((num, peak_mib(photos, export)))
    lines = ["| photos of 1600x1200 | peak memory, MiB | times the first row |", "| --- | --- | --- |"]
    lines += [f"| {num} | {mib:.0f} | {mib / rows[0][1]:.3f} |" for num, mib in rows]
    return "\n".join(lines)


def main() -> None:
    """Write the page."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--export", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    network, info = load_model(options.model)
    detector = OnnxDetector.load(options.export)
    with tempfile.TemporaryDirectory() as folder:
        files = cut_photos(options.photos, Path(folder), detector)
        plain = partial(plain_loop, network.eval(), list(info.mean), list(info.std), files)
        variants = {
            "plain loop, block after block": partial(plain, 1),
            "plain loop, 32 blocks at a time": partial(plain, 32),
            "damcrack inspect": partial(inspection, detector, files),
        }
        timings = compare(variants, options.rounds)
        by_part = parts(detector, files[0], options.rounds)
        flat = memory(options.export, Path(folder))
    text = [
        "# Speed and memory of an inspection",
        f"Written by `python -m benchmarks.inspect --rounds {options.rounds}`. Machine: {machine()}",
        str(__doc__).split("\n\n")[2].replace("\n", " ").strip(),
        f"Network: {info.network}, trained on tiles {info.data_digest[:12]}, blocks of 224 px.",
        f"## {NUM_PHOTOS} photos of 4032x3024, all cores",
        as_table(timings).replace("images/s", "photos/s"),
        "## Where the time goes",
        by_part,
        "## Memory",
        flat,
    ]
    PAGE.write_text("\n\n".join(text) + "\n")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
