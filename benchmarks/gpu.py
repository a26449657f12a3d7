"""Training, distillation, their bound and the paper's budget on one GPU: about five minutes.

    python -m benchmarks.gpu --out docs/performance-gpu.md

Batches of 200: that divides the paper's 48,000 and 12,000 images and its 32,000 and 8,000 tiles, so that all batches
of a training have one size. Sections that are on the page are not measured again: move it away to begin anew.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_budget, plain
from benchmarks.harness import Variant, as_table, compare
from benchmarks.steps import TILE_PX, Size, Way, images, stepping, write_tiles
from damcrack.train.hardware import best_device
from damcrack.train.networks import build_network
from damcrack.train.training import autocast

ON_GPU = Size(torch.device("cuda"), batch_size=200, steps=20, num_train=4000, num_val=200)
SMALL_PX = 112
AT_FULL_SIZE = "at 224 px"
FEW_STEPS = 5  # of the plain loop with the large networks
COMPILED = (
    Way("bfloat16", "resnet18", compiled=True),
    Way("bfloat16", "resnet50", compiled=True),
    Way("bfloat16", "resnet18", taught=True, compiled=True),
)
OTHERS = ("resnet18_cbam", "alexnet", "vgg16")


def training(root: Path, size: Size, name: str) -> dict[str, Variant]:
    """A network's training, plain and ours."""
    folder, steps = root / "train", size.steps if name == "resnet18" else FEW_STEPS
    loop = partial(plain.training, folder, name, size.batch_size, steps, size.device)
    variants = {"plain loop": loop(), "plain loop, bfloat16, channels-last": loop(mixed=True)}
    variants["damcrack, bfloat16"] = stepping(root, size, Way("bfloat16", name))
    if name not in OTHERS:
        variants["damcrack, bfloat16, compiled"] = stepping(root, size, Way("bfloat16", name, compiled=True))
    return variants


def distillation(root: Path, size: Size) -> dict[str, Variant]:
    """Distillation, plain and ours."""
    loop = partial(plain.distillation, root / "train", size.batch_size, size.steps, size.device)
    live, stored = Way("bfloat16", taught=True), Way("bfloat16", taught=True, stored=True)
    return {
        "plain loop, teacher without gradient": loop(),
        "plain loop, bfloat16, channels-last": loop(mixed=True),
        "damcrack, bfloat16, live teacher": stepping(root, size, live),
        "damcrack, bfloat16, live teacher, compiled": stepping(root, size, replace(live, compiled=True)),
        "damcrack, stored soft targets": stepping(root, size, stored),
        "damcrack, stored soft targets, compiled": stepping(root, size, replace(stored, compiled=True)),
    }


def small_images(root: Path, size: Size) -> dict[str, Variant]:
    """Our ways with images of SMALL_PX."""
    size = replace(size, image_px=SMALL_PX)
    ways = {
        "ResNet18": Way("bfloat16", "resnet18"),
        "ResNet18, compiled": COMPILED[0],
        "ResNet50": Way("bfloat16", "resnet50"),
        "ResNet50, compiled": COMPILED[1],
        "distillation, live teacher, compiled": COMPILED[2],
    }
    return {name: stepping(root, size, way) for name, way in ways.items()}


def batch_sizes(root: Path, size: Size) -> dict[str, Variant]:
    """ResNet18 in batches of other sizes, not compiled."""
    sizes = {
        number: replace(size, batch_size=number, steps=4000 // number) for number in (50, 100, 400, 1000)
    }
    return {f"batches of {n}": stepping(root, one, Way("bfloat16")) for n, one in sizes.items()}


def answering(root: Path, size: Size) -> dict[str, Variant]:
    """Networks asked, not trained: a validation pass, and the teacher's for soft targets that are kept."""
    data = images(root, size)

    def ask(name: str) -> Variant:
        network = build_network(name, 2, 0).eval().to(size.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        @torch.no_grad()
        def portion() -> int:
            for batch in data.in_order("train", size.batch_size):
                with autocast(size.device, "bfloat16"):
                    network(batch.inputs)
            torch.cuda.synchronize()
            return size.num_train

        return portion

    return {name: ask(name) for name in ("resnet18", "resnet50")}


class Page:
    """A page of sections, kept as json beside it: a section that is there is not measured again.

    `until_s` seconds after the start no new section is begun.
    """

    def __init__(self, path: Path, until_s: float) -> None:
        self._path, self._until = path, time.monotonic() + until_s
        kept = path.with_suffix(".json")
        self._kept: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
        card = torch.cuda.get_device_name()
        if self._kept.setdefault("card", card) != card:
            sys.exit(f"{kept} is of a {self._kept['card']}, this is a {card}; move it away to begin anew")
        self._kept.setdefault("machine", machine())
        self._sections: dict[str, dict[str, Any]] = self._kept.setdefault("sections", {})

    def timed(self, title: str, make: Callable[[], dict[str, Variant]], rounds: int) -> None:
        """Add a table of what `make` makes."""

        def measure() -> dict[str, Any]:
            timings = compare(make(), rounds)
            return {"text": as_table(timings), "rates": {one.name: one.rates for one in timings}}

        self.section(title, measure)

    def section(self, title: str, make: Callable[[], dict[str, Any]]) -> None:
        """Add what `make` makes; a section that fails leaves the others, and is made by the next call."""
        left = self._until - time.monotonic()
        print(f"--- {title} ({left:.0f} s left)", flush=True)
        if title in self._sections or left < 0:
            return
        try:
            self._sections[title] = make()
        except Exception:
            traceback.print_exc()
        torch.cuda.empty_cache()
        print(self._sections.get(title, {}).get("text"), flush=True)
        self.write()

    def write(self) -> None:
        """Write page and json."""
        self._path.with_suffix(".json").write_text(json.dumps(self._kept, indent=1) + "\n")
        write_page(self._path)


def write_page(path: Path) -> None:
    """Write the page from the json beside it."""
    kept = json.loads(path.with_suffix(".json").read_text())
    parts = ["# Performance on a GPU", f"Written by `python -m benchmarks.gpu`. Machine: {kept['machine']}"]
    parts += str(__doc__).strip().split("\n\n")[2:]
    parts += [f"## {title}\n\n{one['text']}" for title, one in kept["sections"].items()]
    if budget := gpu_budget.table({title: one.get("rates", {}) for title, one in kept["sections"].items()}):
        parts.append(f"## The paper at full scale, from these speeds\n\n{gpu_budget.WORDS}\n\n{budget}")
    path.write_text("\n\n".join(parts) + "\n")


def machine() -> str:
    """Card, cores and versions."""
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        stdout=subprocess.PIPE,
        text=True,
    )
    return (
        f"{torch.cuda.get_device_name()}, driver {driver.stdout.strip()}, {os.cpu_count()} CPU cores; "
        f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}."
    )


def warm_up(number: int) -> None:
    """Compile one of the ways at one size into the compiler's cache, and say how long it took."""
    px, way = (TILE_PX, SMALL_PX)[number % 2], COMPILED[number // 2]
    with tempfile.TemporaryDirectory() as folder:
        size = replace(ON_GPU, steps=3, num_train=400, image_px=px)
        write_tiles(Path(folder), size)
        portion = stepping(Path(folder), size, way)
        started = time.perf_counter()
        portion()
    taught = ", taught" if way.taught else ""
    print(f"compiled: {way.network}{taught}, {px} px: {time.perf_counter() - started:.0f} s", flush=True)


def main() -> None:
    """Measure and write the page."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("docs/performance-gpu.md"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--until-s", type=float, default=1e9, help="begin no section after so many seconds")
    parser.add_argument("--warm-up", type=int, help="compile one of the ways only, for the compiler's cache")
    parser.add_argument("--compiled", action="store_true", help="the compiler's cache is filled already")
    parser.add_argument("--page", action="store_true", help="write the page from its json, measure nothing")
    options = parser.parse_args()
    if options.page:
        write_page(options.out)
        return
    if best_device().type != "cuda":
        sys.exit("benchmarks.gpu: no GPU here; `python -m benchmarks` measures CPUs")
    torch.backends.cudnn.benchmark = True
    if options.warm_up is not None:
        warm_up(options.warm_up)
        return
    page = Page(options.out, options.until_s)
    if not options.compiled:
        command = [sys.executable, "-m", "benchmarks.gpu", "--warm-up"]
        for process in [subprocess.Popen([*command, str(number)]) for number in range(2 * len(COMPILED))]:
            process.wait()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tiles(root, ON_GPU)
        measure(page, root, options.rounds)


def measure(page: Page, root: Path, rounds: int) -> None:
    """All sections."""
    size = ON_GPU
    page.timed(f"Distillation {AT_FULL_SIZE}", partial(distillation, root, size), rounds)
    for name in ("resnet18", "resnet50", *OTHERS):
        page.timed(f"Training of {name} {AT_FULL_SIZE}", partial(training, root, size, name), rounds)
    page.timed(f"Answering, not training, {AT_FULL_SIZE}", partial(answering, root, size), rounds)
    page.timed(f"With images of {SMALL_PX} px", partial(small_images, root, size), rounds)
    page.timed(f"ResNet18 in other batches, {AT_FULL_SIZE}", partial(batch_sizes, root, size), rounds)


if __name__ == "__main__":
    main()
